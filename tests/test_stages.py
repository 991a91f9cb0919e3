"""The clock of --profile: times go to the innermost stage, and nothing is counted twice."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtsft_preproc import stages
from mtsft_preproc.cli.summary import profile_lines
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.stages import STAGES, Profile, StageClock


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time_of(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(stages.time, "thread_time", fake)
    monkeypatch.setattr(stages.time, "monotonic", fake)
    return fake


def test_a_stage_inside_another_takes_its_time_from_it(time_of: Clock) -> None:
    clock = StageClock()
    for _ in range(2):
        with clock.stage("outer"):
            time_of.now += 1
            with clock.stage("inner"):
                time_of.now += 4
                with clock.stage("innermost"):
                    time_of.now += 16
            time_of.now += 2
    assert clock.seconds == {"innermost": 32, "inner": 8, "outer": 6}
    clock.start()
    assert clock.seconds == {}


def test_a_stage_ends_with_an_exception(time_of: Clock) -> None:
    clock = StageClock()

    def fail() -> None:
        with clock.stage("outer"), clock.stage("inner"):
            time_of.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with clock.stage("outer"):
        time_of.now += 1
    assert clock.seconds == {"inner": 1, "outer": 1}


def test_making_items_is_counted_and_using_them_is_not(time_of: Clock) -> None:
    def items() -> Iterator[int]:
        for number in range(3):
            time_of.now += 1
            yield number
        time_of.now += 1

    clock = StageClock()
    found = []
    for item in clock.over("read", items()):
        time_of.now += 100
        found.append(item)
    assert (found, clock.seconds) == ([0, 1, 2], {"read": 4})


def test_phases_add_up_in_their_order(time_of: Clock) -> None:
    profile = Profile()
    for name, seconds in (("plan", 2), ("encode", 3), ("plan", 4)):
        with profile.phase(name):
            time_of.now += seconds
    assert list(profile.phases.items()) == [("plan", 6), ("encode", 3)]


def test_it_is_processor_time_that_stages_count() -> None:
    clock = StageClock()
    with clock.stage("asleep"):
        time.sleep(0.2)
    assert clock.seconds["asleep"] < 0.1


def test_a_run_says_where_its_time_went(make_config: Callable[..., PreprocessConfig]) -> None:
    rows = [{"instruction": f"Say {number}.", "output": f"{number}!"} for number in range(50)]
    profile = preprocess(make_config(rows)).profile
    assert list(profile.phases) == ["plan", "encode", "gather", "publish"]
    assert set(profile.stages) == set(STAGES) - {"compare"}  # the reference does all of so little
    assert all(seconds >= 0 for seconds in (*profile.phases.values(), *profile.stages.values()))
    said = profile_lines(profile).splitlines()
    assert re.fullmatch(r"profile   wall [\d.]+ s: plan .*%, encode .*%, gather .*%, publish .*%", said[0])
    assert re.fullmatch(r" +CPU of the encoding [\d.]+ s: open .*%, read .*%, .*write .*%", said[1])


def test_another_thread_has_times_of_its_own(time_of: Clock) -> None:
    clock = StageClock()

    def other() -> dict[str, float]:
        clock.start()
        with clock.stage("theirs"):
            time_of.now += 4
        return clock.seconds

    with ThreadPoolExecutor(1) as threads, clock.stage("ours"):
        time_of.now += 1
        assert threads.submit(other).result() == {"theirs": 4}
    assert clock.seconds == {"ours": 5}
