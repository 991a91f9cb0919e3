"""Small outputs of every kind, and tools to damage them so that all hashes still hold.

Nothing of the package takes part in the damage: hashes, seals and the byte table are done anew here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from arranged import dialogues, make, manifest_of, repacked, write

from mtsft_preproc.join import join

__all__ = [
    "KINDS",
    "Index",
    "build",
    "change_json",
    "change_rows",
    "change_words",
    "digest",
    "edit",
    "flip",
    "own_files",
    "reseal",
]

IN_PROCESS = {"workers": 1, "engine": "serial"}
#: No two rounds of these are the same; some records of each input are rejected.
_BAD = ['{"bad"', {"instruction": "x", "output": 5}]


def _sharegpt(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"c{number}",
            "conversations": [
                {"from": ("human", "gpt")[turn % 2], "value": f"{number}-{turn} " + "word " * (number % 7)}
                for turn in range(2 * (1 + number % 3))
            ],
        }
        for number in range(count)
    ]


def _chosen(count: int) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"ask {number}",
            "input": "",
            "chosen": "good " * number,
            "rejected": f"bad {number}",
        }
        for number in range(1, count)
    ]


def build(folder: Path) -> dict[str, Path]:
    """Make an output of each kind in ``folder``; return their prefixes."""
    first = write(folder / "in.jsonl", [*dialogues(30), *_BAD])
    second = write(folder / "more.jsonl", [*dialogues(20, 30), *_BAD])
    chats = write(folder / "chats.jsonl", [*_sharegpt(20), *_BAD])
    both = [{"a": f"text {number}" * (number % 3), "b": "two " * (number % 4)} for number in range(20)]
    texts = write(folder / "texts.jsonl", both)
    pairs = write(folder / "pairs.jsonl", [*_chosen(20), *_BAD])
    gemma = {"handler_name": "sharegpt", "prompt_type": "gemma", "map_keys": "{}"}

    def out(name: str, source: Path = first, **changes: Any) -> Path:
        return make(source, folder / name, **{**IN_PROCESS, **changes})

    found = {
        "plain": out("plain"),
        "other": out("other", second),
        "packed": out("packed", pack=True, seq_length=200),
        "neat": out("neat", pack=True, seq_length=200, neat_pack=True, pad_to_multiple_of=8, shuffle=True),
        "split": out("split", split=(6.0, 3.0, 1.0)),
        "packed_split": out("packed_split", split=(6.0, 4.0), pack=True, seq_length=200),
        "mixed": out(
            "mixed", input=(str(first), str(second)), mix_strategy="interleave_over",
            interleave_probs=(0.7, 0.3),
        ),
        "duplicates": out("duplicates", input=(str(first), str(first)), dedup="exact", shuffle=True),
        "late": out("late", chats, **gemma),
        "full": out("full", chats, **gemma, train_on="full"),
        "turns": out(
            "turns", chats, handler_name="sharegpt", prompt_type="qwen", map_keys="{}", train_on="split",
            seq_length=60, keep_columns=("id",),
        ),
        "pairwise": out("pairwise", pairs, handler_name="alpaca-pairwise", map_keys="{}"),
        "ppo": out("ppo", handler_name="alpaca-ppo", prompt_type="gemma"),
        "r1": out("r1", handler_name="alpaca-r1", dataset_additional_keys=("labels",), shuffle=True),
        "text": out(
            "text", texts, handler_name="pretrain", prompt_type=None, map_keys="{}", json_keys=("a", "b"),
            append_eod=True,
        ),
        "one_text": out(
            "one_text", texts, handler_name="pretrain", prompt_type=None, map_keys="{}", json_keys=("b",),
            append_eod=True, shuffle=True,
        ),
    }  # fmt: skip
    for name, inputs in (("merged", ("plain", "other")), ("merged_sides", ("split_train", "plain"))):
        join([str(folder / own) for own in inputs], str(folder / name))
        found[name] = folder / name
    found["repacked"] = repacked(
        found["plain"], folder / "repacked", seq_length=128, neat_pack=True, **IN_PROCESS
    )
    found["repacked_split"] = repacked(
        [found["plain"], found["other"]],
        folder / "repacked_split",
        seq_length=128,
        split=(8.0, 2.0),
        **IN_PROCESS,
    )
    found["unpacked"] = repacked(found["neat"], folder / "unpacked", **IN_PROCESS)
    found["side"] = folder / "split_train"
    return found


#: Names of what :func:`build` makes.
KINDS = (
    "plain", "other", "packed", "neat", "split", "packed_split", "mixed", "duplicates", "late",
    "full", "turns", "pairwise", "ppo", "r1", "text", "one_text", "merged", "merged_sides",
    "repacked", "repacked_split", "unpacked", "side",
)  # fmt: skip


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _write_sealed(path: Path, content: dict[str, Any], seal: str) -> None:
    content = {**{name: value for name, value in content.items() if name != seal}, seal: "0" * 64}
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    path.write_text(text.replace("0" * 64, digest(text.encode())), "utf-8")


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest or the timings, and seal them anew."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    _write_sealed(path, content, "timings_sha256" if "timings" in path.name else "manifest_sha256")


def reseal(prefix: Path) -> None:
    """Make all sizes, hashes and seals of an output right."""
    manifest = manifest_of(prefix)
    for side in manifest.get("splits", ()):
        reseal(prefix.with_name(f"{prefix.name}_{side}"))
    for name in manifest["files"]:
        path = prefix.parent / name
        if "/" not in name and path.is_file():
            raw = path.read_bytes()
            manifest["files"][name] = {"bytes": len(raw), "sha256": digest(raw)}
    path = Path(f"{prefix}.manifest.json")
    _write_sealed(path, manifest, "manifest_sha256")
    timings = Path(f"{prefix}.timings.json")
    if timings.exists():
        own = manifest_of(prefix)
        known = {name: own[name] for name in ("manifest_sha256", "fingerprint")}
        change_json(timings, lambda content: content.update(known))


def edit(prefix: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest; the hashes hold again."""
    change_json(Path(f"{prefix}.manifest.json"), change)
    reseal(prefix)


