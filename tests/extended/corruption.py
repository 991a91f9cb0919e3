"""Flips random bits in finished outputs, and holds that ``mtsft verify`` finds every one of them.

Outputs of every kind are made, small ones; in each so many bits are flipped one at a time, in all of its
files: half of them in a random file each, half of them anywhere among all bytes. Prints a Markdown table;
exit code 1 where a flip is not found, or where no failure names the file.

    python tests/extended/corruption.py [--flips 1000] [--seed 0] [--kinds plain,neat]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from damage import KINDS, build, flip, own_files

from mtsft_preproc.inspection import verify


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="bits per output (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="which outputs (default: all)")
    arguments = parser.parse_args()
    missed: list[str] = []
    print("| output | files | bytes | flips | found | named | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        outputs = build(Path(folder))
        for kind in arguments.kinds.split(","):
            missed += examine(
                kind, outputs[kind], arguments.flips, random.Random(f"{arguments.seed} {kind}")
            )
    print(*missed, sep="\n")
    return int(bool(missed))


def examine(kind: str, prefix: Path, flips: int, chance: random.Random) -> list[str]:
    """Flip bits of an output; return those that were not found, or not named."""
    files = own_files(prefix)
    sizes = [path.stat().st_size for path in files]
    counts: Counter[str] = Counter()
    missed = []
    began = time.monotonic()
    for number in range(flips):
        (place,) = chance.choices(range(len(files)), None if number % 2 else sizes)
        path, bit = files[place], chance.randrange(8 * sizes[place])
        with flip(path, bit):
            report = verify(str(prefix), 1)
        lines = [line for check in report.checks for line in check.failures]
        named = any(path.name in line for line in lines)
        counts.update(found=not report.ok, named=named)
        if report.ok or not named:
            missed.append(f"{kind}: {path.name}, bit {bit}: {'not found' if report.ok else 'not named'}")
    if not verify(str(prefix)).ok:
        missed.append(f"{kind}: not whole any more, with all bits as they were")
    print(
        f"| {kind} | {len(files)} | {sum(sizes):,} | {flips:,} | {counts['found']:,} | {counts['named']:,} "
        f"| {time.monotonic() - began:.0f} |",
        flush=True,
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
