"""``PREFIX.manifest.json``: what the dataset is, what it was made of, and that the counts add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.ledger import Totals
from mtsft_preproc.plan import Plan

__all__ = ["build_manifest"]

_FORMAT = 1
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def build_manifest(
    plan: Plan,
    totals: Totals,
    lengths: Mapping[str, npt.NDArray[np.int32]],
    sha256: dict[str, str],
    folder: Path,
) -> dict[str, Any]:
    """Return the manifest. It holds nothing that differs between two runs of one fingerprint.

    Args:
        plan: What was done.
        totals: What came of it.
        lengths: int32, shape (S,): tokens of each sample, by group of datasets.
        sha256: Of each file of the output, by name.
        folder: Where these files lie now.
    """
    first = lengths[plan.datasets[0].group]
    quantiles = np.quantile(first, _QUANTILES, method="nearest").tolist() if len(first) else []
    return {
        "format": _FORMAT,
        **plan.identity,
        "fingerprint": plan.fingerprint,
        "objective": plan.objective,
        "fields": [dataset.name.removeprefix("packed_") for dataset in plan.datasets],
        "items": len(first),
        "pad_id": plan.tokenizer.spec.pad_id,
        "ignore_index": plan.config.ignore_index,
        "records": {
            "read": totals.read,
            "kept": totals.kept,
            "rejected": totals.rejected.total(),
            "rejected_by_reason": dict(sorted(totals.rejected.items())),
            "lost_samples_by_reason": dict(sorted(totals.lost.items())),
            "notes": dict(sorted(totals.notes.items())),
            "by_file": [
                {"path": file.path, "read": read, "rejected": rejected}
                for file, (read, rejected) in (
                    (file, totals.by_file.get(number, [0, 0])) for number, file in enumerate(plan.files)
                )
            ],
        },
        "turn_ends": [asdict(end) for end in plan.probe.ends] if plan.probe else [],
        "parity": {"turns": dict(sorted(totals.parity.items())), "first": totals.differences},
        "samples": totals.samples,
        "tokens": totals.tokens,
        "trained_tokens": totals.trained,
        "length_quantiles": {
            str(share): int(value) for share, value in zip(_QUANTILES, quantiles, strict=False)
        },
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in sorted(sha256.items())
        },
    }
