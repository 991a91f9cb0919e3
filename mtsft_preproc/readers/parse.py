"""JSON bytes -> records and rejections."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable
from typing import Any

import orjson

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.readers.base import RecordBatch

__all__ = ["SPACE", "holds_key", "holds_long_number", "is_settings", "parse_lines", "parse_record"]

#: White space of a line that holds nothing else.
SPACE = b" \t\r\n\v\f"

#: Makes digits zeros and all else something else: a run of digits is then found at memory speed.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
#: Digits of the least number with which orjson may have trouble.
_LONG = b"0" * 19


def holds_long_number(raw: bytes) -> bool:
    """Return whether bytes hold digits enough for a number with which orjson may have trouble."""
    return raw.translate(_DIGITS).find(_LONG) >= 0


def parse_lines(
    lines: Iterable[bytes], row: int, byte_offset: int, careful: bool, batch: RecordBatch
) -> int:
    """Append what lines of JSON hold to a batch; blank ones are passed over.

    Args:
        lines: Lines in a row, without their line ends.
        row: Of the first one.
        byte_offset: Of the first one, or -1 for none.
        careful: Whether they may hold numbers with which orjson has trouble.
        batch: Takes the records and the rejections; its size is left as it is.

    Returns:
        Rows with those.
    """
    loads, add, offset = orjson.loads, batch.records.append, byte_offset
    first = row
    for line in lines:
        value = None
        if not careful:
            try:
                value = loads(line)
            except orjson.JSONDecodeError:
                value = None  # blank, or for a second opinion
        if type(value) is dict:
            add(Record(row, value, offset))
            row += 1
        elif line.strip(SPACE):
            parsed = parse_record(line, row, offset)
            if isinstance(parsed, Record):
                add(parsed)
            else:
                batch.rejections.append(parsed)
            row += 1
        if byte_offset >= 0:
            offset += len(line) + 1
    return row - first


def parse_record(raw: bytes, row: int, byte_offset: int) -> Record | Rejection:
    """Parse one JSON object.

    orjson does the work. What it refuses goes to the standard library's ``json`` for a second opinion,
    so that what is accepted is what ``json`` accepts (NaN, huge numbers), less text that can't be encoded.
    So do records with long runs of digits: of integers that need more than 64 bits orjson makes floats.

    Args:
        raw: The record's bytes.
        row: As :attr:`Record.row`.
        byte_offset: As :attr:`Record.byte_offset`.
    """
    try:
        if holds_long_number(raw):
            raise orjson.JSONDecodeError("a number that may be too long", "", 0)
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            value = _second_opinion(raw)
        except RecordError as error:
            return Rejection.of(Record(row, raw.decode("utf-8", "backslashreplace"), byte_offset), error)
    if not isinstance(value, dict):
        expected = "an object with named fields"
        return Rejection(row, "not-an-object", "", expected, shorten(value), byte_offset, record=value)
    return Record(row, value, byte_offset)


def _second_opinion(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"byte {raw[error.start : error.start + 1]!r} at byte {error.start} of the record"
        raise RecordError("invalid-utf8", "", "UTF-8 text", got) from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = max(0, getattr(error, "pos", 0) - 20)
        got = f"{error} near {shorten(text[where : where + 40])}"
        raise RecordError("not-json", "", "one JSON object", got) from None
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        got = shorten(error.object[max(0, error.start - 20) : error.end + 20])
        raise RecordError("lone-surrogate", "", "text that UTF-8 can encode", got) from None
    return value


def holds_key(path: str, key: str) -> bool:
    """Return whether the text of ``key`` stands anywhere in a file, written as JSON usually writes it."""
    if os.path.getsize(path) == 0:  # which can't be mapped
        return False
    written = [json.dumps(key, ensure_ascii=ascii_only).encode() for ascii_only in (False, True)]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return any(data.find(form) >= 0 for form in written)


def is_settings(head: bytes) -> bool:
    """Return whether a JSON file that starts so is one object over many lines: settings, not records."""
    return head.split(b"\n", 1)[0].strip() == b"{"
