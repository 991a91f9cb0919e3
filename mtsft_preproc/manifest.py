"""``PREFIX.manifest.json``: what the dataset is, what it was made of, and that the counts add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.arrange import Arrangement, ArrangementSettings
from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.ledger import OutputTotals, Totals
from mtsft_preproc.mixing import Mix
from mtsft_preproc.sealed import MANIFEST_SEAL

__all__ = [
    "RESULTS",
    "Facts",
    "build_manifest",
    "files_entry",
    "length_quantiles",
    "library_versions",
    "output_entry",
    "side_manifest",
]

_FORMAT = 1
#: Entries that say what came of a run; the others are its identity.
RESULTS = frozenset(
    {
        "format", "fingerprint", "objective", "fields", "pad_id", "ignore_index", "items", "packing",
        "samples", "tokens", "trained_tokens", "length_quantiles", "splits", "split", "records", "sources",
        "turn_ends", "parity", "files", "merged", "repacked", "libraries", MANIFEST_SEAL,
    }
)  # fmt: skip
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
#: Libraries that have a part in the bytes: they read records, render and encode them, and write sidecars.
_LIBRARIES = ("jinja2", "numpy", "orjson", "pyarrow", "sentencepiece", "tokenizers", "transformers")


@dataclass(frozen=True)
class Facts:
    """What a run makes, whatever becomes of single records.

    Attributes:
        identity: What the bytes follow from, ready for JSON.
        fingerprint: sha256 of it.
        objective: As ``Handler.objective``.
        datasets: What the samples fill.
        settings: How they are arranged.
        pad_id: The padding token.
        ignore_index: Label of what is not trained.
        encoder: What turned text into ids, ready for JSON; None where nothing was encoded.
        composes: Whether dialogues of known shapes were written without the chat template; False only where
            that was found to differ from it.
        turn_ends: What ends a trained turn, ready for JSON.
        libraries: Versions of the libraries that had a part in the bytes; no part of the identity, so that
            a run that was interrupted goes on after an upgrade.
        inputs: Source and path of each file of input.
    """

    identity: Mapping[str, Any]
    fingerprint: str
    objective: str
    datasets: tuple[DatasetSpec, ...]
    settings: ArrangementSettings
    pad_id: int
    ignore_index: int
    encoder: Mapping[str, Any] | None = None
    composes: bool = True
    turn_ends: Sequence[Any] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[tuple[int, str]] = field(default_factory=list)

    def head(self) -> dict[str, Any]:
        """Return what the manifests of all sides begin with."""
        return {
            "format": _FORMAT,
            **self.identity,
            "fingerprint": self.fingerprint,
            "objective": self.objective,
            "fields": [dataset.name.removeprefix("packed_") for dataset in self.datasets],
            "pad_id": self.pad_id,
            "ignore_index": self.ignore_index,
            **({} if self.encoder is None else {"encoder": dict(self.encoder)}),
            **({} if self.composes else {"composed": False}),
            "libraries": dict(self.libraries),
        }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that have a part in the bytes, by name."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def build_manifest(
    facts: Facts, totals: Totals, outputs: Mapping[str, dict[str, Any]], files: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest. It holds nothing that differs between two runs of one fingerprint.

    Args:
        facts: What was done.
        totals: What came of it.
        outputs: What :func:`output_entry` says of each output, by its side.
        files: Size and sha256 of each file of the output, by name.
    """
    if "" in outputs:
        content = outputs[""]
    else:
        counts = ("items", "samples", "tokens", "trained_tokens")
        content = {name: sum(own[name] for own in outputs.values()) for name in counts}
        content["splits"] = dict(outputs)
    return {
        **facts.head(),
        **content,
        "records": {
            "read": totals.read,
            "kept": totals.kept,
            "rejected": totals.rejected.total(),
            "rejected_by_reason": dict(sorted(totals.rejected.items())),
            "lost_samples_by_reason": dict(sorted(totals.lost.items())),
            "notes": dict(sorted(totals.notes.items())),
            "by_file": [
                {"path": path, "read": read, "rejected": read - kept}
                for path, read, kept in (
                    (path, *totals.by_file.get((source, path), (0, 0)))
                    for source, path in dict.fromkeys(facts.inputs)
                )
            ],
        },
        "sources": _sources(facts.settings.mix, totals),
        "turn_ends": list(facts.turn_ends),
        "parity": {"turns": dict(sorted(totals.parity.items())), "first": totals.differences},
        "files": dict(files),
    }


