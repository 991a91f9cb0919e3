"""Everything in this process: for one worker, small inputs and debuggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mtsft_preproc.engines.base import Engine, Item, Result

__all__ = ["SerialEngine"]


class SerialEngine(Engine):
    """Runs one item after the other."""

    def run(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        for item in items:
            yield item, task(item)
