"""From what stands behind ``--input`` to files and their formats."""

from __future__ import annotations

import gzip
import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import BOM, outcomes, read_all

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import find_inputs

RECORDS = [{"a": "one"}, {"a": "two"}]
ARRAY = json.dumps(RECORDS).encode()
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
TABLE = pa.Table.from_pylist(RECORDS)
CSV = b"a\none\ntwo\n"


def ipc(form: str) -> bytes:
    sink = pa.BufferOutputStream()
    opened = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with opened(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes()


def as_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    return sink.getvalue().to_pybytes()


def zstd(raw: bytes) -> bytes:
    packed: bytes = pa.compress(raw, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize(
    ("name", "raw", "kind", "compression"),
    [
        ("in.json", ARRAY, "json", None),
        ("in.json", BOM + b"\n " + ARRAY, "json", None),
        ("in.json", LINES, "jsonl", None),
        ("in.json", b"\n" + LINES, "jsonl", None),
        ("in.jsonl", LINES, "jsonl", None),
        ("in.jsonl", ARRAY, "json", None),
        ("in.ndjson", BOM + LINES, "jsonl", None),
        ("in.JSONL", LINES, "jsonl", None),
        ("in.jsonl.gz", gzip.compress(LINES, mtime=0), "jsonl", "gzip"),
        ("in.json.GZ", gzip.compress(LINES, mtime=0), "jsonl", "gzip"),
        ("in.jsonl.zst", zstd(LINES), "jsonl", "zstd"),
        ("in.jsonl.zstd", zstd(LINES), "jsonl", "zstd"),
        ("in.gz", gzip.compress(LINES, mtime=0), "jsonl", "gzip"),
        ("noending", LINES, "jsonl", None),
        ("noending", ARRAY, "json", None),
        ("noending", gzip.compress(LINES, mtime=0), "jsonl", "gzip"),
        ("noending", zstd(LINES), "jsonl", "zstd"),
        ("noending", as_parquet(), "parquet", None),
        ("noending", ipc("file"), "arrow", None),
        ("noending", ipc("stream"), "arrow", None),
        ("in.txt", LINES, "jsonl", None),
        ("in.json", as_parquet(), "parquet", None),
        ("in.parquet", as_parquet(), "parquet", None),
        ("in.pq", as_parquet(), "parquet", None),
        ("in.arrow", ipc("file"), "arrow", None),
        ("in.arrow", ipc("stream"), "arrow", None),
        ("in.feather", ipc("file"), "arrow", None),
        ("in.csv", CSV, "csv", None),
        ("in.tsv", CSV, "csv", None),
    ],
)
def test_a_file_is_known_by_its_ending_and_content(
    tmp_path: Path, name: str, raw: bytes, kind: str, compression: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    (found,) = find_inputs([str(path)])
    assert (found.path, found.kind, found.size, found.compression) == (
        str(path),
        kind,
        len(raw),
        compression,
    )
    assert outcomes(read_all(found)) == RECORDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name, raw in {
        "b.json": ARRAY,
        "a.jsonl": LINES,
        "c/z.parquet": as_parquet(),
        "c/a.csv": CSV,
        "d.arrow": ipc("stream"),
        "e.jsonl.gz": gzip.compress(LINES, mtime=0),
        "README.md": b"{}",
        "c/LICENSE": b"text",
        ".hidden.jsonl": LINES,
        ".cache/x.jsonl": LINES,
        "c/.git/y.json": ARRAY,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return root


def test_a_folder_gives_its_data_files_sorted_and_names_the_others(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = find_inputs([str(folder)])
    names = ["a.jsonl", "b.json", "c/a.csv", "c/z.parquet", "d.arrow", "e.jsonl.gz"]
    assert [file.path for file in found] == [str(folder / name) for name in names]
    assert [file.kind for file in found] == ["jsonl", "json", "csv", "parquet", "arrow", "jsonl"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "passed over 2 file(s)" in message
    assert "README.md" in message
    assert "LICENSE" in message
    assert "hidden" not in message


def test_a_folder_of_data_alone_is_taken_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    assert [file.path for file in find_inputs([str(tmp_path)])] == [str(tmp_path / "a.jsonl")]
    assert not caplog.records


def test_inputs_keep_the_order_in_which_they_are_given(folder: Path) -> None:
    given = [str(folder / name) for name in ("d.arrow", "a.jsonl", "b.json")]
    assert [file.path for file in find_inputs(given)] == given


def test_a_pattern_gives_its_matches_sorted(folder: Path) -> None:
    assert [file.path for file in find_inputs([str(folder / "*.json*")])] == [
        str(folder / name) for name in ("a.jsonl", "b.json", "e.jsonl.gz")
    ]
    assert [file.path for file in find_inputs([str(folder / "**" / "*.[cp]*")])] == [
        str(folder / "c" / name) for name in ("a.csv", "z.parquet")
    ]


def test_a_pattern_that_matches_a_folder_gives_the_files_in_it(folder: Path) -> None:
    found = find_inputs([str(folder / "[c]")])
    assert [file.path for file in found] == [str(folder / "c" / name) for name in ("a.csv", "z.parquet")]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_bytes(LINES)
    (tmp_path / "a1.jsonl").write_bytes(LINES)
    (found,) = find_inputs([str(tmp_path / "a[1].jsonl")])
    assert found.path == str(tmp_path / "a[1].jsonl")


def test_a_hidden_file_that_is_named_is_read(folder: Path) -> None:
    (found,) = find_inputs([str(folder / ".hidden.jsonl")])
    assert outcomes(read_all(found)) == RECORDS


def test_a_file_given_twice_is_read_twice_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_inputs([str(folder / "a.jsonl"), str(folder / "c" / ".." / "a.jsonl")])
    assert len(found) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder.resolve() / 'a.jsonl'} is named 2 times and is read as often"
    ]


def test_a_missing_file_is_refused_and_its_neighbours_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder: .*a\.json \(in .*a\.jsonl, b\.json"):
        find_inputs([str(folder / "a.json")])
    with pytest.raises(InputError, match="and no folder"):
        find_inputs([str(folder / "nowhere" / "a.json")])


def test_a_pattern_without_matches_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches the pattern '.*nothing\*'"):
        find_inputs([str(folder / "nothing*")])


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data files there \(supported: .*\.parquet"):
        find_inputs([str(tmp_path)])
    (tmp_path / "README.md").write_bytes(b"words")
    with pytest.raises(InputError, match="no data files there"):
        find_inputs([str(tmp_path)])


@pytest.mark.parametrize(
    "raw", [b"", b"plain words", b"\x89PNG\r\n", gzip.compress(b"plain words", mtime=0)]
)
def test_an_unknown_format_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "thing.xyz"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"thing\.xyz: .*starts with b.*\(supported: "):
        find_inputs([str(path)])


@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "noending"])
def test_one_object_over_many_lines_is_no_data(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"name": {"file_name": "a.json"}}, indent=2), "utf-8")
    with pytest.raises(InputError, match=rf"{name}: .*starts with b'\{{"):
        find_inputs([str(path)])


@pytest.mark.parametrize(
    ("name", "raw", "held"),
    [
        ("in.json.gz", gzip.compress(ARRAY, mtime=0), "json"),
        ("in.csv.gz", gzip.compress(CSV, mtime=0), "csv"),
        ("in.parquet.zst", zstd(as_parquet()), "parquet"),
    ],
)
def test_what_is_compressed_must_be_lines(tmp_path: Path, name: str, raw: bytes, held: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"must hold JSON lines; this one holds {held}"):
        find_inputs([str(path)])


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl.zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LINES)
    with pytest.raises(InputError, match=r"in\.jsonl\..*: can't be decompressed"):
        find_inputs([str(path)])


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InputError, match="shell variable"):
        find_inputs([""])


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "tree" / "a.jsonl").write_text("{}")
    (tmp_path / "other" / "b.jsonl").write_text("{}")
    (tmp_path / "tree" / "sub").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "tree")
    found = [Path(file.path).relative_to(tmp_path) for file in find_inputs([str(tmp_path / "tree")])]
    assert found == [Path("tree/a.jsonl"), Path("tree/sub/b.jsonl")]


def test_a_pattern_names_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.jsonl", "d/b.jsonl"):
        (tmp_path / name).write_text("{}")
    found = [Path(file.path).name for file in find_inputs([str(tmp_path / "**")])]
    assert sorted(found) == ["a.jsonl", "b.jsonl"]


def test_our_own_outputs_are_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    for name in ("o.rejected.jsonl", "o.manifest.json", "o.sources.parquet", "o.timings.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "o.mtsft-work").mkdir()
    (tmp_path / "o.mtsft-work" / "x.jsonl").write_text("{}")
    assert [Path(file.path).name for file in find_inputs([str(tmp_path)])] == ["a.jsonl"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jsonl"
    with open(path, "wb") as file:
        file.write(b"{}")
    with pytest.raises(InputError, match="not UTF-8"):
        find_inputs([str(tmp_path)])
