"""JSON lines, cut anywhere or compressed, against ``json``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import BOM, json_objects, outcomes, read_all, read_shard, shards_of, source_of, thorough

from mtsft_preproc.dialogue import Record
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import jsonl, readers
from mtsft_preproc.readers.parse import parse_record

BAD = [
    (b'{"a": 1', "not-json"),
    (b'{"a": 1}{"b": 2}', "not-json"),
    (b'{"a": 1},', "not-json"),
    (b"plain text", "not-json"),
    (b"[1, 2]", "not-an-object"),
    (b'"text"', "not-an-object"),
    (b"null", "not-an-object"),
    (b'{"a": "\\ud800"}', "lone-surrogate"),
    (b'{"a": "\xff"}', "invalid-utf8"),
    (b'{"\xc3": 1}', "invalid-utf8"),
]


def zstd(raw: bytes) -> bytes:
    packed: bytes = pa.compress(raw, codec="zstd", asbytes=True)
    return packed


COMPRESSIONS = pytest.mark.parametrize(
    ("compression", "compress"), [("gzip", gzip.compress), ("zstd", zstd)], ids=["gzip", "zstd"]
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jsonl") / "in.jsonl"


def read(path: Path, raw: bytes, shard_bytes: int = 1 << 20, compression: str | None = None) -> list[Any]:
    path.write_bytes(raw)
    return outcomes(read_all(source_of(path, "jsonl", compression), shard_bytes))


def dumped(record: Any, ensure_ascii: bool) -> bytes:
    return json.dumps(record, ensure_ascii=ensure_ascii).encode()


#: The bytes of a line without its end, and what becomes of it: a record, a reason of rejection, or None.
lines = st.one_of(
    st.builds(lambda record, flag: (dumped(record, flag), record), json_objects, st.booleans()),
    st.sampled_from([(space, None) for space in (b"", b" ", b"\t ", b"\r", b"\x0c")]),
    st.sampled_from(BAD),
)
ends = st.sampled_from([b"\n", b"\r\n", b" \n"])


@thorough(250)
@given(content=st.lists(st.tuples(lines, ends), max_size=7), last=lines, bom=st.booleans(), data=st.data())
def test_lines_cut_anywhere_are_what_json_loads_gives(
    scratch: Path,
    content: list[tuple[tuple[bytes, Any], bytes]],
    last: tuple[bytes, Any],
    bom: bool,
    data: st.DataObject,
) -> None:
    all_lines = [(line, outcome, end) for (line, outcome), end in content] + [(*last, b"")]
    raw = BOM * bom + b"".join(line + end for line, _, end in all_lines)
    if last[0] == b'{"a": 1':
        all_lines[-1] = (last[0], "truncated", b"")
    expected = [(line, outcome) for line, outcome, _ in all_lines if outcome is not None]
    scratch.write_bytes(raw)
    shard_bytes = data.draw(st.integers(1, len(raw) + 1), "shard_bytes")
    limit = data.draw(st.integers(1, 4), "max_records")
    with mock.patch.object(jsonl, "BATCH_BYTES", data.draw(st.integers(1, 40), "BATCH_BYTES")):
        shards = shards_of(source_of(scratch, "jsonl"), shard_bytes)
        parts = [read_shard(shard) for shard in shards]
        counts = [readers.get("jsonl").count(shard, 10**9) for shard in shards]
        limited_counts = [readers.get("jsonl").count(shard, limit) for shard in shards]
        limited = [outcomes(read_shard(replace(shard, max_records=limit))) for shard in shards]
    entries = [entry for part in parts for entry in part]
    assert outcomes(entries) == [outcome for _, outcome in expected]
    for entry, (line, _) in zip(entries, expected, strict=True):
        assert raw[entry.byte_offset :].removeprefix(BOM).startswith(line)
    assert counts == [len(part) for part in parts]
    assert limited == [outcomes(part)[:limit] for part in parts]
    assert limited_counts == list(map(len, limited))
    borders = [(shard.start, shard.end) for shard in shards]
    assert [start for start, _ in borders] == [0, *(end for _, end in borders[:-1])][: len(borders)]
    assert not raw or borders[-1][1] == len(raw)


PIECES = [
    b'{"a":1}', b"{}", b"\n", b"\n", b"\r", b'"', b"\\ud800", b"\\ud83d\\ude00", b"\\", b"\xff",
    b"\xc3\xa9", b"NaN", b"1e400", b"-", b'{"a":', b'{"', b'":', b"}", b"[", b"]", b",", b" ",
    b"0", b"1", b"\x00", BOM,
]  # fmt: skip


def is_open(line: bytes) -> bool:
    """Return whether a bracket is open at the end of JSON text, by going through it byte by byte."""
    depth, inside, escaped = 0, False, False
    for byte in line.decode("latin-1"):
        if byte == '"' and not escaped:
            inside = not inside
        elif not inside:
            depth += (byte in "[{") - (byte in "]}")
        escaped = byte == "\\" and not escaped
    return depth > 0 and line.lstrip().startswith(b"{")


def verdict(line: bytes) -> str:
    if line.lstrip(b" \t\r\v\f").startswith(BOM):
        return "stray-bom"
    try:
        value = json.loads(line.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        return "invalid-utf8"
    except UnicodeEncodeError:
        return "lone-surrogate"
    except ValueError:
        return "not-json"
    return repr(value) if isinstance(value, dict) else "not-an-object"


@thorough(400)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=9), shard_bytes=st.integers(1, 20))
def test_a_line_is_accepted_where_json_accepts_it_and_utf8_can_hold_it(
    scratch: Path, pieces: list[bytes], shard_bytes: int
) -> None:
    raw = b"".join(pieces)
    found = [
        outcome if isinstance(outcome, str) else repr(outcome)
        for outcome in read(scratch, raw, shard_bytes)
    ]
    filled = [line for line in raw.removeprefix(BOM).split(b"\n") if line.strip(b" \t\r\v\f")]
    expected = [verdict(line) for line in filled]
    last = raw.removeprefix(BOM).rpartition(b"\n")[2]
    if filled and last == filled[-1] and expected[-1] in ("not-json", "invalid-utf8") and is_open(last):
        expected[-1] = "truncated"
    assert found == expected


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_rejected_with_its_place(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"b": 2}\n')
    first, bad, last = read_all(source_of(path, "jsonl"))
    assert outcomes([first, bad, last]) == [{"a": 1}, reason, {"b": 2}]
    assert [(entry.row, entry.byte_offset) for entry in (first, bad, last)] == [
        (0, 0), (1, 10), (2, 11 + len(line)),
    ]  # fmt: skip


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last_end", [True, False])
def test_the_least_shard_holds_one_line(tmp_path: Path, line_end: bytes, last_end: bool) -> None:
    path = tmp_path / "in.jsonl"
    raw = line_end.join([b'{"a": 1}', b'{"a": 22}', b'{"a": 333}']) + line_end * last_end
    path.write_bytes(raw)
    shards = shards_of(source_of(path, "jsonl"), 1)
    assert [outcomes(read_shard(shard)) for shard in shards] == [[{"a": 1}], [{"a": 22}], [{"a": 333}]]


@pytest.mark.parametrize(
    ("shard_bytes", "borders"),
    [
        (8, [(0, 9), (9, 18), (18, 27)]),
        (9, [(0, 9), (9, 18), (18, 27)]),
        (10, [(0, 18), (18, 27)]),
        (26, [(0, 27)]),
        (27, [(0, 27)]),
        (99, [(0, 27)]),
    ],
)
def test_a_shard_ends_with_the_line_that_fills_it(
    tmp_path: Path, shard_bytes: int, borders: list[tuple[int, int]]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 3)
    shards = shards_of(source_of(path, "jsonl"), shard_bytes)
    assert [(shard.start, shard.end) for shard in shards] == borders


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1e"])
def test_only_a_newline_ends_a_line(tmp_path: Path, separator: str, ensure_ascii: bool) -> None:
    records = [{"a": f"one{separator}two"}, {"a": separator * 3}]
    raw = b"\n".join(dumped(record, ensure_ascii) for record in records)
    assert read(tmp_path / "in.jsonl", raw, 1) == records


def test_a_line_longer_than_the_blocks_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "BATCH_BYTES", 64)
    records = [{"a": "x" * 5000}, {"b": 1}, {"c": "é" * 700}]
    raw = b"\n".join(dumped(record, False) for record in records)
    assert read(tmp_path / "in.jsonl", raw) == records
    assert read(tmp_path / "in.jsonl.gz", gzip.compress(raw), compression="gzip") == records


def test_an_empty_file_makes_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"")
    assert shards_of(source_of(path, "jsonl")) == []


RECORDS = [{"instruction": f"q{number} é😀", "output": "a" * number} for number in range(60)]
PLAIN = b"".join(dumped(record, number % 2 == 0) + b"\n" for number, record in enumerate(RECORDS))


@COMPRESSIONS
@pytest.mark.parametrize("cut_at", [0, 1, 57, len(PLAIN) // 2, len(PLAIN)])
@pytest.mark.parametrize("block", [64, 1 << 18])
def test_a_compressed_file_of_one_or_two_members_is_read_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compression: str,
    compress: Callable[[bytes], bytes],
    cut_at: int,
    block: int,
) -> None:
    monkeypatch.setattr(jsonl, "BATCH_BYTES", block)
    path = tmp_path / "in.jsonl.packed"
    path.write_bytes(compress(PLAIN[:cut_at]) + compress(PLAIN[cut_at:]))
    (shard,) = shards_of(source_of(path, "jsonl", compression), 1)
    entries = read_shard(shard)
    assert outcomes(entries) == RECORDS
    assert {entry.byte_offset for entry in entries} == {-1}
    assert readers.get("jsonl").count(shard, 10**9) == 60
    assert readers.get("jsonl").count(shard, 7) == 7
    assert outcomes(read_shard(replace(shard, max_records=7))) == RECORDS[:7]


@COMPRESSIONS
def test_a_compressed_file_loses_its_bom_and_blank_lines(
    tmp_path: Path, compression: str, compress: Callable[[bytes], bytes]
) -> None:
    raw = compress(BOM + b'{"a": 1}\r\n\r\n{"b": 2}')
    assert read(tmp_path / "in.packed", raw, compression=compression) == [{"a": 1}, {"b": 2}]


@COMPRESSIONS
def test_a_truncated_compressed_file_is_refused_wherever_it_ends(
    tmp_path: Path, compression: str, compress: Callable[[bytes], bytes]
) -> None:
    packed = compress(PLAIN)
    for end in range(1, len(packed)):
        with pytest.raises(InputError, match=r"in\.packed: can't be decompressed"):
            read(tmp_path / "in.packed", packed[:end], compression=compression)


@COMPRESSIONS
def test_garbage_behind_a_compressed_file_is_refused(
    tmp_path: Path, compression: str, compress: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(InputError, match=r"in\.packed: can't be decompressed"):
        read(tmp_path / "in.packed", compress(PLAIN) + b"garbage", compression=compression)


def test_a_flipped_bit_in_a_gzip_file_changes_no_record_in_silence(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(PLAIN, mtime=0))
    refused = 0
    for at in range(len(packed)):
        packed[at] ^= 4
        try:
            assert read(tmp_path / "in.packed", bytes(packed), compression="gzip") == RECORDS
        except InputError:
            refused += 1
        packed[at] ^= 4
    assert refused >= len(packed) - 10  # of the header, time and operating system may differ


def test_a_file_that_shrinks_between_cutting_and_reading_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n')
    (shard,) = shards_of(source_of(path, "jsonl"))
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(InputError, match=r"in\.jsonl: "):
        read_shard(shard)


def test_batches_end_near_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BATCH_BYTES", 100)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": "xxxxxxxxxxxxxxxxxxxx"}\n' * 40)
    (shard,) = shards_of(source_of(path, "jsonl"))
    batches = list(readers.get("jsonl").read(shard))
    assert max(map(len, batches)) <= 4
    assert sum(map(len, batches)) == 40
    assert all(isinstance(record, Record) for batch in batches for record in batch.records)


@pytest.mark.parametrize(
    "number",
    [2**63 - 1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40, 12345678901234567890.5, 1e300],
    ids=str,
)
def test_numbers_keep_their_digits(number: float) -> None:
    """Whatever else stands in the line: the fast parser makes floats of integers beyond 64 bits."""
    raw = json.dumps({"a": number, "b": "text", "c": [number]}).encode()
    parsed = parse_record(raw, 0, 0)
    assert isinstance(parsed, Record)
    assert parsed.value == json.loads(raw)
    assert type(parsed.value["a"]) is type(json.loads(raw)["a"])


def test_a_long_number_is_exact_and_leaves_the_lines_around_it_alone(tmp_path: Path) -> None:
    raw = b'{"a": 1}\n{"a": 123456789012345678901234567890}\n\n{"a": [2, "x"]}\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(raw)
    source = source_of(path, "jsonl")
    found = [
        record
        for shard in shards_of(source, len(raw))
        for batch in readers.get("jsonl").read(shard)
        for record in batch.records
    ]
    assert [record.value["a"] for record in found] == [1, 123456789012345678901234567890, [2, "x"]]
    assert [(record.row, record.byte_offset) for record in found] == [(0, 0), (1, 9), (2, 48)]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_file_of_no_bytes_was_cut_off(tmp_path: Path, compression: str) -> None:
    with pytest.raises(InputError, match=r"in\.packed: can't be decompressed: it is empty"):
        read(tmp_path / "in.packed", b"", compression=compression)
