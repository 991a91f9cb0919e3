"""Records that are too large, too deep, name a key twice, or stand behind a stray mark."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import outcomes, read_all, shards_of, source_of, thorough

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import ReadingRules, find_inputs, readers
from mtsft_preproc.readers.suspects import MOST_LEVELS, holds_long_number

SMALL = ReadingRules(record_bytes=1000)
RECORDS = [{"a": "x"}, {"a": "y" * 5000}, {"a": "z" * 900}, {"b": "v" * 400_000}, {"a": "w"}]
EXPECTED = [{"a": "x"}, "too-large", {"a": "z" * 900}, "too-large", {"a": "w"}]


@pytest.mark.parametrize(
    "form", ["jsonl", "jsonl.gz", "json", "json, indented", "txt", "csv", "parquet", "arrow"]
)
@pytest.mark.parametrize("shard_bytes", [1, 1 << 40])
def test_a_record_over_the_limit_is_rejected_and_the_others_are_kept(
    tmp_path: Path, form: str, shard_bytes: int
) -> None:
    path, kind, compression = tmp_path / "in", form.split(".")[0].split(",")[0], None
    texts = [next(iter(record.values())) for record in RECORDS]
    expected: list[Any] = EXPECTED
    if kind == "jsonl":
        raw = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
        compression = "gzip" if form.endswith("gz") else None
        path.write_bytes(gzip.compress(raw) if compression else raw)
    elif kind == "json":
        path.write_text(json.dumps(RECORDS, indent=1 if "indented" in form else None))
    else:
        expected = [entry if isinstance(entry, str) else {"a": entry["a"]} for entry in EXPECTED]
        table = pa.table({"a": texts})
        if kind == "txt":
            kind = "text"
            path.write_text("\n".join(texts))
            expected = [entry if isinstance(entry, str) else {"text": entry["a"]} for entry in EXPECTED]
        elif kind == "csv":
            path.write_text('a\n"' + '"\n"'.join(text.replace("y", "\n", 9) for text in texts) + '"\n')
        elif kind == "parquet":
            pq.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    source = replace(source_of(path, kind, compression), rules=SMALL)
    found = read_all(source, shard_bytes)
    assert outcomes(found) == expected
    assert all("--max-record-mb" in entry.expected for entry in found if hasattr(entry, "reason"))


RUN = """
import resource, sys
from mtsft_preproc.readers import InputFile, ReadingRules, Shard, readers
import os
path, kind, compression = sys.argv[1], sys.argv[2], sys.argv[3] or None
source = InputFile(path, kind, os.path.getsize(path), compression, rules=ReadingRules(1 << 20))
reader = readers.get(kind)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = []
for start, end in reader.pieces(source, 1 << 20):
    for batch in reader.read(Shard(0, 0, source, start, end)):
        for entry in sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row):
            found.append(getattr(entry, "reason", "record"))
print(*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "json", "text", "csv"])
def test_a_record_of_300_mb_takes_no_memory(tmp_path: Path, kind: str) -> None:
    path, own = tmp_path / "in", "jsonl" if kind == "gzip" else kind
    head, mid, end = {
        "json": (b'[{"a": 1}, {"a": "', b'"}, ', b'{"a": 2}]'),
        "csv": (b"a\n1\n", b"\n", b"2\n"),
        "text": (b"one\n", b"\n", b"two\n"),
    }.get(own, (b'{"a": 1}\n{"a": "', b'"}\n', b'{"a": 2}\n'))
    with gzip.open(path, "wb", 1) if kind == "gzip" else open(path, "wb") as file:
        file.write(head)
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(mid + end)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), own, "gzip" if kind == "gzip" else ""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *found, kilobytes = done.stdout.split()
    assert found == ["record", "too-large", "record"]
    assert int(kilobytes) < 60_000


def nested(levels: int, opens: str, closes: str, inner: str = "1") -> str:
    return opens * levels + inner + closes * levels


