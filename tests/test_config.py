"""Settings, and what the bytes of a dataset follow from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.plan import make_plan

MakeConfig = Callable[..., PreprocessConfig]
RECORD = {"instruction": "q", "input": "", "output": "a"}

#: For each setting: another value, and whether it shapes the bytes.
CHANGES: dict[str, tuple[Any, bool]] = {
    "prompt_type": ("gemma", True),
    "map_keys": ('{"query": ""}', True),
    "enable_thinking": ("true", True),
    "seq_length": (99, True),
    "append_eod": (True, True),
    "ignore_index": (-1, True),
    "special_tokens_in_text": ("allow", True),
    "seed": (5, True),
    "max_samples": (1, True),
    "workers": (3, False),
    "engine": ("pool", False),
    "shard_bytes": (7, False),
    "log_interval": (5, False),
    "overwrite": (True, False),
    "restart": (True, False),
    "on_error": ("fail", False),
    "max_rejected": (3, False),
}
#: Checked elsewhere, or with one value alone today.
ELSEWHERE = {
    "input", "output_prefix", "tokenizer", "handler_name", "prompt_type_path", "train_on", "overlong",
    "trust_remote_code", "use_fast",
}  # fmt: skip


def test_every_setting_is_looked_at() -> None:
    assert {item.name for item in fields(PreprocessConfig)} == {*CHANGES, *ELSEWHERE}


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "in.jsonl").write_text((json.dumps(RECORD) + "\n") * 3)
    examples = Path(__file__).parents[1] / "examples"

    def of(**changes: Any) -> str:
        settings: dict[str, Any] = {
            "input": (str(folder / "in.jsonl"),),
            "output_prefix": str(folder / "out"),
            "tokenizer": str(examples / "tokenizer"),
            "handler_name": "alpaca",
            "prompt_type": "chatml",
            **changes,
        }
        return make_plan(PreprocessConfig(**settings)).fingerprint

    return of


@pytest.fixture(scope="module")
def usual(fingerprint: Callable[..., str]) -> str:
    return fingerprint()


@pytest.mark.parametrize(("name", "value", "shapes"), [(name, *change) for name, change in CHANGES.items()])
def test_the_fingerprint_holds_what_shapes_the_bytes(
    name: str, value: Any, shapes: bool, fingerprint: Callable[..., str], usual: str
) -> None:
    assert (fingerprint(**{name: value}) != usual) == shapes


def test_the_fingerprint_holds_the_inputs_content(make_config: MakeConfig) -> None:
    before = make_plan(make_config([RECORD])).fingerprint
    assert make_plan(make_config([RECORD])).fingerprint == before
    assert make_plan(make_config([{**RECORD, "output": "b"}])).fingerprint != before


def test_an_alias_is_the_same_handler(fingerprint: Callable[..., str], usual: str) -> None:
    assert fingerprint(handler_name="AlpacaStyleInstructionHandler") == usual
