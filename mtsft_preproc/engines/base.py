"""What an engine offers. It knows nothing of tokens or files: items go in, results come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from mtsft_preproc.registry import Registry

__all__ = ["Engine", "engines"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(ABC):
    """Runs a task over items; a context manager that leaves no process behind.

    Args:
        workers: How many items at the same time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def start(self, modules: Sequence[str] = ()) -> None:  # noqa: B027
        """Start what takes time, without waiting for it.

        Args:
            modules: What tasks are going to import.
        """

    def prepare(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Call a function where the workers can make use of what it leaves in memory.

        Args:
            function: It pickles. What it leaves there may save time, and must change no result.

        Returns:
            What waits for the result and returns it; to be called before :meth:`run`.

        Raises:
            MtsftError: Whatever the function raises.
        """
        found = function()
        return lambda: found

    def close(self) -> None:  # noqa: B027
        """End all processes."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
