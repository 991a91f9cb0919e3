"""Text documents, against transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from two_tokenizers import Both, harmless

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates import encode_documents
from mtsft_preproc.tokenization import FlatIds


def lists(flat: FlatIds) -> list[list[int]]:
    """Return the ids of each text."""
    assert flat.ids.dtype == np.int32
    assert flat.offsets.dtype == np.int64
    assert flat.offsets[-1] == len(flat.ids)
    borders = flat.offsets.tolist()
    return [flat.ids[borders[at] : borders[at + 1]].tolist() for at in range(len(borders) - 1)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(harmless, max_size=5))
def test_ids_are_those_of_transformers(bare: Both, around: Both, documents: list[str]) -> None:
    for both in (bare, around):
        flat, failed, spelled = encode_documents(documents, both.encoder)
        assert lists(flat) == [both.around(text) for text in documents]
        assert (failed, spelled) == ({}, set())


@pytest.mark.parametrize("name", ["bare", "around"])
def test_special_tokens_in_documents_stay_text(request: pytest.FixtureRequest, name: str) -> None:
    both: Both = request.getfixturevalue(name)
    documents = ["a", "b <eos> c", "", "<|im_end|>", "d"]
    flat, failed, spelled = encode_documents(documents, both.encoder)
    found = lists(flat)
    spec = both.encoder.spec
    front, behind = len(spec.auto_prefix), len(spec.auto_suffix)
    assert [both.encoder.decode(ids[front : len(ids) - behind]) for ids in found] == documents
    for ids in found:
        assert tuple(ids[:front]) == spec.auto_prefix
        assert tuple(ids[len(ids) - behind :]) == spec.auto_suffix
        assert not both.encoder.special_ids & set(ids[front : len(ids) - behind])
    assert (failed, spelled) == ({}, {1, 3})
    assert [found[at] for at in (0, 2, 4)] == [both.around(documents[at]) for at in (0, 2, 4)]


def test_special_tokens_in_documents_become_tokens_where_they_may(around: Both) -> None:
    documents = ["a", "b <eos> c"]
    flat, failed, spelled = encode_documents(documents, around.encoder, "allow")
    assert lists(flat) == [around.around(text) for text in documents]
    assert (failed, spelled) == ({}, {1})


def test_refused_documents_have_no_ids(around: Both) -> None:
    documents = ["<eos>", "a", "b <eos> c", "\ud800", "d", "e <eos>"]
    flat, failed, _ = encode_documents(documents, around.encoder, "reject")
    assert lists(flat) == [[], around.around("a"), [], [], around.around("d"), []]
    assert {number: error.reason for number, error in failed.items()} == {
        0: "special-token", 2: "special-token", 3: "lone-surrogate", 5: "special-token"
    }  # fmt: skip
    assert all(isinstance(error, RecordError) and error.got for error in failed.values())


def test_no_documents(around: Both) -> None:
    flat, failed, spelled = encode_documents([], around.encoder)
    assert (lists(flat), failed, spelled) == ([], {}, set())
