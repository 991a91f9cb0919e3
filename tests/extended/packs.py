"""Packs of real data: whole, unchanged, and at least as full as what others make.

Alpaca 52k and SGD (12,174 dialogues) are encoded once, unpacked, and then packed anew to four lengths by
``mtsft repack``. It ends with exit code 1 unless, for each,

- every item has just that many tokens;
- every sample that fits stands in one item, once and whole, by the sources sidecar: ids, labels but for the
  first, number in the attention mask; all the rest is padding; what is left out is what is too long;
- items stand in the order of their lowest sample;
- there are no more items than plain best-fit decreasing makes, and no more than greedy knapsack makes,
  whether it sees all samples or 1000 at a time: all three are written out here;
- packing with four workers gives the same bytes, the manifest's included;

and, for one length, packing in the first run gives the same bytes as repacking, with four workers, too.

    python tests/extended/packs.py [--write docs/packing.md]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right, insort
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
COMMAND = "python tests/extended/packs.py --write docs/packing.md"
MARKS = ("<!-- figures of packs.py -->\n", "<!-- end of figures -->\n")
INPUTS = {
    "Alpaca 52k": ("alpaca/alpaca_data_en_52k.json", "{}"),
    "SGD": ("sgd/sgd_train_alpaca_history.json", '{"history": "history"}'),
}
LENGTHS = (2048, 4096, 8192, 32768)
#: The length that is also packed in a first run.
FIRST = 4096
WINDOW = 1000
BATCH = 8
IDS, LABELS, MASK = (f"packed_{name}_document" for name in ("input_ids", "labels", "attention_mask"))

Tokens = npt.NDArray[np.int32]


def run(*arguments: str) -> float:
    """Run a command of the package; return the seconds of the whole process."""
    code = "import sys; from mtsft_preproc.cli import main; sys.exit(main(sys.argv[1:]))"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr}")
    return time.monotonic() - started


def encode(shared: Path, name: str, prefix: Path, *flags: str) -> float:
    """Make a dataset from the data."""
    path, map_keys = INPUTS[name]
    return run(
        "preprocess", "--input", str(shared / "datasets" / path), "--output-prefix", str(prefix),
        "--tokenizer-name-or-path", str(shared / "tokenizers" / "qwen2.5"), "--prompt-type", "qwen",
        "--handler-name", "alpaca", "--map-keys", map_keys, *flags,
    )  # fmt: skip


def repack(source: Path, prefix: Path, seq_length: int, workers: int) -> float:
    """Pack a dataset anew."""
    return run(
        "repack", str(source), "--output-prefix", str(prefix), "--seq-length", str(seq_length),
        "--neat-pack", "--workers", str(workers),
    )  # fmt: skip


class Dataset:
    """A finished output, read by numpy and pyarrow alone.

    Attributes:
        manifest: The manifest.
        lengths: int32, shape (items,): tokens of each item.
        columns: Of the sources sidecar.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.manifest: dict[str, Any] = json.loads(
            prefix.with_name(f"{prefix.name}.manifest.json").read_text("utf-8")
        )
        index = prefix.with_name(f"{prefix.name}_{IDS}.idx").read_bytes()
        self.lengths = np.frombuffer(index, "<i4", int.from_bytes(index[18:26], "little"), 34)
        table = pq.read_table(f"{prefix}.sources.parquet")
        self.columns = {
            name: table[name].to_numpy() for name in ("item", "offset", "length", "position", "row")
        }

    def tokens(self, name: str) -> Tokens:
        """Return all tokens of a dataset, item behind item."""
        return np.fromfile(f"{self.prefix}_{name}.bin", "<i4")

    def sha256(self) -> dict[str, str]:
        """Return the hashes of all files, by what stands behind the prefix."""
        files = self.manifest["files"].items()
        return {name.removeprefix(self.prefix.name): entry["sha256"] for name, entry in files}


def check_packs(whole: Dataset, packed: Dataset, seq_length: int) -> list[str]:
    """Return what is wrong with the packs of a dataset.

    Args:
        whole: The samples, one per item, in the order of the records.
        packed: Their packs.
        seq_length: Tokens of a pack.
    """
    fits = whole.lengths <= seq_length
    own = packed.columns
    items, offsets, lengths = own["item"], own["offset"].astype(np.int64), own["length"].astype(np.int64)
    found = []
    if not (packed.lengths == seq_length).all():
        found.append("an item has another length")
    if not np.array_equal(own["row"], whole.columns["row"][fits]):
        return [*found, "not the samples that fit, each once"]
    if not np.array_equal(lengths, whole.lengths[fits]):
        return [*found, "a sample's length is another"]
    if (items < 0).any() or (items >= len(packed.lengths)).any() or (offsets < 0).any():
        return [*found, "a sample lies outside of all items"]
    if not (offsets + lengths <= seq_length).all():
        return [*found, "a sample does not end in its item"]
    # Where each token lies in the packs, and where it lay.
    ends = np.cumsum(lengths)
    inside = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    there = inside + np.repeat(items * seq_length + offsets, lengths)
    if len(np.unique(there)) != len(there):
        return [*found, "samples overlap"]
    before = np.cumsum(whole.lengths, dtype=np.int64) - whole.lengths
    here = inside + np.repeat(before[fits], lengths)
    # Number of each sample in its item, by offset.
    order = np.lexsort((offsets, items))
    numbers = np.empty(len(items), np.int32)
    starts = np.flatnonzero(np.diff(items[order], prepend=-1))
    counts = np.diff(starts, append=len(items))
    numbers[order] = np.arange(len(items)) - np.repeat(starts, counts) + 1
    labels = whole.tokens(LABELS)[here]
    labels[inside == 0] = -100
    expected = {
        IDS: (whole.manifest["pad_id"], whole.tokens(IDS)[here]),
        LABELS: (-100, labels),
        MASK: (0, np.repeat(numbers, lengths)),
    }
    for name, (fill, tokens) in expected.items():
        right = np.full(len(packed.lengths) * seq_length, fill, np.int32)
        right[there] = tokens
        if not np.array_equal(packed.tokens(name), right):
            found.append(f"{name} is not what the samples say")
    lowest = np.full(len(packed.lengths), len(items))
    np.minimum.at(lowest, items, np.arange(len(items)))
    if (np.diff(lowest) <= 0).any() or lowest[-1] == len(items):
        found.append("items don't stand in the order of their lowest sample")
    filled = int(lengths.sum()) / (len(packed.lengths) * seq_length)
    if abs(packed.manifest["packing"]["fill"] - filled) > 1e-12:
        found.append("the manifest tells of another fill")
    return found


