"""What every objective gives back: samples in columns, and what became of the records that have none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Record, Rejection

__all__ = ["DatasetSpec", "EncodedBatch", "RecordEncoder"]

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class DatasetSpec:
    """One ``.bin``/``.idx`` pair of an output.

    Attributes:
        name: Between the prefix and ``_document``: ``"packed_input_ids"``.
        group: Which lengths it has: datasets of one group have items of equal lengths.
        stored: Whether its tokens are encoded; else it holds a 1 for each token of the group.
        skips_empty: Whether a sample without a token in it has no item there, as in text documents.
    """

    name: str
    group: str
    stored: bool = True
    skips_empty: bool = False


@dataclass
class EncodedBatch:
    """The samples of a batch of records, in the order of the records.

    Attributes:
        tokens: int32, shape (N_name,): tokens of all samples, one behind the other, by the name of each
            stored dataset.
        lengths: int32, shape (S,): tokens of each sample, by group; they sum to the N of its datasets.
        trained: int32, shape (S,): trained tokens of each sample.
        rows: int64, shape (S,): row of the record that each sample came from, inside the shard.
        turns: int32, shape (S,): number of the message that a sample is for, or -1 for whole dialogues.
        digests: uint64, shape (S, 2): of the record that each sample came from, as of
            :mod:`mtsft_preproc.encoding.digests`: what is said; and that with how it is trained.
        kept: Per sample: the columns that the sources sidecar takes over, as text or None.
        rejections: Records that became no sample; and samples that were lost of records that kept others,
            which name their turn.
        notes: How many of the records are odd in a harmless way, by kind.
        parity: Trained turns by whether training text is serving text.
        differences: The first few where it isn't: row, message, kind, training, serving.
    """

    tokens: dict[str, Int32]
    lengths: dict[str, Int32]
    trained: Int32
    rows: npt.NDArray[np.int64]
    turns: Int32
    digests: npt.NDArray[np.uint64]
    kept: list[list[str | None]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    parity: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)


class RecordEncoder(ABC):
    """Turns records into samples; one per objective."""

    #: The datasets that its samples fill, in the order in which they are published.
    datasets: tuple[DatasetSpec, ...]

    @abstractmethod
    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        """Encode a batch of records; each ends as samples or as a rejection."""
