"""Finds the borders between the elements of a JSON array, in bulk and without parsing it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayScanner"]

_QUOTE, _COMMA, _BACKSLASH = 0x22, 0x2C, 0x5C
# "[" and "{" differ in one bit, as do "]" and "}"; no other byte shares the remaining seven.
_FOLD, _OPEN, _CLOSE = 0xDF, 0x5B, 0x5D

#: By byte: how much deeper one is behind it.
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
#: Bytes that are looked at together: what is made of them stays in a processor's cache.
_BLOCK = 1 << 16

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

    def feed(self, chunk: bytes | memoryview) -> Positions:
        """Advance over ``chunk``, the next bytes.

        Returns:
            int64, shape (K,): positions in ``chunk`` of the commas between elements of the outermost
            array, and of the bracket that closes it.
        """
        found = [_NONE]
        for start in range(0, len(chunk), _BLOCK):
            data = self._unescaped(bytes(chunk[start : start + _BLOCK]))
            folded = data & _FOLD
            places = np.flatnonzero(
                (data == _QUOTE) | (data == _COMMA) | (folded == _OPEN) | (folded == _CLOSE)
            )
            marks = data[places]
            outside = self._outside(marks)
            found.append(self._borders(places[outside], marks[outside]) + start)
        return np.concatenate(found)

    def _outside(self, marks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Return which of the bytes that count, quotes among them, are others and outside of strings."""
        quotes = marks == _QUOTE
        # There is an even number of quotes before them; of an 8-bit sum, the lowest bit is right.
        inside = (np.cumsum(quotes, dtype=np.uint8) & 1) != self.in_string
        if len(marks):
            self.in_string = bool(inside[-1])
        found: npt.NDArray[np.bool_] = ~(quotes | inside)
        return found

    def _borders(self, places: Positions, marks: npt.NDArray[np.uint8]) -> Positions:
        """Return the borders among brackets and commas outside of strings; take over the depth."""
        if not len(places):
            return places
        is_comma = marks == _COMMA
        depths = self.depth + np.cumsum(_STEPS[marks], dtype=np.int64)
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

    def _unescaped(self, block: bytes) -> npt.NDArray[np.uint8]:
        """Return a block in which all quotes are those that begin or end a string."""
        if self._escapes:
            if block[0] in (_QUOTE, _BACKSLASH):  # no other byte is another one by it, as below
                block = b"x" + block[1:]
            self._escapes = False
        data = np.frombuffer(block, np.uint8)
        if b"\\" not in block:
            return data
        escapes = data == _BACKSLASH
        if (escapes[1:] & escapes[:-1]).any():
            # Pairs of them first: what is left of a run of them escapes what stands behind it.
            data = np.frombuffer(block.replace(b"\\\\", b"xx"), np.uint8)
            escapes = data == _BACKSLASH
        self._escapes = bool(escapes[-1])
        plain = data.copy()
        # An escaped quote turns into the character before it, which is none that counts.
        plain[1:] -= (escapes[:-1] & (data[1:] == _QUOTE)).view(np.uint8)
        return plain
