"""Engines: every item once, whatever dies."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtsft_preproc.engines import engines
from mtsft_preproc.errors import InputError, WorkerError


def square(item: int) -> int:
    return item * item


@dataclass(frozen=True)
class DieOnce:
    """Kills its worker the first time that one of ``items`` comes by."""

    folder: str
    items: tuple[int, ...]

    def __call__(self, item: int) -> int:
        mark = Path(self.folder) / str(item)
        if item in self.items and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item


def die_on_seven(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refuse_five(item: int) -> int:
    if item == 5:
        raise InputError("five is right out")
    return item


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_every_item_once(name: str) -> None:
    found = list(engines.get(name)(2).run(square, range(40)))
    assert sorted(found) == [(item, item * item) for item in range(40)]


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_nothing_to_do(name: str) -> None:
    assert list(engines.get(name)(2).run(square, [])) == []


def test_lost_workers_are_replaced(tmp_path: Path) -> None:
    task = DieOnce(str(tmp_path), (0, 11, 12, 29))
    found = list(engines.get("pool")(2).run(task, range(30)))
    assert sorted(found) == [(item, item * item) for item in range(30)]


def test_a_worker_that_dies_between_two_submits_loses_nothing(tmp_path: Path) -> None:
    found = []
    for item, _ in engines.get("pool")(1).run(DieOnce(str(tmp_path), (1,)), range(6)):
        found.append(item)
        if item == 0:
            time.sleep(1.5)  # the worker dies meanwhile, and the next submit finds the executor broken
    assert sorted(found) == list(range(6))


def test_an_item_that_kills_every_worker_is_named() -> None:
    done: list[int] = []
    with pytest.raises(WorkerError, match="under way: 7"):
        done.extend(item for item, _ in engines.get("pool")(2).run(die_on_seven, range(12)))


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_an_error_of_the_task_comes_through(name: str) -> None:
    with pytest.raises(InputError, match="five is right out"):
        list(engines.get(name)(2).run(refuse_five, range(10)))


def test_closing_stops_the_workers() -> None:
    run = engines.get("pool")(2).run(square, range(1000))
    next(run)
    run.close()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [name for name in names if b"spawn_main" in name]
