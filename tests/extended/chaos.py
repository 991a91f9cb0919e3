r"""Runs are killed at random moments, and the same command then ends with the bytes of an undisturbed run.

An input of that size is made of the bundled words: Alpaca records with history. Three commands (unpacked,
packed, and packed with split and shuffle) run undisturbed, by which their length and their bytes are known.
Each trial starts one of them, kills (SIGKILL) its driver, one of the other processes that it started, or
its whole process group, at a moment drawn over the length of the run, a third of them over its last 15 %;
and then runs the same command until it ends with exit code 0. One trial in five kills the second run, too.
A run may also survive the loss of a worker itself. It ends well if all files of the output have the bytes
of the undisturbed run, and nothing else is left: no work folder, lock, partial file or process.

    python tests/extended/chaos.py [--kills 200] [--megabytes 50] [--seed 1] [--workers 2] \
        [--tokenizer FOLDER]

Prints a Markdown table, by who was killed and how far the run was; exit code 0 only if all trials end well.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGETS = ("driver", "worker", "group")
#: How far a run was when it was killed, by what stands on the disk.
PHASES = ("before the plan", "encode", "gather", "merge and publish", "after")
CASES = {
    "unpacked": [],
    "packed": ["--pack", "--neat-pack", "--seq-length", "2048"],
    "split": ["--pack", "--seq-length", "1024", "--split", "90,5,5", "--shuffle", "--dedup", "exact"],
}
#: Files that may differ from run to run.
UNREPRODUCIBLE = (".timings.json",)


def write_input(path: Path, megabytes: int, seed: int) -> None:
    """Write Alpaca records with history, of random words that the tokenizer was trained on."""
    chance = random.Random(seed)
    texts = [
        line
        for own in sorted((ROOT / "examples" / "data").rglob("*.json*"))
        for line in own.read_text("utf-8").split()
    ]
    words = sorted({word for word in texts if word.isalpha()})

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(3, 60)))

    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1_000_000:
            history = [[text(), text()] for _ in range(chance.randint(0, 3))]
            record = {"instruction": text(), "input": "", "output": text(), "history": history}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of all that stands in a folder, folders included."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in folder.iterdir()
        if not path.name.endswith(UNREPRODUCIBLE)
    }


def processes(group: int) -> list[int]:
    """Return the living processes of a process group, but for its leader."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(place.parent.name))
    return sorted(set(found) - {group})


def phase(here: Path) -> str:
    """Return how far a run is."""
    work = here / "data.mtsft-work"
    if (here / "data.mtsft-done").exists() or (work / "commit.json").exists():
        return "merge and publish"
    if (here / "data.manifest.json").exists():
        return "after"
    if not (work / "plan.json").exists():
        return "before the plan"
    if any((work / "staging").glob("*.sources.parquet")) or any((work / "staging").glob("*.idx")):
        return "merge and publish"
    return "gather" if (work / "survey").exists() or (work / "gathered").exists() else "encode"


@dataclass
class Chaos:
    """All trials.

    Attributes:
        folder: Scratch.
        workers: Of each run.
        tokenizer: Its folder.
        chance: What is random.
        groups: Process groups that may live.
    """

    folder: Path
    workers: int
    tokenizer: str
    chance: random.Random
    groups: list[int] = field(default_factory=list)

    def start(self, case: str, here: Path) -> subprocess.Popen[bytes]:
        """Start a command, in a process group of its own."""
        here.mkdir(exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            run = subprocess.Popen(
                [
                    sys.executable, str(ROOT / "preprocess_data.py"),
                    "--input", str(self.folder / "in.jsonl"), "--output-prefix", str(here / "data"),
                    "--tokenizer-name-or-path", self.tokenizer,
                    "--handler-name", "alpaca", "--prompt-type", "chatml",
                    "--map-keys", '{"history": "history"}', "--workers", str(self.workers), *CASES[case],
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.groups.append(run.pid)
        return run

    def end(self) -> None:
        """Leave no process behind."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def calm(self, case: str) -> tuple[dict[str, str], float]:
        """Run a command undisturbed; return its digests, and the seconds that it takes."""
        here = self.folder / f"calm-{case}"
        started = time.monotonic()
        if self.start(case, here).wait():
            raise SystemExit((self.folder / "log").read_text("utf-8"))
        seconds = time.monotonic() - started
        found = digests(here)
        shutil.rmtree(here)
        return found, seconds

    def kill(self, case: str, here: Path, target: str, moment: float) -> str:
        """Start a command, kill what is said at that moment; return how far it was."""
        run = self.start(case, here)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(moment)
        reached = "after" if run.poll() is not None else phase(here)
        others = processes(run.pid)
        with contextlib.suppress(ProcessLookupError):
            if target == "group":
                os.killpg(run.pid, signal.SIGKILL)
            elif target == "driver" or not others:
                run.kill()
            else:
                os.kill(self.chance.choice(others), signal.SIGKILL)
        run.wait()
        deadline = time.monotonic() + 30
        while processes(run.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        if processes(run.pid):
            raise SystemExit(f"processes outlive their driver: {processes(run.pid)}")
        return reached

    def trial(self, case: str, target: str, share: float, seconds: float) -> tuple[str, dict[str, str]]:
        """Kill a run, maybe twice, and let it end; return how far it was, and the digests of its output."""
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        (self.folder / "log").write_bytes(b"")
        reached = self.kill(case, here, target, share * seconds)
        if self.chance.random() < 0.2:
            self.kill(case, here, self.chance.choice(TARGETS), self.chance.random() * seconds)
        for _ in range(3):
            if not self.start(case, here).wait():
                break
            # A run that was killed behind its end, or that survived the loss of a worker.
            last = (self.folder / "log").read_text("utf-8").splitlines()[-1]
            if "exists already" in last:
                break
        return reached, digests(here)


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokenizer", default=str(ROOT / "examples" / "tokenizer"), help="its folder")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    counts: Counter[tuple[str, str]] = Counter()
    good = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["MTSFT_CACHE"] = f"{name}/cache"
        chaos = Chaos(Path(name), arguments.workers, arguments.tokenizer, chance)
        try:
            write_input(chaos.folder / "in.jsonl", arguments.megabytes, arguments.seed)
            chaos.calm("unpacked")  # which fills the cache
            calm = {case: chaos.calm(case) for case in CASES}
            for case, (_, seconds) in calm.items():
                print(f"{case}: {seconds:.1f} s undisturbed", flush=True)
            for number in range(arguments.kills):
                case = [*CASES][number % len(CASES)]
                target = chance.choice(TARGETS)
                share = chance.uniform(0.85, 1) if number % 9 // 3 == 2 else chance.random()
                wanted, seconds = calm[case]
                reached, found = chaos.trial(case, target, share, seconds)
                counts[target, reached] += 1
                good += found == wanted
                if found != wanted:
                    differ = sorted(own for own in {*found, *wanted} if found.get(own) != wanted.get(own))
                    print(f"kill {number}, {case}, {target}, {reached}: differ: {differ}", file=sys.stderr)
                    print((chaos.folder / "log").read_text("utf-8")[-2000:], file=sys.stderr)
        finally:
            chaos.end()
    print(f"\n| killed | {' | '.join(PHASES)} |\n| --- |{' ---: |' * len(PHASES)}")
    for target in TARGETS:
        print(f"| {target} | {' | '.join(str(counts[target, own]) for own in PHASES)} |")
    print(f"\n{good} of {arguments.kills} identical")
    return 0 if good == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
