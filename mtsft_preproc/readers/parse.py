"""JSON bytes -> records and rejections."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterable
from typing import Any

import orjson

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.readers.base import RecordBatch
from mtsft_preproc.readers.suspects import MOST_LEVELS, holds_long_number, levels_of, looks_sound

__all__ = [
    "SPACE",
    "holds_key",
    "is_settings",
    "name_truncated",
    "parse_lines",
    "parse_record",
    "refuse_bom",
    "truncated",
]

#: White space of a line that holds nothing else.
SPACE = b" \t\r\n\v\f"

_BOM = b"\xef\xbb\xbf"
_CR_ALONE = re.compile(r"\r(?=[^\n])")


def parse_lines(
    lines: Iterable[bytes], row: int, byte_offset: int, careful: bool, batch: RecordBatch
) -> int:
    """Append what lines of JSON hold to a batch; blank ones are passed over.

    Args:
        lines: Lines in a row, without their line ends.
        row: Of the first one.
        byte_offset: Of the first one, or -1 for none.
        careful: Whether each of them is to be looked at closely: they may hold numbers with which orjson
            has trouble, or something that it lets pass.
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
            parsed = parse_record(line, row, offset, batch.notes)
            if isinstance(parsed, Record):
                add(parsed)
            else:
                batch.rejections.append(parsed)
            row += 1
        if byte_offset >= 0:
            offset += len(line) + 1
    return row - first


def parse_record(
    raw: bytes, row: int, byte_offset: int, notes: list[tuple[int, str]] | None = None
) -> Record | Rejection:
    """Parse one JSON object.

    orjson does the work. What it refuses goes to the standard library's ``json`` for a second opinion,
    so that what is accepted is what ``json`` accepts (NaN, huge numbers), less text that can't be encoded
    and nesting beyond :data:`~mtsft_preproc.readers.suspects.MOST_LEVELS`. So do records with long runs of
    digits: of integers that need more than 64 bits orjson makes floats.

    Args:
        raw: The record's bytes.
        row: As :attr:`Record.row`.
        byte_offset: As :attr:`Record.byte_offset`.
        notes: Takes what there is to note, as :attr:`RecordBatch.notes`.
    """
    if bom := refuse_bom(raw.lstrip(SPACE), row, byte_offset):
        return bom
    try:
        value, repeats = _parsed(raw)
    except RecordError as error:
        return Rejection.of(Record(row, raw.decode("utf-8", "backslashreplace"), byte_offset), error)
    if not isinstance(value, dict):
        expected = "an object with named fields"
        return Rejection(row, "not-an-object", "", expected, shorten(value), byte_offset, record=value)
    if repeats and notes is not None:
        notes.append((row, "repeated-key"))
    return Record(row, value, byte_offset)


def _parsed(raw: bytes) -> tuple[Any, bool]:
    """Return what JSON text holds, and whether an object names a key twice: its last value counts then.

    Raises:
        RecordError: It is no JSON, or none that can be used.
    """
    if not holds_long_number(raw):
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
        else:
            if type(value) is not dict or looks_sound(raw, [len(raw)], [Record(0, value)]):
                return value, False
    return _second_opinion(raw)


def _second_opinion(raw: bytes) -> tuple[Any, bool]:
    # Before json comes to it, whose recursion may go deeper in one process than in another.
    if (levels := levels_of(raw)) > MOST_LEVELS:
        expected = f"at most {MOST_LEVELS} levels of objects and lists"
        raise RecordError("too-deep", "", expected, f"{levels} levels")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"byte {raw[error.start : error.start + 1]!r} at byte {error.start} of the record"
        raise RecordError("invalid-utf8", "", "UTF-8 text", got) from None
    try:
        repeats = False

        def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            nonlocal repeats
            found = dict(pairs)
            repeats |= len(found) < len(pairs)
            return found

        value = json.loads(text, object_pairs_hook=made)
    except (ValueError, RecursionError) as error:
        raise RecordError("not-json", "", "one JSON object", _malformed(text, error)) from None
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        got = shorten(error.object[max(0, error.start - 20) : error.end + 20])
        raise RecordError("lone-surrogate", "", "text that UTF-8 can encode", got) from None
    return value, repeats


def _malformed(text: str, error: Exception) -> str:
    where = max(0, getattr(error, "pos", 0) - 20)
    got = f"{error} near {shorten(text[where : where + 40])}"
    if _CR_ALONE.search(text):
        got += "; lines end with CR alone, which ends none here: expected LF or CRLF"
    return got


def refuse_bom(raw: bytes, row: int, byte_offset: int) -> Rejection | None:
    """Return the rejection of a record behind a byte order mark, which only a file may begin with."""
    if not raw.startswith(_BOM):
        return None
    expected = "a byte order mark (BOM) at the beginning of a file alone"
    got = "one in front of this record: files that were joined?"
    text = raw.decode("utf-8", "backslashreplace")
    return Rejection(row, "stray-bom", "", expected, got, byte_offset, record=text)


def name_truncated(raw: bytes, row: int, batch: RecordBatch) -> None:
    """Say of the last line of a file, which has no line end, that it was cut, if it is a part of a record.

    Args:
        raw: The line.
        row: Its number, if it is a record.
        batch: Its last rejection is replaced if it is that of the line.
    """
    if not batch.rejections or batch.rejections[-1].row != row:
        return
    last = batch.rejections[-1]
    begins = raw.lstrip(SPACE).startswith(b"{")
    if begins and last.reason in ("not-json", "invalid-utf8") and levels_of(raw, at_end=True) > 0:
        batch.rejections[-1] = truncated(row, len(raw), last.byte_offset, last.record)


def truncated(row: int, size: int, byte_offset: int, record: Any = None) -> Rejection:
    """Return the rejection of a record of which a file holds the first ``size`` bytes."""
    got = f"{size} bytes, behind which the file ends"
    return Rejection(row, "truncated", "", "a whole record", got, byte_offset, record=record)


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
