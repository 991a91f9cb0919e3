"""A mapping that the data can't serve is refused before any work."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtsft_preproc.errors import InputError, SettingsError
from mtsft_preproc.handlers import check_columns
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.readers import find_inputs

ROW = {"instruction": "q", "input": "", "output": "a"}
Rows = list[dict[str, Any]]
Writer = Callable[[Path, Rows], None]


def as_array(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")


def as_escaped_array(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows), "utf-8")


def as_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def as_escaped_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def as_packed_lines(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def as_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_csv(path: Path, rows: Rows) -> None:
    names = list(rows[0])
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    path.write_text("".join(",".join(line) + "\n" for line in lines), "utf-8")


WRITERS: dict[str, Writer] = {
    "a.json": as_array,
    "b.json": as_escaped_array,
    "a.jsonl": as_lines,
    "b.jsonl": as_escaped_lines,
    "a.jsonl.gz": as_packed_lines,
    "a.parquet": as_parquet,
    "a.csv": as_csv,
}
EVERY_FORMAT = pytest.mark.parametrize("name", WRITERS)
#: What a compressed file holds is known only when it has been read.
NOT_PACKED = pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.jsonl.gz"])
PLAIN_JSON = pytest.mark.parametrize("name", ["a.json", "b.json", "a.jsonl", "b.jsonl"])


def check(folder: Path, files: Mapping[str, Rows], map_keys: dict[str, str] | None = None) -> None:
    for name, rows in files.items():
        WRITERS[name](folder / name, rows)
    check_columns(AlpacaHandler(map_keys), find_inputs([str(folder / name) for name in files]))


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        AlpacaHandler({"promt": "instruction"})
    assert str(caught.value) == (
        "--map-keys: unknown key 'promt'; did you mean 'prompt'? "
        "available: history, prompt, query, response, summary, system"
    )


@pytest.mark.parametrize("column", [None, 7, ["instruction"]])
def test_a_column_that_is_no_name_is_refused(column: Any) -> None:
    with pytest.raises(SettingsError, match="--map-keys: 'prompt': expected the name of a column"):
        AlpacaHandler({"prompt": column})


@EVERY_FORMAT
def test_the_default_mapping_fits_alpaca_rows(tmp_path: Path, name: str) -> None:
    check(tmp_path, {name: [ROW] * 3})


@NOT_PACKED
def test_a_column_that_the_data_lacks_is_refused_with_the_nearest(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(tmp_path, {name: [{**ROW, "history": "[]"}]}, {"history": "histroy"})
    assert str(caught.value) == (
        "--map-keys: 'history': the data has no column 'histroy'; did you mean 'history'? "
        "available: history, input, instruction, output"
    )


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("lacking", "named"), [("output", "'output'"), ("both", "'instruction' or 'input'")]
)
def test_a_file_that_lacks_a_needed_column_is_refused_by_name(
    tmp_path: Path, name: str, lacking: str, named: str
) -> None:
    good = "b.json" if name == "a.json" else "a.json"
    bad = {"output": "a"} if lacking == "both" else {"instruction": "q", "ouput": "a"}
    with pytest.raises(InputError) as caught:
        check(tmp_path, {good: [ROW], name: [{**bad, "extra": "x"}]})
    assert str(caught.value).startswith(f"{tmp_path / name}: no column {named} (--map-keys ")
    if lacking == "output":
        assert "did you mean 'ouput'?" in str(caught.value)


@EVERY_FORMAT
def test_one_of_prompt_and_query_is_enough(tmp_path: Path, name: str) -> None:
    check(tmp_path, {name: [{"instruction": "q", "output": "a"}]})
    check(tmp_path, {name: [{"input": "q", "output": "a"}]})
    check(tmp_path, {name: [{"ask": "q", "output": "a"}]}, {"prompt": "ask"})


def test_a_key_that_is_mapped_away_needs_no_column(tmp_path: Path) -> None:
    check(tmp_path, {"a.json": [{"instruction": "q", "output": "a"}]}, {"query": ""})
    with pytest.raises(InputError, match="no column 'instruction' "):
        check(tmp_path, {"a.json": [{"input": "q", "output": "a"}]}, {"query": ""})


def test_an_optional_column_in_one_of_the_files_is_enough(tmp_path: Path) -> None:
    check(tmp_path, {"a.json": [ROW], "a.parquet": [{**ROW, "system": "S"}]}, {"system": "system"})
    check(tmp_path, {"a.parquet": [{**ROW, "system": "S"}], "a.json": [ROW]}, {"system": "system"})


@PLAIN_JSON
@pytest.mark.parametrize("column", ["system", "系统", 'sys"tem\\', "sys\ttem"])
def test_an_optional_column_that_appears_late_is_accepted(tmp_path: Path, name: str, column: str) -> None:
    rows = [ROW] * 1500
    check(tmp_path, {name: [*rows, {**ROW, column: "S"}]}, {"system": column})
    with pytest.raises(SettingsError, match="'system': the data has no column"):
        check(tmp_path, {name: rows}, {"system": column})


def test_an_optional_column_in_a_compressed_file_is_left_to_the_records(tmp_path: Path) -> None:
    check(tmp_path, {"a.jsonl.gz": [*[ROW] * 1500, {**ROW, "system": "S"}]}, {"system": "system"})


def test_columns_come_from_the_first_records_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("not json\n[1]\n" + json.dumps({"instruction": "q"}) + "\n" + json.dumps(ROW) + "\n")
    check_columns(AlpacaHandler({"query": "input"}), find_inputs([str(path)]))


@pytest.mark.parametrize("raw", [b"[]", b"\n", b"", b"not json\n"])
def test_a_file_without_records_lacks_nothing(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(raw)
    check_columns(AlpacaHandler({"history": "history"}), find_inputs([str(path)]))


@pytest.mark.parametrize("column", ["history", "histories"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "a.csv"])
def test_a_history_that_is_not_mapped_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, column: str
) -> None:
    rows = [{**ROW, column: "[]"}]
    with caplog.at_level(logging.WARNING):
        check(tmp_path, {name: rows}, {"history": column})
        assert not caplog.records
        check(tmp_path, {name: [ROW]})
        assert not caplog.records
        check(tmp_path, {name: rows})
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"'{column}'" in message
    assert f'--map-keys \'{{"history":"{column}"}}\'' in message


def test_one_column_for_two_keys_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'prompt' and 'query' both .*'input'.*\{\"query\": \"\"\}"):
        AlpacaHandler({"prompt": "input"})
    AlpacaHandler({"prompt": "input", "query": ""})


def test_a_needed_column_may_come_late(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{number}"} for number in range(1200)] + [ROW]
    check(tmp_path, {"a.jsonl": rows})


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array(["a"]), pa.array(["b"])], ["instruction", "output", "output"]
    )
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match="two columns have the name 'output'"):
        check_columns(AlpacaHandler({}), find_inputs([str(tmp_path / "in.parquet")]))
