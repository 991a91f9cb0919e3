"""Samples on their way from a template to a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Samples"]

Ints = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class Samples:
    """Samples in columns.

    Attributes:
        ids: int32, shape (N,): tokens of all samples, one behind the other.
        labels: int32, shape (N,).
        lengths: int64, shape (S,): tokens of each.
        trained: int64, shape (S,): trained tokens of each.
        records: int64, shape (S,): number of the record of each, in the batch.
        turns: int32, shape (S,): number of the message that each is for, or -1.
    """

    ids: Int32
    labels: Int32
    lengths: Ints
    trained: Ints
    records: Ints
    turns: Int32

    def take(self, which: Ints) -> Samples:
        """Return some of the samples, in the order that ``which``, int64 (T,), gives."""
        ends = np.cumsum(self.lengths)
        lengths = self.lengths[which]
        shift = np.repeat(ends[which] - np.cumsum(lengths), lengths)
        places = shift + np.arange(int(lengths.sum()))
        return Samples(
            self.ids[places],
            self.labels[places],
            lengths,
            self.trained[which],
            self.records[which],
            self.turns[which],
        )

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """Return all samples, by record, and within a record by turn."""
        if len(parts) == 1:
            return parts[0]
        joined = cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("ids", "labels", "lengths", "trained", "records", "turns")
            )
        )
        return joined.take(np.lexsort((joined.turns, joined.records)))
