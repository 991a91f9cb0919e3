"""What was checked, what is wrong, and what could not be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mtsft_preproc.errors import MtsftError

__all__ = ["SHOWN", "Check", "Report"]

#: What a damaged file may make raise, here or in numpy and pyarrow.
_DAMAGED = (
    ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
    pa.ArrowException,
)  # fmt: skip
#: How many failures of a group are told one by one.
SHOWN = 20


@dataclass
class Check:
    """A group of checks.

    Attributes:
        name: What it looks at.
        of: Name of the output that it is about.
        checked: What was looked at, with counts.
        failures: The first :data:`SHOWN` failures, a line each.
        failed: How many failures there are.
        not_checked: What could not be looked at, and why.
        done: Whether the group was looked at at all, as somebody asked for it.
        file: The file that is being looked at.
    """

    name: str
    of: str
    checked: str = ""
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    not_checked: list[str] = field(default_factory=list)
    done: bool = True
    file: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was looked at, and all holds."""
        return self.done and self.failed == 0

    def fail(self, where: object, what: str) -> None:
        """Add a failure: the file with the place in it, and what is wrong there."""
        self.add([f"{where}: {what}"], 1)

    def add(self, lines: Sequence[str], count: int) -> None:
        """Add failures of which the first are told."""
        self.failed += count
        self.failures += lines[: SHOWN - len(self.failures)]

    def each(self, places: npt.NDArray[np.int64], tell: Callable[[int], str]) -> None:
        """Add a failure for each of ``places``, int64 (n,), of which ``tell`` makes the line."""
        self.add([tell(at) for at in places[: SHOWN - len(self.failures)].tolist()], len(places))

    def equal(self, where: object, what: str, says: object, found: object) -> None:
        """Add a failure where a file says something else than was found."""
        if says != found:
            self.fail(where, f"{what}: {says!r}, found {found!r}")

    @contextmanager
    def guard(self, file: str) -> Iterator[None]:
        """Take whatever a damaged file makes raise inside for a failure of that file."""
        self.file = file
        try:
            yield
        except MtsftError as error:
            self.add([str(error)], 1)
        except _DAMAGED as error:
            self.fail(self.file, f"damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def describe(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "name": self.name,
            "output": self.of,
            "ok": self.ok,
            "done": self.done,
            "checked": self.checked,
            "failed": self.failed,
            "failures": self.failures,
            "not_checked": self.not_checked,
        }

    def skip(self, why: str) -> None:
        """Take note of what can't be checked."""
        self.not_checked.append(why)

    def leave(self, why: str) -> None:
        """Take note that the group can't be looked at, though somebody asked for it."""
        self.done = False
        self.skip(why)


@dataclass
class Report:
    """What came of a verification.

    Attributes:
        prefix: The output prefix.
        checks: The groups, in order.
    """

    prefix: str
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all was looked at that was asked for, and holds."""
        return all(check.ok for check in self.checks)

    @property
    def whole(self) -> bool:
        """Whether all holds that was looked at."""
        return all(check.failed == 0 for check in self.checks)

    @contextmanager
    def check(self, name: str, of: str) -> Iterator[Check]:
        """Yield a new group; whatever a damaged file makes raise inside is a failure of it."""
        found = Check(name, of)
        self.checks.append(found)
        with found.guard(of):
            yield found

    def describe(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "prefix": self.prefix,
            "ok": self.ok,
            "whole": self.whole,
            "checks": [check.describe() for check in self.checks],
        }
