"""Parts -> the staged ``.bin``/``.idx`` pairs, checked while they are copied."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.indexed import IndexedWriter, bin_path, idx_path
from mtsft_preproc.parts import Container

__all__ = ["Merger", "merge_parts"]

Lengths = npt.NDArray[np.int32]
#: Parts in their order, then the lengths; None to stop.
_Items = queue.SimpleQueue[Path | Lengths | None]

#: Ones that are written at a time: 256 KiB, which stay in a processor's cache.
_ONES = np.ones(1 << 16, "<i4")
_NO_LENGTHS = np.zeros(0, np.int32)


def merge_parts(
    parts: Sequence[Path],
    datasets: Sequence[DatasetSpec],
    lengths: Mapping[str, Lengths],
    prefixes: Mapping[str, Path],
    begun: Merger | None = None,
) -> dict[str, str]:
    """Write the datasets, side by side.

    Args:
        parts: The parts in order.
        datasets: What to write.
        lengths: int32, shape (S,): tokens of each sample, by group.
        prefixes: Where each dataset goes, by its name.
        begun: What was told all of that already.

    Returns:
        The sha256 of each file, by name.

    Raises:
        DatasetError: A part is damaged.
    """
    if begun is not None:
        return begun.result()
    with Merger(datasets, prefixes) as merger:
        for number, path in enumerate(parts):
            merger.add(number, path)
        merger.end(lengths)
        return merger.result()


class Merger:
    """Writes datasets while the parts for them still come in: in their order, a thread per dataset.

    A context manager: left before :meth:`result`, it stops, and no index is written.

    Args:
        datasets: What to write.
        prefixes: Where each dataset goes, by its name.
    """

    def __init__(self, datasets: Sequence[DatasetSpec], prefixes: Mapping[str, Path]) -> None:
        self._datasets = tuple(datasets)
        self._prefixes = dict(prefixes)
        self._start()

    def _start(self) -> None:
        self._waiting: dict[int, Path] = {}
        self._next = 0
        self._stopped = threading.Event()
        self._queues: list[_Items] = [queue.SimpleQueue() for _ in self._datasets]
        self._threads = ThreadPoolExecutor(len(self._datasets))
        self._jobs: list[Future[dict[str, str]]] = []
        for dataset, own in zip(self._datasets, self._queues, strict=True):
            # What has no tokens of its own has as many as another stream of its group.
            like = dataset.name if dataset.stored else _stored(self._datasets, dataset.group)
            job = _Job(dataset.stored, like, self._prefixes[dataset.name], own, self._stopped)
            self._jobs.append(self._threads.submit(job.run))

    def restart(self) -> None:
        """Throw away what was written, as if no part had been added."""
        self.stop()
        for prefix in self._prefixes.values():
            for path in (bin_path(prefix), idx_path(prefix)):
                path.unlink(missing_ok=True)
        self._start()

    def add(self, number: int, path: Path) -> None:
        """Add a part.

        Args:
            number: Its place in the order; those of all parts count from 0 without gaps.
            path: The part.

        Raises:
            DatasetError: One that was added before is damaged. Whatever else keeps a dataset from being
                written, such as a full disk, is raised here as well: it need not wait for the last part.
        """
        for job in self._jobs:
            if job.done():
                job.result()
        self._waiting[number] = path
        while (due := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            for own in self._queues:
                own.put(due)

    def end(self, lengths: Mapping[str, Lengths]) -> None:
        """Say that all parts are there, and the tokens of each sample, int32 (S,), by group."""
        for dataset, own in zip(self._datasets, self._queues, strict=True):
            sizes = lengths[dataset.group]
            own.put(sizes[sizes > 0] if dataset.skips_empty else sizes)

    def result(self) -> dict[str, str]:
        """Wait until all is written and on disk; return the sha256 of each file, by name.

        Raises:
            DatasetError: A part is damaged.
        """
        found: dict[str, str] = {}
        for job in self._jobs:
            found |= job.result()
        return found

    def __enter__(self) -> Merger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the threads; those that are not done leave what they have under way."""
        self._stopped.set()
        for own in self._queues:
            own.put(None)
        self._threads.shutdown()


class _Stopped(Exception):  # noqa: N818 - no error
    """Ends a thread, and keeps its index from being written."""


@dataclass
class _Job:
    """Writes one dataset.

    Attributes:
        stored: Whether it has tokens of its own; else it gets ones.
        like: The stream of the parts that is copied or counted; None where nobody can tell but the lengths.
        prefix: Where it goes.
        items: What to write.
        stopped: Whether to stop in spite of what is in there.
    """

    stored: bool
    like: str | None
    prefix: Path
    items: _Items
    stopped: threading.Event

    def run(self) -> dict[str, str]:
        """Write the pair of files; return the sha256 of each, by name."""
        tokens = 0
        with IndexedWriter(self.prefix) as writer:
            while isinstance(item := self._take(), Path):
                tokens += self._copy(Container(item), writer)
            if not self.stored:
                _write_ones(int(item.sum(dtype=np.int64)) - tokens, writer)
            writer.write_raw(memoryview(b""), item)
        return {
            writer.bin_path.name: writer.sha256[".bin"],
            writer.idx_path.name: writer.sha256[".idx"],
        }

    def _take(self) -> Path | Lengths:
        item = self.items.get()
        if item is None or self.stopped.is_set():
            raise _Stopped
        return item

    def _copy(self, part: Container, writer: IndexedWriter) -> int:
        """Write what a part is good for; return how many tokens that is."""
        if self.like is None:
            return 0
        tokens = int(part.blocks(self.like)[1].sum()) // 4
        if self.stored:
            for piece in part.tokens(self.like):
                writer.write_raw(piece, _NO_LENGTHS)
        else:
            _write_ones(tokens, writer)
        return tokens


def _stored(datasets: Sequence[DatasetSpec], group: str) -> str | None:
    """Return the name of a dataset of a group that has tokens of its own."""
    return next((own.name for own in datasets if own.stored and own.group == group), None)


def _write_ones(count: int, writer: IndexedWriter) -> None:
    while count > 0:
        writer.write_raw(_ONES[:count], _NO_LENGTHS)
        count -= len(_ONES)
