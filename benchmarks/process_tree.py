"""What a command costs with all the processes that it starts: wall time, CPU time, memory.

Linux alone. CPU time is what the kernel charged to the command and to every process below it, user and
system; the caller becomes the reaper of orphans (``PR_SET_CHILD_SUBREAPER``), so a fork server and its
workers, whose parent is gone or never waits for them, are counted too. Memory is the sum over the tree of
PSS (resident pages, a shared page divided by the number of its users), read from
``/proc/PID/smaps_rollup`` at intervals; the highest sum is the peak. Pages of files that are mapped
count, the page cache of files that are only read does not.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "run"]

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        wall: Seconds from start to end of the command.
        cpu: Seconds of user and system time of the whole tree.
        peak: Highest sum of PSS, in MB; 0 where it was not sampled.
    """

    wall: float
    cpu: float
    peak: float


def run(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, interval: float = 0.0
) -> Cost:
    """Run a command to its end and return what it cost.

    Args:
        command: Program and arguments.
        log: File that takes what it prints.
        environment: Variables on top of this process's own.
        interval: Seconds between two looks at the memory; 0: none.

    Raises:
        SystemExit: It ended with another code than 0; the end of the log is printed.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(log, "wb") as file:
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        peak = _Peak(child.pid, interval)
        wall, cpu, code = _reap(child.pid, started)
    child.returncode = code
    highest = peak.stop()
    if code:
        print(log.read_text("utf-8", errors="replace")[-3000:])
        raise SystemExit(f"{' '.join(command)}: ended with code {code}")
    return Cost(wall, cpu, highest)


def _reap(pid: int, started: float) -> tuple[float, float, int]:
    """Wait for the command and for all that it leaves behind; return wall and CPU seconds and its code."""
    wall, cpu, code = 0.0, 0.0, 0
    while True:
        try:
            ended, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return wall, cpu, code
        cpu += usage.ru_utime + usage.ru_stime
        if ended == pid:
            wall, code = time.monotonic() - started, os.waitstatus_to_exitcode(status)


class _Peak:
    """A thread that looks at the memory of a tree of processes until it is stopped."""

    def __init__(self, pid: int, interval: float) -> None:
        self._pid = pid
        self._interval = interval
        self._highest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if interval:
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._highest = max(self._highest, sum(_pss(process) for process in _tree(self._pid)))

    def stop(self) -> float:
        """Stop looking; return the highest sum, in MB."""
        self._stop.set()
        if self._interval:
            self._thread.join()
        return self._highest


def _tree(pid: int) -> list[int]:
    """Return a process and all below it, and orphans that came to this process."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text("utf-8", errors="replace")
            except OSError:
                continue
            # The name of the program, in brackets, may hold blanks.
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, front = [], [pid, *(child for child in parents.get(os.getpid(), ()) if child != pid)]
    while front:
        process = front.pop()
        found.append(process)
        front += parents.get(process, ())
    return found


def _pss(pid: int) -> float:
    """Return the PSS of a process in MB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)
