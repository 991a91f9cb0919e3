"""Finds the borders between the elements of a JSON array, in bulk and without parsing it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayScanner"]

_QUOTE, _COMMA = 0x22, 0x2C
# "[" and "{" differ in one bit, as do "]" and "}"; no other byte shares the remaining seven.
_FOLD, _OPEN, _CLOSE = 0xDF, 0x5B, 0x5D

#: All bytes but quotes and brackets.
_NEITHER = bytes(set(range(256)) - set(b'"[]{}'))
#: By byte: how much deeper one is behind it.
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
#: Bytes that are looked at together: what is made of them stays in a processor's cache.
_BLOCK = 1 << 17

Positions = npt.NDArray[np.int64]
_NONE: Positions = np.zeros(0, np.int64)


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
    _escapes: bool = False

    def feed(self, chunk: bytes | memoryview, want_commas: bool = True) -> Positions:
        """Advance over ``chunk``.

        Args:
            chunk: The next bytes.
            want_commas: False to advance only, which is faster.

        Returns:
            int64, shape (K,): positions in ``chunk`` of the commas between elements of the outermost
            array, and of the bracket that closes it.
        """
        found = [_NONE]
        for start in range(0, len(chunk), _BLOCK):
            block = self._unescaped(bytes(chunk[start : start + _BLOCK]))
            if want_commas or self.closed or not self._advance(block):
                found.append(self._look(block, want_commas) + start)
        return np.concatenate(found)

    def _advance(self, block: bytes) -> bool:
        """Advance over a block in which the array stays open; return whether it does."""
        marks = np.frombuffer(block.translate(None, _NEITHER), np.uint8)
        outside = self._outside(marks)
        steps = _STEPS[marks[outside]]
        depths = np.cumsum(steps, dtype=np.int64)
        if self.depth + depths.min(initial=1) <= 0:
            return False
        self.depth += int(depths[-1]) if len(depths) else 0
        self.in_string ^= bool(block.count(b'"') & 1)
        return True

    def _look(self, block: bytes, want_commas: bool) -> Positions:
        """Advance over a block; return the borders in it."""
        data = np.frombuffer(block, np.uint8)
        folded = data & _FOLD
        marked = (data == _QUOTE) | (folded == _OPEN) | (folded == _CLOSE)
        if want_commas:
            marked |= data == _COMMA
        places = np.flatnonzero(marked)
        marks = data[places]
        outside = self._outside(marks)
        self.in_string ^= bool(block.count(b'"') & 1)
        return self._borders(places[outside], marks[outside])

    def _outside(self, marks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Return which of the bytes that count, quotes among them, are others and outside of strings."""
        quotes = marks == _QUOTE
        # There is an even number of quotes before them; of an 8-bit sum, the lowest bit is right.
        inside = (np.cumsum(quotes, dtype=np.uint8) & 1) != self.in_string
        found: npt.NDArray[np.bool_] = ~(quotes | inside)
        return found

    def _borders(self, places: Positions, marks: npt.NDArray[np.uint8]) -> Positions:
        """Return the borders among brackets and commas outside of strings; take over the depth."""
        if not len(places):
            return places
        folded = marks & _FOLD
        is_comma = marks == _COMMA
        steps = np.where(is_comma, 0, np.where(folded == _OPEN, 1, -1))
        depths = self.depth + np.cumsum(steps)
        self.depth = int(depths[-1])
        if self.closed:
            self.trailing |= not is_comma.all()
            return places[:0]
        ends = np.flatnonzero((depths == 0) & ~is_comma)
        if not len(ends):
            commas: Positions = places[is_comma & (depths == 1)]
            return commas
        self.closed = True
        first = int(ends[0])
        self.trailing = not is_comma[first + 1 :].all()
        borders: Positions = np.append(places[:first][(is_comma & (depths == 1))[:first]], places[first])
        return borders

    def _unescaped(self, block: bytes) -> bytes:
        """Return a block with other bytes in the place of backslashes and of what they escape."""
        if self._escapes:
            block = b"x" + block[1:]
            self._escapes = False
        if b"\\" not in block:
            return block
        # Pairs of backslashes first: what is left of a run of them escapes what stands behind it.
        block = block.replace(b"\\\\", b"xx").replace(b'\\"', b"xx")
        self._escapes = block.endswith(b"\\")
        return block
