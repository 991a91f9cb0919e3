"""The manifest of a joined dataset, from those of its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc._version import __version__
from mtsft_preproc.join.agreement import FORMATS, SPLIT
from mtsft_preproc.join.inputs import JoinInput
from mtsft_preproc.manifest import length_quantiles
from mtsft_preproc.sealed import MANIFEST_SEAL

__all__ = ["fingerprint_of", "joined_identity", "joined_manifest"]

#: How many examples of turns that are not serving text a manifest shows.
_DIFFERENCES = 3
#: What a manifest says of a source that is true of its own mix alone.
_OF_ONE_MIX = ("share_asked", "share_reached")


def joined_identity(inputs: Sequence[JoinInput]) -> dict[str, Any]:
    """Return what a joined dataset follows from: the fingerprints of its inputs.

    Where they have no manifests: names, sizes and times of their files.
    """
    found: list[Any] = []
    for own in inputs:
        if own.manifest is not None:
            found.append(own.manifest["fingerprint"])
        else:
            status = [(path.name, path.stat()) for path in own.files()]
            found.append([[name, entry.st_size, entry.st_mtime_ns] for name, entry in status])
    names = sorted(inputs[0].datasets)
    return {"command": "merge", "version": __version__, "inputs": found, "datasets": names}


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return the sha256 of an identity in its canonical form."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def joined_manifest(
    inputs: Sequence[JoinInput],
    lengths: npt.NDArray[np.int32],
    sha256: Mapping[str, str],
    folder: Path,
) -> dict[str, Any]:
    """Return the manifest of the output. Equal inputs give an equal one.

    Counts are summed and lists of inputs put one behind the other; what else is the same in all inputs is
    taken over, what is not is left out.

    Args:
        inputs: What was joined; they agree, and all have a manifest.
        lengths: int32, shape (S,): tokens of each sample.
        sha256: Of each file of the output, by name.
        folder: Where these files lie now.
    """
    each = [_unsealed(own.manifest) for own in inputs if own.manifest is not None]
    first = each[0]
    joined: dict[str, Any] = {name: value for name, value in first.items() if _is_common(name, each)}
    joined |= {name: _format(name, each) for name in FORMATS if name in first}
    joined |= {
        "version": __version__,
        "settings": _common([own["settings"] for own in each]),
        "inputs": _summed([own["inputs"] for own in each]),
        "tokenizer": first["tokenizer"],
        "fingerprint": fingerprint_of(joined_identity(inputs)),
        "merged": [
            {"prefix": own.name}
            | {name: manifest[name] for name in ("fingerprint", "items", "samples", "tokens")}
            for own, manifest in zip(inputs, each, strict=True)
        ],
    }
    for name in ("items", "samples", "tokens", "trained_tokens"):
        joined[name] = _summed([own[name] for own in each])
    if "turn_ends" not in joined:
        joined["turn_ends"] = _union([own.get("turn_ends", []) for own in each])
    if all(own.has_records for own in inputs):
        joined["records"] = _summed([own["records"] for own in each])
        joined["parity"] = _parity([own.get("parity", {}) for own in each])
        joined["sources"] = [
            {name: value for name, value in entry.items() if name not in _OF_ONE_MIX}
            for own in each
            for entry in own.get("sources", [])
        ]
    else:
        for name in ("records", "parity", "sources"):
            joined.pop(name, None)
    if all("split" in own for own in each):
        joined["split"] = {name: first["split"].get(name) for name in SPLIT}
    if first.get("packing") is not None:
        joined["packing"] = _packing([own["packing"] for own in each], joined)
    joined["length_quantiles"] = length_quantiles(lengths)
    joined["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(sha256.items())
    }
    return joined


def _unsealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name != MANIFEST_SEAL}


def _is_common(name: str, each: Sequence[Mapping[str, Any]]) -> bool:
    missing = object()
    return all(own.get(name, missing) == each[0][name] for own in each)


def _common(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in each[0].items() if _is_common(name, each)}


def _format(name: str, each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the chat format as the first input has it; a date that is not that of all is none."""
    found: dict[str, Any] = dict(each[0][name])
    if "date" in found and not _is_common("date", [own[name] for own in each]):
        found["date"] = None
    return found


def _summed(values: Sequence[Any]) -> Any:
    """Return numbers added up, lists one behind the other, and both inside of mappings."""
    if isinstance(values[0], Mapping):
        names = dict.fromkeys(name for own in values for name in own)
        if all(isinstance(value, int) for own in values for value in own.values()):
            names = dict.fromkeys(sorted(names))  # counts by a reason
        return {name: _summed([own[name] for own in values if name in own]) for name in names}
    if isinstance(values[0], list):
        return [entry for own in values for entry in own]
    return sum(values)


def _union(lists: Sequence[list[Any]]) -> list[Any]:
    found: list[Any] = []
    for entry in _summed(lists):
        if entry not in found:
            found.append(entry)
    return found


def _parity(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "turns": _summed([own.get("turns", {}) for own in each]),
        "first": _summed([own.get("first", []) for own in each])[:_DIFFERENCES],
    }


def _packing(each: Sequence[Mapping[str, Any]], joined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry on packing."""
    capacity = joined["items"] * each[0]["seq_length"]
    return {**_common(each), "fill": joined["tokens"] / capacity if capacity else 0.0}
