"""Parts that are merged while others are still made."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.errors import DatasetError, OutputError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.merge import Merger, merge_parts
from mtsft_preproc.parts import ContainerWriter

DATASETS = (
    DatasetSpec("ids", "sample"),
    DatasetSpec("mask", "sample", stored=False),
    DatasetSpec("answer", "answer", skips_empty=True),
    DatasetSpec("alone", "answer_mask", stored=False),
)
#: Tokens of the samples of each part, by group.
SIZES = [([3, 1], [0, 2]), ([], []), ([4], [0]), ([100_000, 2], [1, 70_000])]
LENGTHS = {
    "sample": np.array([size for sizes, _ in SIZES for size in sizes], np.int32),
    "answer": np.array([size for _, sizes in SIZES for size in sizes], np.int32),
    "answer_mask": np.array([5, 0, 66_000], np.int32),
}
IDS = np.arange(LENGTHS["sample"].sum(), dtype=np.int32)
ANSWERS = -np.arange(LENGTHS["answer"].sum(), dtype=np.int32)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    paths, ids, answers = [], IDS, ANSWERS
    for number, (samples, others) in enumerate(SIZES):
        paths.append(tmp_path / f"{number}.part")
        with ContainerWriter(paths[-1], {}, ["ids", "answer"]) as writer:
            for count, other in zip(samples, others, strict=True):
                writer.add({"ids": ids[:count], "answer": answers[:other]})
                ids, answers = ids[count:], answers[other:]
    return paths


def prefixes_in(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return {own.name: folder / own.name for own in DATASETS}


def check(folder: Path, sha256: dict[str, str]) -> None:
    """Check the datasets in a folder, which must be all that it holds."""
    expected = {
        "ids": (IDS, LENGTHS["sample"]),
        "mask": (np.ones_like(IDS), LENGTHS["sample"]),
        "answer": (ANSWERS, LENGTHS["answer"][LENGTHS["answer"] > 0]),
        "alone": (np.ones(66_005, np.int32), LENGTHS["answer_mask"]),
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(sha256)
    assert len(sha256) == 2 * len(expected)
    for name, (tokens, lengths) in expected.items():
        dataset = IndexedDataset(folder / name)
        assert dataset.lengths.tolist() == lengths.tolist()
        assert (np.fromfile(folder / f"{name}.bin", "<i4") == tokens).all()
    for name, digest in sha256.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_finished_parts_are_merged(parts: list[Path], tmp_path: Path) -> None:
    check(tmp_path / "out", merge_parts(parts, DATASETS, LENGTHS, prefixes_in(tmp_path / "out")))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_parts_may_come_in_any_order(parts: list[Path], tmp_path: Path, order: tuple[int, ...]) -> None:
    with Merger(DATASETS, prefixes_in(tmp_path / "out")) as merger:
        for number in order:
            merger.add(number, parts[number])
        merger.end(LENGTHS)
        found = merge_parts(parts, DATASETS, LENGTHS, prefixes_in(tmp_path / "out"), merger)
    check(tmp_path / "out", found)


def test_what_was_merged_can_be_thrown_away(parts: list[Path], tmp_path: Path) -> None:
    with Merger(DATASETS, prefixes_in(tmp_path / "out")) as merger:
        merger.add(0, parts[1])
        merger.add(2, parts[0])
        merger.restart()
        for number, path in enumerate(parts):
            merger.add(number, path)
        merger.end(LENGTHS)
        check(tmp_path / "out", merger.result())


@pytest.mark.parametrize("given", [0, 2, 4])
def test_a_merger_that_is_left_writes_no_index(parts: list[Path], tmp_path: Path, given: int) -> None:
    def leave() -> None:
        with Merger(DATASETS, prefixes_in(tmp_path / "out")) as merger:
            for number, path in enumerate(parts[:given]):
                merger.add(number, path)
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".bin"}


def test_a_damaged_part_is_told(parts: list[Path], tmp_path: Path) -> None:
    raw = bytearray(parts[0].read_bytes())
    raw[12] ^= 1
    parts[0].write_bytes(raw)
    with pytest.raises(DatasetError, match=r"0\.part: damaged ids"):
        merge_parts(parts, DATASETS, LENGTHS, prefixes_in(tmp_path / "out"))
    assert not (tmp_path / "out" / "ids.idx").exists()


def test_what_can_not_be_merged_is_told_before_the_last_part(parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ids.bin").touch()  # which stands for any other trouble with that file

    def merge() -> None:
        with Merger(DATASETS, prefixes_in(tmp_path / "out")) as merger:
            for number in range(1_000_000):
                merger.add(number, parts[0])

    with pytest.raises(OutputError, match=r"ids\.bin exists already"):
        merge()


def test_lengths_that_are_not_those_of_the_parts_are_refused(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lengths that don't sum to that"):
        merge_parts(parts[:3], DATASETS, LENGTHS, prefixes_in(tmp_path / "out"))
