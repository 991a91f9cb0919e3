"""Engines: run one task over many items, and hand back small results in any order.

To add one: write one file with an :class:`~mtsft_preproc.engines.base.Engine` and list it here.
"""

from mtsft_preproc.engines.base import Engine, engines
from mtsft_preproc.engines.pool import PoolEngine
from mtsft_preproc.engines.serial import SerialEngine

engines.add("serial", SerialEngine)
engines.add("pool", PoolEngine)

__all__ = ["Engine", "engine_name", "engines", "make_engine"]


def engine_name(name: str, workers: int) -> str:
    """Return the name of an engine; for ``"auto"`` of the one that suits the number of workers."""
    if name == "auto":
        return "serial" if workers == 1 else "pool"
    return engines.canonical(name)


def make_engine(name: str, workers: int) -> Engine:
    """Return the engine of that name, or the one that suits the number of workers."""
    return engines.get(engine_name(name, workers))(workers)
