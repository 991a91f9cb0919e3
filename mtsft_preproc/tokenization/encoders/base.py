"""What every encoder does, and the arrays that it gives."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import count_marks

__all__ = ["SPACES", "Encoder", "FlatIds", "PiecedIds", "SpannedIds", "to_pairs"]

#: Tokens that are a space alone, as the two families write it.
SPACES = ("\u2581", "\u0120")


class FlatIds(NamedTuple):
    """The ids of many texts in one array.

    Attributes:
        ids: int32, shape (N,).
        offsets: int64, shape (T+1,): text t has the ids ``ids[offsets[t]:offsets[t+1]]``.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> FlatIds:
        """Join one list of ids per text."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        flat = itertools.chain.from_iterable(lists)
        return cls(np.fromiter(flat, np.int32, int(offsets[-1])), offsets)


class SpannedIds(NamedTuple):
    """The ids of many texts, and which characters each covers.

    Neither ``starts`` nor ``ends`` decreases within a text. Tokens that share a character (its bytes, say)
    each cover the whole of it; a token without text of its own, as a prepended space, has an empty span
    where it stands. White space that an added token swallows is in that token's span, and so is in the
    span of the character before what a normalizer composed into that or dropped.

    Attributes:
        ids: int32, shape (N,).
        offsets: int64, shape (T+1,): text t has the tokens ``offsets[t]`` to ``offsets[t+1]``.
        starts: int32, shape (N,): token n of text t covers ``text[starts[n]:ends[n]]``, counted in
            characters (as Python counts) from the start of its text.
        ends: int32, shape (N,).
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class PiecedIds(NamedTuple):
    """The ids of many texts that are given in pieces, and which tokens lie in which piece.

    The pieces of all texts are counted in one row, and so are their tokens. The last piece of a text
    reaches to its last token. A token across the end of a piece has started there, but not ended.

    Attributes:
        ids: int32, shape (N,).
        offsets: int64, shape (T+1,): text t has the tokens ``offsets[t]`` to ``offsets[t+1]``.
        started: int64, shape (P,): the tokens that start in front of the end of each piece.
        ended: int64, shape (P,): the tokens of which the last character stands in front of it.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    started: npt.NDArray[np.int64]
    ended: npt.NDArray[np.int64]

    @classmethod
    def of(cls, found: SpannedIds, texts: Sequence[Sequence[str]]) -> PiecedIds:
        """Count the tokens of texts whose pieces are ``texts``."""
        counts = np.fromiter(map(len, texts), np.int64, len(texts))
        lengths = map(len, itertools.chain.from_iterable(texts))
        ends = np.cumsum(np.fromiter(lengths, np.int64, int(counts.sum())))
        first = np.concatenate([[0], ends])[np.cumsum(counts) - counts]
        shift = np.repeat(first, np.diff(found.offsets))
        starts = found.starts + shift
        lasts = np.maximum(found.ends + shift - 1, starts)
        started, ended = starts.searchsorted(ends), lasts.searchsorted(ends)
        return cls.closed(FlatIds(found.ids, found.offsets), counts, started, ended)

    @classmethod
    def closed(
        cls,
        flat: FlatIds,
        counts: npt.NDArray[np.int64],
        started: npt.NDArray[np.int64],
        ended: npt.NDArray[np.int64],
    ) -> PiecedIds:
        """Keep what was counted within each text: a token without characters may stand between two.

        Args:
            flat: The tokens.
            counts: int64, shape (T,): how many pieces each text has.
            started: As :attr:`started`, but that tokens at the end of a text are missing, here and in what
                follows; is written to.
            ended: The same.
        """
        filled = counts > 0
        lasts = (np.cumsum(counts) - 1)[filled]
        floor = np.repeat(flat.offsets[:-1], counts)
        for column in (started, ended):
            np.maximum(column, floor, out=column)
            column[lasts] = flat.offsets[1:][filled]
        return cls(*flat, started, ended)


class Encoder(ABC):
    """Turns texts into ids; adds nothing at either end.

    Attributes:
        spec: The tokenizer.
        special_ids: As :attr:`TokenizerSpec.special_ids`.
        special_mask: bool, shape (vocab_size,): True at those ids.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.special_ids = spec.special_ids
        self.special_mask: npt.NDArray[np.bool_] = np.zeros(spec.vocab_size, np.bool_)
        self.special_mask[list(self.special_ids)] = True

    @abstractmethod
    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text; special tokens that it spells become tokens."""

    @abstractmethod
    def encode_marked(self, text: str) -> list[int]:
        """Encode a text in which marks stand for the special tokens; what it spells stays text.

        Raises:
            RecordError: ``special-token``: the tokenizer can't be kept from making a token of it.
        """

    @abstractmethod
    def encode_spans(self, texts: list[str]) -> SpannedIds:
        """Give the ids of :meth:`encode`, and the characters that each covers.

        Raises:
            TokenizerError: The tokenizer can't say which.
        """

    def encode_pieces(self, texts: Sequence[Sequence[str]]) -> PiecedIds:
        """Give the ids of :meth:`encode` for texts in pieces, and how many tokens each piece has.

        That is less than :meth:`encode_spans` tells, and a fast encoder is quicker to say it.

        Raises:
            TokenizerError: The tokenizer can't say it.
        """
        return PiecedIds.of(self.encode_spans(["".join(pieces) for pieces in texts]), texts)

    @abstractmethod
    def encode_marked_spans(self, text: str) -> SpannedIds:
        """Give the ids of :meth:`encode_marked`, and the characters of ``text``, marks included.

        Raises:
            RecordError: As :meth:`encode_marked`.
            TokenizerError: The tokenizer can't say which.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""

    def _prove(self, text: str, ids: list[int]) -> list[int]:
        """Return ``ids`` if they hold no special token but those that were marked."""
        if sum(index in self.special_ids for index in ids) != count_marks(text):
            raise RecordError(
                "special-token", "", "text that the tokenizer can encode as plain text", "control ids"
            )
        return ids


def to_pairs(spans: Iterable[tuple[int, int]], count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` pairs as an array of shape (count, 2)."""
    return np.fromiter(itertools.chain.from_iterable(spans), np.int64, 2 * count).reshape(-1, 2)