def side_manifest(
    facts: Facts, run: str, side: str, output: Mapping[str, Any], files: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest of one side of a split.

    Args:
        facts: What was done.
        run: Name of the output prefix of the run, whose manifest has the records and their fates.
        side: The side.
        output: What :func:`output_entry` says of it.
        files: Size and sha256 of each of its files, by name.
    """
    return {
        **facts.head(),
        **output,
        "split": {
            "side": side,
            "of": run,
            "shares": normalised(facts.settings.shares),
            "seed": facts.settings.seed,
        },
        "turn_ends": list(facts.turn_ends),
        "files": dict(files),
    }


def normalised(shares: Sequence[float]) -> list[float]:
    """Return shares that sum to 1."""
    return [share / sum(shares) for share in shares]


def output_entry(
    totals: OutputTotals, arrangement: Arrangement, lengths: npt.NDArray[np.int32]
) -> dict[str, Any]:
    """Return what there is to say of one output.

    Args:
        totals: Its counts.
        arrangement: What stands where.
        lengths: int32, shape (S,): tokens of each of all samples, of the first group.
    """
    if arrangement.samples is not None:
        lengths = lengths[arrangement.samples]
    packing = arrangement.packing
    entry: dict[str, Any] = {"items": arrangement.items}
    if packing is not None:
        capacity = arrangement.items * packing.capacity
        entry["packing"] = {
            "seq_length": packing.capacity,
            "multiple": packing.multiple,
            "neat": packing.neat,
            "window": packing.window,
            "fill": totals.tokens / capacity if capacity else 0.0,
        }
    return entry | {
        "samples": totals.samples,
        "tokens": totals.tokens,
        "trained_tokens": totals.trained,
        "length_quantiles": length_quantiles(lengths),
    }


def length_quantiles(lengths: npt.NDArray[np.int32]) -> dict[str, int]:
    """Return quantiles of lengths, int32 (S,), by their share; nothing where there is no sample."""
    found = np.quantile(lengths, _QUANTILES, method="nearest").tolist() if len(lengths) else []
    return {str(share): int(value) for share, value in zip(_QUANTILES, found, strict=False)}


def _sources(mix: Mix, totals: Totals) -> list[dict[str, Any]]:
    """Return what came of each source; shares are those of the training side, which alone is mixed."""
    mixed = totals.outputs[0].by_source
    measure = mixed[:, 2 if mix.weights_by == "trained_tokens" else 0]
    weights = [source.weight for source in mix.sources]
    whole = sum(weight or 0.0 for weight in weights)
    entries = []
    for number, source in enumerate(mix.sources):
        read, kept = (
            sum(counts[place] for (owner, _), counts in totals.by_file.items() if owner == number)
            for place in (0, 1)
        )
        samples, tokens, trained = sum(own.by_source[number] for own in totals.outputs).tolist()
        entry: dict[str, Any] = {"name": source.name, "read": read, "kept": kept}
        entry |= {"samples": samples, "tokens": tokens, "trained_tokens": trained}
        if not mix.trivial:
            entry["epochs"] = source.epochs if source.weight is None else None
            entry["share_asked"] = None if source.weight is None else source.weight / whole
        if len(mix.sources) > 1:
            entry["share_reached"] = float(measure[number] / measure.sum()) if measure.sum() else 0.0
        entries.append(entry)
    return entries


def files_entry(folder: Path, sha256: Mapping[str, str]) -> dict[str, Any]:
    """Return size and sha256 of files, by name."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(sha256.items())
    }
