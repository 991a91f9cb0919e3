"""Text documents, token for token."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import config, several, tokenizer
from tokenizers import Tokenizer, normalizers, processors

from mtsft_preproc.dialogue import Record
from mtsft_preproc.encoding import EncodedBatch, datasets_of
from mtsft_preproc.encoding.text import DocumentEncoder
from mtsft_preproc.handlers import HandlerOptions, handlers
from mtsft_preproc.tokenization import Adjustment, Encoder, load_tokenizer, open_encoder


@functools.cache
def encoder(kind: str) -> Encoder:
    """Open the tiny tokenizer: ``plain``; ``bos``, which puts BOS in front; ``strip``, which trims."""
    folder = Path(tempfile.mkdtemp(dir=tokenizer().parent))
    made = Tokenizer.from_file(str(tokenizer() / "tokenizer.json"))
    if kind == "bos":
        bos = ("<s>", made.token_to_id("<s>"))
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    elif kind == "strip":
        made.normalizer = normalizers.Strip()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text((tokenizer() / "tokenizer_config.json").read_text())
    return open_encoder(load_tokenizer(str(folder), Adjustment()).save(folder))


def encoded(kind: str, records: Sequence[dict[str, Any]], **changes: Any) -> EncodedBatch:
    given_settings = config(**changes)
    handler = handlers.get("pretrain")({}, HandlerOptions(json_keys=given_settings.json_keys))
    made = DocumentEncoder(handler, encoder(kind), given_settings)  # type: ignore[arg-type]
    assert made.datasets == datasets_of(handler, given_settings)
    return made.encode([Record(row, value) for row, value in enumerate(records)])


def documents(batch: EncodedBatch, key: str = "text") -> list[list[int]]:
    """Return the ids of each sample in a dataset; empty ones get no item there."""
    ids, found = batch.tokens[key].tolist(), []
    for length in batch.lengths[key].tolist():
        found.append(ids[:length])
        ids = ids[length:]
    assert ids == []
    return found


def special(kind: str, *texts: str) -> list[int]:
    return [encoder(kind).spec.id_of(text) for text in texts]


def words(kind: str, text: str) -> list[int]:
    found: list[int] = encoder(kind).encode([text]).ids.tolist()
    return found


texts = st.text(st.sampled_from("ab \n漢é."), max_size=20)


@pytest.mark.parametrize("kind", ["plain", "bos"])
@pytest.mark.parametrize("append_eod", [False, True])
@several
@given(found=st.lists(texts, max_size=6), multiple=st.integers(1, 9))
def test_a_document_is_prefix_words_eod_and_padding(
    kind: str, append_eod: bool, found: list[str], multiple: int
) -> None:
    records = [{"text": text} for text in found]
    batch = encoded(kind, records, append_eod=append_eod, pad_to_multiple_of=multiple)
    expected = []
    for text in filter(None, found):
        ids = [*special(kind, *["<s>"] * (kind == "bos")), *words(kind, text)]
        ids += special(kind, *["</s>"] * append_eod)
        while len(ids) % multiple:
            ids += special(kind, "<pad>")
        expected.append(ids)
    assert documents(batch) == expected
    assert batch.rows.tolist() == [row for row, text in enumerate(found) if text]
    assert batch.trained.tolist() == [len(ids) for ids in expected]
    assert [(entry.row, entry.reason, entry.field) for entry in batch.rejections] == [
        (row, "empty-text", "text") for row, text in enumerate(found) if not text
    ]


def test_what_is_a_multiple_already_is_not_padded() -> None:
    count = len(words("bos", "漢漢漢"))
    for multiple, padding in ((count + 1, 0), (count, count - 1)):
        (ids,) = documents(encoded("bos", [{"text": "漢漢漢"}], pad_to_multiple_of=multiple))
        assert ids == [*special("bos", "<s>"), *words("bos", "漢漢漢"), *special("bos", "<pad>") * padding]


def test_two_keys_are_two_datasets_of_which_one_may_have_less() -> None:
    records = [{"a": "x", "b": "y"}, {"a": "", "b": "z"}, {"a": "", "b": ""}, {"a": "x.", "b": ""}]
    batch = encoded("bos", records, json_keys=("a", "b"), append_eod=True)

    def document(text: str) -> list[int]:
        return [*special("bos", "<s>"), *words("bos", text), *special("bos", "</s>")] if text else []

    assert documents(batch, "a") == [document("x"), [], document("x.")]
    assert documents(batch, "b") == [document("y"), document("z"), []]
    assert batch.rows.tolist() == [0, 1, 3]
    assert [(entry.row, entry.reason) for entry in batch.rejections] == [(2, "empty-text")]
    assert batch.trained.tolist() == [6, 3, 4]


@pytest.mark.parametrize("append_eod", [False, True])
def test_a_text_without_a_token_is_no_document(append_eod: bool) -> None:
    """The tokenizer trims it away; an item without words would teach nothing."""
    batch = encoded("strip", [{"text": "a"}, {"text": " \n "}], append_eod=append_eod)
    assert [(entry.row, entry.reason, entry.got) for entry in batch.rejections] == [
        (1, "empty-text", "' \\n '")
    ]
    assert batch.rows.tolist() == [0]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_document_that_is_too_long_is_rejected(name: str) -> None:
    """With all of its record: the datasets go together."""
    records = [{"a": "x", "b": "y"}, {"a": "x", "b": "y", name: "漢" * 5}]
    limit = len(words("bos", "漢" * 5)) + 2
    for seq_length, rows in ((limit, [0, 1]), (limit - 1, [0])):
        batch = encoded("bos", records, json_keys=("a", "b"), append_eod=True, seq_length=seq_length)
        assert batch.rows.tolist() == rows
        errors = [(entry.row, entry.reason, entry.field, entry.got) for entry in batch.rejections]
        assert errors == ([] if rows == [0, 1] else [(1, "overlong", name, f"{limit} tokens")])


def test_padding_counts() -> None:
    (entry,) = encoded("plain", [{"text": "a"}], pad_to_multiple_of=8, seq_length=7).rejections
    assert (entry.reason, entry.got) == ("overlong", "8 tokens")


@pytest.mark.parametrize("in_text", ["plain", "allow", "reject"])
def test_text_that_spells_a_control_token(in_text: str) -> None:
    records = [{"text": "a"}, {"text": "b</s>c"}]
    batch = encoded("plain", records, special_tokens_in_text=in_text)
    if in_text == "reject":
        assert [(entry.row, entry.reason) for entry in batch.rejections] == [(1, "special-token")]
        return
    assert batch.notes == {"special-token-in-text": 1}
    own = encoder("plain")
    assert [own.decode(ids) for ids in documents(batch)] == ["a", "b</s>c"]
    assert (special("plain", "</s>")[0] in documents(batch)[1]) == (in_text == "allow")


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "missing-field"), (7, "wrong-type"), (["a"], "wrong-type")]
)
def test_what_is_no_text_is_rejected(value: Any, reason: str) -> None:
    batch = encoded("plain", [{"text": value}, {"text": "a", "id": {"n": 1}}], keep_columns=("id",))
    assert [(entry.row, entry.reason, entry.field) for entry in batch.rejections] == [(0, reason, "text")]
    assert batch.kept == [[json.dumps({"n": 1})]]


def test_no_records_are_no_documents() -> None:
    batch = encoded("plain", [])
    assert documents(batch) == []
    assert batch.tokens["text"].dtype == "int32"
