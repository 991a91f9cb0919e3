"""Hostile input for everything that reads: no crash but our own errors, no hang, bounded memory.

Runs the targets of ``tests/fuzzing`` (docs/fuzzing.md says what each looks at), and prints a table. Ends
with exit code 1 where something was found; the inputs are then left in ``--findings``.

    python tests/extended/fuzz.py --plan full [--workers 2] [--seed 1]
    python tests/extended/fuzz.py --target idx parquet --executions 100000
    python tests/extended/fuzz.py --target idx --replay FILE
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[number]) for number in (1, 2)]

from fuzzing.engine import execute  # noqa: E402
from fuzzing.supervision import TARGETS, Job, Outcome, make_target, run_jobs  # noqa: E402

#: Executions of each target in a full run: more than ten million in all, most of them where they cost
#: microseconds.
FULL = {
    "parse_record": 6_400_000,
    "parse_lines": 2_000_000,
    "jsonl_ranges": 400_000,
    "array_scanner": 300_000,
    "json_array": 150_000,
    "compressed": 100_000,
    "csv": 250_000,
    "parquet": 60_000,
    "arrow": 80_000,
    "idx": 250_000,
    "manifest": 50_000,
    "sources": 50_000,
    "commit": 50_000,
    "plan": 60_000,
    "part": 100_000,
    "records": 100_000,
    "settings": 200_000,
    "chat_template": 50_000,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plan", choices=["full"], help="all targets, with the split of a full run")
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--executions", type=int, default=20_000, help="of each target")
    parser.add_argument("--share", type=float, default=1.0, help="of the executions of the plan")
    parser.add_argument("--seconds", type=float, default=86_400, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", choices=["own", "atheris"], default="own")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "mtsft-fuzz")
    parser.add_argument("--replay", type=Path, help="run the input in this file through one target")
    return parser.parse_args()


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """Return the jobs, the long ones first; each target is split among the workers."""
    if args.engine == "atheris" and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: going on with the engine of our own", file=sys.stderr)
        args.engine = "own"
    found = []
    for target in args.target:
        count = int(FULL[target] * args.share) if args.plan else args.executions
        for part in range(args.workers):
            share = count * (part + 1) // args.workers - count * part // args.workers
            seed = 1_000_000 * args.seed + part
            found.append(Job(target, share, args.seconds, seed, args.engine))
    return [job for job in found if job.executions]


def table(outcomes: dict[str, list[Outcome]], seconds: float) -> str:
    """Return the table."""
    lines = [
        "| target | executions | a second | findings | peak MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    total = found = 0
    cpu = 0.0
    for target, own in outcomes.items():
        count, spent = sum(one.executions for one in own), sum(one.cpu for one in own)
        kinds = {finding.what for one in own for finding in one.findings}
        peak = max(one.peak for one in own) / 1e6
        rate = f"{count / spent:,.0f}" if spent else "-"
        lines.append(f"| {target} | {count:,} | {rate} | {len(kinds)} | {peak:.0f} |")
        total, found, cpu = total + count, found + len(kinds), cpu + spent
    lines.append(f"| all | {total:,} | {total / max(cpu, 1e-9):,.0f} | {found} | |")
    lines.append(f"\n{cpu / 60:.1f} minutes of CPU in the executions, {seconds / 60:.1f} of wall time")
    return "\n".join(lines)


def replay(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        target = make_target(args.target[0], Path(folder))
        outcome, finding = execute(target, args.replay.read_bytes())
        print(f"{finding.what}\n{finding.detail}" if finding else f"fine: {outcome}")
        return int(finding is not None)


def main() -> int:
    args = parse()
    if args.replay:
        return replay(args)
    started = time.monotonic()
    outcomes: dict[str, list[Outcome]] = {}
    found: set[tuple[str, str]] = set()
    for outcome in run_jobs(jobs_of(args), args.workers):
        target = outcome.job.target
        outcomes.setdefault(target, []).append(outcome)
        print(f"{target}: {outcome.executions:,} executions in {outcome.cpu:.0f} s", file=sys.stderr)
        for finding in outcome.findings:
            if (target, finding.what) in found:
                continue
            found.add((target, finding.what))
            args.findings.mkdir(parents=True, exist_ok=True)
            path = args.findings / f"{target}-{len(found)}"
            path.write_bytes(finding.data)
            print(f"FOUND {target}: {finding.what}\n{finding.detail}\n  input: {path}", file=sys.stderr)
    print(table(outcomes, time.monotonic() - started))
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
