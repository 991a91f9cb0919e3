"""What packing costs, and how full its items are: log-normal lengths, by capacity and by window.

Every row is run in processes of its own, which draw the lengths by a fixed seed (mean about 350 tokens,
none above the capacity). Seconds are the least of ``--repeat`` runs. Bytes a sample are the growth of
resident memory from before the lengths are drawn to the kernel's peak (VmHWM, reset when they lie there),
divided by the samples: for ``pack`` that counts the lengths (4 bytes), the result and all between; for
``order`` (``order_by_item``) and ``offsets`` (``offsets_in_items``) also what earlier steps left. Fill is
tokens over capacity times items.

    python benchmarks/packing.py --samples 1e6 1e7 1e8
    python benchmarks/packing.py --samples 1e7 --windows 1000 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mtsft_preproc.packing import offsets_in_items, order_by_item, pack

Result = TypeVar("Result")

MEAN, SIGMA = 350, 0.9
STEP = 1 << 20


def memory(what: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def draw(samples: int, capacity: int) -> npt.NDArray[np.int32]:
    """Draw log-normal lengths, a step at a time, so that no wider array is as long."""
    rng = np.random.default_rng(20240607)
    lengths = np.empty(samples, dtype=np.int32)
    for start in range(0, samples, STEP):
        part = lengths[start : start + STEP]
        part[:] = np.clip(rng.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, len(part)), 1, capacity)
    return lengths


def timed(step: Callable[[], Result], figures: dict[str, float], name: str, baseline: int) -> Result:
    """Run a step; note its seconds, and the peak of memory above the baseline."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from here
    start = time.perf_counter()
    result = step()
    figures[f"{name} seconds"] = time.perf_counter() - start
    figures[f"{name} bytes"] = memory("VmHWM") - baseline
    return result


def measure(samples: int, capacity: int, window: int | None) -> dict[str, float]:
    """Pack once in this process."""
    figures: dict[str, float] = {}
    pack(draw(1000, capacity), capacity)  # what is imported and set up at first use is not counted
    baseline = memory("VmRSS")
    lengths = draw(samples, capacity)
    packed = timed(lambda: pack(lengths, capacity, window), figures, "pack", baseline)
    order, first = timed(lambda: order_by_item(packed.items, packed.count), figures, "order", baseline)
    timed(lambda: offsets_in_items(lengths, order, first), figures, "offsets", baseline)
    figures["items"] = packed.count
    figures["fill"] = float(lengths.sum(dtype=np.int64)) / (packed.count * capacity)
    return figures


def best(samples: int, capacity: int, window: int | None, repeat: int) -> dict[str, float]:
    """Measure in fresh processes; return the least of each figure (items and fill are always the same)."""
    command = [sys.executable, __file__, "--one", json.dumps([samples, capacity, window])]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeat)
    ]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--capacities", type=int, nargs="+", default=[2048, 4096, 8192, 32768])
    parser.add_argument("--windows", type=int, nargs="*", default=[], help="beside the global packing")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    steps = ("pack", "order", "offsets")
    print(
        "| samples | capacity | scope | items | fill |",
        *(f"{step}, s | bytes a sample |" for step in steps),
    )
    print("| ---: | ---: | --- | ---: | ---: |" + " ---: | ---: |" * len(steps))
    for samples in map(int, arguments.samples):
        for capacity in arguments.capacities:
            for window in (*arguments.windows, None):
                found = best(samples, capacity, window, arguments.repeat)
                scope = f"window:{window}" if window else "global"
                cells = [
                    f"{samples:.0e}",
                    str(capacity),
                    scope,
                    f"{found['items']:,}",
                    f"{found['fill']:.3%}",
                ]
                for step in steps:
                    seconds, size = found[f"{step} seconds"], found[f"{step} bytes"]
                    cells += [f"{seconds:.2f}", f"{size / samples:.1f}"]
                print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
