"""Tokenizers written in Python: transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization.encoders.base import Encoder, FlatIds, SpannedIds
from mtsft_preproc.tokenization.load import open_transformers
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import split_marks

__all__ = ["TransformersEncoder"]


class TransformersEncoder(Encoder):
    """A Python tokenizer, through transformers: correct, and slow."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        self._tokenizer: Any = open_transformers(spec.file, False, spec.trust_remote_code)
        special = [token.text for token in spec.added if token.special]
        if special:
            self._tokenizer.add_tokens(special, special_tokens=True)

    def encode(self, texts: list[str]) -> FlatIds:
        return FlatIds.of([self._tokenizer.encode(text, add_special_tokens=False) for text in texts])

    def encode_marked(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece, token in split_marks(text):
            if piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
            if token >= 0:
                ids.append(token)
        return self._prove(text, ids)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        raise self._no_spans()

    def encode_marked_spans(self, text: str) -> SpannedIds:
        raise self._no_spans()

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _no_spans(self) -> TokenizerError:
        return TokenizerError(
            f"--tokenizer-name-or-path: {self.spec.source}: a chat template needs to know which characters "
            "each token covers, which this Python tokenizer can't say; expected a Rust (fast) tokenizer or "
            "a folder with a SentencePiece tokenizer.model, or a chat format by --prompt-type"
        )
