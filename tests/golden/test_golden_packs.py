"""The golden cases of packing: no more items than the original's, and every sample unchanged in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from arranged import check_packs, items_of, manifest_of, rejected_of, samples_of

from mtsft_preproc.cli import preprocess_main

SHARED = Path(__file__).parents[3] / "shared"


def cases() -> list[Any]:
    path = SHARED / "golden" / "cases.jsonl"
    if not path.exists():
        return [pytest.param({}, id="needs ../shared", marks=pytest.mark.skip(reason="needs ../shared"))]
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [pytest.param(case, id=case["case"]) for case in found if case["compare"] == "items"]


@pytest.mark.parametrize("case", cases())
def test_packs_are_no_more_than_those_of_the_original(case: dict[str, Any], tmp_path: Path) -> None:
    arguments = [
        argument.replace("{golden}", str(SHARED / "golden")).replace("{shared}", str(SHARED))
        for argument in case["args"]
    ]
    length, neat = 1024, "--neat-pack" in arguments
    assert arguments[arguments.index("--seq-length") + 1] == str(length)
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    assert preprocess_main([*arguments, "--output-prefix", str(packed)]) == case["rc"] == 0
    unpacked = [own for own in arguments if own not in ("--pack", "--neat-pack")]
    assert preprocess_main([*unpacked, "--output-prefix", str(plain)]) == 0
    check_packs(packed, length, neat=neat)
    for field in ("input_ids", "labels", "attention_mask"):
        told = case["fields"][f"packed_{field}_document"]
        items = items_of(packed, field)
        assert told["tokens"] == told["sequences"] * length
        assert 0 < len(items) <= told["sequences"]
        assert {len(item) for item in items} == {length}
    samples = samples_of(packed)
    assert len(samples) > 100
    assert [own.in_a_pack() for own in samples] == [own.in_a_pack() for own in samples_of(plain)]
    assert {own["reason"] for own in rejected_of(packed)} == {own["reason"] for own in rejected_of(plain)}
    # At least what all tokens take up, and less than one and a half of it.
    assert manifest_of(packed)["packing"]["fill"] > 2 / 3
