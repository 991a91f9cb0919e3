"""Loads, opens and plans in the process of the test: one of its own costs a second each time."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.engines import make_engine
from mtsft_preproc.plan import Plan, make_plan
from mtsft_preproc.tokenization import (
    Encoder,
    ResolvedTokenizer,
    TokenizerLoading,
    load_tokenizer,
    open_encoder,
)

__all__ = ["InProcess", "LoadedOnce", "encoder_of", "plan_of"]


def encoder_of(tokenizer: ResolvedTokenizer) -> Encoder:
    """Return the reference for a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        return open_encoder(tokenizer.save(Path(folder)))


def plan_of(config: PreprocessConfig) -> Plan:
    """Return the plan of a run."""
    return make_plan(config, make_engine("serial", 1))


class InProcess(TokenizerLoading):
    """Takes the place of ``TokenizerLoading`` where that is patched in."""

    def __init__(self, path: str, adjustment: Any, use_fast: bool, trust: bool) -> None:
        self._tokenizer = load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust)

    def result(self) -> ResolvedTokenizer:
        return self._tokenizer

    def __exit__(self, *_: object) -> None:
        pass


@functools.cache
def _loaded(
    path: str, hashes: tuple[int, ...], adjustment: Any, use_fast: bool, trust: bool
) -> ResolvedTokenizer:
    del hashes
    return load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust)


class LoadedOnce(InProcess):
    """The same, for tests that open one tokenizer often: loaded once for each state of its folder."""

    def __init__(self, path: str, adjustment: Any, use_fast: bool, trust: bool) -> None:
        files = sorted(Path(path).iterdir()) if Path(path).is_dir() else []
        hashes = tuple(hash(file.read_bytes()) for file in files if file.is_file())
        self._tokenizer = _loaded(path, hashes, adjustment, use_fast, trust)
