"""What a person sees while a run works."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from mtsft_preproc.parts import PartSummary
from mtsft_preproc.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def part(records: int, rejected: int = 0) -> PartSummary:
    return PartSummary(records=records, tokens=10 * records, rejected=Counter({"not-json": rejected}))


def test_a_line_per_interval_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(100.0, 1000, stream)
    for _ in range(5):
        progress.add(20.0, part(400, 1))
    progress.close()
    lines = stream.getvalue().splitlines()
    assert [line.partition(" records")[0] for line in lines] == ["encoded 1,200"]
    assert lines[0].endswith("3 rejected")


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(100.0, 1000, stream)
    progress.add(50.0, part(400))
    progress.add(50.0, part(100, 2))
    progress.close()
    last = stream.getvalue().split("\r")[-1]
    assert "100%" in last
    assert "500 records" in last
    assert "2 rejected" in last


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_small_sizes_do_no_harm(size: float) -> None:
    progress = Progress(size, 1, Terminal())
    progress.add(size, part(1))
    progress.close()
