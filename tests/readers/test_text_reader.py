"""Plain text, a document a line: cut anywhere, compressed, and among other files."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import BOM, outcomes, read_all, read_shard, shards_of, source_of, thorough

from mtsft_preproc.dialogue import Record
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import find_inputs, readers

#: Pieces that lines could be misread at; only LF ends a line.
PIECES = st.sampled_from(["a", " ", "\n", "\r\n", "\r", "\t", "\u2028", "\u0085", "漢", "\ufeff", "{", '"'])
contents = st.lists(PIECES, max_size=25).map("".join)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "in.txt"


def documents(content: str) -> list[dict[str, str] | str]:
    """Return what becomes of the lines of a text, as plainly as that can be said."""
    lines = [line.removesuffix("\r") for line in content.removeprefix("\ufeff").split("\n")]
    return [
        "stray-bom" if line.startswith("\ufeff") else {"text": line}
        for line in lines
        if line.strip(" \t\r\n\v\f")
    ]


@thorough(150)
@given(content=contents, shard_bytes=st.integers(1, 30), block=st.integers(1, 9))
def test_lines_are_records_wherever_the_file_is_cut(
    scratch: Path, content: str, shard_bytes: int, block: int
) -> None:
    raw = content.encode()
    scratch.write_bytes(raw)
    source = source_of(scratch, "text")
    with (
        mock.patch("mtsft_preproc.readers.jsonl.BATCH_BYTES", block),
    ):
        entries = read_all(source, shard_bytes)
    assert outcomes(entries) == documents(content)
    for entry in entries:
        if not isinstance(entry, Record):
            assert raw[entry.byte_offset :].startswith(BOM)
            continue
        line = entry.value["text"].encode()
        at = entry.byte_offset + (len(BOM) if entry.byte_offset == 0 and raw.startswith(BOM) else 0)
        assert raw[at : at + len(line)] == line
    shards = shards_of(source, shard_bytes)
    reader = readers.get("text")
    assert sum(reader.count(shard, 1000) for shard in shards) == len(entries)


@pytest.mark.parametrize(
    ("suffix", "compress", "compression"),
    [
        (".gz", gzip.compress, "gzip"),
        (".zst", lambda raw: pa.compress(raw, codec="zstd", asbytes=True), "zstd"),
    ],
    ids=["gzip", "zstd"],
)
def test_compressed_text(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], compression: str
) -> None:
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(compress("a\n\nb c\r\n漢".encode()))
    (found,) = find_inputs([str(path)])
    assert (found.kind, found.compression) == ("text", compression)
    assert outcomes(read_all(found, 2)) == [{"text": "a"}, {"text": "b c"}, {"text": "漢"}]
    assert [entry.byte_offset for entry in read_all(found)] == [-1, -1, -1]


def test_a_line_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\nb\xffc\nd\n")
    found = read_all(source_of(path, "text"))
    assert outcomes(found) == [{"text": "a"}, "invalid-utf8", {"text": "d"}]
    bad = found[1]
    assert not isinstance(bad, Record)
    assert (bad.row, bad.byte_offset, bad.got) == (1, 2, "byte b'\\xff' at byte 1 of the line")
    assert bad.record == "b\\xffc"


def test_no_more_records_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\n\nb\nc\n")
    (shard,) = shards_of(source_of(path, "text"))
    assert outcomes(read_shard(replace(shard, max_records=2))) == [{"text": "a"}, {"text": "b"}]
    assert readers.get("text").count(shard, 2) == 2
    assert outcomes(read_shard(shard, ["text"])) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]


def test_text_has_one_column(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b'"other": 1\n')
    source, reader = source_of(path, "text"), readers.get("text")
    assert reader.columns(source) == ["text"]
    assert reader.may_hold(source, "text")
    assert not reader.may_hold(source, "other")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"Plain words.\n", "text"),
        (b"[Verse 1]\nla la\n", "text"),
        (b"[1] A footnote.\n", "text"),
        (b"{braces} are text\n", "text"),
        (b"", "text"),
        (b'{"a": 1}\n', "jsonl"),
        (BOM + b' \n{ "a": 1}\n', "jsonl"),
        (b"{}\n", "jsonl"),
        (b'[{"a": 1}]', "json"),
        (b'[\n {\n  "a": 1}]', "json"),
    ],
)
def test_text_that_is_json_is_read_as_such(tmp_path: Path, raw: bytes, kind: str) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(raw)
    (found,) = find_inputs([str(path)])
    assert found.kind == kind


def test_settings_under_the_name_of_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b'{\n  "a": 1\n}\n')
    with pytest.raises(InputError, match="neither a list of records"):
        find_inputs([str(path)])


def test_beside_other_data_text_is_no_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.txt").write_text("Read me.\n")
    (tmp_path / "lines.txt").write_text('{"a": 1}\n')
    with caplog.at_level(logging.WARNING):
        found = find_inputs([str(tmp_path)])
    assert [(Path(file.path).name, file.kind) for file in found] == [("lines.txt", "jsonl")]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "passed over 1 file(s)" in message
    assert "README.txt" in message


def test_a_folder_of_text_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.txt", "a.txt.gz"):
        raw = b"words\n"
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    with caplog.at_level(logging.WARNING):
        found = find_inputs([str(tmp_path)])
    assert [Path(file.path).name for file in found] == ["a.txt.gz", "b.txt"]
    assert [file.kind for file in found] == ["text", "text"]
    assert not caplog.records
