"""Parquet and Arrow files against pyarrow's own reading of the whole table."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import WHOLE, outcomes, read_all, read_shard, shards_of, source_of

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import InputFile, Shard, parquet, readers

ROWS: list[dict[str, Any]] = [
    {
        "instruction": f"q{number} é😀\u2028",
        "output": None if number == 4 else "a" * number,
        "history": [None, [], [["q", "a"]], [["", None], ["漢", "\n"]], [["x"]]][number % 5],
        "score": number / 2,
    }
    for number in range(10)
]
SCHEMA = pa.schema(
    [
        ("instruction", pa.string()),
        ("output", pa.string()),
        ("history", pa.list_(pa.list_(pa.string()))),
        ("score", pa.float64()),
    ]
)
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)
#: Text that holds a byte which is no UTF-8 in its second row; Arrow itself doesn't look.
SPOILT = pa.array([b"good", b"b\xffd", "läst".encode()], pa.binary()).view(pa.string())


@pytest.fixture
def parquet_file(tmp_path: Path) -> Path:
    path = tmp_path / "in.parquet"
    pq.write_table(TABLE, path, row_group_size=3)
    return path


def write_arrow(path: Path, table: pa.Table, form: str, rows: int = 3) -> Path:
    opened = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


FORMS = pytest.mark.parametrize("form", ["file", "stream"])


@pytest.mark.parametrize("rows", [1, 2, 512])
@pytest.mark.parametrize("shard_bytes", [1, 200, 500, 1000, WHOLE])
def test_parquet_rows_are_what_pyarrow_reads(
    parquet_file: Path, monkeypatch: pytest.MonkeyPatch, rows: int, shard_bytes: int
) -> None:
    monkeypatch.setattr(parquet, "_ROWS", rows)
    found = outcomes(read_all(source_of(parquet_file, "parquet"), shard_bytes))
    assert found == ROWS == pq.read_table(parquet_file).to_pylist()


def borders(path: Path, shard_bytes: int) -> list[tuple[int, int]]:
    return [(shard.start, shard.end) for shard in shards_of(source_of(path, "parquet"), shard_bytes)]


def test_small_row_groups_are_joined_and_those_of_a_few_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"output": ["same"] * 12})
    pq.write_table(table, path, row_group_size=3)
    size = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    assert borders(path, size + 1) == [(0, 6), (6, 12)]
    assert borders(path, 3 * size) == [(0, 9), (9, 12)]
    assert borders(path, WHOLE) == [(0, 12)]
    # Four groups in two pieces each make eight shards, which is as many as it takes.
    assert borders(path, 1) == [(0, 1), (1, 3), (3, 4), (4, 6), (6, 7), (7, 9), (9, 10), (10, 12)]
    assert borders(path, size // 2 + 1) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    pq.write_table(table, path, row_group_size=2)
    assert borders(path, 1) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    pq.write_table(table, path)
    assert borders(path, 1) == [(0, 1), (1, 3), (3, 4), (4, 6), (6, 7), (7, 9), (9, 10), (10, 12)]
    pq.write_table(table.slice(0, 2), path)
    assert borders(path, 1) == [(0, 1), (1, 2)]


def test_each_parquet_shard_counts_its_own_rows(parquet_file: Path) -> None:
    shards = shards_of(source_of(parquet_file, "parquet"), 1)
    rows = [ROWS[shard.start : shard.end] for shard in shards]
    assert [len(part) for part in rows] == [1, 2, 1, 2, 1, 2, 1]
    assert [outcomes(read_shard(shard)) for shard in shards] == rows
    assert [readers.get("parquet").count(shard, 10**9) for shard in shards] == [1, 2, 1, 2, 1, 2, 1]
    assert [readers.get("parquet").count(shard, 1) for shard in shards] == [1] * 7
    assert outcomes(read_shard(replace(shards[1], max_records=1))) == ROWS[1:2]


@pytest.mark.parametrize("sizes", [[10], [3, 3, 3, 1], [4, 0, 6], [0, 10], [10, 0], [1] * 10], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 512])
def test_any_run_of_rows_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], rows: int
) -> None:
    monkeypatch.setattr(parquet, "_ROWS", rows)
    path, at = tmp_path / "in.parquet", 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for size in sizes:
            writer.write_table(TABLE.slice(at, size))
            at += size
    source = source_of(path, "parquet")
    for start in range(10):
        for end in range(start + 1, 11):
            assert outcomes(read_shard(Shard(0, 0, source, start, end))) == ROWS[start:end]


MAP = pa.map_(pa.string(), pa.int64())
PAIRS = [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (MAP, PAIRS, dict(PAIRS)),
        (pa.list_(MAP), [PAIRS, None, []], [dict(PAIRS), None, {}]),
        (pa.large_list(pa.struct([("m", MAP)])), [{"m": PAIRS}], [{"m": dict(PAIRS)}]),
        (pa.struct([("x", pa.list_(MAP, 1))]), {"x": [PAIRS]}, {"x": [dict(PAIRS)]}),
        (pa.map_(pa.string(), MAP), [("o", PAIRS)], {"o": dict(PAIRS)}),
        (pa.struct([("x", pa.string()), ("y", pa.list_(pa.int8()))]), {"x": "m"}, {"x": "m", "y": None}),
    ],
    ids=str,
)
def test_maps_become_objects_wherever_they_lie(
    tmp_path: Path, kind: pa.DataType, value: Any, expected: Any
) -> None:
    table = pa.table({"other": ["x", None], "own": pa.array([value, None], kind)})
    path = write_arrow(tmp_path / "in.arrow", table, "file")
    assert outcomes(read_all(source_of(path, "arrow"))) == [
        {"other": "x", "own": expected},
        {"other": None, "own": None},
    ]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_only_the_named_columns_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in"
    if kind == "parquet":
        pq.write_table(TABLE, path)
    else:
        write_arrow(path, TABLE, kind)
    source = source_of(path, "parquet" if kind == "parquet" else "arrow")
    found = outcomes(read_all(source, columns=["history", "absent", "output"]))
    assert found == [{"output": row["output"], "history": row["history"]} for row in ROWS]
    assert readers.get(source.kind).columns(source) == ["instruction", "output", "history", "score"]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_other_arrow_types_of_text_are_text(tmp_path: Path, kind: pa.DataType) -> None:
    words = ["é", None, "", "é"]
    array = pa.array(words, pa.string())
    table = pa.table(
        {"output": array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)}
    )
    path = write_arrow(tmp_path / "in.arrow", table, "file")
    assert [row["output"] for row in outcomes(read_all(source_of(path, "arrow")))] == words


def test_a_history_of_structs_becomes_objects(tmp_path: Path) -> None:
    history = [[{"prompt": "q", "response": "a"}], None]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"history": history}), path)
    assert outcomes(read_all(source_of(path, "parquet"))) == [{"history": entry} for entry in history]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_table_without_rows_holds_no_records(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in"
    if kind == "parquet":
        pq.write_table(TABLE.slice(0, 0), path)
    else:
        write_arrow(path, TABLE.slice(0, 0), kind)
    assert read_all(source_of(path, "parquet" if kind == "parquet" else "arrow")) == []


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_row_that_is_no_utf8_is_rejected_and_the_others_are_kept(tmp_path: Path, kind: str) -> None:
    table, path = pa.table({"output": SPOILT, "number": [1, 2, 3]}), tmp_path / "in"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        write_arrow(path, table, kind)
    entries = read_all(source_of(path, "parquet" if kind == "parquet" else "arrow"))
    assert outcomes(entries) == [
        {"output": "good", "number": 1},
        "invalid-utf8",
        {"output": "läst", "number": 3},
    ]


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 0.5, 0.99, -1])
def test_a_truncated_parquet_file_is_refused_by_name(parquet_file: Path, kept: float) -> None:
    raw = parquet_file.read_bytes()
    parquet_file.write_bytes(raw[: int(len(raw) * kept)] if isinstance(kept, float) else raw[:kept])
    with pytest.raises(InputError, match=r"in\.parquet: "):
        read_all(source_of(parquet_file, "parquet"))
    with pytest.raises(InputError, match=r"in\.parquet: "):
        readers.get("parquet").columns(source_of(parquet_file, "parquet"))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_flipped_byte_in_a_page_with_a_checksum_is_noticed(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"output": [f"text number {number:04}" for number in range(100)]})
    pq.write_table(
        table,
        path,
        row_group_size=50,
        compression=compression,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    raw = bytearray(path.read_bytes())
    assert outcomes(read_all(source_of(path, "parquet"), 1)) == table.to_pylist()
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    size = pq.ParquetFile(path).metadata.row_group(1).column(0).total_compressed_size
    raw[at + size - 2] ^= 1  # of the last value of the second row group
    path.write_bytes(raw)
    group_bytes = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    first, second = shards_of(source_of(path, "parquet"), group_bytes)
    assert outcomes(read_shard(first)) == table.slice(0, 50).to_pylist()
    with pytest.raises(InputError, match=r"in\.parquet: damaged in row group 1:"):
        read_shard(second)


@FORMS
@pytest.mark.parametrize("shard_bytes", [1, 300, 700, WHOLE])
def test_arrow_rows_are_what_was_written(tmp_path: Path, form: str, shard_bytes: int) -> None:
    path = write_arrow(tmp_path / "in.arrow", TABLE, form)
    shards = shards_of(source_of(path, "arrow"), shard_bytes)
    parts = [outcomes(read_shard(shard)) for shard in shards]
    assert [row for part in parts for row in part] == ROWS
    if form == "stream" or shard_bytes == WHOLE:
        assert len(parts) == 1
    elif shard_bytes == 1:
        assert parts == [ROWS[:3], ROWS[3:6], ROWS[6:9], ROWS[9:]]


@FORMS
def test_a_long_record_batch_is_read_in_slices_that_count_on(tmp_path: Path, form: str) -> None:
    rows = [{"output": str(number)} for number in range(1300)]
    path = write_arrow(tmp_path / "in.arrow", pa.Table.from_pylist(rows), form, rows=1300)
    (shard,) = shards_of(source_of(path, "arrow"))
    assert outcomes(read_shard(shard)) == rows
    assert readers.get("arrow").count(shard, 10**9) == 1300
    assert outcomes(read_shard(replace(shard, max_records=700))) == rows[:700]


@FORMS
@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.9])
def test_a_truncated_arrow_file_is_refused_by_name(tmp_path: Path, form: str, kept: float) -> None:
    path = write_arrow(tmp_path / "in.arrow", TABLE, form)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)] if isinstance(kept, float) else raw[:kept])
    with pytest.raises(InputError, match=r"in\.arrow: "):
        read_all(source_of(path, "arrow"))


@FORMS
def test_a_compressed_arrow_file_is_read(tmp_path: Path, form: str) -> None:
    path, opened = tmp_path / "in.arrow", pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, opened(sink, SCHEMA, options=options) as writer:
        writer.write_table(TABLE)
    assert outcomes(read_all(source_of(path, "arrow"))) == ROWS


def test_a_map_is_an_object_and_a_date_out_of_range_costs_its_row_alone(tmp_path: Path) -> None:
    pairs = pa.array([[("user", "q"), ("bot", "a")], None, []], pa.map_(pa.string(), pa.string()))
    dates = pa.array([0, 2**60, 1], pa.int64()).cast(pa.timestamp("ms"))
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"m": pairs, "d": dates}), path)
    source = InputFile(str(path), "parquet", path.stat().st_size)
    (batch,) = readers.get("parquet").read(Shard(0, 0, source, 0, 3))
    assert [(record.row, record.value["m"]) for record in batch.records] == [
        (0, {"user": "q", "bot": "a"}),
        (2, {}),
    ]
    assert [(item.row, item.reason) for item in batch.rejections] == [(1, "wrong-type")]


def spoilt_arrow(path: Path, table: pa.Table, right: list[int], wrong: list[int], form: str) -> InputFile:
    """Write a file and change some of its offsets, int32."""
    raw = write_arrow(path, table, form).read_bytes()
    own, other = (struct.pack(f"<{len(offsets)}i", *offsets) for offsets in (right, wrong))
    assert raw.count(own) == 1
    path.write_bytes(raw.replace(own, other))
    return source_of(path, "arrow")


@FORMS
@pytest.mark.parametrize("wrong", [[0, 7, 3, 11], [0, -5, 7, 11], [0, 1 << 30, 7, 11], [0, 3, 7, 1 << 30]])
def test_offsets_that_lead_out_of_an_arrow_file_are_refused(
    tmp_path: Path, wrong: list[int], form: str
) -> None:
    # pyarrow believes them, and is ended by the system or ends itself.
    table = pa.table({"a": ["abc", "defg", "hijk"], "b": SPOILT})
    source = spoilt_arrow(tmp_path / "in.arrow", table, [0, 3, 7, 11], wrong, form)
    with pytest.raises(InputError, match=r"in\.arrow: damaged in "):
        read_all(source)


@FORMS
def test_damage_behind_text_that_is_no_utf8_is_found(tmp_path: Path, form: str) -> None:
    inner = pa.StructArray.from_arrays([SPOILT, pa.array([[1], [2, 2], [3] * 4])], ["a", "b"])
    table = pa.table({"m": inner})
    source = spoilt_arrow(tmp_path / "in.arrow", table, [0, 1, 3, 7], [0, 1 << 30, 3, 7], form)
    with pytest.raises(InputError, match=r"in\.arrow: damaged in "):
        read_all(source)


@FORMS
@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (pa.large_string(), ["x", "yyyy", "x"]),
        (pa.string_view(), ["x", "yyyy", "x"]),
        (pa.list_(pa.string()), [["x"], ["yyyy"], []]),
        (pa.large_list(pa.string()), [["x"], ["x", "yyyy"], []]),
        (pa.map_(pa.string(), pa.string()), [[("k", "x")], [("k", "yyyy")], []]),
        (pa.struct([("a", pa.string())]), [{"a": "x"}, {"a": "yyyy"}, None]),
    ],
)
def test_text_that_is_no_utf8_costs_its_rows_alone(
    tmp_path: Path, kind: pa.DataType, texts: list[Any], form: str
) -> None:
    path = write_arrow(tmp_path / "in.arrow", pa.table({"a": pa.array(texts, kind)}), form)
    path.write_bytes(path.read_bytes().replace(b"yyyy", b"yy\xffy"))
    found = outcomes(read_all(source_of(path, "arrow")))
    assert found[1] == "invalid-utf8"
    assert [type(own) for own in found] == [dict, str, dict]


@FORMS
def test_a_name_of_an_arrow_column_that_is_no_utf8_is_refused(tmp_path: Path, form: str) -> None:
    path = write_arrow(tmp_path / "in.arrow", pa.table({"name": ["x"]}), form)
    path.write_bytes(path.read_bytes().replace(b"name", b"na\xffe"))
    with pytest.raises(InputError, match=r"in\.arrow: not a readable arrow file"):
        readers.get("arrow").columns(source_of(path, "arrow"))


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """A file whose footer says 1000 (``d0 0f``) in four places; the last is that of its row group."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"a": [str(row) for row in range(1000)]}), path, compression="none")
    return path


