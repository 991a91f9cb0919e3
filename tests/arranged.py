"""Small runs, and what tests of whole runs read back: with numpy and the byte table alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.repack import repack

__all__ = [
    "FIELDS",
    "IGNORED",
    "TOKENIZER",
    "Sample",
    "Stopped",
    "check_packs",
    "dialogues",
    "items_of",
    "lines",
    "make",
    "manifest_of",
    "published",
    "read_pair",
    "rejected_of",
    "repacked",
    "rows_of",
    "samples_of",
    "settings_of",
    "tokens_of",
    "write",
]

TOKENIZER = Path(__file__).parents[1] / "examples" / "tokenizer"
FIELDS = ("input_ids", "labels", "attention_mask")
IGNORED = -100

Items = list[npt.NDArray[np.int32]]


class Stopped(BaseException):
    """Stands for a death at a certain point."""


def dialogues(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Records of one to three rounds and many lengths; no two say the same."""
    return [
        {
            "instruction": f"question {number} " + "word " * (number * 7 % 17),
            "input": "",
            "output": f"answer {number} " + "more " * (number * 5 % 23),
            "history": [[f"earlier {place}", f"reply {number}"] for place in range(number % 3)],
        }
        for number in range(start, start + count)
    ]


def write(path: Path, records: Sequence[Any]) -> Path:
    """Write records as JSON lines; texts are lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in records]
    path.write_text("".join(text + "\n" for text in texts), "utf-8")
    return path


def settings_of(source: Path, prefix: Path, **changes: Any) -> PreprocessConfig:
    """Return the settings of a run."""
    given: dict[str, Any] = {
        "input": (str(source),),
        "output_prefix": str(prefix),
        "tokenizer": str(TOKENIZER),
        "handler_name": "alpaca",
        "prompt_type": "chatml",
        "map_keys": '{"history": "history"}',
        "max_rejected": 1.0,
    }
    if changes.get("mix"):
        given["input"] = ()
    return PreprocessConfig(**{**given, **changes})


def make(source: Path, prefix: Path, **changes: Any) -> Path:
    """Run, and return the output prefix."""
    preprocess(settings_of(source, prefix, **changes))
    return prefix


def repacked(inputs: Path | Sequence[Path], prefix: Path, **changes: Any) -> Path:
    """Pack finished datasets anew, and return the output prefix."""
    prefixes = [inputs] if isinstance(inputs, Path) else inputs
    given: dict[str, Any] = {"input": tuple(map(str, prefixes)), "output_prefix": str(prefix)}
    given |= {"tokenizer": "", "handler_name": "repack", "pack": "seq_length" in changes}
    repack(PreprocessConfig(**{**given, **changes}))
    return prefix


def published(prefix: Path) -> dict[str, bytes]:
    """All that is reproducible of an output, its sides' among it, by what stands behind the prefix."""
    found = {
        path.name.removeprefix(prefix.name): path.read_bytes()
        for path in sorted(prefix.parent.iterdir())
        if path.is_file() and path.name.startswith((f"{prefix.name}.", f"{prefix.name}_"))
    }
    found.pop(".mtsft-lock", None)
    return {name: raw for name, raw in found.items() if not name.endswith((".mtsft-lock", ".timings.json"))}


def tokens_of(prefix: Path) -> dict[str, bytes]:
    """The datasets and sources sidecars of an output, by what stands behind the prefix."""
    return {
        name: raw
        for name, raw in published(prefix).items()
        if name.endswith((".bin", ".idx", ".sources.parquet"))
    }


