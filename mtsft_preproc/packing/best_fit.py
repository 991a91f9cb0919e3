"""Best-fit decreasing, vectorised per distinct length."""

from __future__ import annotations

from collections import deque

import numpy as np

from mtsft_preproc.packing.chunks import Int64s, Ints

__all__ = ["best_fit"]

#: Residuals in a word of the bitmap of :class:`_Residuals`.
_WORD_BITS = 9


class _Residuals:
    """A set of integers that tells its least member from some number on, in a bitmap of two levels."""

    def __init__(self) -> None:
        self._words: dict[int, int] = {}
        self._filled = 0

    def add(self, residual: int) -> None:
        """Put a number in."""
        word = residual >> _WORD_BITS
        self._words[word] = self._words.get(word, 0) | 1 << (residual & (1 << _WORD_BITS) - 1)
        self._filled |= 1 << word

    def remove(self, residual: int) -> None:
        """Take a number out that is in."""
        word = residual >> _WORD_BITS
        self._words[word] ^= 1 << (residual & (1 << _WORD_BITS) - 1)
        if not self._words[word]:
            self._filled ^= 1 << word

    def least_from(self, least: int) -> int | None:
        """Return the least member that is at least so large."""
        word = least >> _WORD_BITS
        here = self._words.get(word, 0) >> (least & (1 << _WORD_BITS) - 1)
        if here:
            return least + _lowest_bit(here)
        above = self._filled >> (word + 1)
        if not above:
            return None
        word += 1 + _lowest_bit(above)
        return (word << _WORD_BITS) + _lowest_bit(self._words[word])


class _Bins:
    """Bins grouped by residual (the room left); of a group those that came first are taken first.

    A bin's room below ``shortest`` is forgotten: nothing fits in any more.
    """

    def __init__(self, shortest: int) -> None:
        self._shortest = shortest
        self._residuals = _Residuals()
        #: Runs of bins by residual, oldest first. Runs, so that work goes by moves and not by bins.
        self._groups: dict[int, deque[Ints]] = {}

    def add(self, residual: int, bins: Ints) -> None:
        """Let bins have that much room."""
        if residual < self._shortest or not len(bins):
            return
        group = self._groups.get(residual)
        if group is None:
            group = self._groups[residual] = deque()
            self._residuals.add(residual)
        group.append(bins)

    def tightest(self, length: int) -> int | None:
        """Return the least room that holds this length."""
        return self._residuals.least_from(length)

    def take(self, residual: int, most: int) -> Ints:
        """Take the oldest run of the group, or as many of it."""
        group = self._groups[residual]
        bins = group.popleft()
        if len(bins) > most:
            group.appendleft(bins[most:])
            bins = bins[:most]
        if not group:
            del self._groups[residual]
            self._residuals.remove(residual)
        return bins


def best_fit(counts: Int64s, capacity: int, dtype: np.dtype[np.signedinteger]) -> tuple[Ints, int]:
    """Give each sample a bin, going through distinct lengths from the longest to the shortest.

    The tightest bins that hold a length stay the tightest until it fits no more, so each takes as many as
    it holds; and all bins of one group do the same, so they move on together.

    Args:
        counts: How many samples there are of each length, shape (longest + 1,).
        capacity: Tokens that a bin holds.
        dtype: Of the result.

    Returns:
        The bin of each sample, samples sorted by length from the shortest, shape (S,); and how many bins.
    """
    distinct = np.flatnonzero(counts)
    ends = np.cumsum(counts)
    bins: Ints = np.empty(int(ends[-1]), dtype=dtype)
    opened = 0
    open_bins = _Bins(shortest=int(distinct[0]))
    for length in distinct[::-1].tolist():
        stop = int(ends[length])
        place = stop - int(counts[length])
        while place < stop:
            room = open_bins.tightest(length)
            if room is None:
                room = capacity
                new = -(-(stop - place) // (capacity // length))
                found: Ints = np.arange(opened, opened + new, dtype=dtype)
                opened += new
            else:
                found = open_bins.take(room, most=-(-(stop - place) // (room // length)))
            each = room // length
            whole = min(len(found), (stop - place) // each)
            bins[place : place + whole * each].reshape(whole, each)[:] = found[:whole, None]
            open_bins.add(room - each * length, found[:whole])
            place += whole * each
            if whole < len(found):  # the last samples don't fill the last bin
                bins[place:stop] = found[whole]
                open_bins.add(room - (stop - place) * length, found[whole:])
                place = stop
    return bins, opened


def _lowest_bit(number: int) -> int:
    """Return the place of the lowest bit that is set."""
    return (number & -number).bit_length() - 1
