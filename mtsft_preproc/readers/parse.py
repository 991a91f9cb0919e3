"""JSON bytes -> a record or a rejection, one at a time."""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import orjson

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.errors import RecordError

__all__ = ["holds_key", "is_settings", "parse_record"]


#: Makes digits zeros and all else something else: a run of digits is then found at memory speed.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
#: Digits of the least number with which orjson may have trouble.
_LONG = b"0" * 19


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
        if raw.translate(_DIGITS).find(_LONG) >= 0:
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
