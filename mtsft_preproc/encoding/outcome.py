"""What has become of the records of a batch so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mtsft_preproc.encoding.samples import Samples
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates import WHOLE
from mtsft_preproc.truncation import Piece

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What has become of the records of a batch so far.

    Attributes:
        samples: Of the pieces that were encoded.
        errors: Why a record has no sample, by its number.
        lost: Why single samples of a record are lost: number of the record, turn, reason.
        notes: By number of the record.
        parity: By number of the record.
        differences: Number of the record, and the difference.
    """

    samples: list[Samples] = field(default_factory=list)
    errors: dict[int, RecordError] = field(default_factory=dict)
    lost: list[tuple[int, int, RecordError]] = field(default_factory=list)
    notes: dict[int, list[str]] = field(default_factory=dict)
    parity: dict[int, Counter[str]] = field(default_factory=dict)
    differences: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def note(self, record: int, *names: str) -> None:
        """Note, once per record, what is odd about it."""
        if not names:
            return
        known = self.notes.setdefault(record, [])
        known += [name for name in names if name not in known]

    def refuse(self, piece: Piece, error: RecordError) -> None:
        """Take note that a piece becomes no sample.

        Where it is one of several samples of its record, only that sample is lost if it is too long, or if
        nothing of what it is for is left of it.
        """
        if piece.turn != WHOLE and error.reason in ("overlong", "nothing-trained"):
            self.lost.append((piece.record, piece.turn, error))
        else:
            self.errors.setdefault(piece.record, error)
