"""What an engine offers. It knows nothing of tokens or files: items go in, results come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mtsft_preproc.registry import Registry

__all__ = ["Engine", "engines"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(ABC):
    """Runs a task over items.

    Args:
        workers: How many items at the same time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @abstractmethod
    def run(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield (item, ``task(item)``) in any order, each item once.

        ``task`` and the items pickle. Closing the iterator stops what is under way.

        Raises:
            WorkerError: Workers kept dying.
            MtsftError: Whatever the task raises.
        """


#: All engines, by the names that ``--engine`` takes.
engines: Registry[type[Engine]] = Registry("engine", "--engine")
