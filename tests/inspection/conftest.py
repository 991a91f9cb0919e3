"""Outputs of every kind, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from damage import build
from in_process import InProcess

from mtsft_preproc import plan


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The prefixes of outputs of every kind; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", cache(InProcess))  # each format loads its own once
        return build(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def copy_of(outputs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies an output, with its sides, to damage it."""

    def copy(kind: str) -> Path:
        prefix = outputs[kind]
        for path in prefix.parent.iterdir():
            if path.name.startswith((f"{prefix.name}.", f"{prefix.name}_")) and path.suffix != ".jsonl":
                shutil.copy(path, tmp_path / path.name)
        rejected = prefix.with_name(f"{prefix.name}.rejected.jsonl")
        if rejected.exists():
            shutil.copy(rejected, tmp_path)
        return tmp_path / prefix.name

    return copy


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the tokenizer here: a process of its own costs a second each time."""
    monkeypatch.setattr(plan, "TokenizerLoading", InProcess)
