"""JSON arrays, cut anywhere, against ``json``."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import BOM, json_objects, outcomes, read_all, read_shard, shards_of, source_of, thorough

from mtsft_preproc.dialogue import Record
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import json_array, readers
from mtsft_preproc.readers.json_scan import ArrayScanner

SPACE = " \t\r\n"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json_array") / "in.json"


def read(path: Path, raw: bytes, shard_bytes: int = 1) -> list[Any]:
    path.write_bytes(raw)
    return outcomes(read_all(source_of(path, "json"), shard_bytes))


@st.composite
def array_texts(draw: st.DrawFn) -> str:
    records = draw(st.lists(json_objects, max_size=6))
    body = json.dumps(
        records,
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), ("\t,\r\n ", " :\t")])),
    )
    if not records:
        body = f"[{draw(st.text(SPACE, max_size=4))}]"
    return draw(st.text(SPACE, max_size=3)) + body + draw(st.text(SPACE, max_size=3))


def borders_in(text: str) -> list[int]:
    """Return the byte positions of the commas between the elements and of the closing bracket."""
    decoder, found = json.JSONDecoder(), []
    at = text.index("[") + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(SPACE))
        if text[at] != "]":
            _, at = decoder.raw_decode(text, at)
            at += len(text[at:]) - len(text[at:].lstrip(SPACE))
        found.append(len(text[:at].encode()))
        if text[at] == "]":
            return found
        at += 1


@thorough(150)
@given(text=array_texts(), bom=st.booleans(), data=st.data())
def test_an_array_cut_anywhere_is_what_json_load_gives(
    scratch: Path, text: str, bom: bool, data: st.DataObject
) -> None:
    raw = BOM * bom + text.encode()
    scratch.write_bytes(raw)
    shard_bytes = data.draw(st.integers(1, len(raw)), "shard_bytes")
    chunk = data.draw(st.integers(1, 30), "_CHUNK")
    block = data.draw(st.integers(1, 30), "BATCH_BYTES")
    with mock.patch.multiple(json_array, _CHUNK=chunk, BATCH_BYTES=block):
        shards = shards_of(source_of(scratch, "json"), shard_bytes)
        entries = [read_shard(shard) for shard in shards]
        counts = [readers.get("json").count(shard, 10**9) for shard in shards]
    with open(scratch, encoding="utf-8-sig") as file:
        expected = json.load(file)
    assert outcomes([*itertools.chain(*entries)]) == expected
    assert counts == [len(part) for part in entries]
    for shard, part in zip(shards, entries, strict=True):
        for entry in part:
            assert shard.start <= entry.byte_offset <= shard.end
            behind = raw[entry.byte_offset :].decode().lstrip(SPACE)
            assert json.JSONDecoder().raw_decode(behind)[0] == entry.value


#: Elements among which the text that separates them stands in other places, too, or not at all.
ALIKE = st.sampled_from(
    [
        '{"a": 1}',
        '{"a": "}, {"}',
        '{"a": "}, {\\"a\\": 2}"}',
        '{"a": [{"a": 3}, {"a": "\\\\"}, {"b": 4}]}',
        '{"a": {"a": 5}, "b": {"c": 6}}',
        '{"b": 7}',
        '{ "a":8 }',
        '{"a": NaN}',
        '{"a": 123456789012345678901234567890}',
        '[{"a": 9}, {"a": 10}]',
        '"}, {\\"a\\": 11}"',
        "{}",
        "12",
        '{"a" 13}',
        '{"a": 14}, {"a": [}]',
    ]
)


@thorough(400)
@given(st.lists(ALIKE, min_size=1, max_size=12), st.sampled_from([", ", ",", ",\n", " , "]), st.data())
def test_text_that_looks_like_a_border_is_none(
    scratch: Path, elements: list[str], comma: str, data: st.DataObject
) -> None:
    raw = f"[{comma.join(elements)}]".encode()
    scratch.write_bytes(raw)
    expected: list[Any] = []
    for text in elements:
        # Brackets that are balanced hold an element together, whatever stands between them.
        for part in ['{"a": 14}', '{"a": [}]'] if "[}]" in text else [text]:
            try:
                value = json.loads(part)
                expected.append(value if isinstance(value, dict) else "not-an-object")
            except ValueError:
                expected.append("not-json")
    with mock.patch.object(json_array, "BATCH_BYTES", data.draw(st.integers(1, 60), "BATCH_BYTES")):
        entries = read_all(source_of(scratch, "json"), data.draw(st.integers(1, len(raw)), "shard_bytes"))
    assert repr(outcomes(entries)) == repr(expected)  # by their texts, as NaN is not equal to itself


@thorough(60)
@given(st.lists(json_objects, min_size=1, max_size=6), st.booleans())
def test_the_least_shard_holds_one_record(scratch: Path, records: list[Any], ensure_ascii: bool) -> None:
    scratch.write_text(json.dumps(records, ensure_ascii=ensure_ascii), "utf-8")
    shards = shards_of(source_of(scratch, "json"), 1)
    assert [outcomes(read_shard(shard)) for shard in shards] == [[record] for record in records]


@thorough(150)
@given(
    text=array_texts(),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_the_scanner_finds_the_borders_in_chunks_of_any_size(text: str, sizes: list[int]) -> None:
    raw, scanner, offset = text.encode(), ArrayScanner(), 0
    found = []
    for size in itertools.cycle(sizes):
        if offset >= len(raw):
            break
        found += (scanner.feed(raw[offset : offset + size]) + offset).tolist()
        offset += size
    assert found == borders_in(text)
    assert (scanner.closed, scanner.trailing, scanner.depth, scanner.in_string) == (True, False, 0, False)


@pytest.mark.parametrize("size", range(1, 12))
def test_runs_of_backslashes_that_cross_chunks_escape_the_right_quotes(size: int) -> None:
    text = json.dumps(
        [{"\\" * count + '"' * quotes: ",]" for count in range(6) for quotes in range(3)}, {}]
    )
    raw, scanner = text.encode(), ArrayScanner()
    chunks = [(at, raw[at : at + size]) for at in range(0, len(raw), size)]
    found = np.concatenate([scanner.feed(chunk) + at for at, chunk in chunks])
    assert found.tolist() == borders_in(text)


@pytest.mark.parametrize(
    "text", ['[\\"{"a": 1}, \\\\\\{\\[1, 2], "\\[", 3]', "[1\\,2\\]", '[\\\\"a,"\\, {}]']
)
def test_backslashes_outside_of_strings_mean_the_same_in_all_chunks(text: str) -> None:
    raw, found = text.encode(), []
    for size in (*range(1, 12), 99):
        scanner = ArrayScanner()
        parts = [(scanner.feed(raw[at : at + size]) + at).tolist() for at in range(0, len(raw), size)]
        found.append((list(itertools.chain(*parts)), scanner))
    assert all(own == found[0] for own in found)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(
    ("text", "trailing"),
    [("[{}] ", False), ("[{}],1", False), ("[{}]]", True), ("[{}] {", True), ('[{}] "[" ', False)],
)
def test_the_scanner_tells_of_brackets_behind_the_array(text: str, trailing: bool, size: int) -> None:
    raw, scanner = text.encode(), ArrayScanner()
    found = [(scanner.feed(raw[at : at + size]) + at).tolist() for at in range(0, len(raw), size)]
    assert [border for part in found for border in part] == [3]
    assert (scanner.closed, scanner.trailing) == (True, trailing)


TOKENS = [
    "{}",
    '{"a":1}',
    "[",
    "]",
    "{",
    "}",
    ",",
    '"',
    "\\",
    '\\"',
    " ",
    ":",
    "1",
    "null",
    '"a"',
    '"],["',
    "\n",
]


@thorough(400)
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=8), shard_bytes=st.integers(1, 12))
def test_what_json_refuses_never_passes_in_silence(
    scratch: Path, tokens: list[str], shard_bytes: int
) -> None:
    text = "[" + "".join(tokens)
    try:
        got = read(scratch, text.encode(), shard_bytes)
    except InputError:
        got = None
    try:
        value = json.loads(text)
    except ValueError:
        assert got is None or any(isinstance(outcome, str) for outcome in got)
    else:
        assert got == [item if isinstance(item, dict) else "not-an-object" for item in value]


@pytest.mark.parametrize("raw", [b"[]", b"[ \n\t\r ]", b" [] ", BOM + b"[]\n"])
@pytest.mark.parametrize("shard_bytes", [1, 100])
def test_an_empty_array_holds_nothing(tmp_path: Path, raw: bytes, shard_bytes: int) -> None:
    assert read(tmp_path / "in.json", raw, shard_bytes) == []


@pytest.mark.parametrize("shard_bytes", [1, 5, 1000])
def test_white_space_longer_than_a_chunk_hides_no_record(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", 8)
    assert read(scratch, b"[" + b" " * 50 + b'{"a": 1}' + b" " * 50 + b"]", shard_bytes) == [{"a": 1}]


@pytest.mark.parametrize("shard_bytes", [1, 7, 1000])
def test_a_truncated_file_is_refused_wherever_it_ends(scratch: Path, shard_bytes: int) -> None:
    raw = json.dumps([{"a": 'x"]\\'}, {"b": [1, {"c": "é"}]}], ensure_ascii=False).encode()
    assert read(scratch, raw, shard_bytes) == json.loads(raw)
    for end in range(1, len(raw)):
        with pytest.raises(InputError, match=r"in\.json: truncated or malformed JSON"):
            read(scratch, raw[:end], shard_bytes)


@pytest.mark.parametrize(
    "raw",
    [
        b'[{"a": 1}',
        b'[{"a": 1}}',
        b"[}",
        b'[{"a": [1}, {"b": 2}]',
        b'[{"a": 1}]]',
        b'[{"a": 1}], {"b": 2}]',
        b'[{"a": 1}] x',
        b'[{"a": 1}]\n{"b": 2}',
        b'[{"a": 1}] "b"',
        b'[{"a": 1}],',
        b'[{"a": 1}]\x00',
        b'{"a": 1}',
        b"",
    ],
)
@pytest.mark.parametrize("shard_bytes", [1, 1000])
@pytest.mark.parametrize("chunk", [3, 1 << 22])
def test_what_is_not_one_array_is_refused(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, shard_bytes: int, chunk: int
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    with pytest.raises(InputError, match=r"in\.json: "):
        read(scratch, raw, shard_bytes)


@pytest.mark.parametrize("shard_bytes", [1, 2, 9, 10, 11, 1000])
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'[{"a": 1},]', [{"a": 1}, "not-json"]),
        (b'[{"a": 1}, \n]', [{"a": 1}, "not-json"]),
        (b'[,{"a": 1}]', ["not-json", {"a": 1}]),
        (b'[{"a": 1},,{"b": 2}]', [{"a": 1}, "not-json", {"b": 2}]),
        (b'[{"a": 1}, {"b": }, {"c": 3}]', [{"a": 1}, "not-json", {"c": 3}]),
        (b'[{"a": 1} {"b": 2}, {"c": 3}]', ["not-json", {"c": 3}]),
        (b'[{"a": 1], {"b": 2}]', ["not-json", {"b": 2}]),
        (b'[{"a": "x\ny"}, {"b": 2}]', ["not-json", {"b": 2}]),
        (b'[{"a": tru}, {"b": true}]', ["not-json", {"b": True}]),
        (b"[{'a': 1}, {\"b\": 2}]", ["not-json", {"b": 2}]),
        (b'[1, "x,]", null, [{"a": 1}, 2], {"b": 2}]', ["not-an-object"] * 4 + [{"b": 2}]),
        (b'["\\ud800", {"b": 2}]', ["lone-surrogate", {"b": 2}]),
        (b'[{"a": "\\ud800"}, {"a": "\\ud83d\\ude00"}]', ["lone-surrogate", {"a": "\U0001f600"}]),
        (b'[{"\\udfff": 1}, {"a": [["\\udc00"]]}, {"b": 2}]', ["lone-surrogate"] * 2 + [{"b": 2}]),
        (b'[{"a": "\xff"}, {"b": "\xc3"}, {"c": "\xc3\xa9"}]', ["invalid-utf8"] * 2 + [{"c": "é"}]),
        (b'[{"a": "\xed\xa0\x80"}, {"b": 2}]', ["invalid-utf8", {"b": 2}]),
        (b'[\xdb, \xfb, {"b": 2}]', ["invalid-utf8"] * 2 + [{"b": 2}]),
        (b'[{"a": 1, "a": 2}, {"a": 3}]', [{"a": 2}, {"a": 3}]),
    ],
)
def test_a_bad_element_is_rejected_and_the_others_are_kept(
    scratch: Path, raw: bytes, expected: list[Any], shard_bytes: int
) -> None:
    assert read(scratch, raw, shard_bytes) == expected


def test_the_numbers_that_json_accepts_are_accepted(scratch: Path) -> None:
    raw = b'[{"a": NaN}, {"a": Infinity, "b": -Infinity}, {"a": 1e400}, {"a": -0.0}, {"a": 5e-324}]'
    got = read(scratch, raw)
    assert list(map(repr, got)) == list(map(repr, json.loads(raw)))
    assert list(map(repr, got)) == [
        "{'a': nan}",
        "{'a': inf, 'b': -inf}",
        "{'a': inf}",
        "{'a': -0.0}",
        "{'a': 5e-324}",
    ]


def test_nesting_too_deep_for_the_parsers_is_rejected(scratch: Path) -> None:
    deep = b'{"a": ' + b"[" * 20000 + b"]" * 20000 + b"}"
    assert read(scratch, b"[" + deep + b', {"b": 2}]') == ["too-deep", {"b": 2}]


def test_a_rejection_tells_where_its_bytes_are(scratch: Path) -> None:
    raw = b'[{"a": 1}, {"b": }, {"c": 3}]'
    scratch.write_bytes(raw)
    (shard,) = shards_of(source_of(scratch, "json"))
    first, bad, last = read_shard(shard)
    assert [first.row, bad.row, last.row] == [0, 1, 2]
    assert raw[bad.byte_offset :].lstrip().startswith(b'{"b": }')
    assert isinstance(last, Record)
    assert raw[last.byte_offset :].lstrip().startswith(b'{"c": 3}')


@pytest.mark.parametrize("limit", range(1, 6))
def test_reading_and_counting_stop_at_the_limit(scratch: Path, limit: int) -> None:
    scratch.write_bytes(b'[{"a": 0}, {"a": }, {"a": 2}, 3]')
    (shard,) = shards_of(source_of(scratch, "json"))
    limited = replace(shard, max_records=limit)
    assert outcomes(read_shard(limited)) == [{"a": 0}, "not-json", {"a": 2}, "not-an-object"][:limit]
    assert readers.get("json").count(shard, limit) == min(limit, 4)


def test_a_file_that_shrinks_between_cutting_and_reading_is_refused(scratch: Path) -> None:
    scratch.write_bytes(b'[{"a": 1}, {"b": 2}]')
    (shard,) = shards_of(source_of(scratch, "json"))
    scratch.write_bytes(b'[{"a": 1}')
    with pytest.raises(InputError, match=r"in\.json: became shorter"):
        read_shard(shard)


def test_a_record_longer_than_the_blocks_is_read_whole(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "BATCH_BYTES", 64)
    monkeypatch.setattr(json_array, "_CHUNK", 128)
    records = [{"a": "x" * 5000}, {"b": '"],[' * 2000}, {"c": 3}]
    assert read(scratch, json.dumps(records).encode()) == records


def test_batches_end_near_their_size(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "BATCH_BYTES", 100)
    records = [{"a": "x" * 20}] * 40
    scratch.write_text(json.dumps(records), "utf-8")
    (shard,) = shards_of(source_of(scratch, "json"))
    batches = list(readers.get("json").read(shard))
    assert max(map(len, batches)) <= 4
    assert sum(map(len, batches)) == 40
    assert sum(batch.size for batch in batches) == scratch.stat().st_size - len("[]")
