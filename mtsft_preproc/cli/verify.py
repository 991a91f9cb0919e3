"""``mtsft verify``."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress

from mtsft_preproc.config import usable_cores
from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.inspection import verify
from mtsft_preproc.inspection.reencoding import check_given
from mtsft_preproc.inspection.verify import Check, Report, verify_against

NAME = "verify"
HELP = "Look whether a finished dataset is whole, and is what its manifest and its ledger say."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("prefix", help="what --output-prefix was")
    parser.add_argument(
        "--workers", type=int, default=usable_cores(), metavar="N",
        help="threads (default: the cores that this process may use)",
    )  # fmt: skip
    parser.add_argument(
        "--against", nargs="*", metavar="INPUT",
        help="encode samples again from the inputs, by the reference, and compare; without INPUT they are "
        "looked for where they were",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=int, metavar="N", help="samples to draw for --against; 0: all (default: 1000)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of that draw (default: 1234)")
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own, for --against",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0 if all holds and was looked at that was asked for, else 1."""
    started = time.monotonic()
    samples, seed = _draw(arguments)
    if arguments.against:
        with suppress(DatasetError):  # of which the report tells
            check_given(arguments.prefix, arguments.against)
    report = verify(arguments.prefix, arguments.workers)
    if arguments.against is not None:
        verify_against(report, arguments.against or None, samples, seed, arguments.trust_remote_code)
    seconds = time.monotonic() - started
    if arguments.json:
        print(json.dumps({**report.describe(), "seconds": round(seconds, 3)}, ensure_ascii=False, indent=1))
    else:
        print(_text(report, seconds))
    return 0 if report.ok else 1


def _draw(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return how many samples are drawn, and by which seed."""
    for name in ("samples", "seed"):
        if getattr(arguments, name) is not None and arguments.against is None:
            raise SettingsError(f"--{name}: belongs to --against, which is not given")
    if arguments.samples is not None and arguments.samples < 0:
        raise SettingsError(
            f"--samples: expected a number of samples, or 0 for all, got {arguments.samples}"
        )
    return (
        1000 if arguments.samples is None else arguments.samples,
        1234 if arguments.seed is None else arguments.seed,
    )


def _text(report: Report, seconds: float) -> str:
    several = len({check.of for check in report.checks}) > 1
    lines = [line for check in report.checks for line in _lines(check, several)]
    failed = sum(check.failed for check in report.checks)
    if report.ok:
        end = "whole"
    elif report.whole:
        end = "whole, but not compared with its inputs"
    else:
        end = f"NOT WHOLE: {failed:,} failure{'s' if failed > 1 else ''}"
    return "\n".join([*lines, f"{report.prefix}: {end} ({seconds:.1f} s)"])


def _lines(check: Check, several: bool) -> list[str]:
    """Return what there is to say of a group of checks; whose it is where there are several outputs."""
    of = f"{check.of}: " if several else ""
    state = "FAILED" if check.failed else "ok" if check.checked else "--"
    lines = [f"{check.name:<10}{state:<8}{of}{check.checked}".rstrip(" :")]
    lines += [f"          {line}" for line in check.failures]
    if (more := check.failed - len(check.failures)) > 0:
        lines.append(f"          and {more:,} more")
    lines += [f"          not checked: {why}" for why in check.not_checked]
    return lines
