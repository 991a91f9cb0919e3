"""Worker processes on this machine, replaced when they die."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mtsft_preproc.engines.base import Engine, Item, Result
from mtsft_preproc.errors import WorkerError

__all__ = ["PoolEngine"]

_TRIES = 3


class PoolEngine(Engine):
    """Runs items in spawned processes.

    When a worker is lost (killed, out of memory), the executor is unusable: a new one takes over, and the
    items that were under way are run again. One that was under way at three such losses ends the run.
    """

    def run(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        waiting = collections.deque(enumerate(items))
        losses: collections.Counter[int] = collections.Counter()
        while waiting:
            lost = yield from self._until_broken(task, waiting, self.workers)
            for entry in lost:
                losses[entry[0]] += 1
                if losses[entry[0]] == 1:
                    waiting.append(entry)
                else:
                    # Again: alone, to find out whether it is this one that kills its worker.
                    yield from self._alone(task, entry)

    def _alone(
        self, task: Callable[[Item], Result], entry: tuple[int, Item]
    ) -> Iterator[tuple[Item, Result]]:
        for _ in range(_TRIES):
            lost = yield from self._until_broken(task, collections.deque([entry]), 1)
            if not lost:
                return
        raise WorkerError(
            f"a worker process died {_TRIES} times with nothing but this task under way: {entry[1]}. "
            "Killed for memory? Use smaller --shard-bytes"
        )

    def _until_broken(
        self,
        task: Callable[[Item], Result],
        waiting: collections.deque[tuple[int, Item]],
        workers: int,
    ) -> Generator[tuple[Item, Result], None, list[tuple[int, Item]]]:
        """Yield results until all is done or a worker is lost; return what was under way then."""
        executor = futures.ProcessPoolExecutor(
            min(workers, len(waiting)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(task, os.getpid()),
        )
        running: dict[futures.Future[Any], tuple[int, Item]] = {}
        try:
            while waiting or running:
                # No more than this many futures exist, however many items there are.
                while waiting and len(running) < 2 * workers:
                    entry = waiting[0]  # stays there if the executor turns out to be broken
                    running[executor.submit(_run_task, entry[1])] = entry
                    waiting.popleft()
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    _, item = running.pop(future)
                    yield item, result
            return []
        except BrokenProcessPool:
            return list(running.values())
        finally:
            _stop(executor)


def _stop(executor: futures.ProcessPoolExecutor) -> None:
    """Stop an executor at once; tasks leave nothing behind that a later run could mistake."""
    workers = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


_task: Callable[[Any], Any] | None = None


def _start_worker(task: Callable[[Any], Any], parent: int) -> None:
    """Set a worker up: it holds the task once, leaves Ctrl-C to the driver, and ends with it."""
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A worker of a driver that was killed would otherwise wait for its next task for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run_task(item: Any) -> Any:
    assert _task is not None
    return _task(item)
