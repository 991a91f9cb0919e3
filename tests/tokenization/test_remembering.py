"""Texts that come again are encoded once, and the ids are those of the encoder itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering import encoder

from mtsft_preproc.tokenization import Adjustment, RememberingEncoder, remembering

INNER = encoder(Adjustment())
texts = st.lists(st.lists(st.text("abc 天<|im_end|>", max_size=12), max_size=6), max_size=5)


class Counting:
    """An encoder that tells which texts reached it."""

    def __init__(self) -> None:
        self.spec, self.texts = INNER.spec, list[str]()

    def encode(self, texts: list[str]) -> Any:
        self.texts += texts
        return INNER.encode(texts)

    def encode_spans(self, texts: list[str]) -> Any:
        self.texts += texts
        return INNER.encode_spans(texts)


@settings(max_examples=100, deadline=None)
@given(calls=texts)
@pytest.mark.parametrize("method", ["encode", "encode_spans"])
def test_it_gives_what_the_encoder_gives(method: str, calls: list[list[str]]) -> None:
    counting = Counting()
    made = RememberingEncoder(counting)  # type: ignore[arg-type]
    for call in calls:
        for found, expected in zip(getattr(made, method)(call), getattr(INNER, method)(call), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
    assert sorted(counting.texts) == sorted({text for call in calls for text in call})


def test_it_forgets_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_KEPT", 5)
    counting = Counting()
    made = RememberingEncoder(counting)  # type: ignore[arg-type]
    for text in ("abc", "abc", "def", "abc", "abc"):
        made.encode([text])
    assert counting.texts == ["abc", "def", "abc"]


def test_all_else_is_the_encoders_own() -> None:
    made = RememberingEncoder(INNER)
    assert made.spec is INNER.spec
    assert made.encode_marked("a b") == INNER.encode_marked("a b")
    assert made.encode_marked_spans("a b").ids.tolist() == INNER.encode_marked_spans("a b").ids.tolist()
    assert made.decode(INNER.encode(["a b"]).ids.tolist()) == "a b"
