"""How long the stages of a run take: what ``--profile`` shows.

The clock always runs. A stage is entered once per batch of records, so that looking at the time costs
nothing beside the work; and what nobody has to switch on, nobody forgets to.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["STAGES", "Profile", "StageClock", "clock"]

#: What the encoding of a shard consists of: open the tokenizer and the chat format; read and parse records;
#: make dialogues of them, with checks, digests and masks; render; turn text into ids; compare a sample with
#: the reference; put tokens and labels together; write the part.
STAGES = ("open", "read", "dialogues", "render", "tokenize", "compare", "assemble", "write")

Item = TypeVar("Item")


class StageClock(threading.local):
    """Adds up the CPU time of a thread by stage; each thread has its own times.

    A stage that is entered inside another takes its time from it, so that the times of all stages sum to
    the time that was spent in any.

    Attributes:
        seconds: CPU seconds by the name of the stage, since :meth:`start`.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    def start(self) -> None:
        """Begin anew."""
        self.seconds = {}
        self._inner = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside as ``name``."""
        began = time.thread_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.thread_time() - began
            own = spent - self._inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            if self._inner:
                self._inner[-1] += spent

    def over(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items``, and count the making of each as ``name``."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


#: That of this thread; a thread encodes one shard at a time.
clock = StageClock()


@dataclass
class Profile:
    """Where the time of a run went.

    Attributes:
        phases: Wall seconds by phase of the run, in their order.
        stages: CPU seconds of all workers together by stage of the encoding.
    """

    phases: dict[str, float] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)
    _running: dict[str, float] = field(default_factory=dict, repr=False)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done inside as ``name``."""
        self._running[name] = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - self._running.pop(name)
            self.phases[name] = self.phases.get(name, 0.0) + spent

    def so_far(self) -> dict[str, float]:
        """Return wall seconds by phase, those of a phase that is under way among them."""
        now = time.monotonic()
        running = {name: self.phases.get(name, 0.0) + now - began for name, began in self._running.items()}
        return {**self.phases, **running}
