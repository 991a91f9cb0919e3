"""Texts that have much in common, encoded once: cut in front of special tokens that the template wrote.

A tokenizer splits a text at its added tokens before it does anything else, and treats what stands between
them alone. So a text may be cut in front of such a token, if nothing reaches across: no other token that
could begin before it and end in it or behind, no white space that it swallows. The token itself stays in
front of what follows, so that this is not the start of a text: some tokenizers prepend a space there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.tokenization import Encoder, PiecedIds, SpannedIds
from mtsft_preproc.tokenization.spec import AddedToken, TokenizerSpec
from mtsft_preproc.tokenization.special_text import mark_of, split_marks

__all__ = ["MarkedStretches", "Openings", "chain", "cut", "encode_stretches", "rows_of", "safe_cuts"]

#: Characters of openings that are kept; when there are more, all of them are forgotten.
_KEPT = 1 << 21


def safe_cuts(spec: TokenizerSpec) -> frozenset[int]:
    """Return the special tokens in front of which a text may be cut: the ids of its parts are its ids."""
    texts = [token.text for token in spec.added]
    ends = {text[start:] for text in texts for start in range(1, len(text))}
    inner = {end[:stop] for end in ends for stop in range(1, len(end) + 1)}
    words = any(token.single_word for token in spec.added)

    def is_safe(token: AddedToken) -> bool:
        text = token.text
        if not text or not token.special or token.lstrip or token.single_word or token.normalized:
            return False
        if text[0].isspace() or (words and (text[0].isalnum() or text[0] == "_")):
            return False
        # Another token (or this one, a little earlier) could end in it, or hold all of it.
        return text not in inner and not any(text[:stop] in ends for stop in range(1, len(text) + 1))

    return frozenset(token.id for token in spec.added if is_safe(token))


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Return the parts of a text, cut at ``places``, without empty ones."""
    borders = [0, *places, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders) if start < end]


def encode_stretches(
    texts: Sequence[Sequence[str]], encode: Callable[[list[str]], SpannedIds]
) -> SpannedIds:
    """Encode texts that are given in parts; parts that are equal are encoded once.

    Args:
        texts: Per text its parts.
        encode: Encodes parts.

    Returns:
        The ids of the texts, with the characters that each covers of its whole text.
    """
    numbers: dict[str, int] = {}
    parts = [numbers.setdefault(part, len(numbers)) for text in texts for part in text]
    found = encode(list(numbers))
    places = [
        place for text in texts for place in itertools.accumulate(map(len, text[:-1]), initial=0) if text
    ]
    return _lined_up(found, np.asarray(parts, np.int64), places, [len(text) for text in texts])


class Row(NamedTuple):
    """The tokens of a text, or of a part of one.

    Attributes:
        ids: int32, shape (N,).
        started: int64, shape (P,): as :attr:`PiecedIds.started`.
        ended: int64, shape (P,): as :attr:`PiecedIds.ended`.
        zero: What both are counted from.
    """

    ids: npt.NDArray[np.int32]
    started: npt.NDArray[np.int64]
    ended: npt.NDArray[np.int64]
    zero: int


def rows_of(found: PiecedIds, texts: Sequence[Sequence[str]]) -> list[Row]:
    """Return each text as a row."""
    tokens = found.offsets.tolist()
    pieces = itertools.accumulate(map(len, texts), initial=0)
    return [
        Row(found.ids[start:end], found.started[first:stop], found.ended[first:stop], start)
        for (start, end), (first, stop) in zip(
            itertools.pairwise(tokens), itertools.pairwise(pieces), strict=True
        )
    ]


def chain(rows: Sequence[Row], counts: Sequence[int] | None = None) -> PiecedIds:
    """Return texts that are made of rows, one behind the other.

    Args:
        rows: At least one.
        counts: Per text, of how many rows it is made; None: of one each.
    """
    borders = np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])])
    zeros = borders[:-1] - np.asarray([row.zero for row in rows], np.int64)
    shift = np.repeat(zeros, [len(row.started) for row in rows])
    return PiecedIds(
        np.concatenate([row.ids for row in rows]),
        borders if counts is None else borders[np.cumsum([0, *counts])],
        np.concatenate([row.started for row in rows]) + shift,
        np.concatenate([row.ended for row in rows]) + shift,
    )


