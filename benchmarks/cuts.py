"""What mask policies and over-long rules cost: whole runs, as ratios to the plain run of the same data.

A run with ``--train-on split`` or ``--overlong window`` writes far more tokens than it reads, so the figure
that counts is user time per token written, behind the start-up (which a run of a single record measures).

    python benchmarks/cuts.py --data DATA.jsonl --tokenizer FOLDER --seq-length 2048
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Runs by name, with the flags that they add.
RUNS = {
    "plain": [],
    "--overlong recent": ["--overlong", "recent"],
    "--overlong window": ["--overlong", "window"],
    "--train-on split": ["--train-on", "split"],
    "--train-on split --overlong recent": ["--train-on", "split", "--overlong", "recent"],
}


def run(arguments: argparse.Namespace, flags: list[str]) -> tuple[float, int, int]:
    """Run the command with one worker; return seconds of user time, samples, and tokens."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(
            [
                sys.executable, str(ROOT / "preprocess_data.py"), "--input", arguments.data,
                "--tokenizer-name-or-path", arguments.tokenizer, "--output-prefix", f"{folder}/data",
                "--workers", "1", "--handler-name", "auto", "--max-rejected", "1.0", *arguments.chat_format,
                *flags,
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        manifest = json.loads(Path(folder, "data.manifest.json").read_text("utf-8"))
    return seconds, manifest["samples"], manifest["tokens"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--seq-length", default="2048")
    parser.add_argument("--chat-format", nargs=2, default=["--prompt-type", "qwen"])
    arguments = parser.parse_args()
    start_up, _, _ = run(arguments, ["--max-samples", "1"])
    print("| run | samples | tokens | user time | per token |")
    print("| --- | ---: | ---: | ---: | ---: |")
    plain: tuple[float, int] | None = None
    for name, flags in RUNS.items():
        limit = [] if name in ("plain", "--train-on split") else ["--seq-length", arguments.seq_length]
        seconds, samples, tokens = run(arguments, [*flags, *limit])
        seconds -= start_up
        plain = plain or (seconds, tokens)
        time, size = seconds / plain[0], tokens / plain[1]
        print(f"| {name} | {samples:,} | {size:.2f} | {time:.2f} | {time / size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
