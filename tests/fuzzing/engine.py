"""Runs a target on inputs that are made from its seeds, and keeps those that do something new."""

from __future__ import annotations

import time
import traceback
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from fuzzing.mutation import havoc
from mtsft_preproc.errors import MtsftError

__all__ = ["Finding", "Target", "execute", "fuzz", "one_line"]

#: Inputs that are kept of a target at most, and findings that are told of.
_KEPT, _TOLD = 4000, 50
#: CPU seconds of one execution from which on it is a finding.
SLOW = 5.0
#: Digits and names in messages say nothing new.
_PLAIN = str.maketrans("", "", "0123456789'\"\\")


@dataclass(frozen=True)
class Finding:
    """What a target must not do, with the input that makes it do so.

    Attributes:
        target: Name of the target.
        what: Kind of the exception and the place, or ``hang``, ``slow``, ``signal N``; one finding each.
        detail: The message and the last frames.
        data: The input.
    """

    target: str
    what: str
    detail: str
    data: bytes


class Target(ABC):
    """Something that takes any bytes: it gives a result or raises an error of ours, and nothing else.

    Args:
        folder: An empty folder of its own.
    """

    name: ClassVar[str]
    #: What inputs are made of.
    tokens: ClassVar[Sequence[bytes]]
    #: Length from which on an input is cut.
    most: ClassVar[int] = 2000

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Return valid inputs."""

    @abstractmethod
    def run(self, data: bytes) -> object:
        """Take an input.

        Returns:
            What tells kinds of outcomes apart: inputs with a new one are changed further.

        Raises:
            MtsftError: The input is refused.
            AssertionError: The result is wrong.
        """

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        """Return an input that is made from one or two others."""
        return havoc(rng, data, other, self.tokens)


def execute(target: Target, data: bytes) -> tuple[object, Finding | None]:
    """Run a target once; return the kind of outcome, and what is wrong with it."""
    try:
        return target.run(data), None
    except MtsftError as error:
        message = str(error)
        if "\n" in message:
            what = f"a message of several lines: {type(error).__name__}"
            return None, Finding(target.name, what, _detail(error), data)
        return (type(error), zlib.crc32(message.translate(_PLAIN).encode("utf-8", "replace"))), None
    except (Exception, SystemExit) as error:
        return None, Finding(target.name, _where(error), _detail(error), data)


def one_line(error: Exception) -> str:
    """Return the message of an error, which must be one line."""
    message = str(error)
    assert "\n" not in message, message
    return message


def _slow(target: Target, data: bytes) -> Finding | None:
    """Return what is found where it takes so much CPU time, and not only time on a busy machine."""
    started = time.thread_time()
    execute(target, data)
    took = time.thread_time() - started
    return Finding(target.name, "slow", f"{took:.1f} s of CPU", data) if took > SLOW else None


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "mtsft_preproc" in frame.filename] or frames
    last = own[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    if isinstance(error, AssertionError):  # the oracle's line is what tells
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{type(error).__name__} at {place}"


def _detail(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-6:])[-2500:]


def fuzz(
    target: Target,
    executions: int,
    seconds: float,
    seed: int,
    before: Callable[[int, bytes], Any],
    report: Callable[[Finding], Any],
) -> int:
    """Run a target on its seeds and on inputs that are made from them.

    Args:
        target: The target.
        executions: How many.
        seconds: No longer than that, of wall time.
        seed: The inputs follow from it alone.
        before: Is told the number of each execution and its input, before it takes place.
        report: Is told each finding, the first of a kind.

    Returns:
        The number of executions.
    """
    rng = Random(f"{target.name} {seed}")
    pool = list(target.seeds())
    seeds = iter(list(pool))
    seen: set[object] = set()
    told: set[str] = set()
    deadline = time.monotonic() + seconds
    done = 0
    while done < executions and (done % 64 or time.monotonic() < deadline):
        data = next(seeds, None)
        if data is None:
            first, second = _pick(rng, pool), pool[int(rng.random() * len(pool))]
            data = target.mutate(rng, first, second)[: target.most]
        before(done, data)
        started = time.perf_counter()
        outcome, finding = execute(target, data)
        done += 1
        if time.perf_counter() - started > SLOW and finding is None:
            finding = _slow(target, data)
        if finding is not None:
            if finding.what not in told and len(told) < _TOLD:
                told.add(finding.what)
                report(finding)
        elif outcome not in seen and len(pool) < _KEPT:
            seen.add(outcome)
            pool.append(data)
    return done


def _pick(rng: Random, pool: Sequence[bytes]) -> bytes:
    """Return one of the inputs, the newer ones more often."""
    return pool[
        int(len(pool) * (rng.random() if rng.random() < 0.5 else 1 - rng.random() ** 2 / 2) * 0.9999)
    ]
