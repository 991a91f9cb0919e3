"""Tables of ``preprocess.py``: medians, ratios, and what must hold of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from preprocess_cases import PEER_NAMES, PROGRAMS, Case
from process_tree import Cost

__all__ = ["Turn", "checks", "scaling", "table", "write_block"]


@dataclass
class Turn:
    """What one run of a program gave.

    Attributes:
        cost: Time and memory.
        tokens: Number of tokens that it wrote.
        written: sha256 by name of dataset file; empty for peers.
    """

    cost: Cost
    tokens: int
    written: dict[str, str]


def timed(name: str, turns: list[Turn]) -> list[Turn]:
    """Return the turns that count for time: without the one that looked at memory, but for peers."""
    return turns if PROGRAMS[name].kind in PEER_NAMES else turns[1:]


def table(case: Case, turns: dict[str, list[Turn]], megabytes: float) -> list[str]:
    """Return the lines of a Markdown table."""
    first, *others = turns
    bases = [first, *(["ours"] if first == "floor" and "ours" in others else [])]
    heads = ["program", "wall", "MB/s", "M tokens/s", "CPU", "peak memory", "tokens", "tokens/s to first"]
    heads += [f"{what} / {base}" for base in bases for what in ("wall", "CPU")]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, all_turns in turns.items():
        counted = timed(name, all_turns)
        wall, cpu = (median(getattr(turn.cost, what) for turn in counted) for what in ("wall", "cpu"))
        tokens = all_turns[0].tokens
        size = megabytes if PROGRAMS[name].records is None else float("nan")
        pace = ratio(turns, name, first, lambda turn: turn.tokens / turn.cost.wall)
        cells = [
            name, f"{wall:.2f} s", f"{size / wall:.2f}", f"{tokens / wall / 1e6:.2f}", f"{cpu:.2f} s",
            f"{max(turn.cost.peak for turn in all_turns):.0f} MB", f"{tokens:,}", f"{pace:.2f}",
        ]  # fmt: skip
        for base in bases:
            cells += [
                f"{ratio(turns, name, base, lambda turn: turn.cost.wall):.2f}",
                f"{ratio(turns, name, base, lambda turn: turn.cost.cpu):.2f}",
            ]
        lines.append(f"| {' | '.join(cells)} |".replace("nan", "-"))
    return lines


def ratio(turns: dict[str, list[Turn]], name: str, base: str, value: Callable[[Turn], float]) -> float:
    """Return the median, over turns, of the ratio of a value of two programs."""
    pairs = zip(timed(name, turns[name]), timed(base, turns[base]), strict=False)
    return median(value(one) / value(other) for one, other in pairs)


def checks(case: Case, turns: dict[str, list[Turn]], near: float) -> list[str]:
    """Return what is said below a table: outputs that are not equal, token totals that are not near."""
    whole = {
        name: all_turns[0].tokens for name, all_turns in turns.items() if PROGRAMS[name].records is None
    }
    said = []
    if case.equal and len(whole) > 1 and "ours" in whole:
        equal = all(
            turn.written == turns["ours"][0].written
            for name in whole
            for turn in turns[name]
            if PROGRAMS[name].kind in ("floor", "ours")
        )
        names = "; ".join(name for name in whole if PROGRAMS[name].kind in ("floor", "ours"))
        said.append(f"Equal sha256 of all six dataset files: {names}." if equal else f"NOT EQUAL: {names}.")
    for name in whole:
        if PROGRAMS[name].kind in PEER_NAMES and "ours" in whole:
            apart = whole[name] / whole["ours"] - 1
            verdict = "" if abs(apart) <= near else " NOT NEAR."
            said.append(f"{name}: {apart:+.1%} tokens.{verdict}")
    return said


def scaling(turns: dict[str, list[Turn]]) -> list[str]:
    """Return how much faster the work behind the start-up is with all workers than with one."""
    names = ("ours, 1 worker", "ours, 5 records, 1 worker", "ours", "ours, 5 records")
    if not all(name in turns for name in names):
        return []
    one, start_one, many, start_many = (
        median(turn.cost.wall for turn in timed(name, turns[name])) for name in names
    )
    return [
        f"Behind the start-up: {(one - start_one) / (many - start_many):.2f} times the speed of one worker."
    ]


def write_block(path: Path, name: str, lines: list[str]) -> None:
    """Replace what stands between the marks ``bench NAME`` and ``end`` of a Markdown file."""
    text = path.read_text("utf-8")
    mark = f"<!-- bench {name} -->"
    if mark not in text:
        raise SystemExit(f"{path} has no {mark}")
    before, _, rest = text.partition(mark)
    _, _, behind = rest.partition("<!-- end -->")
    path.write_text(before + mark + "\n" + "\n".join(lines) + "\n<!-- end -->" + behind, "utf-8")
