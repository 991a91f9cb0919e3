"""Finds, at nearly the speed of memory, records that need a closer look than ``orjson`` gives them.

It makes floats of integers that need more than 64 bits; of a key that comes twice it keeps the last value;
and values nested up to a thousand levels pass, on which recursion may fail later, in one process and not in
another. Here blocks of whole records are looked at together, and what can't be told to be sound is looked
at record by record, by whoever asks. Lists without objects may lie deeper inside of messages: no handler
reads such, and what refuses them doesn't go into them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Record

__all__ = ["MOST_LEVELS", "holds_long_number", "levels_of", "looks_sound"]

#: Levels of objects and lists that a record may have. Far more than data have, and few enough that nothing
#: behind the readers fails on them, wherever it is called from.
MOST_LEVELS = 200

_QUOTE, _BACKSLASH, _COLON, _SPACE = 0x22, 0x5C, 0x3A, 0x20
# "[" and "{" differ in one bit, as do "]" and "}"; no other byte shares the remaining seven.
_FOLD, _OPENS, _CLOSES = 0xDF, 0x5B, 0x5D
#: What stands before blanks and a colon that are text: no quote, or an escaped one; no line break or tab.
_IN_TEXT = re.compile(rb'(?:[^" \t\r\n]|[^\\]\\") +\Z')
_LOOK_BACK = 64
#: Digits of the least number with which orjson may have trouble.
_DIGITS, _ZERO = 19, np.uint8(0x30)
_LONG = re.compile(rb"[0-9]{%d}" % _DIGITS)
_CONTAINERS = frozenset({dict, list})
#: Bytes that are looked at together: what is made of them stays in a processor's cache.
_PIECE = 1 << 16

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


def looks_sound(block: bytes, ends: Sequence[int] | Positions, records: Sequence[Record]) -> bool:
    """Return whether the records of a block certainly name no key twice and are not nested too deeply.

    Args:
        block: JSON text of whole records.
        ends: Where each of the records ends in it, ascending.
        records: What it holds; fewer where some were refused.
    """
    if not records:
        return True
    data = np.frombuffer(block, np.uint8)
    keys = _keys_written(block, data)
    if keys is None or len(records) != len(ends):
        return False
    seen = [_keys_seen(record.value) for record in records]
    written = np.diff(np.searchsorted(keys, ends), prepend=0).tolist()
    if seen == written:
        return True
    for number, (held, own) in enumerate(zip(seen, written, strict=True)):
        if held != own and _keys_held(records[number].value) != own:
            return False
    return True


def _keys_written(block: bytes, data: Bytes) -> Positions | None:
    """Return where keys end in JSON text, ascending; None where only a parser can tell.

    A quote in front of a colon ends a key if it isn't escaped: inside a string each is. A key may also end
    with a backslash, or have white space behind it: both are seldom.
    """
    colons = np.concatenate(
        [np.flatnonzero(data[at : at + _PIECE] == _COLON) + at for at in range(0, len(data), _PIECE)]
    )
    # No record begins with a colon; what would stand before the first byte makes no difference.
    before = data[colons - 1]
    for colon in colons[before <= _SPACE].tolist():
        if not _IN_TEXT.search(block, max(0, colon - _LOOK_BACK), colon):
            return None
    quoted: Positions = colons[before == _QUOTE]
    escaped = data[quoted - 2] == _BACKSLASH
    if not escaped.any():
        return quoted
    if (data[quoted[escaped] - 3] == _BACKSLASH).any():
        return None
    plain: Positions = quoted[~escaped]
    return plain


def _keys_seen(value: dict[str, Any]) -> int:
    """Return the keys of a record, but for those deeper than in messages; -1 where lists hold lists."""
    found = len(value)
    for held in value.values():
        if type(held) is list:
            for entry in held:
                if type(entry) is dict:
                    found += len(entry)
                elif type(entry) is list:
                    return -1
    return found


def _keys_held(value: Any) -> int:
    """Return the keys of all objects, however deep they lie; -1 where they lie too deep."""
    found = 0
    level = [value]
    for _ in range(MOST_LEVELS):
        below: list[Any] = []
        for outer in level:
            if type(outer) is dict:
                found += len(outer)
                outer = outer.values()
            for inner in outer:
                if type(inner) in _CONTAINERS:
                    below.append(inner)
        if not below:
            return found
        level = below
    return -1


def holds_long_number(raw: bytes) -> bool:
    """Return whether bytes hold digits enough for a number with which orjson may have trouble."""
    if len(raw) < _DIGITS:
        return False
    data = np.frombuffer(raw, np.uint8)
    # So many digits in a row hold one of these places, and half of them lie before or behind it.
    places = np.flatnonzero(data[_DIGITS - 1 :: _DIGITS] - _ZERO < 10) * _DIGITS + _DIGITS - 1
    half = _DIGITS // 2
    behind = data[np.minimum(places + half, len(data) - 1)] - _ZERO < 10
    before = data[places - half] - _ZERO < 10
    return any(
        _LONG.search(raw, max(0, place - _DIGITS), place + _DIGITS) is not None
        for place in places[before | behind].tolist()
    )


def levels_of(raw: bytes, at_end: bool = False) -> int:
    """Return the levels of brackets that JSON text opens, whether it is whole and valid or not.

    Args:
        raw: The text.
        at_end: Return how many are open at its end, instead of the most.
    """
    data = np.frombuffer(raw.replace(b"\\\\", b"xx").replace(b'\\"', b"xx"), np.uint8)
    folded = data & _FOLD
    marks = data[(data == _QUOTE) | (folded == _OPENS) | (folded == _CLOSES)]
    inside = np.cumsum(marks == _QUOTE) & 1
    marks = marks[(marks != _QUOTE) & (inside == 0)]
    levels = np.cumsum(np.where((marks & _FOLD) == _OPENS, 1, -1))
    if at_end:
        return int(levels[-1]) if len(levels) else 0
    return int(levels.max(initial=0))
