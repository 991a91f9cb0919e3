"""The reference: Hugging Face ``tokenizers``."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtsft_preproc.tokenization.encoders.base import SPACES, Encoder, FlatIds, SpannedIds, to_pairs
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import mark_of

__all__ = ["RustEncoder"]

#: Normalizers of ``tokenizers`` that may make one character of several.
_COMPOSING = frozenset({"NFC", "NFKC", "Precompiled", "Replace"})


class RustEncoder(Encoder):
    """The reference: Hugging Face ``tokenizers``."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        # Workers are the unit of parallelism; threads inside each would only fight over the cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(spec.file)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._keep_offsets_whole()
        self._spaces = [self._tokenizer.token_to_id(space) for space in SPACES]
        normalizer = self._tokenizer.normalizer
        state = b"" if normalizer is None else normalizer.__getstate__()
        self._composes = not _COMPOSING.isdisjoint(re.findall(r'"type":\s*"(\w+)"', state.decode()))
        self._marks: dict[int, int] = {}

    def encode(self, texts: list[str]) -> FlatIds:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return FlatIds.of([encoding.ids for encoding in encodings])

    def encode_marked(self, text: str) -> list[int]:
        return self._encode_marked(text)[0]

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        flat = FlatIds.of([encoding.ids for encoding in encodings])
        return self._span(texts, flat, [encoding.offsets for encoding in encodings])

    def encode_marked_spans(self, text: str) -> SpannedIds:
        ids, spans = self._encode_marked(text)
        return self._span([text], FlatIds.of([ids]), [spans])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def texts_of(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id, decoded alone."""
        return list(self._tokenizer.decode_batch([[index] for index in ids], skip_special_tokens=False))

    def _encode_marked(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        if not self._marks:
            self._marks = self._add_marks()
        self._tokenizer.encode_special_tokens = True
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = False
        return self._prove(text, [self._marks.get(index, index) for index in found.ids]), found.offsets

    def _keep_offsets_whole(self) -> None:
        """Stop a byte-level post-processor from cutting spaces off the spans; no id depends on it."""
        processor = self._tokenizer.post_processor
        if processor is not None:
            state = re.sub(rb'("trim_offsets":\s*)true', rb"\1false", processor.__getstate__())
            processor.__setstate__(state)
            self._tokenizer.post_processor = processor

    def _span(self, texts: list[str], flat: FlatIds, spans: list[list[tuple[int, int]]]) -> SpannedIds:
        """Join the library's spans, and mend them where they say less or more than they should."""
        ids, offsets = flat
        if not len(ids):
            return SpannedIds(ids, offsets, np.zeros(0, np.int32), np.zeros(0, np.int32))
        # Counted through all texts, with a gap after each, so that no token meets one of another text.
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        base = np.repeat(np.cumsum(lengths) - lengths, np.diff(offsets))
        starts, ends = (to_pairs(itertools.chain.from_iterable(spans), len(ids)) + base[:, None]).T
        if self._composes:
            # Of "e" and an accent that become one character, the library names the "e" alone. The
            # tokens that end together (bytes of one character) reach to where the next one starts.
            limits = np.append(starts[1:], 0)
            filled = np.diff(offsets) > 0
            limits[offsets[1:][filled] - 1] = (np.cumsum(lengths) - 1)[filled]
            lasts = np.flatnonzero(np.append(ends[1:] != ends[:-1], True))
            ends = np.maximum(ends, np.repeat(limits[lasts], np.diff(lasts, prepend=-1)))
        # A prepended space that is a token of its own is given the character that it stands before.
        empty = np.isin(ids, [index for index in self._spaces if index is not None])
        empty &= np.append(starts[1:] == starts[:-1], False)
        empty[1:] &= ends[:-1] <= starts[1:]
        ends = np.where(empty, starts, ends)
        return SpannedIds(ids, offsets, (starts - base).astype(np.int32), (ends - base).astype(np.int32))

    def _add_marks(self) -> dict[int, int]:
        """Add a token for each mark; return the ids that they stand for."""
        from tokenizers import AddedToken

        special = [token for token in self.spec.added if token.special]
        self._tokenizer.add_tokens(
            [
                AddedToken(
                    mark_of(token.id),
                    special=False,
                    normalized=token.normalized,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                )
                for token in special
            ]
        )
        return {self._tokenizer.token_to_id(mark_of(token.id)): token.id for token in special}