def best_fit(lengths: list[int], capacity: int) -> int:
    """Return the items of best-fit decreasing: each sample into the fullest item that holds it."""
    room: list[int] = []
    items = 0
    for length in sorted(lengths, reverse=True):
        at = bisect_left(room, length)
        if at < len(room):
            left = room.pop(at) - length
        else:
            left, items = capacity - length, items + 1
        insort(room, left)
    return items


def knapsack(lengths: list[int], capacity: int) -> int:
    """Return the items of greedy knapsack: fill one after the other, always with the longest that fits."""
    waiting = sorted(lengths)
    items = 0
    while waiting:
        items += 1
        room = capacity
        while at := bisect_right(waiting, room):
            room -= waiting.pop(at - 1)
    return items


def compare(lengths: list[int], capacity: int, items: int) -> tuple[list[str], list[str]]:
    """Return the cells of the table, and what is wrong."""
    tokens = sum(lengths)
    parts = [lengths[start : start + WINDOW] for start in range(0, len(lengths), WINDOW)]
    batches = [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]
    others = {
        "best-fit decreasing": best_fit(lengths, capacity),
        "greedy knapsack": knapsack(lengths, capacity),
        f"greedy knapsack of {WINDOW}": sum(knapsack(part, capacity) for part in parts),
    }
    wrong = [f"{items} items, {name} makes {count}" for name, count in others.items() if items > count]
    padded = sum(len(batch) * max(batch) for batch in batches)
    cells = [f"{tokens / (count * capacity):.2%}" for count in (items, *others.values())]
    least = -(-tokens // capacity)
    return [f"{items:,}", f"{least:,}", *cells, f"{tokens / padded:.1%}"], wrong


def examine(shared: Path, name: str, folder: Path) -> tuple[list[list[str]], list[str], str]:
    """Pack one data set; return the rows of the table, what is wrong, and a line on the time."""
    wrong: list[str] = []
    encoding = encode(shared, name, folder / "whole", "--workers", "2")
    whole = Dataset(folder / "whole")
    rows = []
    for seq_length in LENGTHS:
        packed, again = folder / f"packs-{seq_length}", folder / "four" / f"packs-{seq_length}"
        seconds = repack(folder / "whole", packed, seq_length, 1)
        repack(folder / "whole", again, seq_length, 4)
        own = Dataset(packed)
        found = check_packs(whole, own, seq_length)
        if own.manifest != Dataset(again).manifest:
            found.append("other bytes with four workers")
        if seq_length == FIRST:
            repacking = seconds
            flags = ("--pack", "--neat-pack", "--seq-length", str(seq_length))
            manifests = []
            for workers in (1, 4):
                encode(
                    shared, name, folder / f"first-{workers}" / "data", *flags, "--workers", str(workers)
                )
                first = Dataset(folder / f"first-{workers}" / "data")
                manifests.append(first.manifest)
                # Rejected records are told of by who rejects them.
                hashes = [one.sha256() for one in (first, own)]
                for each in hashes:
                    del each[".rejected.jsonl"]
                if hashes[0] != hashes[1]:
                    found.append(f"packed in the first run with {workers} workers, other bytes")
            if manifests[0] != manifests[1]:
                found.append("packed in the first run, another manifest with four workers")
        fits = whole.lengths[whole.lengths <= seq_length].tolist()
        cells, worse = compare(fits, seq_length, len(own.lengths))
        rows.append([name, f"{seq_length:,}", f"{len(whole.lengths) - len(fits):,}", *cells])
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
        wrong += [f"{name}, {seq_length}: {problem}" for problem in (*found, *worse)]
    time_line = f"{name}: encoded in {encoding:.1f} s (2 workers), repacked in {repacking:.1f} s (1 worker)"
    return rows, wrong, time_line


HEAD = [
    "| data | `--seq-length` | too long | items | tokens / capacity | fill | best-fit decreasing "
    "| greedy knapsack | in windows of 1,000 | padded batches of 8 |",
    "| --- |" + " ---: |" * 9,
]


def write(path: Path, rows: list[list[str]]) -> None:
    """Put the table between the marks in a page."""
    text = path.read_text("utf-8")
    before, behind = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    table = "\n".join([*HEAD, *("| " + " | ".join(row) + " |" for row in rows)])
    path.write_text(f"{before}{MARKS[0]}\n{table}\n\n{MARKS[1]}{behind}", "utf-8")


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--write", type=Path, help="page to put the table into")
    arguments = parser.parse_args()
    print(*HEAD, sep="\n")
    rows, wrong, times = [], [], []
    for name in INPUTS:
        with tempfile.TemporaryDirectory() as folder:
            more, found, line = examine(arguments.shared, name, Path(folder))
        rows += more
        wrong += found
        times.append(line)
    print(*times, *wrong, sep="\n")
    if arguments.write and not wrong:
        write(arguments.write, rows)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
