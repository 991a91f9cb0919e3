"""Worker processes on this machine, replaced when they die."""

from __future__ import annotations

import pickle
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from mtsft_preproc.engines.base import Engine, Item, Result
from mtsft_preproc.engines.nursery import Nursery, NurseryEndedError, Worker, result_of
from mtsft_preproc.errors import WorkerError

__all__ = ["PoolEngine"]

_TRIES = 3
#: Bytes of an item that a busy worker is sent: a connection takes them in at once. More might have to wait
#: for the worker, which may itself be waiting for us to take a large result.
_AHEAD = 1 << 13


class PoolEngine(Engine):
    """Runs items in processes that are forked from a :class:`Nursery`.

    When a worker is lost (killed, out of memory), another one takes its place, and the item that it was
    at is run again. One at which three workers were lost ends the run.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._nursery: Nursery | None = None

    def start(self, modules: Sequence[str] = ()) -> None:
        with self._alive(f"importing {', '.join(modules)}"):
            self._home().load(modules)

    def prepare(self, function: Callable[[], Result]) -> Callable[[], Result]:
        with self._alive(function):
            wait = self._home().call(function)

        def result() -> Result:
            with self._alive(function):
                found: Result = wait()
            return found

        return result

    @contextmanager
    def _alive(self, what: object) -> Iterator[None]:
        try:
            yield
        except NurseryEndedError:
            self.close()
            raise WorkerError(
                f"a process died at this: {what}. Killed for memory, or by a library?"
            ) from None

    def close(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def run(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        waiting = deque(enumerate(items))
        losses: Counter[int] = Counter()
        pickled = pickle.dumps(task)
        crew: dict[Any, _Hand] = {}
        try:
            while waiting or any(hand.items for hand in crew.values()):
                self._hire(crew, pickled, waiting, losses)
                for ready in connection.wait(list(crew)):
                    hand = crew[ready]
                    try:
                        answer = hand.worker.connection.recv_bytes()
                    except (EOFError, OSError):
                        self._dismiss(crew, hand, waiting, losses)
                        continue
                    _, item = hand.items.popleft()
                    # Before the result is looked at: nobody waits for who takes it.
                    self._supply(hand, waiting)
                    yield item, result_of(answer)
        finally:
            for hand in crew.values():
                self._stop(hand)

    def _home(self) -> Nursery:
        if self._nursery is None:
            self._nursery = Nursery()
        return self._nursery

    def _hire(
        self, crew: dict[Any, _Hand], task: bytes, waiting: deque[tuple[int, Any]], losses: Counter[int]
    ) -> None:
        """Fork workers until there are enough, and give each of them something to do."""
        while waiting and len(crew) < self.workers:
            try:
                worker = self._home().fork(task)
            except NurseryEndedError:
                self.close()
                losses[-1] += 1
                if losses[-1] == _TRIES:
                    raise WorkerError(f"the process that workers come from died {_TRIES} times") from None
                continue
            hand = crew[worker.connection] = _Hand(worker)
            self._supply(hand, waiting)

    def _supply(self, hand: _Hand, waiting: deque[tuple[int, Any]]) -> None:
        """Give a worker an item, and while there are many a second one, so that it never has to wait."""
        most = 2 if len(waiting) > self.workers else 1
        while waiting and len(hand.items) < most:
            pickled = pickle.dumps(waiting[0][1])
            if hand.items and len(pickled) > _AHEAD:
                return
            hand.items.append(waiting.popleft())
            try:
                hand.worker.connection.send_bytes(pickled)
            except OSError:
                return  # It died, which the next look at it will show.

    def _stop(self, hand: _Hand) -> int:
        if self._nursery is not None:
            return self._nursery.stop(hand.worker)
        hand.worker.connection.close()  # All others ended with the nursery.
        return -signal.SIGKILL

    def _dismiss(
        self,
        crew: dict[Any, _Hand],
        hand: _Hand,
        waiting: deque[tuple[int, Any]],
        losses: Counter[int],
    ) -> None:
        """Take leave of a worker that died; what it had to do is done by others."""
        del crew[hand.worker.connection]
        code = self._stop(hand)
        waiting.extendleft(reversed(hand.items))
        if not hand.items:
            return
        number, item = hand.items[0]
        losses[number] += 1
        if losses[number] == _TRIES:
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            raise WorkerError(
                f"a worker process died {_TRIES} times at this task, at last {how}: {item}. "
                "Killed for memory? Use smaller --shard-bytes"
            )


@dataclass
class _Hand:
    """A worker, and the items that it was sent and has not answered: the first is the one it is at."""

    worker: Worker
    items: deque[tuple[int, Any]] = field(default_factory=deque)
