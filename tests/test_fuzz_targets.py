"""The fuzzer runs, finds nothing in a short run, and would say so if it found something."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import json_targets, supervision
from fuzzing.engine import Finding, Target, execute, fuzz
from fuzzing.supervision import TARGETS, Job, make_target, run_jobs

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import decompress, json_array, json_tail, jsonl

#: Executions of targets that take longer than most.
SLOWER = {"chat_template": 60, "records": 100, "sources": 60, "manifest": 60, "idx": 200, "parquet": 150}
#: pyarrow ends the process itself where it is given what it doesn't expect: in a process of its own.
OWN_PROCESS = {"arrow", "parquet", "sources"}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what targets replace."""
    for module in (jsonl, decompress, json_array, json_tail):
        monkeypatch.setattr(module, "open", open, raising=False)
    for module in (jsonl, json_array):
        monkeypatch.setattr(module, "BATCH_BYTES", module.BATCH_BYTES)
    monkeypatch.setattr(json_array, "_CHUNK", json_array._CHUNK)
    monkeypatch.setattr("mtsft_preproc.readers.csv.BATCH_BYTES", 1 << 18)


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    executions = SLOWER.get(name, 400)
    if name in OWN_PROCESS:
        (outcome,) = run_jobs([Job(name, executions, 600, 7)], 1)
        assert outcome.findings == []
        assert outcome.executions == executions
        return
    found: list[Finding] = []
    done = fuzz(make_target(name, tmp_path), executions, 600, 7, lambda *_: None, found.append)
    assert found == []
    assert done == executions


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_sound(name: str, tmp_path: Path) -> None:
    """What starts from refused inputs mostly stays there."""
    target = make_target(name, tmp_path)
    outcomes = [execute(target, data) for data in target.seeds()]
    assert all(finding is None for _, finding in outcomes)
    refused = [isinstance(outcome, tuple) and isinstance(outcome[0], type) for outcome, _ in outcomes]
    assert sum(refused) <= len(refused) / 2
    assert len(set(target.seeds())) == len(target.seeds())


class Faulty(Target):
    """Does what no target may do, by its input."""

    name = "faulty"
    tokens = (b"a", b"c")

    def seeds(self) -> list[bytes]:
        return [b"fine"]

    def mutate(self, rng: Any, data: bytes, other: bytes) -> bytes:
        return [b"value", b"lines", b"assert", b"fine", b"refused"][int(rng.random() * 5)]

    def run(self, data: bytes) -> object:
        if data == b"value":
            raise ValueError
        if data == b"lines":
            raise InputError("one\ntwo")
        if data == b"refused":
            raise InputError("no")
        assert data != b"assert"
        return data


def test_each_kind_of_fault_is_told_once(tmp_path: Path) -> None:
    found: list[Finding] = []
    assert fuzz(Faulty(tmp_path), 200, 600, 1, lambda *_: None, found.append) == 200
    assert sorted(finding.data for finding in found) == [b"assert", b"lines", b"value"]
    kinds = sorted(finding.what.split()[0] for finding in found)
    assert kinds == ["AssertionError", "ValueError", "a"]


def test_a_run_follows_from_its_seed(tmp_path: Path) -> None:
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        target = json_targets.ParseRecordTarget(tmp_path)
        fuzz(target, 300, 600, seed, lambda _, data: seen.append(data), lambda _: None)
        return seen

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)


class Deadly(Faulty):
    """Ends its process, or hangs, at its third input."""

    name = "deadly"
    how = ""

    def mutate(self, rng: Any, data: bytes, other: bytes) -> bytes:
        return b"deadly" if rng.random() < 0.3 else b"fine"

    def run(self, data: bytes) -> object:
        if data == b"deadly" and self.how == "signal":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # not pytest's, which shows where
            os.kill(os.getpid(), signal.SIGSEGV)
        if data == b"deadly" and self.how == "memory":
            np.ones(1 << 40, np.uint8)
        while data == b"deadly" and self.how == "hang":
            pass
        return data


@pytest.mark.parametrize(
    ("how", "expected"), [("signal", "signal 11"), ("memory", "MemoryError"), ("hang", "hang")]
)
def test_what_ends_a_process_is_found_with_its_input(
    monkeypatch: pytest.MonkeyPatch, how: str, expected: str
) -> None:
    monkeypatch.setattr(Deadly, "how", how)
    monkeypatch.setattr(supervision, "_HANG", 0.3)
    monkeypatch.setattr(supervision, "_ATTEMPTS", 2)
    monkeypatch.setattr(supervision, "make_target", lambda _, folder: Deadly(folder))
    (outcome,) = run_jobs([Job("deadly", 30, 600, 1)], 1)
    (finding,) = outcome.findings
    assert expected in finding.what
    assert finding.data == b"deadly"
