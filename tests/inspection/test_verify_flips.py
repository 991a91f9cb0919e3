"""Any flipped bit of any file of an output is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import flip, own_files

from mtsft_preproc.inspection import verify


@pytest.mark.parametrize("kind", ["plain", "neat", "split", "pairwise", "merged"])
def test_every_flipped_bit_is_found(kind: str, copy_of: Callable[[str], Path]) -> None:
    prefix = copy_of(kind)
    files = own_files(prefix)
    assert len({path.name.rpartition(".")[2] for path in files}) == 5  # bin, idx, json, jsonl, parquet
    chance = random.Random(kind)
    for number in range(40):
        # Each file in turn, as a place among all bytes would hardly ever be in a small one.
        path = files[number % len(files)]
        bit = chance.randrange(8 * path.stat().st_size)
        with flip(path, bit):
            report = verify(str(prefix), 1)
        assert not report.ok, (path.name, bit)
        assert any(path.name in line for check in report.checks for line in check.failures), (
            path.name,
            bit,
        )
    assert verify(str(prefix)).ok


@pytest.mark.parametrize("suffix", [".manifest.json", ".timings.json"])
def test_every_bit_at_the_end_of_a_sealed_file_counts(suffix: str, copy_of: Callable[[str], Path]) -> None:
    prefix = copy_of("plain")
    path = Path(f"{prefix}{suffix}")
    size = path.stat().st_size
    # The seal: its name, its digits in either case, and what stands around them.
    for bit in range(8 * (size - 90), 8 * size, 5):
        with flip(path, bit):
            assert not verify(str(prefix), 1).ok, bit
