"""JSON arrays that are written by no program, cut in strings, escapes and white space, against ``json``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_shard, shards_of, source_of, thorough

from mtsft_preproc.dialogue import Record
from mtsft_preproc.readers import json_array, json_scan, readers

space = st.text(" \t\r\n", max_size=3)
#: What a string may hold, as it is written: brackets, borders, every escape, runs of backslashes.
ATOMS = [
    *"[]{},: a", "},{", '}, {\\"a\\":', '{\\"a\\": 1}, {', "],[", '\\"', "\\\\", "\\/", "\\b\\f\\n\\r\\t",
    "\\u005b", "\\u0022", "\\u005C", "\\u005c\\u0022", "\\ud83d\\ude00", "\\u0000", "é", "漢", "😀",
    "\u2028",
    "\\\\" * 17, "\\\\" * 8 + '\\"', "\x7f",
]  # fmt: skip
strings = st.lists(st.sampled_from(ATOMS), max_size=5).map(lambda atoms: f'"{"".join(atoms)}"')
numbers = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "1e5",
        "1E-7",
        "0.1",
        "123456789012345678901",
        "18446744073709551615",
        "1e400",
        "NaN",
    ]
)
scalars = st.one_of(strings, numbers, st.sampled_from(["true", "false", "null", "-Infinity"]))


def array(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return arrays of values as text, with white space wherever it may stand."""
    part = st.tuples(space, inner, space).map("".join)
    return st.one_of(space, st.lists(part, max_size=3).map(",".join)).map(lambda body: f"[{body}]")


def obj(inner: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[str]:
    """Return objects as text; the first name is often ``a``, so that elements begin alike."""
    name = st.one_of(st.just('"a"'), strings)
    part = st.tuples(space, name, space, st.just(":"), space, inner, space).map("".join)
    parts = st.lists(part, min_size=max(1, least), max_size=3).map(",".join)
    return st.one_of(parts, space).map(lambda body: f"{{{body}}}")


values = st.recursive(scalars, lambda inner: st.one_of(array(inner), obj(inner)), max_leaves=6)
elements = st.one_of(obj(values, 1), obj(values, 1), obj(values, 1), values)
sizes = st.one_of(st.just(1), st.integers(1, 40))


@st.composite
def texts(draw: st.DrawFn) -> str:
    found = [f"{draw(space)}{element}{draw(space)}" for element in draw(st.lists(elements, max_size=7))]
    return f"{draw(space)}[{','.join(found) or draw(space)}]{draw(space)}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json_array_seams") / "in.json"


@thorough(400)
@given(text=texts(), shard_bytes=sizes, chunk=sizes, block=sizes, scanned=sizes)
def test_every_element_is_read_once_and_is_what_json_says(
    scratch: Path, text: str, shard_bytes: int, chunk: int, block: int, scanned: int
) -> None:
    raw = text.encode()
    scratch.write_bytes(raw)
    with (
        mock.patch.multiple(json_array, _CHUNK=chunk, BATCH_BYTES=block),
        mock.patch.object(json_scan, "_BLOCK", scanned),
    ):
        shards = shards_of(source_of(scratch, "json"), shard_bytes)
        parts = [read_shard(shard) for shard in shards]
        counts = [readers.get("json").count(shard, 10**9) for shard in shards]
    expected = json.loads(text)
    entries = [*itertools.chain(*parts)]
    assert counts == [len(part) for part in parts]
    assert len(entries) == len(expected)
    for entry, value in zip(entries, expected, strict=True):
        if isinstance(value, dict):
            assert isinstance(entry, Record)
            assert repr(entry.value) == repr(value)  # by their texts, as NaN is not equal to itself
        else:
            assert not isinstance(entry, Record)
            assert entry.reason == "not-an-object"
    # Between two shards stands the comma of a border, and nothing else; around them all, the brackets.
    for one, other in itertools.pairwise(shards):
        assert (one.end + 1, raw[one.end : other.start]) == (other.start, b",")
    if shards:
        assert raw[: shards[0].start].strip() == b"["
        assert raw[shards[-1].end :].strip() == b"]"


@pytest.mark.parametrize("place", range(1, 40))
def test_a_seam_may_lie_anywhere_in_a_string(scratch: Path, place: int) -> None:
    text = '[{"a": "}, {\\"a\\": \\\\\\\\\\"\\ud83d\\ude00]"}, {"a": "x"}, {"a": ""}]'
    scratch.write_text(text, "utf-8")
    with mock.patch.multiple(json_array, _CHUNK=place, BATCH_BYTES=place):
        entries = [
            entry for shard in shards_of(source_of(scratch, "json"), place) for entry in read_shard(shard)
        ]
    assert [entry.value for entry in entries if isinstance(entry, Record)] == json.loads(text)
