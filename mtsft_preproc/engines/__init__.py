"""Engines: run one task over many items, and hand back small results in any order.

To add one: write one file with an :class:`~mtsft_preproc.engines.base.Engine` and list it here.
"""

from mtsft_preproc.engines.base import Engine, engines
from mtsft_preproc.engines.pool import PoolEngine
from mtsft_preproc.engines.serial import SerialEngine

engines.add("serial", SerialEngine)
engines.add("pool", PoolEngine)

__all__ = ["Engine", "engines", "make_engine"]


def make_engine(name: str, workers: int) -> Engine:
    """Return the engine of that name; for ``"auto"`` the one that suits the number of workers."""
    if name == "auto":
        name = "serial" if workers == 1 else "pool"
    return engines.get(name)(workers)