class Openings:
    """Encodes what many texts open with once, as long as not too much comes in between.

    Args:
        encoder: Of the tokenizer.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[str, ...], Row] = {}
        self._characters = 0

    def encode(self, openings: Sequence[Sequence[str]], rests: Sequence[Sequence[str]]) -> PiecedIds:
        """Encode texts.

        Args:
            openings: Per text, the pieces that it opens with; may be none.
            rests: Per text, those that follow.
        """
        if self._characters > _KEPT:
            self._known.clear()
            self._characters = 0
        keys = list(map(tuple, openings))
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            self._characters += sum(len(piece) for key in new for piece in key)
            for key, row in zip(new, rows_of(self._encoder.encode_pieces(new), new), strict=True):
                # Copied: a part of an array keeps all of it.
                self._known[key] = Row(row.ids.copy(), row.started.copy(), row.ended.copy(), row.zero)
        following = rows_of(self._encoder.encode_pieces(rests), rests)
        pairs = zip(map(self._known.__getitem__, keys), following, strict=True)
        return chain(list(itertools.chain.from_iterable(pairs)), [2] * len(keys))


def _lined_up(
    found: SpannedIds, which: npt.NDArray[np.int64], places: Sequence[int], counts: Sequence[int]
) -> SpannedIds:
    """Return texts that are made of parts, one behind the other.

    Args:
        found: The parts.
        which: int64, shape (P,): number of each part.
        places: P: where each starts in its text.
        counts: Per text, of how many parts it is made.
    """
    lengths = np.diff(found.offsets)[which]
    borders = np.concatenate([[0], np.cumsum(lengths)])
    source = np.repeat(found.offsets[which] - borders[:-1], lengths) + np.arange(borders[-1])
    shift = np.repeat(np.asarray(places, np.int64), lengths)
    upto = np.cumsum([0, *counts])
    return SpannedIds(
        found.ids[source],
        borders[upto],
        (found.starts[source] + shift).astype(np.int32),
        (found.ends[source] + shift).astype(np.int32),
    )


class MarkedStretches:
    """Encodes texts in which marks stand for special tokens; parts that texts have in common once.

    Args:
        encoder: Of the tokenizer.
        cuts: Special tokens in front of whose marks a text may be cut.
    """

    def __init__(self, encoder: Encoder, cuts: frozenset[int]) -> None:
        self._encoder = encoder
        self._cuts = cuts
        self._known: dict[str, SpannedIds | RecordError] = {}

    def encode(self, text: str) -> SpannedIds:
        """Encode a text.

        Raises:
            RecordError: As :meth:`Encoder.encode_marked_spans`.
        """
        if not self._cuts:
            return self._encoder.encode_marked_spans(text)
        return encode_stretches([cut(text, self._places(text))], self._encode)

    def _places(self, text: str) -> list[int]:
        places: list[int] = []
        place = 0
        for between, token in split_marks(text):
            place += len(between)
            if token in self._cuts:
                places.append(place)
            if token >= 0:
                place += len(mark_of(token))
        return places

    def _encode(self, parts: list[str]) -> SpannedIds:
        found = [self._one(part) for part in parts]
        counts = [len(one.ids) for one in found]
        return SpannedIds(
            np.concatenate([one.ids for one in found]),
            np.cumsum([0, *counts]),
            np.concatenate([one.starts for one in found]),
            np.concatenate([one.ends for one in found]),
        )

    def _one(self, part: str) -> SpannedIds:
        if part not in self._known:
            try:
                self._known[part] = self._encoder.encode_marked_spans(part)
            except RecordError as error:
                self._known[part] = error
        known = self._known[part]
        if isinstance(known, RecordError):
            raise known
        return known
