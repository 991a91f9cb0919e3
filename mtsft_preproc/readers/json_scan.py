"""Finds the borders between the elements of a JSON array, in bulk and without parsing it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayScanner"]

_QUOTE, _BACKSLASH, _COMMA = 0x22, 0x5C, 0x2C
# "[" and "{" differ in one bit, as do "]" and "}"; no other byte shares the remaining seven.
_FOLD, _OPEN, _CLOSE = 0xDF, 0x5B, 0x5D

Positions = npt.NDArray[np.int64]


@dataclass
class ArrayScanner:
    """Walks over the bytes of a JSON document and finds the commas at a depth of one.

    Feed it the file from its first byte (behind a BOM) in chunks of any size. It trusts the nesting
    alone: whether the elements are valid JSON is for the parser to say.

    Attributes:
        depth: Brackets open at the end of what was fed.
        in_string: Whether a string is open there.
        closed: Whether the outermost bracket was closed.
        trailing: Whether a bracket was opened or closed after that.
    """

    depth: int = 0
    in_string: bool = False
    closed: bool = False
    trailing: bool = False
    _backslashes: int = 0

    def feed(self, chunk: bytes | memoryview, want_commas: bool = True) -> Positions:
        """Advance over ``chunk``.

        Args:
            chunk: The next bytes.
            want_commas: False to advance only, which is faster.

        Returns:
            int64, shape (K,): positions in ``chunk`` of the commas between elements of the outermost
            array, and of the bracket that closes it.
        """
        data = np.frombuffer(chunk, np.uint8)
        quotes = self._quotes(data)
        folded = data & _FOLD
        is_open, is_close = folded == _OPEN, folded == _CLOSE
        brackets = np.flatnonzero(is_open | is_close)
        brackets = brackets[self._outside(brackets, quotes)]
        steps = np.where(is_open[brackets], 1, -1).astype(np.int64)
        depths = self.depth + np.cumsum(steps)
        borders = self._borders(data, quotes, brackets, depths, want_commas)
        if len(depths):
            self.depth = int(depths[-1])
        self.in_string ^= bool(len(quotes) & 1)
        return borders

    def _borders(
        self,
        data: npt.NDArray[np.uint8],
        quotes: Positions,
        brackets: Positions,
        depths: Positions,
        want_commas: bool,
    ) -> Positions:
        ends: Positions = brackets[depths == 0]
        if self.closed:
            self.trailing |= bool(len(brackets))
            return ends[:0]
        commas: Positions = ends[:0]
        if want_commas:
            commas = np.flatnonzero(data == _COMMA)
            commas = commas[self._outside(commas, quotes)]
            before = np.searchsorted(brackets, commas)
            at = np.where(before > 0, depths[before - 1] if len(depths) else 0, self.depth)
            commas = commas[at == 1]
        if not len(ends):
            return commas
        self.closed = True
        self.trailing = bool(len(brackets) and brackets[-1] > ends[0])
        return np.append(commas[commas < ends[0]], ends[0])

    def _outside(self, positions: Positions, quotes: Positions) -> npt.NDArray[np.bool_]:
        """Return which positions lie outside of strings."""
        inside: npt.NDArray[np.bool_] = (
            (np.searchsorted(quotes, positions) + int(self.in_string)) & 1
        ).astype(bool)
        return ~inside

    def _quotes(self, data: npt.NDArray[np.uint8]) -> Positions:
        """Return the positions of the quotes that open or close a string: those not escaped."""
        quotes = np.flatnonzero(data == _QUOTE)
        slashes = np.flatnonzero(data == _BACKSLASH)
        carried, self._backslashes = self._backslashes, 0
        if not len(slashes):
            return quotes[1:] if carried & 1 and len(quotes) and quotes[0] == 0 else quotes
        # For each backslash: how many stand in one run up to and with it.
        order = np.arange(len(slashes))
        starts = np.concatenate([[True], np.diff(slashes) != 1])
        run = order - np.maximum.accumulate(np.where(starts, order, 0)) + 1
        if slashes[0] == 0:
            first = int(np.flatnonzero(starts)[1]) if starts.sum() > 1 else len(slashes)
            run[:first] += carried
        if slashes[-1] == len(data) - 1:
            self._backslashes = int(run[-1])
        before = np.searchsorted(slashes, quotes) - 1
        touching = (before >= 0) & (slashes[before] == quotes - 1)
        odd = np.where(touching, run[before] & 1, 0)
        if len(quotes) and quotes[0] == 0:
            odd[0] = carried & 1
        kept: Positions = quotes[odd == 0]
        return kept
