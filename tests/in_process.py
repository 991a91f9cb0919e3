"""Loads tokenizers in the process of the test: one of its own costs a second each time."""

from __future__ import annotations

from typing import Any

from mtsft_preproc.tokenization import ResolvedTokenizer, TokenizerLoading, load_tokenizer

__all__ = ["InProcess"]


class InProcess(TokenizerLoading):
    """Takes the place of ``TokenizerLoading`` where that is patched in."""

    def __init__(self, path: str, adjustment: Any, use_fast: bool, trust: bool, after: Any = None) -> None:
        self._tokenizer = load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust)
        self._after = after

    def result(self) -> ResolvedTokenizer:
        return self._tokenizer

    def afterwards(self) -> Any:
        return self._after(self._tokenizer)

    def __exit__(self, *_: object) -> None:
        pass