def read_pair(prefix: Path) -> Items:
    """Read a ``.bin``/``.idx`` pair by its byte table."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    tokens = np.fromfile(prefix.with_name(prefix.name + ".bin"), "<i4")
    assert (index[:9], index[17]) == (b"MMIDIDX\0\0", 4)
    count = int.from_bytes(index[18:26], "little")
    lengths = np.frombuffer(index, "<i4", count, 34)
    starts = np.frombuffer(index, "<i8", count, 34 + 4 * count) // 4
    assert len(tokens) == lengths.sum()
    return [tokens[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def items_of(prefix: Path, field: str) -> Items:
    """Read a dataset of an output."""
    return read_pair(prefix.with_name(f"{prefix.name}_packed_{field}_document"))


def rows_of(prefix: Path) -> list[dict[str, Any]]:
    """The sources sidecar."""
    rows: list[dict[str, Any]] = pq.read_table(f"{prefix}.sources.parquet").to_pylist()
    return rows


def manifest_of(prefix: Path) -> dict[str, Any]:
    """The manifest."""
    content: dict[str, Any] = json.loads(Path(f"{prefix}.manifest.json").read_text("utf-8"))
    return content


def rejected_of(prefix: Path) -> list[dict[str, Any]]:
    """The lines of the ledger."""
    text = Path(f"{prefix}.rejected.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def lines(prefix: Path) -> list[tuple[str, int, str]]:
    """File, row and reason of each line of the ledger."""
    return [(Path(own["file"]).name, own["row"], own["reason"]) for own in rejected_of(prefix)]


@dataclass(frozen=True)
class Sample:
    """What the sidecar finds.

    Attributes:
        key: File, row, and number of the sample among those of its row.
        ids: Its tokens.
        labels: Their labels.
        mask: Their attention mask.
    """

    key: tuple[str, int, int]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    mask: tuple[int, ...]

    @property
    def trained(self) -> int:
        """Trained tokens."""
        return sum(label != IGNORED for label in self.labels)

    def in_a_pack(self) -> tuple[Any, ...]:
        """What stays the same in a pack: all but the mask, and the first label."""
        return self.key, self.ids, (IGNORED, *self.labels[1:])


def samples_of(prefix: Path) -> list[Sample]:
    """Read each row of the sidecar back, in its order."""
    content = [items_of(prefix, field) for field in FIELDS]
    seen: Counter[tuple[str, int]] = Counter()
    found = []
    for row in rows_of(prefix):
        stop = row["offset"] + row["length"]
        parts = (tuple(own[row["item"]][row["offset"] : stop].tolist()) for own in content)
        record = (Path(row["file"]).name, row["row"])
        found.append(Sample((*record, seen[record]), *parts))
        assert len(found[-1].ids) == row["length"]
        assert found[-1].trained == row["trained"]
        seen[record] += 1
    return found


def check_packs(
    prefix: Path, capacity: int, *, neat: bool = False, multiple: int = 1, shuffled: bool = False
) -> None:
    """Check all that must hold of packed items, whatever the samples are."""
    ids, labels, mask = (items_of(prefix, field) for field in FIELDS)
    manifest, rows = manifest_of(prefix), rows_of(prefix)
    assert len(ids) == len(labels) == len(mask) == manifest["items"]
    assert {len(item) for own in (ids, labels, mask) for item in own} <= {capacity}
    assert sorted(row["position"] for row in rows) == list(range(len(rows)))
    by_item: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(ids))}
    for row in sorted(rows, key=lambda row: (row["item"], row["offset"])):
        by_item[row["item"]].append(row)
    for number, own in by_item.items():
        assert own
        at = 0
        numbers = np.zeros(capacity, np.int32)
        for place, row in enumerate(own):
            assert row["offset"] == at  # one behind the other, each at a multiple
            numbers[at : at + row["length"]] = place + 1
            at += -(-row["length"] // multiple) * multiple
            assert labels[number][row["offset"]] == IGNORED
        assert at <= capacity
        assert [row["position"] for row in own] == sorted(row["position"] for row in own)
        padding = numbers == 0
        assert set(ids[number][padding].tolist()) <= {manifest["pad_id"]}
        assert set(labels[number][padding].tolist()) <= {IGNORED}
        np.testing.assert_array_equal(mask[number], numbers if neat else np.ones(capacity, np.int32))
    lowest = [min(row["position"] for row in own) for own in by_item.values()]
    if not shuffled:
        assert lowest == sorted(lowest)
    tokens = sum(row["length"] for row in rows)
    assert (manifest["samples"], manifest["tokens"]) == (len(rows), tokens)
    trained = sum(int((item != IGNORED).sum()) for item in labels)
    assert manifest["trained_tokens"] == trained == sum(row["trained"] for row in rows)
    assert manifest["packing"]["fill"] == (tokens / (len(ids) * capacity) if ids else 0.0)
