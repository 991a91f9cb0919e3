"""Damaged files: an error with its remedy, or with --on-error skip the rest and an account of the loss."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import outcomes, read_all, source_of

from mtsft_preproc.dialogue import Rejection
from mtsft_preproc.errors import DamagedFileError
from mtsft_preproc.readers import InputFile, ReadingRules, Shard, find_inputs, parquet, readers

SKIP = ReadingRules(past_damage=True)
ROWS = [{"a": number, "text": f"{number * 7919} is no {number % 13} {'x' * 200}"} for number in range(3000)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def zstd(raw: bytes) -> bytes:
    packed: bytes = pa.compress(raw, codec="zstd", asbytes=True)
    return packed


def read(source: InputFile, shard_bytes: int = 1 << 40) -> list[Any]:
    """Return what becomes of a file, cut as a run cuts it; the counts must be those of the plan."""
    reader, found = readers.get(source.kind), []
    for number, (start, end) in enumerate(reader.pieces(source, shard_bytes)):
        shard = Shard(number, 0, source, start, end)
        entries = [
            entry
            for batch in reader.read(shard)
            for entry in sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row)
        ]
        assert [entry.row for entry in entries] == list(range(len(entries)))
        assert reader.count(shard, 10**9) == len(entries)
        limited = [
            entry
            for batch in reader.read(replace(shard, max_records=3))
            for entry in [*batch.records, *batch.rejections]
        ]
        assert len(limited) == min(3, len(entries))
        found += entries
    return found


def damaged(path: Path, kind: str, compression: str | None = None) -> InputFile:
    with pytest.raises(DamagedFileError, match=r"in\.[a-z.]+: .*--on-error skip"):
        read_all(source_of(path, kind, compression))
    return replace(source_of(path, kind, compression), rules=SKIP)


@pytest.mark.parametrize(("compression", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_all_lines_that_a_truncated_stream_holds_whole_are_kept(
    tmp_path: Path, compression: str, pack: Any, share: float
) -> None:
    packed = pack(LINES)
    cut = packed[: int(len(packed) * share)]
    path = tmp_path / "in.jsonl"
    path.write_bytes(cut)
    *kept, last = read(damaged(path, "jsonl", compression))
    assert outcomes(kept) == ROWS[: len(kept)]
    assert isinstance(last, Rejection)
    assert (last.reason, last.row) == ("damaged-file", len(kept))
    if compression == "gzip":
        whole = zlib.decompressobj(31).decompress(cut).count(b"\n")
        assert len(kept) == whole
    elif share > 0.5:
        assert len(kept) > 1500


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_nothing_of_a_stream_that_was_changed_is_trusted(tmp_path: Path, place: float) -> None:
    packed = bytearray(gzip.compress(LINES))
    packed[int(len(packed) * place)] ^= 0x10
    path = tmp_path / "in.jsonl"
    path.write_bytes(packed)
    (only,) = read(damaged(path, "jsonl", "gzip"))
    assert (only.row, only.reason) == (0, "damaged-file")


@pytest.mark.parametrize("shard_bytes", [1, 4000, 1 << 40])
def test_the_rows_of_a_row_group_with_a_flipped_byte_are_lost_and_no_others(
    tmp_path: Path, shard_bytes: int
) -> None:
    path = tmp_path / "in.parquet"
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(
        table, path, row_group_size=1000, compression="none", use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(raw)
    found = read(damaged(path, "parquet"), shard_bytes)
    assert outcomes(found) == [*ROWS[:1000], *["damaged-file"] * 1000, *ROWS[2000:]]


class CountingFile:
    """A parquet file that counts how often its footer is asked for a row group."""

    def __init__(self, file: Any, asked: list[int]) -> None:
        self._file, self._asked, self.metadata = file, asked, self

    def __enter__(self) -> CountingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def row_group(self, number: int) -> Any:
        self._asked.append(number)
        return self._file.metadata.row_group(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file if hasattr(self._file, name) else self._file.metadata, name)


@pytest.mark.parametrize("spoilt", [[3], [0, 1, 150, 298, 299], list(range(0, 300, 2)), list(range(300))])
def test_damage_does_not_make_reading_many_row_groups_quadratic(
    spoilt: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, groups, rows = tmp_path / "in.parquet", 300, 10
    pq.write_table(
        pa.Table.from_pylist(ROWS), path, row_group_size=rows, compression="none", use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    raw, metadata = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata
    for group in spoilt:
        column = metadata.row_group(group).column(1)
        raw[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(raw)
    source, asked = damaged(path, "parquet"), list[int]()
    really = parquet._open
    monkeypatch.setattr(parquet, "_open", lambda source: CountingFile(really(source), asked))
    found = [
        entry
        for batch in readers.get("parquet").read(Shard(0, 0, source, 0, len(ROWS)))
        for entry in [*batch.records, *batch.rejections]
    ]
    assert outcomes(found) == [
        "damaged-file" if at // rows in spoilt else row for at, row in enumerate(ROWS)
    ]
    assert len(asked) <= 10 * groups


def test_without_checksums_a_flipped_byte_is_other_text(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"a": ["one", "two"]}), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"two", b"twp"))
    assert {"a": "twp"} in outcomes(read(source_of(path, "parquet")))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_without_its_end_is_one_rejection(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", "int64")])) as out:
            out.write_table(pa.table({"a": list(range(3000))}))
    path.write_bytes(path.read_bytes()[:-9])
    (only,) = read(damaged(path, kind))
    assert (only.row, only.reason) == (0, "damaged-file")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'[{"a": 1}, {"a": 2}, {"a', [{"a": 1}, {"a": 2}, "truncated"]),
        (b'[{"a": 1}, {"a": "x', [{"a": 1}, "truncated"]),
        (b'[{"a": 1}, {"a": 2}', [{"a": 1}, {"a": 2}, "damaged-file"]),
        (b'[{"a": 1}, ', [{"a": 1}, "damaged-file"]),
        (b"[", ["damaged-file"]),
        (b'[{"a": 1}, {"a": 2}] {"a": 3}', [{"a": 1}, {"a": 2}, "damaged-file"]),
        (b'[{"a": 1}], {"a": 2}, {"a": 3}]', [{"a": 1}, "damaged-file"]),
        (b'[{"a": 1}}, {"a": 2}]', [{"a": 1}, "damaged-file"]),
        (b'[{"a": 1}, {"b": }, {"a": 2}', [{"a": 1}, "not-json", {"a": 2}, "damaged-file"]),
        (b"[] x", ["damaged-file"]),
        (b'{"a": 1}', ["damaged-file"]),
    ],
)
@pytest.mark.parametrize("shard_bytes", [1, 12, 1 << 40])
def test_the_elements_before_the_damage_to_an_array_are_kept(
    tmp_path: Path, raw: bytes, expected: list[Any], shard_bytes: int
) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(raw)
    assert outcomes(read(damaged(path, "json"), shard_bytes)) == expected


def test_the_rows_before_malformed_csv_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'a,b\n1,2\n3,4\n5,"x"y\n6,7\n')
    found = outcomes(read(damaged(path, "csv")))
    assert found == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, "damaged-file"]


def test_a_packed_file_of_which_not_even_the_beginning_can_be_read_is_found(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(b"not compressed at all")
    with pytest.raises(DamagedFileError, match="--on-error skip"):
        find_inputs([str(path)])
    (found,) = find_inputs([str(path)], SKIP)
    assert outcomes(read(found)) == ["damaged-file"]
