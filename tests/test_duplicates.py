"""Records that were there before, against a dict in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc import duplicates
from mtsft_preproc.duplicates import DuplicateFinder, Duplicates
from mtsft_preproc.errors import OutputError

RECORD_BYTES = 8 + 8 + 8 + 8 + 4
TOP = 2**64 - 1
#: Few, and among them such as share one of their two numbers; or both, the other way round.
DIGESTS = [(a, b) for a in (0, 1, 7, 2**63, TOP) for b in (0, 1, 2**63, TOP)]


@dataclass(frozen=True)
class Row:
    """A record: its digest, the number of its first sample, and where it stands."""

    digest: tuple[int, int]
    sample: int
    file: int
    row: int


@dataclass(frozen=True)
class Sizes:
    """What is so small here that there are many buckets, pieces of them, writes and ranges."""

    bucket: int
    waiting: int
    span: int


REAL = Sizes(duplicates._BUCKET_BYTES, duplicates._WAITING_BYTES, duplicates._RANGE)
sizes = st.builds(Sizes, st.integers(1, 600), st.integers(1, 400), st.integers(1, 20)) | st.just(REAL)


@st.composite
def calls(draw: st.DrawFn) -> list[list[Row]]:
    """Draw records by call; samples ascend, with gaps where a record has several or none."""
    few = draw(st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=12, unique=True))
    sample, found = draw(st.integers(0, 30)), []
    for _ in range(draw(st.integers(0, 6))):
        file, row, own = draw(st.integers(0, 2**31 - 1)), draw(st.integers(0, 2**40)), []
        for _ in range(draw(st.integers(0, 12))):
            own.append(Row(draw(st.sampled_from(few)), sample, file, row))
            row += draw(st.integers(1, 3))
            sample += draw(st.integers(1, 4))
        found.append(own)
    return found


def expected_of(rows: Sequence[Row]) -> list[tuple[int, int, int]]:
    """Return (sample, file and row of the first) of each duplicate."""
    first: dict[tuple[int, int], Row] = {}
    found = []
    for row in rows:
        known = first.setdefault(row.digest, row)
        if known is not row:
            found.append((row.sample, known.file, known.row))
    return found


def find(folder: Path, given: Sequence[Sequence[Row]], expect: int) -> Duplicates:
    finder = DuplicateFinder(folder, expect)
    for own in given:
        finder.add(
            np.asarray([row.digest for row in own], np.uint64).reshape(-1, 2),
            np.asarray([row.sample for row in own], np.int64),
            own[0].file if own else 0,
            np.asarray([row.row for row in own], np.int64),
        )
    return finder.finish()


def told(found: Duplicates, start: int, stop: int) -> list[tuple[int, int, int]]:
    rows = found.between(start, stop)
    columns = (rows.samples, rows.files, rows.rows)
    assert [column.dtype for column in columns] == [np.int64, np.int32, np.int64]
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@given(
    drawn=calls(), small=sizes, steps=st.lists(st.integers(0, 40), max_size=8), expect=st.integers(0, 80)
)
def test_all_but_the_first_of_equal_records_are_found(
    drawn: list[list[Row]], small: Sizes, steps: list[int], expect: int
) -> None:
    """However many records were expected, and in whatever steps the samples are gone through."""
    rows = [row for own in drawn for row in own]
    expected = expected_of(rows)
    end = rows[-1].sample + 1 if rows else 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BUCKET_BYTES", small.bucket)
        patch.setattr(duplicates, "_WAITING_BYTES", small.waiting)
        patch.setattr(duplicates, "_RANGE", small.span)
        found = find(Path(folder) / "scratch", drawn, expect)
        assert found.count == len(expected)
        assert told(found, 0, end) == expected
        start = 0
        for step in [*steps, max(0, end - sum(steps))]:
            here = [one for one in expected if start <= one[0] < start + step]
            assert told(found, start, start + step) == here
            start += step


def test_no_records_have_no_duplicates(scratch: Path) -> None:
    found = find(scratch, [], 0)
    assert found.count == 0
    assert told(found, 0, 10**9) == told(found, 5, 5) == []


def test_both_numbers_must_be_equal(scratch: Path) -> None:
    digests = [(1, 2), (1, 3), (2, 2), (2, 1), (1, 2), (1, 3)]
    found = find(scratch, [[Row(digest, 3 * n, 4, 7 + n) for n, digest in enumerate(digests)]], 6)
    assert told(found, 0, 100) == [(12, 4, 7), (15, 4, 8)]


def test_the_first_one_may_stand_in_another_file(scratch: Path) -> None:
    given = [[Row((5, 5), 0, 2, 9)], [Row((5, 5), 1, 0, 3)], [Row((5, 5), 2, 1, 0)]]
    assert told(find(scratch, given, 3), 0, 3) == [(1, 2, 9), (2, 2, 9)]


def spread(count: int, kinds: int) -> Iterator[list[Row]]:
    """Yield many records in calls of 1000, of so many kinds."""
    drawn = np.random.default_rng(3).integers(0, kinds, count).tolist()
    rows = [
        Row((kind * 0x9E3779B97F4A7C15 & TOP, kind * 0xBF58476D1CE4E5B9 & TOP), n, 1, n)
        for n, kind in enumerate(drawn)
    ]
    for start in range(0, count, 1000):
        yield rows[start : start + 1000]


@pytest.mark.parametrize("kinds", [1, 3, 5_000, 1_000_000])
def test_no_more_than_a_bucket_is_held_at_once(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, kinds: int
) -> None:
    """With the expected number of records, however many of them are equal."""
    given = list(spread(20_000, kinds))
    limit = 1000
    monkeypatch.setattr(duplicates, "_BUCKET_BYTES", limit * RECORD_BYTES)
    compared: list[int] = []
    repeated = duplicates._repeated

    def watched(rows: duplicates._Rows) -> object:
        compared.append(len(rows))
        return repeated(rows)

    monkeypatch.setattr(duplicates, "_repeated", watched)
    rows = [row for own in given for row in own]
    found = find(scratch, given, len(rows))
    assert told(found, 0, len(rows)) == expected_of(rows)
    # A piece, and in front of it the different ones of those before.
    assert max(compared) <= 2 * limit


def test_what_lay_in_the_folder_is_gone(scratch: Path) -> None:
    given = [[Row((5, 5), n, 0, n) for n in range(3)]]
    (scratch / "deep").mkdir(parents=True)
    (scratch / "bucket-000000").write_bytes(b"left by another run")
    (scratch / "range-000000").write_bytes(b"left by another run")
    assert told(find(scratch, given, 3), 0, 3) == [(1, 0, 0), (2, 0, 0)]
    # Buckets are of no use any more, and take the more room.
    assert [path.name for path in scratch.iterdir()] == ["range-000000"]


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_scratch_that_someone_else_removes_is_an_error(scratch: Path, harm: str) -> None:
    def damage(path: Path) -> None:
        if harm == "removed":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-5])

    row = [Row((5, 5), n, 0, n) for n in range(3)]
    found = find(scratch, [row], 3)
    damage(scratch / "range-000000")
    with pytest.raises(OutputError, match="range-000000: "):
        found.between(0, 3)
    finder = DuplicateFinder(scratch, 3)
    finder.add(np.zeros((3, 2), np.uint64), np.arange(3), 0, np.arange(3))
    finder._buckets.write()
    damage(scratch / "bucket-000000")
    with pytest.raises(OutputError, match="bucket-000000: "):
        finder.finish()
