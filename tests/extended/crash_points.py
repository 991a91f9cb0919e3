"""A run dies, or meets a full or broken disk, at each call by which it changes a disk.

For each of several commands (packed or not, split, over an output that is there, ``mtsft repack``, ``mtsft
merge``) the calls are counted; then, for each of them, a child process runs the command and

- dies by SIGKILL just before it, or just after it;
- has no room on its disk from that call on, or has that call alone fail: the command must end with exit
  code 2 and one line that names a file, or do without what failed;

and whoever opens the output then sees the old one whole, the new one whole, or a refusal. A second child
runs the same command to its end: its output must be that of an undisturbed run, byte for byte, with
nothing else beside it. An undisturbed run is watched for what a crash of the machine needs: see
``Durability``.

    python tests/extended/crash_points.py [--every 1] [--offset 0]

Prints a Markdown table; exit code 0 only if all of that holds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "extended")]

from arranged import TOKENIZER, dialogues, published, write  # noqa: E402
from fallible import Durability, Fallible  # noqa: E402
from warm import MEMORY, in_child, warm_up  # noqa: E402

from mtsft_preproc import gather  # noqa: E402
from mtsft_preproc.cli import main as mtsft  # noqa: E402
from mtsft_preproc.errors import DatasetError  # noqa: E402
from mtsft_preproc.indexed import open_published  # noqa: E402

MODES = ("kill-before", "kill-after", "full", "broken")
PACKED = ["--pack", "--neat-pack", "--seq-length", "128"]
SPLIT = ["--split", "1,1", "--shuffle", "--dedup", "exact"]


@dataclass(frozen=True)
class Case:
    """A command, and what lies there before it.

    Attributes:
        name: Of the case.
        command: The arguments of ``mtsft``.
        before: Arguments of the commands that make what lies there.
        sides: What stands behind the prefix of what a trainer opens.
    """

    name: str
    command: list[str]
    before: tuple[list[str], ...] = ()
    sides: tuple[str, ...] = ("",)


def encode(source: str, *flags: str, prefix: str = "data") -> list[str]:
    """Return a command that encodes; ``HERE`` stands for the folder."""
    return [
        "preprocess", "--input", source, "--output-prefix", f"HERE/{prefix}", "--tokenizer-name-or-path",
        str(TOKENIZER), "--handler-name", "alpaca", "--prompt-type", "chatml", "--map-keys",
        '{"history": "history"}', "--workers", "1", "--shard-bytes", "1500", "--encoder", "reference",
        *flags,
    ]  # fmt: skip


def cases(first: str, second: str) -> list[Case]:
    """Return the cases, for two files of input."""
    parted = ("_train", "_valid")
    split_before = (encode(second, *SPLIT),)
    output = ["--output-prefix", "HERE/data"]
    two = (encode(first, prefix="a"), encode(second, prefix="b"))
    return [
        Case("unpacked", encode(first)),
        Case("packed", encode(first, *PACKED)),
        Case("split", encode(first, *PACKED, *SPLIT), sides=parted),
        Case("over a split one", encode(first, "--overwrite"), split_before, ("", *parted)),
        Case("split over a split one", encode(first, *SPLIT, "--overwrite"), split_before, parted),
        Case("repack", ["repack", "HERE/a", *output, "--seq-length", "128", "--workers", "1"], two[:1]),
        Case("merge", ["merge", "HERE/a", "HERE/b", *output], two),
    ]


class Trials:
    """All points of one case.

    Args:
        case: The case.
        folder: Scratch.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.log = folder / "log"
        self.template = folder / "before"
        self.template.mkdir(parents=True)
        # Always of one name, which stands in what is made of finished datasets.
        self.here = folder / "here"
        for command in case.before:
            self._run(command, self.template)
        self.old = published(self.template / "data")
        self._fresh()
        if self._run(case.command, self.here):
            raise SystemExit(f"{case.name}: {self.log.read_text()}")
        self.new = published(self.here / "data")
        self.seen_old, self.seen_new = (self._seen(self.template), self._seen(self.here))
        self.failures: list[str] = []
        self.outcomes: Counter[str] = Counter()

    def _run(self, command: list[str], here: Path, fallible: Fallible | None = None) -> int:
        def action() -> int:
            if fallible is not None:
                fallible.begin()
            code: int = mtsft([own.replace("HERE", str(here)) for own in command])
            if fallible is not None and fallible.mode == "count":
                (self.folder / "count").write_text("\n".join(fallible.seen))
            return code

        return in_child(action, self.log)

    def _fresh(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.template, self.here)

    def count(self) -> list[str]:
        """Return the calls of an undisturbed run, which is watched for what a machine's crash needs."""
        self._fresh()
        watch = Durability(self.here, self.here / "data.mtsft-work")
        fallible = Fallible("count", -1, self.here, watch)

        def action() -> int:
            fallible.begin()
            code: int = mtsft([own.replace("HERE", str(self.here)) for own in self.case.command])
            print("\n".join(watch.broken), f"{watch.renames} renames", sep="\n")
            (self.folder / "count").write_text("\n".join(fallible.seen))
            return code or bool(watch.broken) or not watch.renames

        if in_child(action, self.log):
            self.failures.append(f"{self.case.name}: durability: {self.log.read_text()}")
        return (self.folder / "count").read_text().splitlines()

    def _seen(self, here: Path) -> list[object]:
        """Return what a trainer sees of each side: its tokens, or that it is refused."""
        found: list[object] = []
        for side in self.case.sides:
            try:
                fields = open_published(here / f"data{side}").fields
            except DatasetError as error:
                found.append(error)
            else:
                found.append([[item.tolist() for item in own] for own in fields.values()])
        return found

    def _check_seen(self, where: str) -> None:
        for seen, old, new in zip(self._seen(self.here), self.seen_old, self.seen_new, strict=True):
            refused = isinstance(seen, DatasetError)
            if not refused and seen not in [own for own in (old, new) if not isinstance(own, DatasetError)]:
                self.failures.append(f"{where}: a mixture is opened")

    def trial(self, mode: str, at: int, call: str) -> None:
        """Let it end badly at one call, look, and run it again."""
        where = f"{self.case.name}, {mode} {at} ({call})"
        self._fresh()
        code = self._run(self.case.command, self.here, Fallible(mode, at, self.here))
        first = self.log.read_text()
        self._check_seen(where)
        if mode.startswith("kill"):
            good = code == -signal.SIGKILL
        else:
            errors = [line for line in first.splitlines() if line.startswith("error: ")]
            good = code == 0 or (code == 2 and len(errors) == 1 and str(self.here) in errors[0])
            good &= "Traceback" not in first
        if not good:
            self.failures.append(f"{where}: exit code {code}: {first}")
        self.outcomes["went on" if code == 0 else "killed" if code < 0 else "error"] += 1
        command = self.case.command
        code = self._run(command, self.here)
        if code == 2 and "exists already" in self.log.read_text():
            code = 0  # The run had ended, but for its own end.
        if code:
            self.failures.append(f"{where}: again: exit code {code}: {self.log.read_text()}")
        if published(self.here / "data") != self.new:
            self.failures.append(f"{where}: other bytes")
        beside = {own.name for own in self.here.iterdir()} - {own.name for own in self.template.iterdir()}
        ours = self.new.keys() | {".timings.json"}
        if loose := [name for name in beside if name.removeprefix("data") not in ours]:
            self.failures.append(f"{where}: left behind: {loose}")


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="of the points, every so-manieth")
    parser.add_argument("--offset", type=int, default=0, help="from this one on")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--cases", nargs="+", help="names of some of the commands alone")
    arguments = parser.parse_args()
    gather._RANGE_TOKENS = 1000
    failures: list[str] = []
    print("| command | calls | " + " | ".join(arguments.modes) + " | errors | went on | wrong |")
    print("| --- | ---: | " + "---: | " * (len(arguments.modes) + 3))
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        os.environ["MTSFT_CACHE"] = f"{folder}/cache"
        sources = [
            str(write(Path(folder) / f"{name}.jsonl", dialogues(12, start)))
            for name, start in (("one", 0), ("two", 50))
        ]
        warm_up(TOKENIZER)
        for case in cases(*sources):
            if arguments.cases and case.name not in arguments.cases:
                continue
            trials = Trials(case, Path(folder) / case.name.replace(" ", "-"))
            calls = trials.count()
            points = list(range(arguments.offset % arguments.every, len(calls), arguments.every))
            for mode in arguments.modes:
                for at in points:
                    trials.trial(mode, at, calls[at])
            failures += trials.failures
            counts = [len(calls), *([len(points)] * len(arguments.modes))]
            counts += [trials.outcomes["error"], trials.outcomes["went on"], len(trials.failures)]
            print("".join(f"{failure}\n" for failure in trials.failures), end="", file=sys.stderr)
            print(f"| {case.name} | " + " | ".join(map(str, counts)) + " |", flush=True)
    print(f"\n{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
