"""Runs targets in processes of their own, that may crash, hang or ask for too much memory."""

from __future__ import annotations

import importlib
import logging
import mmap
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fuzzing.engine import Finding, Target, execute, fuzz

__all__ = ["TARGETS", "Job", "Outcome", "make_target", "run_jobs"]

#: The targets, with the module that each stands in: it is imported where it runs.
TARGETS = {
    "parse_record": "json_targets",
    "parse_lines": "json_targets",
    "jsonl_ranges": "json_targets",
    "array_scanner": "json_targets",
    "json_array": "json_targets",
    "compressed": "file_targets",
    "csv": "file_targets",
    "parquet": "file_targets",
    "arrow": "file_targets",
    "idx": "dataset_targets",
    "manifest": "dataset_targets",
    "sources": "dataset_targets",
    "commit": "dataset_targets",
    "plan": "dataset_targets",
    "part": "dataset_targets",
    "records": "record_targets",
    "settings": "setting_targets",
    "chat_template": "template_targets",
}
_HEAD = struct.Struct("<QQ")
_ROOM = 1 << 20
#: Bytes of address space that a target may take beyond what it starts with.
_MEMORY = 2 << 30
#: CPU seconds of one execution until the process is ended.
_HANG = 20.0
#: How often a job goes on behind an input that ended its process.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Job:
    """A share of the executions of a target.

    Attributes:
        target: Name of the target.
        executions: How many.
        seconds: No longer than that.
        seed: The inputs follow from it.
        engine: ``own`` or ``atheris``.
    """

    target: str
    executions: int
    seconds: float
    seed: int
    engine: str = "own"


@dataclass
class Outcome:
    """What came of a job.

    Attributes:
        job: The job.
        executions: How many there were.
        cpu: Seconds of CPU.
        peak: Bytes of resident memory at most.
        findings: What was found.
    """

    job: Job
    executions: int = 0
    cpu: float = 0.0
    peak: int = 0
    findings: list[Finding] = field(default_factory=list)


def make_target(name: str, folder: Path) -> Target:
    """Return a target; it may leave files in ``folder``."""
    module = importlib.import_module(f"fuzzing.{TARGETS[name]}")
    made: Target = next(own for own in vars(module).values() if getattr(own, "name", None) == name)(folder)
    return made


class _Slot:
    """Memory in which a process says what it is about to do, for when it can't say so any more."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM)

    def put(self, number: int, data: bytes) -> None:
        kept = data[: _ROOM - _HEAD.size]
        self._memory[: _HEAD.size] = _HEAD.pack(number + 1, len(kept))
        self._memory[_HEAD.size : _HEAD.size + len(kept)] = kept

    def get(self) -> tuple[int, bytes]:
        number, length = _HEAD.unpack(self._memory[: _HEAD.size])
        return number, self._memory[_HEAD.size : _HEAD.size + length]


def run_jobs(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """Run jobs, so many at a time; yield what came of each.

    A job whose process dies goes on behind the input at which it died, with another seed.
    """
    waiting = list(reversed(jobs))
    running: list[_Run] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(_Run(waiting.pop()))
        time.sleep(0.05)
        for run in list(running):
            if run.over():
                running.remove(run)
                yield run.outcome


class _Run:
    """A job under way."""

    def __init__(self, job: Job) -> None:
        self.outcome = Outcome(job)
        self._deadline = time.monotonic() + job.seconds
        self._start(job.executions, 0)

    def _start(self, executions: int, attempt: int) -> None:
        job = self.outcome.job
        self._left, self._attempt = executions, attempt
        self._slot = _Slot()
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe(duplex=False)
        seconds = max(0.0, self._deadline - time.monotonic())
        own = Job(job.target, executions, seconds, job.seed + 1000 * attempt, job.engine)
        self._process: Any = context.Process(target=_work, args=(own, self._slot, theirs))
        self._process.start()
        theirs.close()
        self._number, self._since, self._said = 0, 0.0, False

    def over(self) -> bool:
        """Take over what was said; return whether the job is done."""
        ended = not self._process.is_alive()
        self._listen()
        if not ended:
            self._watch()
            return False
        self._process.join()
        number, data = self._slot.get()
        code = self._process.exitcode
        self.outcome.executions += number
        if self._said or (code == 0 and self.outcome.job.engine == "atheris"):
            return True
        what = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._since < 0:
            what = "hang"
        self._found(Finding(self.outcome.job.target, what, "the process was ended by it", data))
        again = number and self._attempt < _ATTEMPTS and self._left > number
        if again and time.monotonic() < self._deadline:
            self._start(self._left - number, self._attempt + 1)
            return False
        return True

    def _listen(self) -> None:
        try:
            while self._pipe.poll():
                said = self._pipe.recv()
                if isinstance(said, Finding):
                    self._found(said)
                else:
                    self.outcome.cpu += said["cpu"]
                    self.outcome.peak = max(self.outcome.peak, said["peak"])
                    self._said = True
        except EOFError:
            pass

    def _found(self, finding: Finding) -> None:
        if all(known.what != finding.what for known in self.outcome.findings):
            self.outcome.findings.append(finding)

    def _watch(self) -> None:
        """End a process whose execution takes too much CPU time."""
        number, _ = self._slot.get()
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if number != self._number or not number:
            self._number, self._since = number, spent
        elif spent - self._since > _HANG:
            self._since = -1.0
            self._process.kill()
            self._process.join()


def _work(job: Job, slot: _Slot, pipe: Connection) -> None:
    """Run a job, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.disable()
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # mimalloc sets much address space aside
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    os.environ["MTSFT_CACHE"] = str(folder / "cache")
    try:
        own = folder / "target"
        own.mkdir()
        if job.engine == "atheris":
            _by_atheris(job, own, slot, pipe)
        target = make_target(job.target, own)
        for data in target.seeds():  # what is imported late is imported now
            slot.put(-1, data)
            execute(target, data)
        _bound_memory()
        started = time.process_time()
        fuzz(target, job.executions, job.seconds, job.seed, slot.put, pipe.send)
        spent = time.process_time() - started
        pipe.send({"cpu": spent, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _by_atheris(job: Job, folder: Path, slot: _Slot, pipe: Connection) -> None:
    """Let libFuzzer choose the inputs, by the lines of the package that they reach. Doesn't return."""
    import atheris

    with atheris.instrument_imports(include=["mtsft_preproc"]):
        target = make_target(job.target, folder)
        for data in target.seeds():
            execute(target, data)
    corpus = folder.parent / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)
    told: set[str] = set()
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        slot.put(done, data)
        done += 1
        _, finding = execute(target, data)
        if finding is not None and finding.what not in told:
            told.add(finding.what)
            pipe.send(finding)
        if done == job.executions:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send({"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss << 10})

    flags = [f"-runs={job.executions}", f"-seed={job.seed + 1}", f"-max_total_time={int(job.seconds) + 1}"]
    atheris.Setup([sys.argv[0], *flags, f"-max_len={target.most}", "-verbosity=0", str(corpus)], one)
    atheris.Fuzz()
