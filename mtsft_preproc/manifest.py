"""``PREFIX.manifest.json``: what the dataset is, what it was made of, and that the counts add up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.indexed import SFT_FIELDS
from mtsft_preproc.ledger import Totals
from mtsft_preproc.plan import Plan

__all__ = ["build_manifest"]

_FORMAT = 1
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def build_manifest(
    plan: Plan,
    totals: Totals,
    lengths: npt.NDArray[np.int32],
    sha256: dict[str, str],
    folder: Path,
) -> dict[str, Any]:
    """Return the manifest. It holds nothing that differs between two runs of one fingerprint.

    Args:
        plan: What was done.
        totals: What came of it.
        lengths: int32, shape (S,): tokens of each item.
        sha256: Of each file of the output, by name.
        folder: Where these files lie now.
    """
    quantiles = np.quantile(lengths, _QUANTILES, method="nearest").tolist() if len(lengths) else []
    return {
        "format": _FORMAT,
        **plan.identity,
        "fingerprint": plan.fingerprint,
        "fields": list(SFT_FIELDS),
        "items": len(lengths),
        "pad_id": plan.tokenizer.spec.pad_id,
        "ignore_index": plan.config.ignore_index,
        "records": {
            "read": totals.read,
            "kept": totals.kept,
            "rejected": totals.rejected.total(),
            "rejected_by_reason": dict(sorted(totals.rejected.items())),
            "notes": dict(sorted(totals.notes.items())),
            "by_file": [
                {"path": file.path, "read": read, "rejected": rejected}
                for file, (read, rejected) in (
                    (file, totals.by_file.get(number, [0, 0])) for number, file in enumerate(plan.files)
                )
            ],
        },
        "turn_ends": [asdict(end) for end in plan.probe.ends],
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