def change_words(path: Path, change: Callable[[npt.NDArray[np.int32]], Any]) -> None:
    """Change the tokens of a ``.bin``."""
    words = np.fromfile(path, "<i4")
    change(words)
    words.tofile(path)


class Index:
    """An ``.idx``, by its byte table; :meth:`write` writes what was changed."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        self.path = path
        self.head = bytearray(raw[:18])
        count, borders = np.frombuffer(raw, "<u8", 2, 18).tolist()
        self.lengths = np.frombuffer(raw, "<i4", count, 34).copy()
        self.offsets = np.frombuffer(raw, "<i8", count, 34 + 4 * count).copy()
        self.borders = np.frombuffer(raw, "<i8", borders, 34 + 12 * count).copy()

    def write(self) -> None:
        counts = np.asarray([len(self.lengths), len(self.borders)], "<u8")
        arrays = (counts, self.lengths, self.offsets, self.borders)
        self.path.write_bytes(bytes(self.head) + b"".join(own.tobytes() for own in arrays))

    def from_lengths(self, lengths: npt.NDArray[np.int32]) -> None:
        """Take other lengths, and what follows from them."""
        self.lengths = lengths.astype("<i4")
        self.offsets = (4 * (np.cumsum(lengths, dtype=np.int64) - lengths)).astype("<i8")
        self.borders = np.arange(len(lengths) + 1, dtype="<i8")


def change_rows(path: Path, change: Callable[[dict[str, list[Any]]], Any]) -> None:
    """Change the columns of a sidecar, as lists."""
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), path, write_page_checksum=True)


def own_files(prefix: Path) -> list[Path]:
    """All files of an output that hold something, those of its sides among them, and no others."""
    names = {*manifest_of(prefix)["files"], f"{prefix.name}.manifest.json", f"{prefix.name}.timings.json"}
    paths = [prefix.with_name(name) for name in sorted(names)]
    return [path for path in paths if path.exists() and path.stat().st_size]  # a side has no timings


@contextmanager
def flip(path: Path, bit: int) -> Iterator[None]:
    """Flip a bit of a file, for a while."""
    raw = path.read_bytes()
    damaged = bytearray(raw)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        yield
    finally:
        path.write_bytes(raw)
