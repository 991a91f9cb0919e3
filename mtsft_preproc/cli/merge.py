"""``mtsft merge``."""

from __future__ import annotations

import argparse
import time

from mtsft_preproc.join import JoinResult, join

NAME = "merge"
HELP = "Join finished datasets of equal settings into one."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "prefixes", nargs="+", metavar="PREFIX",
        help="what --output-prefix was, of two or more; or prefixes of datasets of other programs",
    )  # fmt: skip
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="FOLDER/NAME")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished output once the new one is whole"
    )


def summary(result: JoinResult, seconds: float) -> str:
    """Return what a person wants to know at the end of a merge."""
    lines = [
        f"merged    {result.inputs:,} datasets",
        f"items     {result.items:,}",
        f"tokens    {result.tokens:,}",
        f"time      {seconds:.1f} s",
    ]
    lines += [
        f"{'output' if not at else '':<10}{path}.{{bin,idx}}" for at, path in enumerate(result.datasets)
    ]
    if result.manifest is not None:
        lines.append(
            f"          {result.prefix}.manifest.json, .rejected.jsonl, .sources.parquet, .timings.json"
        )
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    started = time.monotonic()
    result = join(arguments.prefixes, arguments.output_prefix, arguments.overwrite)
    print(summary(result, time.monotonic() - started))
    return 0
