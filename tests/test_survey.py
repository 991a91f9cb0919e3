"""What is known of all samples: sources, sides, and all samples of each duplicate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtsft_preproc import survey
from mtsft_preproc.survey import Questions, Survey, Surveyor

STREAMS = (("ids", "sample"), ("labels", "sample"))


def surveyor(folder: Path, questions: Questions, sources: int = 1, index: bool = True) -> Surveyor:
    return Surveyor(folder, STREAMS, ["sample"], sources, questions, records=10, index=index)


def add(
    own: Surveyor,
    rows: list[int],
    digests: list[int],
    *,
    source: int = 0,
    file: int = 0,
    lengths: list[int] | None = None,
    dropped: list[bool] | None = None,
) -> None:
    """Add samples; the digest of each is a number, and the same for all samples of a record."""
    given = np.array(lengths or [3] * len(rows), np.int32)
    places = np.cumsum(given, dtype=np.int64) * 4
    own.add(
        source=source,
        file=file,
        paths=(f"ids-{file}", f"labels-{file}"),
        lengths={"sample": given},
        places={"ids": places, "labels": places + 1000},
        rows=np.array(rows, np.int64),
        digests=np.array([[digest, digest] for digest in digests], np.uint64).reshape(-1, 2),
        trained=np.arange(len(rows), dtype=np.int32),
        dropped=None if dropped is None else np.array(dropped),
    )


def found(own: Survey) -> dict[str, Any]:
    """The arrays of a survey as lists."""
    return {
        name: getattr(own, name) if getattr(own, name) is None else getattr(own, name).tolist()
        for name in ("bounds", "dropped", "starts_record", "trained", "side", "order")
    }


def test_samples_of_several_files_and_sources(tmp_path: Path) -> None:
    own = surveyor(tmp_path / "s", Questions(records=True, trained=True), sources=4)
    add(own, [0, 0, 2], [1, 1, 2], source=0, file=0, lengths=[5, 6, 7])
    add(own, [], [], source=1, file=1)
    add(own, [2, 3], [3, 4], source=1, file=2, lengths=[8, 9])
    add(own, [3], [5], source=3, file=3, lengths=[2])
    result = own.finish()
    # Row 2 of the third file is another record than row 2 of the first; the third source has none.
    assert found(result) == {
        "bounds": [0, 3, 5, 5, 6],
        "dropped": None,
        "starts_record": [True, False, True, True, True, True],
        "trained": [0, 1, 2, 0, 1, 0],
        "side": None,
        "order": None,
    }
    assert result.samples == 6
    assert result.lengths["sample"].tolist() == [5, 6, 7, 8, 9, 2]
    index = result.index
    assert index.lengths("sample").tolist() == [5, 6, 7, 8, 9, 2]
    assert index.places("ids").tolist() == [20, 44, 72, 32, 68, 8]
    assert index.places("labels").tolist() == [1020, 1044, 1072, 1032, 1068, 1008]
    assert index.files == tuple((f"ids-{file}", f"labels-{file}") for file in range(4))
    assert index.starts == (0, 3, 3, 5)


def test_what_nobody_asks_for_is_not_kept_and_nothing_is_written(tmp_path: Path) -> None:
    own = surveyor(tmp_path / "s", Questions(), index=False)
    add(own, [0, 1], [1, 1])
    result = own.finish()
    assert found(result) == {
        "bounds": [0, 2], "dropped": None, "starts_record": None, "trained": None, "side": None,
        "order": None,
    }  # fmt: skip
    assert result.duplicates is None
    assert not (tmp_path / "s").exists()


def test_no_samples(tmp_path: Path) -> None:
    questions = Questions(shares=(1.0, 1.0), dedup=True, records=True, trained=True)
    result = surveyor(tmp_path / "s", questions, sources=2).finish()
    assert found(result) == {
        "bounds": [0, 0, 0], "dropped": [], "starts_record": [], "trained": [], "side": [], "order": None,
    }  # fmt: skip
    assert result.index.places("ids").tolist() == result.index.lengths("sample").tolist() == []


def test_a_survey_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for _ in range(2):
        own = surveyor(tmp_path / "s", Questions(dedup=True))
        add(own, [0, 1, 2], [1, 2, 1])
        result = own.finish()
        assert result.index.lengths("sample").tolist() == [3, 3, 3]
        assert found(result)["dropped"] == [False, False, True]


#: Rows and digests of one file behind the other: records of one to four samples.
RECORDS = [
    ([0, 0, 1, 1, 1], [7, 7, 8, 8, 8]),
    ([0, 1, 1, 1, 1, 4], [8, 7, 7, 7, 7, 9]),
    ([3, 3, 3, 6], [9, 9, 9, 5]),
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_all_samples_of_a_duplicate_are_dropped_wherever_a_chunk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(survey, "_CHUNK", chunk)
    own = surveyor(tmp_path / "s", Questions(dedup=True))
    for file, (rows, digests) in enumerate(RECORDS):
        add(own, rows, digests, file=file)
    result = own.finish()
    dropped = [False] * 5 + [True] * 5 + [False] + [True] * 3 + [False]
    assert found(result)["dropped"] == dropped
    assert result.duplicates is not None
    assert result.duplicates.count == 3
    told = result.duplicates.between(0, 15)
    # The first sample of each, and file and row of the record that it repeats.
    assert list(zip(told.samples.tolist(), told.files.tolist(), told.rows.tolist(), strict=True)) == [
        (5, 0, 1), (6, 0, 0), (11, 1, 4),
    ]  # fmt: skip


def test_a_record_that_is_dropped_whole_is_no_original_and_one_that_lives_in_part_is(
    tmp_path: Path,
) -> None:
    own = surveyor(tmp_path / "s", Questions(dedup=True))
    rows = [0, 0, 1, 2, 2, 3, 3]
    digests = [1, 1, 1, 2, 2, 2, 2]
    dropped = [True, True, False, True, False, True, False]
    add(own, rows, digests, dropped=dropped)
    result = own.finish()
    # Row 1 stays: row 0 is in no output. Row 3 goes: of row 2 a sample is left.
    assert found(result)["dropped"] == [True, True, False, True, False, True, True]
    assert result.duplicates is not None
    told = result.duplicates.between(0, 7)
    assert (told.samples.tolist(), told.rows.tolist()) == ([5], [2])


def test_all_samples_of_a_record_are_on_one_side(tmp_path: Path) -> None:
    own = surveyor(tmp_path / "s", Questions(shares=(1.0, 1.0), seed=3))
    digests = np.repeat(np.arange(500), 3).tolist()
    add(own, np.repeat(np.arange(500), 3).tolist(), digests)
    side = own.finish().side
    assert side is not None
    assert side.dtype == np.int8
    by_record = side.reshape(500, 3)
    assert (by_record == by_record[:, :1]).all()
    # Half of 500, to within five standard deviations (11.2 each).
    assert abs(int(by_record[:, 0].sum()) - 250) < 56
