"""Peak memory of every process of a run, for a small and a large input of the same data.

Repeats a JSON-lines form of the given data to the wanted sizes, runs the command on each with two workers,
and samples the resident memory of the driver and of its children from /proc every 50 ms. The kernel's own
peak (VmHWM) of each process is what is printed, so nothing between two samples is missed but the last one.

    python benchmarks/memory.py --data DATA.json --tokenizer FOLDER --prompt-type qwen
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write_input(data: list[dict[str, object]], megabytes: int, path: Path) -> None:
    """Write ``data`` again and again until the file has that size."""
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in data]
    left = megabytes * 1_000_000
    with open(path, "wb") as file:
        while left > 0:
            for line in lines:
                file.write(line)
                left -= len(line)
                if left <= 0:
                    break


def children(process: int) -> list[int]:
    """Return the children of a process, all the way down."""
    try:
        direct = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [child for pid in map(int, direct) for child in (pid, *children(pid))]


def peak(process: int) -> tuple[str, float]:
    """Return what a process is, and its peak resident memory in MB."""
    try:
        arguments = Path(f"/proc/{process}/cmdline").read_text()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return "", 0.0
    marks = {"run_child": "tokenizer loader", "spawn_main": "worker", "resource_tracker": ""}
    what = next((name for mark, name in marks.items() if mark in arguments), "driver")
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return what, int(line.split()[1]) / 1000


def measure(
    source: Path, tokenizer: str, prompt_type: str, map_keys: str, workers: int
) -> dict[str, float]:
    """Run the command; return the highest peak of each kind of process, and of all at one time."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.Popen(
            [
                sys.executable, str(ROOT / "preprocess_data.py"), "--input", str(source),
                "--tokenizer-name-or-path", tokenizer, "--output-prefix", f"{folder}/data",
                "--workers", str(workers), "--handler-name", "alpaca", "--prompt-type", prompt_type,
                "--map-keys", map_keys,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        peaks: dict[str, float] = {}
        while run.poll() is None:
            found = [peak(process) for process in (run.pid, *children(run.pid))]
            for what, size in found:
                peaks[what] = max(peaks.get(what, 0.0), size)
            total = sum(size for _, size in found)
            peaks["all together"] = max(peaks.get("all together", 0.0), total)
            time.sleep(0.05)
        if run.returncode:
            raise SystemExit(f"the run ended with code {run.returncode}")
    peaks.pop("", None)
    return peaks


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON array of Alpaca records")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--prompt-type", default="qwen")
    parser.add_argument("--map-keys", default='{"history": "history"}')
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 400])
    arguments = parser.parse_args()
    data = json.loads(arguments.data.read_text("utf-8"))
    print("| input | driver | worker | tokenizer loader | all together |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "data.jsonl"
            write_input(data, megabytes, source)
            peaks = measure(
                source, arguments.tokenizer, arguments.prompt_type, arguments.map_keys, arguments.workers
            )
        kinds = ("driver", "worker", "tokenizer loader", "all together")
        cells = " | ".join(f"{peaks.get(kind, 0):.0f} MB" for kind in kinds)
        print(f"| {megabytes} MB | {cells} |", flush=True)


if __name__ == "__main__":
    main()
