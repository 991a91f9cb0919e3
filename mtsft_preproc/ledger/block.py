"""What comes in, and what is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Block", "OutputTotals", "Totals"]

Int64 = npt.NDArray[np.int64]


@dataclass
class Block:
    """Samples that follow each other, of one file of input.

    Attributes:
        first: Number of the first.
        source: Number of their source.
        path: The file.
        table: Of :func:`sample_schema`, a row per sample.
        tokens: int64, shape (n,): tokens of each, over all groups of lengths.
        records: int64, shape (n,): number of the record of each inside the block, ascending; all samples of
            a record are in one block.
        read: Records read, those that were rejected among them.
        rejections: Records and single samples that are lost, as the lines of the ledger say it.
        notes: Records that are odd in a harmless way, by kind.
        parity: Trained turns by whether training text is serving text.
        differences: The first few where it isn't.
    """

    first: int
    source: int
    path: str
    table: pa.Table
    tokens: Int64
    records: Int64
    read: int
    rejections: list[dict[str, Any]]
    notes: Counter[str] = field(default_factory=Counter)
    parity: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class OutputTotals:
    """What one output holds.

    Attributes:
        samples: Samples.
        tokens: Tokens of them.
        trained: Trained tokens among them.
        by_source: int64, shape (sources, 3): the same for each source.
    """

    samples: int
    tokens: int
    trained: int
    by_source: Int64


@dataclass
class Totals:
    """The counts of a whole run; ``read`` equals ``kept`` plus the sum of ``rejected``."""

    read: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    #: Samples lost of records that kept others, by reason.
    lost: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    parity: Counter[str] = field(default_factory=Counter)
    #: The first few turns whose training text isn't serving text: file, row and what differs.
    differences: list[dict[str, Any]] = field(default_factory=list)
    #: Records read and kept, by source and file.
    by_file: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    #: Of each output.
    outputs: list[OutputTotals] = field(default_factory=list)

    def add(self, block: Block, kept: int) -> None:
        """Add the records of a block."""
        self.read += block.read
        self.kept += kept
        self.notes.update(block.notes)
        self.parity.update(block.parity)
        self.differences += block.differences[: 3 - len(self.differences)]
        for entry in block.rejections:
            (self.lost if "turn" in entry else self.rejected)[entry["reason"]] += 1
        read_and_kept = self.by_file.setdefault((block.source, block.path), [0, 0])
        read_and_kept[0] += block.read
        read_and_kept[1] += kept
