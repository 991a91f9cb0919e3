"""CSV and TSV against the rows that were written."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import BOM, outcomes, read_all, read_shard, shards_of, source_of, thorough

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import csv as csv_reader
from mtsft_preproc.readers import readers

HEADER = ["instruction", "output", "history"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "in.csv"


def read(path: Path, raw: bytes) -> list[Any]:
    path.write_bytes(raw)
    return outcomes(read_all(source_of(path, "csv")))


cells = st.text(
    st.one_of(
        st.sampled_from("\",\n\r\t'; \\é😀\u2028"), st.characters(codec="utf-8", exclude_characters="\x00")
    ),
    max_size=8,
)


@thorough(200)
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=6),
    bom=st.booleans(),
    tabs=st.booleans(),
    # Where lines end with a bare LF, Python 3.11's writer leaves CR unquoted unless told to quote all.
    style=st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
    block=st.integers(1, 60),
)
def test_every_text_survives_in_a_table(
    scratch: Path, rows: list[list[str]], bom: bool, tabs: bool, style: tuple[str, Any], block: int
) -> None:
    path = scratch.with_suffix(".tsv" if tabs else ".csv")
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t" if tabs else ",", lineterminator=style[0], quoting=style[1])
    writer.writerows([HEADER, *rows])
    path.write_bytes(BOM * bom + table.getvalue().encode())
    with mock.patch.object(csv_reader, "BATCH_BYTES", block):
        entries = read_all(source_of(path, "csv"), 1)
    assert outcomes(entries) == [dict(zip(HEADER, row, strict=True)) for row in rows]
    assert readers.get("csv").columns(source_of(path, "csv")) == HEADER


def test_quotes_line_breaks_and_blank_lines_are_read_as_csv_means_them(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbfa,b\r\n"x ""y"", z","one\r\ntwo\n"\r\n\r\n,""\r\n'
    assert read(tmp_path / "in.csv", raw) == [{"a": 'x "y", z', "b": "one\r\ntwo\n"}, {"a": "", "b": ""}]


def test_a_row_of_another_width_is_rejected_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    assert read(path, b"a,b\n1,2\n3\n4,5,6\n7,8\n") == [
        {"a": "1", "b": "2"}, "wrong-columns", "wrong-columns", {"a": "7", "b": "8"},
    ]  # fmt: skip
    _, short, long, _ = read_all(source_of(path, "csv"))
    assert (short.row, short.expected, short.got[:8]) == (1, "2 fields, as in the header", "1 fields")
    assert (long.row, long.got[:8]) == (2, "3 fields")


def test_a_row_that_is_no_utf8_is_rejected_with_its_column(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    assert read(path, b"a,b\n1,2\n3,caf\xe9\n5,caf\xc3\xa9\n\xed\xa0\x80,8\n") == [
        {"a": "1", "b": "2"}, "invalid-utf8", {"a": "5", "b": "café"}, "invalid-utf8",
    ]  # fmt: skip
    entries = read_all(source_of(path, "csv"))
    assert [(entries[at].row, entries[at].field) for at in (1, 3)] == [(1, "b"), (3, "a")]
    for rejection in (entries[1], entries[3]):
        rejection.got.encode("utf-8")


def test_a_value_longer_than_pythons_default_limit_is_read(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert read(tmp_path / "in.csv", f"a,b\n{long},1\n".encode()) == [{"a": long, "b": "1"}]


@pytest.mark.parametrize(
    ("raw", "line"), [(b'a,b\n1,2\n"open,4\n5,6\n', 4), (b'a,b\n1,2\n"x"y,4\n', 3), (b'"a"x,b\n', 1)]
)
def test_malformed_quoting_is_refused_with_its_line(tmp_path: Path, raw: bytes, line: int) -> None:
    with pytest.raises(InputError, match=rf"in\.csv: line {line}: "):
        read(tmp_path / "in.csv", raw)


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in\.csv: the header names a column twice"):
        read(tmp_path / "in.csv", b"a,b,a\n1,2,3\n")


@pytest.mark.parametrize("raw", [b"", BOM, b"a,b", b"a,b\r\n"])
def test_a_table_without_rows_holds_no_records(tmp_path: Path, raw: bytes) -> None:
    assert read(tmp_path / "in.csv", raw) == []


@pytest.mark.parametrize("limit", range(1, 6))
def test_reading_and_counting_stop_at_the_limit(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b\n1,2\n3\n\n5,6\n7,8\n")
    (shard,) = shards_of(source_of(path, "csv"))
    expected = [{"a": "1", "b": "2"}, "wrong-columns", {"a": "5", "b": "6"}, {"a": "7", "b": "8"}]
    assert outcomes(read_shard(replace(shard, max_records=limit))) == expected[:limit]
    assert readers.get("csv").count(shard, limit) == min(limit, 4)


@pytest.mark.parametrize("raw", [b"a,b\xff\n1,2\n", b"\xef\xbb\x00,b\r\n1,2\r\n"])
def test_a_header_that_is_no_utf8_is_refused(scratch: Path, raw: bytes) -> None:
    scratch.write_bytes(raw)
    with pytest.raises(InputError, match=r"in\.csv: the header is not UTF-8"):
        read_all(source_of(scratch, "csv"))
    with pytest.raises(InputError, match=r"in\.csv: the header is not UTF-8"):
        readers.get("csv").columns(source_of(scratch, "csv"))
