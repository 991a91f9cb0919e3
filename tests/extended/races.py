"""Several runs start on one prefix at the same moment: one makes the output, all others are refused.

Each race has 2 to 8 processes, forked from one that has everything imported and let loose by one pipe that
is closed. They find nothing, the lock of a dead run, its work, its decided publication, or one that was all
but finished. It ends well if just one of them ends with exit code 0, each other one with exit code 2 and a
line that says that another run works on the output or that it exists already, and the output is that of an
undisturbed run, byte for byte, with nothing else beside it.

    python tests/extended/races.py [--races 400] [--seed 1]

Prints a Markdown table; exit code 0 only if all of them end well.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "extended")]

from arranged import TOKENIZER, dialogues, published, settings_of, write  # noqa: E402
from warm import MEMORY, forked, in_child, warm_up  # noqa: E402

from mtsft_preproc import finish, publish  # noqa: E402
from mtsft_preproc.config import PreprocessConfig  # noqa: E402
from mtsft_preproc.errors import OutputError  # noqa: E402
from mtsft_preproc.pipeline import preprocess  # noqa: E402

#: What a dead run has left, by where it died.
LEFT = ("nothing", "lock", "work", "decided", "done")
REFUSALS = ("another run works on this output", "exists already")


def run(config: PreprocessConfig) -> int:
    """Run; return the exit code of the command."""
    try:
        preprocess(config)
    except OutputError as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


def dying(config: PreprocessConfig, left: str) -> int:
    """Run, and die where that is left."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if left == "work":
        finish.commit = die  # type: ignore[assignment]
    elif left == "decided":
        publish.finish_commit = die  # type: ignore[assignment]
    else:
        real = publish.clear
        publish.clear = lambda path: (die if path.is_dir() else real)(path)
    return run(config)


class Races:
    """Races on outputs of one input.

    Args:
        folder: Scratch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        source = write(folder / "in.jsonl", dialogues(12))
        self.config = settings_of(source, folder / "calm" / "data", workers=1, shard_bytes=1500)
        assert in_child(lambda: run(self.config), self.log) == 0, self.log.read_text()
        self.calm = published(self.config.prefix)
        for left in LEFT:
            self._leave(left, folder / left)

    def _leave(self, left: str, folder: Path) -> None:
        folder.mkdir()
        if left == "lock":
            (folder / "data.mtsft-lock").write_text("process 1 on nowhere\n")
        elif left != "nothing":
            code = in_child(lambda: dying(self._to(folder), left), self.log)
            assert code == -signal.SIGKILL, self.log.read_text()

    def _to(self, folder: Path) -> PreprocessConfig:
        return replace(self.config, output_prefix=str(folder / "data"))

    def race(self, runners: int, left: str) -> str:
        """Hold one; return what is wrong, in words, or nothing."""
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.folder / left, here)
        start, go = os.pipe()

        def action() -> int:
            os.close(go)
            os.read(start, 1)  # until the other end is closed
            return run(self._to(here))

        logs = [self.folder / f"log-{number}" for number in range(runners)]
        pids = [forked(action, log) for log in logs]
        os.close(go)
        os.close(start)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        wrong = []
        if Counter(codes) != Counter({0: 1, 2: runners - 1}):
            wrong.append(f"exit codes {codes}")
        for code, log in zip(codes, logs, strict=True):
            if code == 2 and not any(text in log.read_text() for text in REFUSALS):
                wrong.append(log.read_text())
        if published(here / "data") != self.calm:
            wrong.append("other bytes")
        if (
            loose := {own.name.removeprefix("data") for own in here.iterdir()}
            - self.calm.keys()
            - {".timings.json"}
        ):
            wrong.append(f"left behind: {loose}")
        return "; ".join(wrong)


def main() -> int:
    """Hold them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--races", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    held: Counter[str] = Counter()
    good: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        os.environ["MTSFT_CACHE"] = f"{folder}/cache"
        warm_up(TOKENIZER)
        races = Races(Path(folder))
        for number in range(arguments.races):
            left, runners = LEFT[number % len(LEFT)], chance.randint(2, 8)
            wrong = races.race(runners, left)
            held[left] += 1
            good[left] += not wrong
            if wrong:
                print(f"race {number}, {runners} runs, {left}: {wrong}", file=sys.stderr)
    print("| a dead run has left | races | one wins, whole |\n| --- | ---: | ---: |")
    for left in LEFT:
        print(f"| {left} | {held[left]} | {good[left]} |")
    print(f"\n{good.total()} of {held.total()} races: one wins, and its output is whole")
    return 0 if good == held else 1


if __name__ == "__main__":
    sys.exit(main())