def said(path: Path, places: list[int], number: bytes) -> None:
    """Let a footer say another number in some of those places."""
    raw = bytearray(path.read_bytes())
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    found = [start + match.start() for match in re.finditer(b"\xd0\x0f", raw[start:])]
    assert len(found) == 4
    for place in places:
        raw[found[place] : found[place] + 2] = number
    path.write_bytes(raw)


@pytest.mark.parametrize("number", [b"\xce\x0f", b"\xd2\x0f", b"\xd0\x10"])  # 999, 1001, 1064
@pytest.mark.parametrize("places", [[0], [3]])
def test_a_parquet_footer_that_contradicts_itself_is_refused(
    thousand: Path, places: list[int], number: bytes
) -> None:
    # pyarrow leaves rows out, or makes fewer than it said.
    said(thousand, places, number)
    with pytest.raises(InputError, match=r"in\.parquet: damaged: \d+ rows in its row groups, \d+ in all"):
        read_all(source_of(thousand, "parquet"))


@pytest.mark.parametrize("number", [b"\xd2\x0f", b"\xd0\x10"])
def test_a_parquet_file_of_fewer_rows_than_it_tells_of_is_refused(thousand: Path, number: bytes) -> None:
    said(thousand, [0, 3], number)
    with pytest.raises(
        InputError, match=r"in\.parquet: damaged in row group 0: fewer rows than the footer"
    ):
        read_all(source_of(thousand, "parquet"))


def test_a_name_of_a_parquet_column_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"name": ["x"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"name", b"na\xffe"))
    with pytest.raises(InputError, match=r"in\.parquet: not a readable parquet file"):
        readers.get("parquet").columns(source_of(path, "parquet"))
