"""Our bytes against the original program's, for the same command lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtsft_preproc.cli import preprocess_main

SHARED = Path(__file__).parents[3] / "shared"


def cases() -> list[Any]:
    """Return the cases whose bytes count; those that only bound a number of items are for packing."""
    path = SHARED / "golden" / "cases.jsonl"
    if not path.exists():
        return [pytest.param({}, id="needs ../shared", marks=pytest.mark.skip(reason="needs ../shared"))]
    found = []
    for line in path.read_text("utf-8").splitlines():
        case = json.loads(line)
        if case["compare"] == "bytes":
            found.append(pytest.param(case, id=case["case"]))
    return found


def read_idx(path: Path) -> tuple[int, np.ndarray[Any, Any]]:
    """Read an index by its byte table; return the type code and the lengths."""
    raw = path.read_bytes()
    assert raw[:9] == b"MMIDIDX\0\0"
    count = int.from_bytes(raw[18:26], "little")
    return raw[17], np.frombuffer(raw, "<i4", count, 34)


@pytest.mark.parametrize("case", cases())
def test_bytes_are_those_of_the_original(case: dict[str, Any], tmp_path: Path) -> None:
    places = {"{golden}": str(SHARED / "golden"), "{shared}": str(SHARED)}
    arguments = []
    for argument in case["args"]:
        for place, path in places.items():
            argument = argument.replace(place, path)
        arguments.append(argument)
    prefix = tmp_path / "out"
    assert preprocess_main([*arguments, "--output-prefix", str(prefix)]) == case["rc"] == 0
    expected = np.load(SHARED / "golden" / "expected" / f"{case['case']}.npz")
    for field in case["fields"]:
        tokens = np.fromfile(f"{prefix}_{field}.bin", "<i4")
        code, lengths = read_idx(Path(f"{prefix}_{field}.idx"))
        assert code == 4
        np.testing.assert_array_equal(lengths, expected[f"{field}.lengths"])
        np.testing.assert_array_equal(tokens, expected[f"{field}.tokens"])
