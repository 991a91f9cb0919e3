"""Engines: every item once, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtsft_preproc.engines import engines
from mtsft_preproc.errors import InputError, WorkerError

ROOT = Path(__file__).parents[2]
LEFT = {"by": "nobody"}


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


@dataclass(frozen=True)
class KillNursery:
    """Kills what its worker was forked from, the first time that ``item`` comes by, or each time."""

    folder: str
    item: int
    always: bool = False

    def __call__(self, item: int) -> int:
        mark = Path(self.folder) / "killed"
        if item == self.item and (self.always or not mark.exists()):
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            if self.always:
                os.kill(os.getpid(), signal.SIGKILL)
        return item * item


def die_on_seven(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def leave_on_seven(item: int) -> int:
    if item == 7:
        os._exit(3)
    return item


def refuse_five(item: int) -> int:
    if item == 5:
        raise InputError("five is right out")
    return item


class NotThere:
    """Pickles, and is not found again."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return getattr, (Path, "vanished")

    def __call__(self) -> None: ...


class Odd(Exception):  # noqa: N818
    """Can't be made anew from its text."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def raise_odd(item: int) -> int:
    raise Odd(item, item)


def large(item: int) -> bytes:
    return bytes(item)


def leave() -> str:
    LEFT["by"] = "prepare"
    return "done"


def left_by(item: int) -> tuple[str, int]:
    return LEFT["by"], os.getpid()


def refuse() -> None:
    raise InputError("not prepared")


def find_nothing() -> None:
    raise FileNotFoundError(2, "No such file or directory", "settings")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_every_item_once(name: str) -> None:
    with engines.get(name)(2) as engine:
        assert sorted(engine.run(square, range(40))) == [(item, item * item) for item in range(40)]
        assert sorted(engine.run(abs, [-1, -1, 3])) == [(-1, 1), (-1, 1), (3, 3)]


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_nothing_to_do(name: str) -> None:
    with engines.get(name)(2) as engine:
        assert list(engine.run(square, [])) == []


def test_results_that_fill_the_pipe() -> None:
    with engines.get("pool")(3) as engine:
        found = [(item, len(result)) for item, result in engine.run(large, [1 << 22] * 12)]
    assert found == [(1 << 22, 1 << 22)] * 12


def test_items_and_results_that_fill_the_pipe() -> None:
    # A process of its own, which can be ended: both sides used to wait for each other.
    code = (
        "from mtsft_preproc.engines import engines\n"
        "with engines.get('pool')(1) as engine:\n"
        "    found = [result == item for item, result in engine.run(bytes, [bytes(1 << 22)] * 6)]\n"
        "assert found == [True] * 6"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_closed_standard_streams_are_no_trouble() -> None:
    code = (
        "from mtsft_preproc.engines import engines\n"
        "with engines.get('pool')(2) as engine:\n"
        "    found = list(engine.run(print, ['printed'] * 5))\n"
        "assert found == [('printed', None)] * 5"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


def test_lost_workers_are_replaced(tmp_path: Path) -> None:
    with engines.get("pool")(2) as engine:
        found = list(engine.run(DieOnce(str(tmp_path), (0, 11, 12, 29)), range(30)))
    assert sorted(found) == [(item, item * item) for item in range(30)]


def test_a_worker_that_dies_while_nobody_looks_loses_nothing(tmp_path: Path) -> None:
    found = []
    with engines.get("pool")(1) as engine:
        for item, _ in engine.run(DieOnce(str(tmp_path), (1,)), range(6)):
            found.append(item)
            if item == 0:
                time.sleep(0.5)  # it dies meanwhile
    assert sorted(found) == list(range(6))


def test_an_item_that_kills_every_worker_is_named_and_how() -> None:
    done: list[int] = []
    with engines.get("pool")(2) as engine:
        with pytest.raises(WorkerError, match="at this task, at last by signal 9: 7"):
            done.extend(item for item, _ in engine.run(die_on_seven, range(12)))
        with pytest.raises(WorkerError, match="with code 3: 7"):
            done.extend(item for item, _ in engine.run(leave_on_seven, range(12)))


def test_a_lost_nursery_is_replaced(tmp_path: Path) -> None:
    with engines.get("pool")(2) as engine:
        found = list(engine.run(KillNursery(str(tmp_path), 5), range(30)))
        assert sorted(found) == [(item, item * item) for item in range(30)]
        assert sorted(engine.run(square, [3, 4])) == [(3, 9), (4, 16)]


def test_nurseries_that_die_again_and_again_end_the_run(tmp_path: Path) -> None:
    with engines.get("pool")(2) as engine, pytest.raises(WorkerError, match="died 3 times"):
        list(engine.run(KillNursery(str(tmp_path), 5, always=True), range(30)))


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_an_error_of_the_task_comes_through(name: str) -> None:
    with engines.get(name)(2) as engine, pytest.raises(InputError, match="five is right out"):
        list(engine.run(refuse_five, range(10)))


def test_an_error_that_can_not_travel_is_told_with_its_place() -> None:
    with engines.get("pool")(1) as engine, pytest.raises(WorkerError, match="Odd: 4 and 4") as caught:
        list(engine.run(raise_odd, [4]))
    assert "in raise_odd" in str(caught.value.__cause__)


def test_what_is_prepared_is_there_in_all_workers() -> None:
    with engines.get("pool")(3) as engine:
        engine.start(["mtsft_preproc.errors"])
        assert engine.prepare(leave)() == "done"
        found = [result for _, result in engine.run(left_by, range(12))]
    assert {who for who, _ in found} == {"prepare"}
    assert os.getpid() not in {pid for _, pid in found}
    assert LEFT["by"] == "nobody"


def test_the_serial_engine_prepares_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEFT, "by", "nobody")
    with engines.get("serial")(1) as engine:
        assert engine.prepare(leave)() == "done"
    assert LEFT["by"] == "prepare"


@pytest.mark.parametrize("name", ["serial", "pool"])
def test_an_error_of_what_is_prepared_comes_through(name: str) -> None:
    with engines.get(name)(2) as engine:
        with pytest.raises(InputError, match="not prepared"):
            engine.prepare(refuse)()
        assert list(engine.run(square, [2])) == [(2, 4)]


def test_a_death_while_preparing_is_an_error_and_no_more() -> None:
    with engines.get("pool")(2) as engine:
        with pytest.raises(WorkerError, match="a process died"):
            engine.prepare(die)()
        assert list(engine.run(square, [2])) == [(2, 4)]


def test_an_os_error_of_what_is_prepared_is_no_death() -> None:
    with engines.get("pool")(2) as engine:
        with pytest.raises(FileNotFoundError, match="settings"):
            engine.prepare(find_nothing)()
        with pytest.raises(AttributeError, match="vanished"):
            engine.prepare(NotThere())()
        assert list(engine.run(square, [2])) == [(2, 4)]


def test_a_module_that_can_not_be_imported_stops_nobody_who_needs_it_not() -> None:
    with engines.get("pool")(2) as engine:
        engine.start(["no.such.module"])
        assert engine.prepare(leave)() == "done"


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_closing_stops_the_workers() -> None:
    before = set(children(os.getpid()))
    with engines.get("pool")(2) as engine:
        run = engine.run(square, range(1000))
        next(run)
        (nursery,) = set(children(os.getpid())) - before
        assert len(children(nursery)) == 2
        run.close()
        assert children(nursery) == []
    assert set(children(os.getpid())) == before


def test_a_run_that_is_closed_after_its_engine_starts_nothing() -> None:
    before = set(children(os.getpid()))
    with engines.get("pool")(2) as engine:
        run = engine.run(square, range(1000))
        next(run)
    run.close()
    assert set(children(os.getpid())) == before


_DRIVER = """
import sys, time
from mtsft_preproc.engines import engines
if __name__ == "__main__":
    with engines.get("pool")(2) as engine:
        for _ in engine.run(time.sleep, [600.0] * 8):
            pass
"""


def gone(pids: list[int]) -> Callable[[], bool]:
    def look() -> bool:
        states = []
        for pid in pids:
            try:
                states.append(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
        return set(states) <= {"Z"}

    return look


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("victim", ["driver", "nursery"])
def test_no_process_outlives_the_driver(victim: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _DRIVER], cwd=ROOT) as driver:
        found: list[int] = []

        def working() -> bool:
            found[:] = [driver.pid]
            for pid in found:
                found.extend(children(pid))
            return len(found) == 4

        assert wait_until(working)
        if victim == "nursery":
            os.kill(found[1], signal.SIGKILL)
        driver.kill()
        driver.wait()
        assert wait_until(gone(found))


def say(item: int) -> int:
    print("worker says", item)
    return item


def test_what_a_worker_prints_is_not_lost() -> None:
    code = "from test_engines import say\nfrom mtsft_preproc.engines import engines\n"
    code += "with engines.get('pool')(2) as engine:\n    list(engine.run(say, range(3)))\n"
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == [f"worker says {item}" for item in range(3)]
