"""Opens the datasets of one output prefix together, and refuses what does not belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed.layout import SFT_FIELDS, dataset_prefix
from mtsft_preproc.indexed.reader import IndexedDataset

__all__ = ["Published", "open_published"]


class Published:
    """An opened output.

    Attributes:
        fields: The datasets by field; those of samples to fine-tune on, all with the same lengths.
        manifest: The manifest's content, or None where there is none, as beside Megatron's own datasets.
    """

    def __init__(self, fields: dict[str, IndexedDataset], manifest: dict[str, Any] | None) -> None:
        self.fields = fields
        self.manifest = manifest


def open_published(prefix: Path) -> Published:
    """Open the output ``prefix``.

    Raises:
        DatasetError: Files are missing, damaged, or a mixture of two outputs.
    """
    if not prefix.name:
        raise DatasetError(f"{str(prefix)!r} ends in no name; expected an output prefix, FOLDER/NAME")
    _refuse_on_its_way(prefix)
    manifest = _manifest(prefix)
    if manifest is not None and "splits" in manifest:
        sides = ", ".join(f"{prefix}_{side}" for side in manifest["splits"])
        raise DatasetError(f"{prefix}: was split; expected one of {sides}")
    objective = "sft" if manifest is None else manifest.get("objective", "sft")
    if objective != "sft":
        held = ", ".join(manifest.get("fields", ())) if manifest else ""
        raise DatasetError(
            f"{prefix}: holds {held} ({objective}), not "
            "samples to fine-tune on; expected an output with input_ids, labels and attention_mask; "
            "IndexedDataset opens its datasets one by one"
        )
    fields = {field: IndexedDataset(dataset_prefix(prefix, field)) for field in SFT_FIELDS}
    tokens = fields["input_ids"]
    for field, dataset in fields.items():
        if not np.array_equal(dataset.lengths, tokens.lengths):
            raise DatasetError(
                f"{dataset.prefix}: its lengths are not those of {tokens.prefix}"
                f" ({len(dataset)} and {len(tokens)} items, field {field!r})"
            )
    # Again, in this order: a publication that went on meanwhile is there still, or has left its manifest.
    _refuse_on_its_way(prefix)
    if _manifest(prefix) != manifest:
        raise DatasetError(f"{prefix}: was replaced while it was opened; open it again")
    return Published(fields, manifest)


def _refuse_on_its_way(prefix: Path) -> None:
    """Refuse an output whose publication is under way, its own or that of the run that it is a side of."""
    _refuse_commit(prefix, prefix.name)
    if whole := prefix.name.rpartition("_")[0]:
        _refuse_commit(prefix.with_name(whole), f"{prefix.name}.manifest.json")


def _refuse_commit(prefix: Path, name: str) -> None:
    """Refuse an output whose commit record is there, and holds a name."""
    commit = prefix.with_name(prefix.name + ".mtsft-work") / "commit.json"
    try:
        record = commit.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    if name == prefix.name or _publishes(record, name):
        raise DatasetError(
            f"{prefix}: its publication was interrupted; run the same command again to finish it"
        )


def _publishes(record: str, name: str) -> bool:
    """Return whether a commit record names a file; one that can't be read may name any."""
    try:
        return name in json.loads(record)["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return True


def _manifest(prefix: Path) -> dict[str, Any] | None:
    path = prefix.with_name(prefix.name + ".manifest.json")
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        sizes = {path.with_name(name): int(entry["bytes"]) for name, entry in manifest["files"].items()}
        int(manifest["pad_id"]), int(manifest["ignore_index"])
        _check_entries(path, manifest)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(f"{path}: not a manifest: {error!r}") from None
    for file, size in sizes.items():
        if file.suffix not in (".bin", ".idx"):
            continue
        if not file.exists():
            raise DatasetError(f"{file}: no such file, but {path.name} names it")
        if (actual := file.stat().st_size) != size:
            raise DatasetError(f"{file}: {actual} bytes, but the manifest says {size}")
    return manifest


def _check_entries(path: Path, manifest: dict[str, Any]) -> None:
    """Look at the entries that not every manifest has.

    Raises:
        TypeError: One is of another type than it has to be.
        ValueError: A side, a file, or the run of a split is no name.
    """
    for name, kind in (("objective", str), ("fields", list), ("split", dict), ("splits", dict)):
        if name in manifest and not isinstance(manifest[name], kind):
            raise TypeError(f"{name!r} is not of the type {kind.__name__}")
    if not all(isinstance(field, str) for field in manifest.get("fields", ())):
        raise TypeError("'fields' are not texts")
    # Both stand in messages, which are one line.
    if any(
        char < " " for text in (manifest.get("objective", ""), *manifest.get("fields", ())) for char in text
    ):
        raise ValueError("'objective' or 'fields' hold control characters")
    if not all(map(str.isidentifier, manifest.get("splits", ()))):
        raise ValueError("'splits' are not named")
    if any(char < " " for name in manifest["files"] for char in name):
        raise ValueError("'files' are not named")
    if run := manifest.get("split", {}).get("of"):
        path.with_name(run)
