"""Parts: what goes in comes out, and nothing that is damaged is taken for whole."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Rejection
from mtsft_preproc.encoding import DatasetSpec, EncodedBatch
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.parts import PartReader, PartWriter

#: Two groups: one with two stored datasets and one that is not, one with a single dataset.
DATASETS = (
    DatasetSpec("ids", "sample"),
    DatasetSpec("labels", "sample"),
    DatasetSpec("mask", "sample", stored=False),
    DatasetSpec("answer", "answer", skips_empty=True),
)
STREAMS = {"ids": "sample", "labels": "sample", "answer": "answer"}
IDENTITY = {"fingerprint": "f", "shard": [0, 1, 2, 3, None]}


def batch_of(
    samples: list[tuple[int, int]],
    first: int = 0,
    rejections: list[Rejection] | None = None,
    kept: bool = False,
) -> EncodedBatch:
    """Return samples of so many tokens by group; the tokens count on from ``first``."""
    sizes = {"sample": [own[0] for own in samples], "answer": [own[1] for own in samples]}
    return EncodedBatch(
        tokens={
            name: (np.arange(sum(sizes[group])) * (1 + place) + first).astype(np.int32)
            for place, (name, group) in enumerate(STREAMS.items())
        },
        lengths={group: np.asarray(own, np.int32) for group, own in sizes.items()},
        trained=np.asarray(sizes["sample"], np.int32) // 2,
        rows=np.arange(first, first + len(samples), dtype=np.int64),
        turns=np.full(len(samples), -1, np.int32),
        digests=np.arange(first, first + 2 * len(samples), dtype=np.uint64).reshape(-1, 2),
        kept=[[f"k{row}", None] for row in range(first, first + len(samples))] if kept else [],
        rejections=rejections or [],
        notes=Counter({"odd": len(samples)}),
        parity=Counter({"same": 1}),
        differences=[{"row": first, "message": 1, "kind": "reply", "training": "a", "serving": "b"}],
    )


def write(path: Path, batches: list[EncodedBatch], keep_records: bool = False) -> None:
    with PartWriter(path, IDENTITY, DATASETS, keep_records) as writer:
        for batch in batches:
            writer.add(batch, len(batch.rows) + len(batch.rejections))


def stream(part: PartReader, name: str) -> list[int]:
    raw = b"".join(bytes(piece) for piece in part.tokens(name))
    return np.frombuffer(raw, "<i4").tolist()


pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_batches=st.lists(pairs, max_size=5), kept=st.booleans())
def test_what_goes_in_comes_out(
    tmp_path: Path, given_batches: list[list[tuple[int, int]]], kept: bool
) -> None:
    path = tmp_path / "a.part"
    batches = [batch_of(own, 1000 * number, kept=kept) for number, own in enumerate(given_batches)]
    write(path, batches)
    part = PartReader(path)
    part.check()
    assert part.identity == IDENTITY
    assert part.streams == list(STREAMS)
    assert part.groups == ["sample", "answer"]
    for name in STREAMS:
        expected = [token for batch in batches for token in batch.tokens[name].tolist()]
        assert stream(part, name) == expected
    columns, rejections = part.tail()
    for group in part.groups:
        expected = [length for batch in batches for length in batch.lengths[group].tolist()]
        assert columns[f"lengths:{group}"].tolist() == expected
    for name in ("trained", "rows", "turns", "digests"):
        assert columns[name].tolist() == [
            value for batch in batches for value in getattr(batch, name).tolist()
        ]
    assert columns["kept"] == [values for batch in batches for values in batch.kept]
    assert rejections == []
    summary = part.summary
    assert summary.samples == summary.records == sum(map(len, given_batches))
    assert summary.tokens == sum(sum(own) for own in itertools.chain(*given_batches))
    assert summary.trained == sum(own[0] // 2 for own in itertools.chain(*given_batches))
    assert summary.notes["odd"] == summary.samples
    assert summary.parity["same"] == len(batches)
    assert len(summary.first_differences) == min(3, len(batches))


def some_rejections() -> list[Rejection]:
    limit, lost = "at most 2", {"a": "\udc00"}
    return [
        Rejection(7, "overlong", "", limit, "3 tokens", byte_offset=70, turn=3, record=lost),
        Rejection(2, "not-json", "", "JSON", "'x'", byte_offset=20, record="x"),
        Rejection(7, "overlong", "", limit, "9 tokens", byte_offset=70, turn=1, record=lost),
        Rejection(5, "not-json", "f", "JSON", "'y'", record=[1, {"b": None}]),
    ]


@pytest.mark.parametrize("keep_records", [False, True])
def test_rejections_stand_in_the_order_of_their_records(tmp_path: Path, keep_records: bool) -> None:
    path = tmp_path / "a.part"
    write(path, [batch_of([(1, 1)]), batch_of([], rejections=some_rejections())], keep_records)
    part = PartReader(path)
    _, found = part.tail()
    assert [(entry["row"], entry["turn"]) for entry in found] == [(2, -1), (5, -1), (7, 1), (7, 3)]
    assert [entry["byte_offset"] for entry in found] == [20, -1, 70, 70]
    records = ["x", [1, {"b": None}], {"a": "\udc00"}, {"a": "\udc00"}]
    assert [entry["record"] for entry in found] == (records if keep_records else [None] * 4)
    # A lost sample is no rejected record.
    assert part.summary.rejected == {"not-json": 2}
    assert part.summary.lost == {"overlong": 2}
    assert [(one.row, one.turn) for one in part.summary.first_rejections] == [(2, -1), (5, -1), (7, 1)]
    assert [one.record for one in part.summary.first_rejections] == [None] * 3


@pytest.mark.parametrize("depth", [90, 120, 480, 20_000])
def test_a_rejected_record_may_be_nested_deeply(tmp_path: Path, depth: int) -> None:
    record: Any = "core"
    for _ in range(depth):
        record = {"a": [record]}
    rejection = Rejection(0, "wrong-type", record=record)
    write(tmp_path / "a.part", [batch_of([], rejections=[rejection])], keep_records=True)
    (found,) = PartReader(tmp_path / "a.part").tail()[1]
    if depth == 90:
        assert json.dumps(found["record"]) == json.dumps(record)
    else:
        assert found["record"].endswith(" (dict)")
        assert len(found["record"]) < 150


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "a.part"
    batches = [batch_of([(5, 0), (3, 4)], kept=True), batch_of([(2, 2)], 50, some_rejections(), kept=True)]
    write(path, batches)
    PartReader(path).check()
    return path


@contextlib.contextmanager
def changed(path: Path, place: int, value: int) -> Iterator[None]:
    """Change one byte of a file for a while."""
    with open(path, "r+b") as file:
        before = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([value]), place)
        yield
        os.pwrite(file.fileno(), before, place)


def test_every_changed_byte_is_noticed(whole: Path) -> None:
    raw = whole.read_bytes()
    for place in range(len(raw)):
        with changed(whole, place, raw[place] ^ 0x40), pytest.raises(DatasetError, match=r"a\.part: "):
            PartReader(whole).check()


def test_a_byte_more_or_less_in_front_of_the_footer_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "empty.part"
    with PartWriter(path, {}, []):
        pass
    raw = path.read_bytes()
    front = len(b"MTSFTPART4\0\0")
    for other in (raw[1:], raw[: front - 1] + raw[front:], raw[:front] + b"x" + raw[front:], b"x" + raw):
        path.write_bytes(other)
        with pytest.raises(DatasetError, match=r"empty\.part: "):
            PartReader(path)


def test_every_missing_byte_is_noticed(whole: Path) -> None:
    raw = whole.read_bytes()
    for size in reversed(range(len(raw))):
        os.truncate(whole, size)
        with pytest.raises(DatasetError, match=r"a\.part: not a whole part|a\.part: damaged footer"):
            PartReader(whole)


def test_tokens_are_checked_while_they_are_read(whole: Path) -> None:
    """Also where nobody checked the part as a whole, and whatever the damage does to the places."""
    raw = whole.read_bytes()
    footer = PartReader(whole)._sections
    tail = [place for start, length in footer.values() for place in range(start, start + length)]
    for place in [*range(len(b"MTSFTPART4\0\0"), min(tail)), *tail]:
        refused = []
        with changed(whole, place, raw[place] ^ 0x40):
            part = PartReader(whole)
            for name in STREAMS:
                try:
                    stream(part, name)
                except DatasetError:
                    refused.append(name)
        in_blocks = any(
            start <= place < start + length
            for name, (start, length) in footer.items()
            if name.startswith("blocks:")
        )
        assert bool(refused) == (place < min(tail) or in_blocks)


def test_a_part_of_another_kind_is_not_whole(whole: Path) -> None:
    raw = whole.read_bytes()
    whole.write_bytes(raw[:-1] + b"1")
    with pytest.raises(DatasetError, match="not a whole part file"):
        PartReader(whole)
    with pytest.raises(DatasetError, match=r"b\.part: No such file"):
        PartReader(whole.with_name("b.part"))


def test_a_length_beyond_the_file_is_noticed(whole: Path) -> None:
    raw = whole.read_bytes()
    end = len(raw) - len(b"MTSFTPART4\0\0")
    whole.write_bytes(raw[: end - 8] + (1 << 40).to_bytes(8, "little") + raw[end:])
    with pytest.raises(DatasetError, match="damaged footer"):
        PartReader(whole)


def fail(path: Path) -> None:
    with PartWriter(path, IDENTITY, DATASETS) as writer:
        writer.add(batch_of([(1, 1)]), 1)
        raise KeyError


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    with pytest.raises(KeyError):
        fail(path)
    assert os.listdir(tmp_path) == []


def test_a_part_is_replaced_only_by_a_whole_one(whole: Path) -> None:
    before = whole.read_bytes()
    with pytest.raises(KeyError):
        fail(whole)
    assert whole.read_bytes() == before
    write(whole, [batch_of([(1, 1)])])
    assert PartReader(whole).summary.samples == 1
    assert os.listdir(whole.parent) == [whole.name]


def test_equal_work_has_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.part", "b.part"):
        write(tmp_path / name, [batch_of([(5, 1)]), batch_of([], rejections=some_rejections())])
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def signed(path: Path, footer: bytes) -> None:
    """Give a part another footer, with the sha256 of just that."""
    raw = path.read_bytes()
    end = len(raw) - 32 - 8 - 12
    body = raw[: end - int.from_bytes(raw[end + 32 : end + 40], "little")]
    path.write_bytes(
        body + footer + hashlib.sha256(footer).digest() + len(footer).to_bytes(8, "little") + raw[-12:]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity", []), ("identity", None), ("streams", True), ("streams", ["ids", "x"]),
        ("streams", [["ids"]]), ("sections", 3), ("sections", {"blocks:ids": [0]}),
        ("sections", {"a": [0, 1 << 70]}), ("sections", {"a": [-8, 4]}), ("sections", {"a": ["0", 4]}),
        ("crc32", {}), ("crc32", "ids"), ("sha256", 7), ("groups", 1.5), ("summary", {}),
        ("summary", True), ("summary", {"ids": 1}),
    ],
)  # fmt: skip
def test_a_footer_that_is_signed_and_nonsense_is_refused(whole: Path, name: str, value: Any) -> None:
    footer = PartReader(whole).footer
    signed(whole, json.dumps(footer | {name: value}).encode())
    with pytest.raises(DatasetError, match=r"a\.part: damaged (footer|tail)"):
        PartReader(whole).check()


@pytest.mark.parametrize("footer", [b"", b"\xff", b"[]", b"{}", b"null", b"[" * 5000])
def test_a_footer_that_is_signed_and_no_object_is_refused(whole: Path, footer: bytes) -> None:
    signed(whole, footer)
    with pytest.raises(DatasetError, match=r"a\.part: damaged footer"):
        PartReader(whole)


@pytest.mark.parametrize("groups", [["other"], ["sample", "sample:x"]])
def test_columns_that_are_not_there_are_noticed(whole: Path, groups: list[str]) -> None:
    signed(whole, json.dumps(PartReader(whole).footer | {"groups": groups}).encode())
    with pytest.raises(DatasetError, match=r"a\.part: damaged tail"):
        PartReader(whole).columns()
