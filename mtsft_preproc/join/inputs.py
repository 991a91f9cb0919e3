"""Finds and opens what is to be joined: our outputs by their manifests, others by the names of files."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.indexed import SFT_FIELDS, IndexedDataset, bin_path, dataset_prefix, idx_path
from mtsft_preproc.layout import OutputPaths

__all__ = [
    "JoinInput",
    "find_inputs",
    "has_manifest",
    "open_input",
    "open_output",
    "read_manifest",
    "refuse_own_inputs",
    "same_place",
]

#: What a manifest must hold for its dataset to be joined, with the types.
_NEEDED: dict[str, type] = {
    "format": int, "fingerprint": str, "settings": dict, "inputs": list, "tokenizer": dict,
    "objective": str, "fields": list, "items": int, "pad_id": int, "ignore_index": int, "samples": int,
    "tokens": int, "trained_tokens": int, "files": dict,
}  # fmt: skip


#: What it may hold, with the types.
_OPTIONAL: dict[str, type] = {
    "split": dict, "splits": dict, "packing": dict, "merged": list, "records": dict, "prompt_type": dict,
    "chat_template": dict, "text_form": dict,
}  # fmt: skip


@dataclass(frozen=True)
class JoinInput:
    """One of the outputs that are joined.

    Attributes:
        prefix: Its output prefix.
        datasets: Its pairs, by what stands behind the prefix: ``"_packed_labels_document"``, or ``""``
            where the prefix is that of a single pair.
        manifest: The manifest's content, or None.
    """

    prefix: Path
    datasets: dict[str, IndexedDataset]
    manifest: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The prefix as text, for messages."""
        return str(self.prefix)

    @property
    def whole(self) -> bool:
        """Whether the datasets are all that the manifest names."""
        named = (
            {name for name in self.manifest["files"] if name.endswith(".idx")} if self.manifest else None
        )
        return named == {idx_path(own.prefix).name for own in self.datasets.values()}

    @property
    def has_records(self) -> bool:
        """Whether it tells what became of records; for a side of a split that stands with the whole run."""
        return self.manifest is not None and "records" in self.manifest

    def sha256(self, file: Path) -> str | None:
        """Return what a file of the input must have, or None where no manifest tells."""
        if self.manifest is None:
            return None
        digest: str = self.manifest["files"][file.name]["sha256"]
        return digest

    def files(self) -> list[Path]:
        """Return all files that are read."""
        pairs = [path(own.prefix) for own in self.datasets.values() for path in (bin_path, idx_path)]
        paths = OutputPaths(self.prefix)
        if self.manifest is None:
            return pairs
        rejected = [paths.rejected] if self.has_records else []
        return [*pairs, *rejected, paths.sources, paths.manifest]


def same_place(path: Path) -> Path:
    """Return the path by which two names of one file or prefix are found out."""
    return path.parent.resolve() / path.name


def find_inputs(prefixes: Sequence[str], output: Path) -> list[JoinInput]:
    """Open the inputs.

    Args:
        prefixes: Their output prefixes.
        output: The prefix of what will be made of them.

    Raises:
        SettingsError: A prefix is named twice, or is the output's.
        DatasetError: There is nothing under a prefix, or it is damaged.
    """
    seen: dict[Path, str] = {}
    for prefix in prefixes:
        place = same_place(Path(prefix))
        if not Path(prefix).name or prefix.endswith("/"):
            raise SettingsError(f"{prefix!r} ends in no name; expected an output prefix, FOLDER/NAME")
        if place == same_place(output):
            raise SettingsError(f"--output-prefix: {output} is one of the inputs; expected a new prefix")
        if place in seen:
            raise SettingsError(f"{prefix} is named twice ({seen[place]}); expected each dataset once")
        seen[place] = prefix
    known = [*seen, same_place(output)]
    return [_find(Path(prefix), known) for prefix in prefixes]


def open_output(prefix: Path) -> JoinInput:
    """Open an output of this package: its manifest says what belongs to it.

    Raises:
        DatasetError: There is no manifest, or files are missing, damaged, or a mixture of two outputs.
    """
    manifest = read_manifest(prefix)
    start = len(prefix.name)
    names = sorted(name[:-4] for name in manifest["files"] if name.endswith(".idx"))
    return open_input(prefix, {name[start:]: prefix.with_name(name) for name in names})


def _find(prefix: Path, known: Sequence[Path]) -> JoinInput:
    if has_manifest(prefix):
        return open_output(prefix)
    if idx_path(prefix).exists() or bin_path(prefix).exists():
        return open_input(prefix, {"": prefix})
    tails = _tails(prefix, known)
    if not tails:
        suffix = prefix.suffix if prefix.suffix in (".bin", ".idx") else ""
        hint = f", without {suffix}" if suffix else ""
        raise DatasetError(
            f"{prefix}: no dataset there; expected an output prefix (with {prefix.name}.manifest.json or "
            f"{prefix.name}_*_document.idx beside it) or the prefix of one .bin and .idx{hint}"
        )
    return open_input(prefix, {tail: prefix.with_name(prefix.name + tail) for tail in tails})


def _tails(prefix: Path, known: Sequence[Path]) -> list[str]:
    """Return what stands behind ``prefix`` in the names of its pairs.

    Files of another given prefix that starts like this one belong to that; and where there are pairs of
    the form that trainers of MindSpeed-LLM look for, these are all.
    """
    start = len(prefix.name)
    place = same_place(prefix)
    longer = [
        other.name[start:] + "_"
        for other in known
        if other != place and other.parent == place.parent and other.name.startswith(prefix.name)
    ]
    found = {
        Path(path).stem[start:]
        for suffix in ("bin", "idx")
        for path in glob.glob(f"{glob.escape(str(prefix))}_*.{suffix}")
    }
    tails = sorted(tail for tail in found if not tail.startswith(tuple(longer)))
    return [tail for tail in tails if re.match("_packed_.*_document", tail)] or tails


