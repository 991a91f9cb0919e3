"""``PREFIX.rejected.jsonl``: each line, and how many there are for each reason and file."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import REASONS
from mtsft_preproc.inspection.verify.report import Check

__all__ = ["Rejected", "read_rejected"]

_ENTRIES: dict[str, type] = {
    "file": str, "row": int, "reason": str, "field": str, "expected": str, "got": str,
}  # fmt: skip


@dataclass
class Rejected:
    """What the lines say.

    Attributes:
        records: Records by reason.
        lost: Samples lost of records that kept others, by reason.
        rows: Rows of records by file.
    """

    records: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def rows_of(self, file: str) -> npt.NDArray[np.int64]:
        """Return the rows of rejected records of a file, int64 (n,)."""
        return np.asarray(self.rows.get(file, ()), np.int64)


def read_rejected(check: Check, path: Path, manifest: Mapping[str, Any]) -> Rejected:
    """Read the lines, and look at each.

    Args:
        check: Takes the failures.
        path: The file.
        manifest: That of the output.
    """
    check.file = path.name
    known = {entry["path"] for entry in manifest["inputs"]}
    found = Rejected()
    start = 0
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path.name}, byte {start} (line {number})"
            start += len(line)
            if not line.endswith(b"\n"):
                check.fail(where, "the line is cut off")
            entry = _entry(check, where, line)
            if entry is None:
                continue
            if entry["file"] not in known:
                check.fail(where, f"file {entry['file']!r} is none of the inputs")
            if "turn" in entry:
                found.lost[entry["reason"]] += 1
            else:
                found.records[entry["reason"]] += 1
                found.rows[entry["file"]].append(entry["row"])
    check.checked = f"{found.records.total():,} rejected records, {found.lost.total():,} lost samples"
    return found


def _entry(check: Check, where: str, line: bytes) -> dict[str, Any] | None:
    """Return a line, or None where it is none."""
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        check.fail(where, f"not JSON: {error}")
        return None
    if not isinstance(entry, dict):
        check.fail(where, f"not a JSON object but of type {type(entry).__name__}")
        return None
    for name, kind in _ENTRIES.items():
        if type(entry.get(name)) is not kind:
            check.fail(where, f"{name}: expected {kind.__name__}, got {entry.get(name)!r:.80}")
            return None
    if entry["row"] < 0 or type(entry.get("turn", 0)) is not int:
        check.fail(where, f"row {entry['row']} or turn {entry.get('turn')!r:.80}: no number from 0 on")
    if entry["reason"] not in REASONS:
        check.fail(where, f"reason {entry['reason']!r:.80}: expected one of the README's table")
    return entry
