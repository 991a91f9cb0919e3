"""SentencePiece models without a ``tokenizer.json``: the sentencepiece library."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.tokenization.encoders.base import SPACES, Encoder, FlatIds, SpannedIds, to_pairs
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import mark_of, split_marks

__all__ = ["SentencePieceEncoder"]

_Pairs = npt.NDArray[np.int64]


class SentencePieceEncoder(Encoder):
    """The sentencepiece library itself; the text between added tokens is encoded piece by piece."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        import sentencepiece

        self._model: Any = sentencepiece.SentencePieceProcessor(model_file=spec.file)
        self._ids = {token.text: token.id for token in spec.added}
        ordered = sorted(self._ids, key=len, reverse=True)
        self._regex = re.compile("(" + "|".join(map(re.escape, ordered)) + ")")
        self._starts = tuple({text[:2] for text in ordered})
        self._widths = {token.id: len(token.text) for token in spec.added}
        self._space = self._model.piece_to_id(SPACES[0])
        try:
            self._maps_offsets = bool(self._model.encode("", out_type="offset_mapping"))
        except RuntimeError:
            # sentencepiece before 0.2.2, which has what was removed then.
            self._maps_offsets = False

    def encode(self, texts: list[str]) -> FlatIds:
        if not any(map(self._may_hold_added, texts)):
            return FlatIds.of(self._model.encode(texts, out_type=int))
        return FlatIds.of([self._join(self._split(text)) for text in texts])

    def encode_marked(self, text: str) -> list[int]:
        return self._prove(text, self._join(split_marks(text)))

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        return self._span(list(map(self._split, texts)), self._widths)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        pieces = split_marks(text)
        found = self._span([pieces], {token: len(mark_of(token)) for _, token in pieces})
        self._prove(text, found.ids.tolist())
        return found

    def decode(self, ids: Sequence[int]) -> str:
        names = {token.id: token.text for token in self.spec.added}
        pieces: list[str] = []
        for is_added, group in itertools.groupby(ids, key=names.__contains__):
            run = list(group)
            pieces += [names[index] for index in run] if is_added else [self._model.decode(run)]
        return "".join(pieces)

    def _may_hold_added(self, text: str) -> bool:
        return any(start in text for start in self._starts)

    def _split(self, text: str) -> list[tuple[str, int]]:
        if not self._may_hold_added(text):
            return [(text, -1)]
        pieces = self._regex.split(text)
        ids = [self._ids[token] for token in pieces[1::2]]
        return list(zip(pieces[::2], [*ids, -1], strict=True))

    def _join(self, pieces: Iterable[tuple[str, int]]) -> list[int]:
        ids: list[int] = []
        for text, token in pieces:
            if text:
                ids += self._model.encode(text, out_type=int)
            if token >= 0:
                ids.append(token)
        return ids

    def _span(self, split: list[list[tuple[str, int]]], widths: dict[int, int]) -> SpannedIds:
        """Encode texts that are split at their added tokens, which are ``widths`` characters wide."""
        found = self._encode_pieces([piece for pieces in split for piece, _ in pieces if piece])
        lists: list[list[int]] = []
        spans: list[_Pairs] = [np.zeros((0, 2), np.int64)]
        for pieces in split:
            lists.append([])
            at = 0
            for piece, token in pieces:
                if piece:
                    ids, pairs = next(found)
                    lists[-1] += ids
                    spans.append(pairs + at)
                    at += len(piece)
                if token >= 0:
                    lists[-1].append(token)
                    spans.append(np.array([[at, at + widths[token]]], np.int64))
                    at += widths[token]
        starts, ends = np.concatenate(spans).astype(np.int32).T
        return SpannedIds(*FlatIds.of(lists), np.ascontiguousarray(starts), np.ascontiguousarray(ends))

    def _encode_pieces(self, texts: list[str]) -> Iterator[tuple[list[int], _Pairs]]:
        if self._maps_offsets:
            maps = self._model.encode(texts, out_type="offset_mapping")
            rows = [(found["ids"], found["offsets"]) for found in maps]
        else:
            # Its pieces point into it: each is read while it is held.
            protos = self._model.encode(texts, out_type="immutable_proto")
            rows = [
                ([piece.id for piece in proto.pieces], [(piece.begin, piece.end) for piece in proto.pieces])
                for proto in protos
            ]
        for ids, spans in rows:
            pairs = to_pairs(spans, len(ids))
            starts, ends = pairs[:, 0], pairs[:, 1]
            # Of the tokens of one character (its bytes, say) the library gives it to the last alone.
            part = (starts == ends) & (starts < ends.max(initial=0))
            part[:1] &= ids[:1] != [self._space]
            ends[part] += 1
            yield ids, pairs
