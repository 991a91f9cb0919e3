"""Whether the counts of the manifest are those of the datasets and of the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.inspection.verify.rejected import Rejected
from mtsft_preproc.inspection.verify.report import Check
from mtsft_preproc.inspection.verify.samples import Samples
from mtsft_preproc.manifest import length_quantiles

__all__ = ["check_output_counts", "check_records", "check_sums"]

_SUMMED = ("items", "samples", "tokens", "trained_tokens")


def check_output_counts(
    check: Check, name: str, manifest: Mapping[str, Any], items: int, samples: Samples, trained: int
) -> None:
    """Compare what the manifest says of an output with what is in it.

    Args:
        check: Takes the failures.
        name: Of the manifest.
        manifest: It.
        items: Items that are there.
        samples: The samples.
        trained: Trained tokens, counted in the labels.
    """
    whole = sum(samples.by_source.values(), np.zeros(3, np.int64)).tolist()
    check.equal(name, "items", manifest["items"], items)
    check.equal(name, "samples", manifest["samples"], whole[0])
    check.equal(name, "tokens", manifest["tokens"], whole[1])
    check.equal(name, "trained_tokens", manifest["trained_tokens"], trained)
    check.equal(samples.file, "sum of trained", whole[2], trained)
    quantiles = length_quantiles(samples.length)
    check.equal(name, "length_quantiles", manifest["length_quantiles"], quantiles)
    packing = manifest.get("packing")
    if packing is not None:
        capacity = items * packing["seq_length"]
        check.equal(name, "packing.fill", packing["fill"], whole[1] / capacity if capacity else 0.0)
    check.checked = (
        f"{items:,} items, {whole[0]:,} samples, {whole[1]:,} tokens, {trained:,} trained; length quantiles"
    )


def check_sums(check: Check, name: str, manifest: Mapping[str, Any], sides: Mapping[str, Any]) -> None:
    """Compare what the manifest of a split run says with the manifests of its sides.

    Args:
        check: Takes the failures.
        name: Of the run's manifest.
        manifest: It.
        sides: The manifests of the sides, by side.
    """
    for side, own in sides.items():
        for entry, says in manifest["splits"][side].items():
            check.equal(name, f"splits.{side}.{entry}", says, own.get(entry))
        check.equal(
            f"{name} and that of {side}", "fingerprint", manifest["fingerprint"], own["fingerprint"]
        )
        check.equal(f"the manifest of {side}", "split.side", own.get("split", {}).get("side"), side)
    for count in _SUMMED:
        check.equal(name, count, manifest[count], sum(own[count] for own in sides.values()))


def check_records(
    check: Check, name: str, manifest: Mapping[str, Any], samples: Sequence[Samples], rejected: Rejected
) -> None:
    """Compare what the manifest says of records and sources with the ledger.

    Args:
        check: Takes the failures.
        name: Of the manifest.
        manifest: It.
        samples: Those of all outputs of the run.
        rejected: What was rejected.
    """
    records = manifest["records"]
    check.equal(name, "records.read", records["read"], records["kept"] + records["rejected"])
    for entry, found in (
        ("rejected_by_reason", rejected.records), ("lost_samples_by_reason", rejected.lost),
    ):  # fmt: skip
        check.equal(name, f"records.{entry}", records[entry], dict(sorted(found.items())))
    check.equal(name, "records.rejected", records["rejected"], rejected.records.total())
    by_file = records["by_file"]
    check.equal(name, "records.read", records["read"], sum(entry["read"] for entry in by_file))
    _by_source(check, name, manifest, samples)
    _by_file(check, name, manifest, samples, rejected)
    check.checked = (
        f"{records['read']:,} read = {records['kept']:,} kept + {records['rejected']:,} rejected"
    )
    check.checked += f"; {len(by_file):,} files, {len(manifest['sources']):,} sources"


def _by_source(check: Check, name: str, manifest: Mapping[str, Any], samples: Sequence[Samples]) -> None:
    entries, records = manifest["sources"], manifest["records"]
    for count in ("read", "kept"):
        check.equal(name, f"sum of sources.{count}", sum(own[count] for own in entries), records[count])
    # Joined datasets may have sources of one name.
    says: dict[str, list[int]] = {}
    for own in entries:
        before = says.setdefault(own["name"], [0, 0, 0])
        for place, count in enumerate(("samples", "tokens", "trained_tokens")):
            before[place] += own[count]
    found = {source: np.zeros(3, np.int64) for source in says}
    for output in samples:
        for source, sums in output.by_source.items():
            found[source] = found.get(source, np.zeros(3, np.int64)) + sums
    if found.keys() != says.keys() and {"merged", "repacked"} & manifest.keys():
        check.skip(
            "counts of each source: they are datasets here, the sidecar tells of the sources in them"
        )
        whole = np.asarray(list(says.values())).sum(axis=0).tolist()
        told = "samples, tokens and trained tokens of all sources"
        check.equal(name, told, whole, sum(found.values(), np.zeros(3, np.int64)).tolist())
        return
    for source, sums in found.items():
        if source not in says:
            check.fail(samples[0].file, f"source {source!r} is none of the manifest's")
            continue
        told = f"samples, tokens and trained tokens of source {source!r}"
        check.equal(name, told, says[source], sums.tolist())


def _by_file(
    check: Check, name: str, manifest: Mapping[str, Any], samples: Sequence[Samples], rejected: Rejected
) -> None:
    """Compare the records of each file: none is both kept and rejected, and none is missing."""
    by_file = manifest["records"]["by_file"]
    often = Counter(entry["path"] for entry in by_file) | Counter(
        entry["path"] for entry in manifest["inputs"]
    )
    several = sorted(path for path, count in often.items() if count > 1)
    if several:
        check.skip(
            f"kept records of {', '.join(several[:3])}{', ...' if len(several) > 3 else ''}: read several "
            "times, so that rows don't tell records apart"
        )
    rows: dict[str, list[npt.NDArray[np.int64]]] = {}
    for own in samples:
        for (_, file), found in own.rows.items():
            rows.setdefault(file, []).append(found)
    for entry in by_file:
        path = entry["path"]
        if often[path] > 1:
            continue
        gone = rejected.rows_of(path)
        kept = np.unique(np.concatenate([np.zeros(0, np.int64), *rows.get(path, ())]))
        check.equal(name, f"rejected records of {path}", entry["rejected"], len(gone))
        check.equal(name, f"kept records of {path}", entry["read"] - entry["rejected"], len(kept))
        if len(both := np.intersect1d(kept, gone)):
            check.fail(
                samples[0].file if samples else name, f"{path}, row {both[0]}: both kept and rejected"
            )
        if len(np.unique(gone)) < len(gone):
            check.fail(f"{name}: {path}", "a record is rejected twice")