def has_manifest(prefix: Path) -> bool:
    """Return whether an output of this package has that prefix."""
    return OutputPaths(prefix).manifest.exists()


def open_input(prefix: Path, pairs: Mapping[str, Path]) -> JoinInput:
    """Open an input whose pairs are known.

    Args:
        prefix: Its output prefix.
        pairs: Paths of its pairs without suffix, by their names in :attr:`JoinInput.datasets`.

    Raises:
        DatasetError: Files are missing, damaged, or a mixture of two outputs.
    """
    paths = OutputPaths(prefix)
    if paths.commit.exists():
        raise DatasetError(
            f"{prefix}: its publication was interrupted; run the command that made it again to finish it"
        )
    manifest = read_manifest(prefix) if has_manifest(prefix) else None
    if manifest is not None:
        _check_sizes(paths, manifest)
        for path in pairs.values():
            if idx_path(path).name not in manifest["files"]:
                raise DatasetError(f"{idx_path(path)}: {paths.manifest.name} does not name it")
    datasets = {name: IndexedDataset(path) for name, path in pairs.items()}
    _check_counts(prefix, datasets, manifest["objective"] if manifest else "sft")
    return JoinInput(prefix, datasets, manifest)


def read_manifest(prefix: Path) -> dict[str, Any]:
    """Return the manifest of an output.

    Raises:
        DatasetError: There is none, or it is malformed.
    """
    path = OutputPaths(prefix).manifest
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not a manifest: {error}") from None
    for name, kind in _NEEDED.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(name), kind):
            raise DatasetError(f"{path}: not a manifest: expected {name!r} in it, of type {kind.__name__}")
    for name, kind in _OPTIONAL.items():
        if not isinstance(manifest.get(name, kind()), kind):
            raise DatasetError(f"{path}: not a manifest: expected {name!r} of type {kind.__name__}")
    if not all(map(str.isidentifier, manifest.get("splits", ()))):
        raise DatasetError(f"{path}: not a manifest: expected names of sides as 'splits'")
    if not all(isinstance(field, str) for field in manifest["fields"]):
        raise DatasetError(f"{path}: not a manifest: expected texts as 'fields'")
    if any(char < " " for text in (manifest["objective"], *manifest["fields"]) for char in text):
        raise DatasetError(f"{path}: not a manifest: expected 'objective' and 'fields' on one line")
    for name, entry in manifest["files"].items():
        if name in ("", ".", "..") or any(char < " " or char == "/" for char in name):
            raise DatasetError(f"{path}: not a manifest: expected names of files beside it, got {name!r}")
        own = entry if isinstance(entry, dict) else {}
        if not isinstance(own.get("bytes"), int) or not isinstance(own.get("sha256"), str):
            raise DatasetError(f"{path}: not a manifest: expected bytes and sha256 of {name}")
    return manifest


def _check_sizes(paths: OutputPaths, manifest: Mapping[str, Any]) -> None:
    if "splits" in manifest:
        sides = ", ".join(f"{paths.prefix}_{side}" for side in manifest["splits"])
        raise DatasetError(f"{paths.prefix}: was split; expected the prefixes of its sides: {sides}")
    for sidecar in (*([paths.rejected] if "records" in manifest else []), paths.sources):
        if sidecar.name not in manifest["files"]:
            raise DatasetError(f"{paths.manifest}: names no {sidecar.name}; was the output renamed?")
    for name, entry in manifest["files"].items():
        file = paths.folder / name
        if not file.exists():
            raise DatasetError(f"{file}: no such file, but {paths.manifest.name} names it")
        if (size := file.stat().st_size) != entry["bytes"]:
            raise DatasetError(f"{file}: {size} bytes, but the manifest says {entry['bytes']}")


def _check_counts(prefix: Path, datasets: Mapping[str, IndexedDataset], objective: str) -> None:
    """Refuse datasets that a trainer reads side by side and that don't fit each other.

    Beside prompts, labels are replies, which have lengths of their own.
    """
    start = len(prefix.name)
    names = {field: dataset_prefix(prefix, field).name[start:] for field in SFT_FIELDS}
    packed = {name: own for name, own in datasets.items() if name.startswith("_packed_")}
    for name, own in packed.items():
        first = next(iter(packed.values()))
        if len(own) != len(first):
            raise DatasetError(
                f"{own.prefix}: {len(own)} items, but {first.prefix} has {len(first)}; expected as many"
            )
        if objective == "sft" and set(names.values()) <= packed.keys() and name in names.values():
            tokens = packed[names["input_ids"]]
            if not np.array_equal(own.lengths, tokens.lengths):
                raise DatasetError(f"{own.prefix}: its lengths are not those of {tokens.prefix}")


def refuse_own_inputs(inputs: Sequence[JoinInput], folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace, or to take away, a file that is read.

    Args:
        inputs: What is read.
        folder: That of the output.
        names: The files there that are written or taken away.

    Raises:
        SettingsError: One of them is an input's.
    """
    touched = {same_place(folder / name) for name in names}
    for own in inputs:
        for file in own.files():
            if same_place(file) in touched:
                raise SettingsError(
                    f"--output-prefix: {file} is an input and would be replaced; expected a new prefix"
                )
