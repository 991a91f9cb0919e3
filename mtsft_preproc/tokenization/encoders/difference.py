"""Where two encoders part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.tokenization.encoders.base import FlatIds

__all__ = ["Difference", "EncoderDiffers", "compare", "positions", "select"]

#: What a message says at most of a text, in characters.
_SHOWN = 80


class Difference(NamedTuple):
    """A text that a fast library encodes otherwise than the reference.

    Attributes:
        encoder: Name of the library.
        text: The text, whole.
        where: What is different, in words.
    """

    encoder: str
    text: str
    where: str

    def __str__(self) -> str:
        cut = "..." if len(self.text) > _SHOWN else ""
        return f"{self.encoder}: {self.text[:_SHOWN]!a}{cut}: {self.where}"


class EncoderDiffers(Exception):  # noqa: N818  # news for the caller, no error
    """A fast library gave other ids than the reference, or failed; what it encoded is to be done again.

    Never shown to the user as an error: whoever encodes takes the reference from there on.

    Args:
        difference: The text, and what is different.
    """

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference)
        self.difference = difference

    def __str__(self) -> str:
        return str(self.difference)


def compare(library: str, texts: list[str], found: FlatIds, right: FlatIds, what: str = "id") -> None:
    """Compare values, row by row.

    Args:
        library: Name of the library that gave ``found``.
        texts: T texts.
        found: Values for each text.
        right: The reference's.
        what: What the values are, in a word.

    Raises:
        EncoderDiffers: Some are different; of the first text with such.
    """
    if np.array_equal(found.offsets, right.offsets) and np.array_equal(found.ids, right.ids):
        return
    for number, text in enumerate(texts):
        own = found.ids[found.offsets[number] : found.offsets[number + 1]]
        other = right.ids[right.offsets[number] : right.offsets[number + 1]]
        if not np.array_equal(own, other):
            raise EncoderDiffers(Difference(library, text, _where(own, other, what)))


def positions(offsets: npt.NDArray[np.int64], numbers: list[int]) -> npt.NDArray[np.int64]:
    """Return where the tokens of the texts ``numbers`` stand; int64, one a token."""
    counts = np.diff(offsets)[numbers]
    shifts = offsets[numbers] - (np.cumsum(counts) - counts)
    return np.repeat(shifts, counts) + np.arange(int(counts.sum()))


def select(flat: FlatIds, numbers: list[int]) -> FlatIds:
    """Return the ids of the texts ``numbers``."""
    counts = np.diff(flat.offsets)[numbers]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return FlatIds(flat.ids[positions(flat.offsets, numbers)], offsets)


def _where(own: npt.NDArray[np.int32], other: npt.NDArray[np.int32], what: str) -> str:
    """Say where two rows of values part."""
    both = min(len(own), len(other))
    parted = np.flatnonzero(own[:both] != other[:both])
    at = int(parted[0]) if len(parted) else both
    values = [str(row[at]) if at < len(row) else "missing" for row in (own, other)]
    return f"{what} {at} is {values[0]}, the reference's {values[1]} (of {len(own)} and {len(other)})"
