"""JSON in all the ways in which files hold it, against Python's ``json``."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from fuzzing.engine import Target
from fuzzing.mutation import JSON_TOKENS
from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import (
    InputFile,
    Reader,
    RecordBatch,
    Shard,
    decompress,
    json_array,
    json_tail,
    jsonl,
    readers,
)
from mtsft_preproc.readers.json_elements import ElementParser
from mtsft_preproc.readers.json_scan import ArrayScanner
from mtsft_preproc.readers.parse import SPACE, holds_long_number, parse_lines, parse_record

__all__ = [
    "ArrayScannerTarget",
    "JsonArrayTarget",
    "JsonLinesTarget",
    "ParseLinesTarget",
    "ParseRecordTarget",
]

BOM = b"\xef\xbb\xbf"
#: Stands for no value at all.
NOTHING: Any = object()
Entry = Record | Rejection

_OBJECTS = [
    b'{"a": 1}',
    b'{"a": "\\"}, {\\"a\\": [", "b": {"a": []}}',
    '{"é": "漢\\u6f22😀\\ud83d\\ude00", "c": [1.5e3, -0.0, null, true]}'.encode(),
    b'{"conversations": [{"from": "human", "value": "a\\\\"}, {"from": "gpt", "value": "]}"}]}',
    b'{"n": [9223372036854775807, 9223372036854775808, 18446744073709551616, NaN, 1e400]}',
    b'{"x": "' + b"\\\\" * 9 + b'"}',
    b"{}",
]
_ARRAYS = [
    b"[" + b", ".join(_OBJECTS) + b"]",
    b" [\n " + b",\n ".join(_OBJECTS[:4]) + b"\n]\n",
    b"[" + b",".join([_OBJECTS[0]] * 12) + b"]",
    b"[]",
    BOM + b'[{"a": 1}, {"a": {"a": 2}}, {"a": "x"}]',
    b'[1, "a", null, [{"a": 1}, 2], {"a": 3}]',
]


def judged(raw: bytes) -> Any:
    """Return what ``json`` makes of bytes; :data:`NOTHING` where it refuses them."""
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return NOTHING


def check_entry(entry: Entry, value: Any) -> None:
    """Check what we made of a record against what ``json`` makes of it."""
    if isinstance(entry, Record):
        assert value is not NOTHING, "taken, though json refuses it"
        assert type(entry.value) is dict
        assert repr(entry.value) == repr(value), "another value than json's"
        return
    assert entry.reason, "a rejection without a reason"
    if isinstance(value, dict):
        # Rules of ours beyond json's have reasons of their own.
        assert entry.reason not in ("not-an-object", "not-json", "invalid-utf8"), entry.reason
    elif value is not NOTHING:
        assert entry.reason not in ("not-json", "invalid-utf8"), entry.reason


class ParseRecordTarget(Target):
    """One record."""

    name = "parse_record"
    tokens = JSON_TOKENS
    most = 400

    def seeds(self) -> list[bytes]:
        return _OBJECTS

    def run(self, data: bytes) -> object:
        entry = parse_record(data, 3, 5)
        assert (entry.row, entry.byte_offset) == (3, 5)
        value = judged(data)
        check_entry(entry, value)
        if isinstance(entry, Record):
            return ("record", len(entry.value), *map(type, list(entry.value.values())[:4]))
        return entry.reason, entry.got[:12], type(value)


class ParseLinesTarget(Target):
    """Lines that were cut apart already."""

    name = "parse_lines"
    tokens = JSON_TOKENS
    most = 800

    def seeds(self) -> list[bytes]:
        return [b"\n".join(_OBJECTS), b"\r\n".join(_OBJECTS[:3]), b"\n\n \n" + _OBJECTS[0]]

    def run(self, data: bytes) -> object:
        batch = RecordBatch()
        lines = data.split(b"\n")
        rows = parse_lines(lines, 0, 0, holds_long_number(data), batch)
        return check_lines(_in_order(batch), rows, lines)


def check_lines(entries: Sequence[Entry], rows: int, lines: Sequence[bytes], first: int = 0) -> object:
    """Check the entries of lines; return what tells kinds of outcomes apart."""
    assert rows == len(entries)
    offset, at = first, 0
    for line in lines:
        if line.strip(SPACE):
            entry = entries[at]
            assert (entry.row, entry.byte_offset) == (at, offset), "a wrong place"
            check_entry(entry, judged(line))
            at += 1
        offset += len(line) + 1
    assert at == len(entries)
    return tuple(getattr(entry, "reason", "record") for entry in entries[:6])


def _in_order(batch: RecordBatch) -> list[Entry]:
    found = sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row)
    assert [entry.row for entry in found] == list(range(len(found)))
    return found


def _size(byte: int) -> int:
    """Return a number of bytes to take at a time, from 1 on, most of them large: one by one takes long."""
    return 1 + (byte * byte >> 3)


class _InMemory(Target):
    """A reader that finds the input where it looks for a file.

    The first bytes of an input are numbers: the sizes of shards, blocks and chunks.
    """

    tokens = JSON_TOKENS
    most = 700
    modules: ClassVar[tuple[Any, ...]]
    kind: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reader: Reader = readers.get(self.kind)
        self.payload = b""
        # In place of the built-in: no system calls.
        for module in self.modules:
            module.open = lambda *_, **__: io.BytesIO(self.payload)

    def read(self, shard_bytes: int) -> tuple[list[Shard], list[list[Entry]]]:
        """Return the shards and what is in each; what counts their records must agree."""
        source = InputFile("in", self.kind, len(self.payload))
        cuts = list(self.reader.cut(source, shard_bytes))
        shards = [Shard(number, 0, source, *cut) for number, cut in enumerate(cuts)]
        found = []
        for shard in shards:
            entries: list[Entry] = []
            for batch in self.reader.read(shard):
                entries += sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row)
            assert [entry.row for entry in entries] == list(range(len(entries)))
            assert self.reader.count(shard, 1 << 40) == len(entries), "count() differs"
            found.append(entries)
        return shards, found


class JsonLinesTarget(_InMemory):
    """A file of lines, cut into shards: each line is read exactly once, and is what ``json`` says."""

    name = "jsonl_ranges"
    modules = (jsonl, decompress)
    kind = "jsonl"

    def seeds(self) -> list[bytes]:
        return [bytes([size, size // 2]) + text for size in (20, 60, 200) for text in _LINES]

    def run(self, data: bytes) -> object:
        if len(data) < 2:
            return None
        self.payload = data[2:]
        jsonl.BATCH_BYTES = _size(data[1])  # type: ignore[misc]
        shards, parts = self.read(_size(data[0]))
        assert [shard.end for shard in shards[:-1]] == [shard.start for shard in shards[1:]]
        entries = [entry for part in parts for entry in part]
        _, (whole,) = self.read(1 << 40) if self.payload else (0, [entries])
        assert [entry.byte_offset for entry in entries] == [entry.byte_offset for entry in whole]
        lines = self.payload.split(b"\n")
        places = [0, *itertools.accumulate(len(line) + 1 for line in lines[:-1])]
        lines[0] = lines[0].removeprefix(BOM)
        expected = [(at, line) for at, line in zip(places, lines, strict=True) if line.strip(SPACE)]
        assert len(whole) == len(expected) == len(entries)
        for entry, own, (at, line) in zip(whole, entries, expected, strict=True):
            assert entry.byte_offset in (at, at + 3 * (at == 0))
            value = judged(line)
            check_entry(entry, value)
            check_entry(own, value)
        return len(shards) > 1, tuple(getattr(entry, "reason", "record") for entry in entries[:6])


_LINES = [
    b"\n".join(_OBJECTS) + b"\n",
    b"\r\n".join(_OBJECTS[:3]),
    BOM + b"\n\n".join(_OBJECTS[:3]) + b"\n \n",
]


def check_array(payload: bytes, entries: Sequence[Entry], refused: bool) -> object:
    """Check what we made of an array against what ``json`` makes of it."""
    try:
        value = json.loads(payload.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        value = NOTHING
    if isinstance(value, list):
        assert not refused, "refused, though json takes it"
        assert len(entries) == len(value), f"{len(entries)} elements, json has {len(value)}"
        for entry, own in zip(entries, value, strict=True):
            check_entry(entry, own)
    else:
        assert refused or any(isinstance(entry, Rejection) for entry in entries), "json refuses it"
    for entry in entries:
        if isinstance(entry, Record):
            text = payload[entry.byte_offset :].decode("utf-8", "replace").lstrip(" \t\r\n")
            own, _ = json.JSONDecoder().raw_decode(text)
            assert repr(own) == repr(entry.value), "not what stands at its place"
    kinds = tuple(getattr(entry, "reason", "record") for entry in entries[:6])
    return refused, type(value), kinds


class JsonArrayTarget(_InMemory):
    """A file with an array, cut into shards, in chunks and blocks of any size."""

    name = "json_array"
    modules = (json_array, json_tail)
    kind = "json"

    def seeds(self) -> list[bytes]:
        sizes = [(1, 10, 16), (19, 13, 20), (40, 200, 12), (255, 255, 255)]
        return [bytes(size) + text for size in sizes for text in _ARRAYS]

    def run(self, data: bytes) -> object:
        if len(data) < 3:
            return None
        self.payload = data[3:]
        json_array._CHUNK = _size(data[1])
        json_array.BATCH_BYTES = _size(data[2])  # type: ignore[misc]
        try:
            shards, parts = self.read(_size(data[0]))
        except InputError:
            return check_array(self.payload, [], refused=True)
        for shard, part in zip(shards, parts, strict=True):
            places = [entry.byte_offset for entry in part]
            assert places == sorted(places)
            assert all(shard.start <= place <= shard.end for place in places)
        assert all(one.end <= other.start for one, other in itertools.pairwise(shards))
        entries = [entry for part in parts for entry in part]
        return len(shards) > 1, check_array(self.payload, entries, refused=False)


class ArrayScannerTarget(Target):
    """The scanner, in chunks of any size, and the parser of elements, in blocks of any size."""

    name = "array_scanner"
    tokens = JSON_TOKENS
    most = 700

    def seeds(self) -> list[bytes]:
        return [bytes([size, 2 * size]) + text for size in (9, 16, 30, 100) for text in _ARRAYS]

    def run(self, data: bytes) -> object:
        if len(data) < 2:
            return None
        payload = data[2:]
        size = _size(data[0])
        at_once, in_chunks = ArrayScanner(), ArrayScanner()
        borders = at_once.feed(payload).tolist()
        found: list[int] = []
        for at in range(0, len(payload), size):
            found += (in_chunks.feed(payload[at : at + size]) + at).tolist()
        assert found == borders
        assert at_once == in_chunks, "another state"
        assert borders == sorted(set(borders))
        start = len(payload) - len(payload.lstrip(b" \t\r\n"))
        closes = at_once.closed and payload[start : start + 1] == b"[" and borders
        closes = closes and payload[borders[-1] : borders[-1] + 1] == b"]" and not at_once.trailing
        if not closes or payload[borders[-1] + 1 :].strip(b" \t\r\n"):
            assert not isinstance(judged(payload), list), "no array, though json takes it"
            return tuple(borders[:3])
        inside = payload[start + 1 : borders[-1]]
        if not inside.strip(b" \t\r\n"):
            assert judged(payload) == []
            return None
        entries = _parsed(inside, start + 1, _size(data[1]))
        assert len(entries) == len(borders)
        return check_array(payload, entries, refused=False)


def _parsed(inside: bytes, offset: int, block: int) -> list[Entry]:
    """Parse what is inside of an array as a task does, block by block."""
    parser, entries = ElementParser(1 << 26), []
    at, rest = 0, b""
    while at < len(inside) or not at:
        piece = inside[at : at + max(block, len(rest))]
        at += len(piece)
        batch = RecordBatch()
        used = parser.take(rest + piece, offset, at == len(inside), batch)
        offset, rest = offset + used, (rest + piece)[used:]
        entries += sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row)
    assert [entry.row for entry in entries] == list(range(len(entries)))
    return entries
