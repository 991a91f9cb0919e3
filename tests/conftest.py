"""What all tests share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.config import PreprocessConfig

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "examples" / "tokenizer"
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let nothing come from, or stay in, the cache of whoever runs the tests."""
    os.environ["MTSFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files, real tokenizers and real dialogues that stands beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    """The bundled tokenizer."""
    return TOKENIZER


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., PreprocessConfig]:
    """Return settings for a small run into ``tmp_path/out/data``; keywords change them."""

    def make(records: list[Any] | None = None, **changes: Any) -> PreprocessConfig:
        source = tmp_path / "in.jsonl"
        if records is not None:
            lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in records]
            source.write_text("".join(line + "\n" for line in lines), "utf-8")
        settings: dict[str, Any] = {
            "input": (str(source),),
            "output_prefix": str(tmp_path / "out" / "data"),
            "tokenizer": str(TOKENIZER),
            "handler_name": "alpaca",
            "prompt_type": "chatml",
            "workers": 1,
            "max_rejected": 1.0,
        }
        return PreprocessConfig(**{**settings, **changes})

    return make
