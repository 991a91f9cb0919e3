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
    _refuse_unfinished(prefix)
    manifest = _manifest(prefix)
    if manifest is not None and "splits" in manifest:
        sides = ", ".join(f"{prefix}_{side}" for side in manifest["splits"])
        raise DatasetError(f"{prefix}: was split; expected one of {sides}")
    if manifest is not None and (run := manifest.get("split", {}).get("of")):
        # The sides of a split are published together.
        _refuse_unfinished(prefix.with_name(run))
    elif manifest is None:
        # Where there is none yet, the run's own work says whether this will be a side.
        _refuse_unfinished(prefix.with_name(prefix.name.rpartition("_")[0] or prefix.name), prefix.name)
    objective = "sft" if manifest is None else manifest.get("objective", "sft")
    if objective != "sft":
        raise DatasetError(
            f"{prefix}: holds {', '.join(manifest['fields']) if manifest else ''} ({objective}), not "
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
    return Published(fields, manifest)


def _refuse_unfinished(prefix: Path, side: str = "") -> None:
    """Refuse an output, or a side of it, that is on its way."""
    commit = prefix.with_name(prefix.name + ".mtsft-work") / "commit.json"
    if not commit.exists():
        return
    if side and f"{side}.manifest.json" not in json.loads(commit.read_text("utf-8"))["files"]:
        return
    raise DatasetError(
        f"{prefix}: its publication was interrupted; run the same command again to finish it"
    )


def _manifest(prefix: Path) -> dict[str, Any] | None:
    path = prefix.with_name(prefix.name + ".manifest.json")
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        sizes = {path.with_name(name): int(entry["bytes"]) for name, entry in manifest["files"].items()}
        int(manifest["pad_id"]), int(manifest["ignore_index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: not a manifest: {error!r}") from None
    for file, size in sizes.items():
        if file.suffix not in (".bin", ".idx"):
            continue
        if not file.exists():
            raise DatasetError(f"{file}: no such file, but {path.name} names it")
        if (actual := file.stat().st_size) != size:
            raise DatasetError(f"{file}: {actual} bytes, but the manifest says {size}")
    return manifest