DEEP = [
    '{"a": ' + nested(10**6, "[", "") + "}",
    '{"a": ' + nested(10**6, "[", "]") + "}",
    nested(10**5, '{"a": ', "}"),
    '{"a": ' + nested(MOST_LEVELS, '{"a": [', "]}") + "}",
    nested(MOST_LEVELS + 1, '{"a": ', "}"),
    '{"a": ' + nested(MOST_LEVELS, "[", "]") + "}",
    '{"a": [{"b": ' + nested(900, '[{"c": ', "}]") + "}]}",
]


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_nesting_beyond_the_limit_is_rejected(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / "in"
    if kind == "json" and text.count("]") < text.count("["):
        pytest.skip("takes the rest of the array along")
    texts = ['{"a": "["}', text, nested(MOST_LEVELS, '{"a": ', "}")]
    path.write_text("\n".join(texts) if kind == "jsonl" else f"[{', '.join(texts)}]")
    assert outcomes(read_all(source_of(path, kind))) == [
        {"a": "["}, "too-deep", json.loads(texts[2]),
    ]  # fmt: skip


KEYS = st.sampled_from(["a", "b", 'q"', "e\\", "c:", " ", ""])
OBJECTS = st.recursive(
    st.one_of(st.sampled_from(['"x"', '"\\\\\\": "', '" :"', '"a\\\\"', "1", '"\\u0022:"', "[]", "{}"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(
            st.tuples(KEYS, st.sampled_from([":", ": ", " :", "\t: ", "  : "]), inner), max_size=3
        ).map(
            lambda pairs: (
                "{" + ",".join(f"{json.dumps(key)}{colon}{value}" for key, colon, value in pairs) + "}"
            )
        ),
    ),
    max_leaves=8,
)


def repeats(text: str) -> bool:
    """Return whether an object in JSON text names a key twice, as ``json`` reads it."""
    found = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(len({key for key, _ in pairs}) < len(pairs))
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return any(found)


@thorough(500)
@given(st.lists(OBJECTS, min_size=1, max_size=5), st.sampled_from(["jsonl", "json"]))
def test_a_key_that_comes_twice_is_found_wherever_it_lies(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "twice"
    texts = [f'{{"o": {value}}}' for value in values]
    path.write_text("\n".join(texts) if kind == "jsonl" else f"[{', '.join(texts)}]")
    (shard,) = shards_of(source_of(path, kind), 1 << 20)
    batches = list(readers.get(kind).read(shard))
    records = [record for batch in batches for record in batch.records]
    assert [record.value for record in records] == list(map(json.loads, texts))
    notes = [note for batch in batches for note in batch.notes]
    assert notes == [(row, "repeated-key") for row, text in enumerate(texts) if repeats(text)]


def test_notes_of_records_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"m": [{"role": "user", "text": 1, "role": "x"}]}\n' * 5)
    (shard,) = shards_of(source_of(path, "jsonl"), 1 << 20)
    batches = list(readers.get("jsonl").read(replace(shard, max_records=3)))
    assert [note for batch in batches for note in batch.notes] == [
        (row, "repeated-key") for row in range(3)
    ]


@thorough(300)
@given(st.lists(st.sampled_from([b"1", b"0" * 9, b"7" * 10, b"3" * 18, b"x", b" "]), max_size=8))
def test_long_runs_of_digits_are_found(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    runs = max(map(len, raw.replace(b"x", b" ").split()), default=0)
    assert holds_long_number(raw) == (runs >= 19)


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "text"])
def test_a_mark_in_the_middle_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(
        BOM
        + {
            "jsonl": b'{"a": 1}\n' + BOM + b'{"a": 2}\n{"a": 3}\n',
            "json": b'[{"a": 1},' + BOM + b'{"a": 2},{"a": 3}]',
            "csv": b"a\n1\n" + BOM + b"2\n3\n",
            "text": b"1\n" + BOM + b"2\n3\n",
        }[kind]
    )
    first, bad, last = read_all(source_of(path, kind))
    assert bad.reason == "stray-bom"
    assert list(first.value.values()) == [1 if kind.startswith("json") else "1"]
    assert list(last.value.values()) == [3 if kind.startswith("json") else "3"]


def test_lines_that_end_with_cr_alone_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\r{"a": 2}\r')
    (bad,) = read_all(source_of(path, "jsonl"))
    assert bad.reason == "not-json"
    assert "CR alone" in bad.got


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.txt", "in.csv", "in"])
def test_text_of_wide_characters_is_refused_by_its_encoding(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path = tmp_path / name
    path.write_bytes('{"instruction": "one", "output": "two"}\n'.encode(encoding))
    expected = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    with pytest.raises(InputError, match=rf"its text is {expected}.*iconv"):
        find_inputs([str(path)])


def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.jsonl", tmp_path / "loop.jsonl"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path, what in ((pipe, "a pipe"), (Path("/dev/zero"), "a device"), (loop, "a link that leads")):
        with pytest.raises(InputError, match=what):
            find_inputs([str(path)])
    loop.unlink()
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert [Path(file.path).name for file in find_inputs([str(tmp_path)])] == ["a.jsonl"]


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "x.json"
    folder.mkdir()
    (folder / "a\nb.jsonl").write_text('{"a": 1}\n')
    (found,) = find_inputs([str(folder)])
    assert outcomes(read_all(found)) == [{"a": 1}]


def test_a_blank_line_that_is_too_long_is_none(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b" " * 5000 + b'\n{"a": 2}\n')
    with mock.patch("mtsft_preproc.readers.jsonl.BATCH_BYTES", 64):
        assert outcomes(read_all(replace(source_of(path, "jsonl"), rules=SMALL))) == [{"a": 1}, {"a": 2}]
