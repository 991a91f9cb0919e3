"""The sources sidecar of one output: what each sample is, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mtsft_preproc.arrange import Arrangement
from mtsft_preproc.ledger.block import Block, OutputTotals
from mtsft_preproc.ledger.columns import numbers_column, numbers_of
from mtsft_preproc.ledger.row_groups import RowGroups

__all__ = ["Sidecar", "sample_schema", "sidecar_schema"]

Ints = npt.NDArray[np.integer]

#: Rows that are made at a time: a mix may repeat the samples of a block many times.
_ROWS = 1 << 16
_PLACE = [
    pa.field("item", pa.int64(), nullable=False),
    pa.field("offset", pa.int32(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
]
_SAMPLE = [
    pa.field("length", pa.int32(), nullable=False),
    pa.field("trained", pa.int32(), nullable=False),
    pa.field("source_name", pa.string(), nullable=False),
    pa.field("file", pa.string(), nullable=False),
    pa.field("row", pa.int64(), nullable=False),
    pa.field("turn", pa.int32()),
    pa.field("digest", pa.binary(16), nullable=False),
]


def sample_schema(keep_columns: Sequence[str] = ()) -> pa.Schema:
    """Return the columns that say of a sample what it is, wherever it stands."""
    return pa.schema([*_SAMPLE, *(pa.field(name, pa.string()) for name in keep_columns)])


def sidecar_schema(keep_columns: Sequence[str] = ()) -> pa.Schema:
    """Return the columns of a sidecar: those, with the place of the sample."""
    return _with_place(sample_schema(keep_columns))


def _with_place(schema: pa.Schema) -> pa.Schema:
    length, trained, *others = schema
    return pa.schema([*_PLACE[:2], length, trained, _PLACE[2], *others])


class Sidecar:
    """Writes it, a block of samples at a time.

    Args:
        arrangement: What stands where in the output.
        path: Where the sidecar goes.
        schema: Of the blocks.
        sources: Number of sources.
    """

    def __init__(self, arrangement: Arrangement, path: Path, schema: pa.Schema, sources: int) -> None:
        self._arrangement = arrangement
        self._schema = _with_place(schema)
        self._rows = RowGroups(path, self._schema)
        self._sums = np.zeros((sources, 3), np.int64)

    def __enter__(self) -> Sidecar:
        self._rows.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._rows.__exit__(kind, *rest)

    def add(self, block: Block) -> npt.NDArray[np.bool_]:
        """Add the samples of a block; return, bool (n,), which of them are in the output."""
        there = np.zeros(len(block.records), np.bool_)
        positions = self._arrangement.positions_of(block.first, block.first + len(there))
        for start in range(0, len(positions), _ROWS):
            self._add(block, positions[start : start + _ROWS], there)
        return there

    def _add(self, block: Block, positions: Ints, there: npt.NDArray[np.bool_]) -> None:
        arrangement = self._arrangement
        samples = positions if arrangement.samples is None else arrangement.samples[positions]
        own = samples.astype(np.int64) - block.first
        there[own] = True
        # As they are, mostly; taking them apart and together again costs as much as all the rest.
        whole = len(own) == len(there) and (np.diff(own) == 1).all()
        table = block.table if whole else block.table.take(numbers_column(own))
        place = {
            "item": positions if arrangement.item is None else arrangement.item[positions],
            "offset": np.zeros(len(own), np.int32)
            if arrangement.offset is None
            else arrangement.offset[positions],
            "position": positions,
        }
        columns = [
            numbers_column(place[name].astype(kind.to_pandas_dtype(), copy=False))
            if name in place
            else table.column(name)
            for name, kind in zip(self._schema.names, self._schema.types, strict=True)
        ]
        self._rows.add(pa.Table.from_arrays(columns, schema=self._schema))
        trained = numbers_of(table.column("trained")).sum(dtype=np.int64)
        self._sums[block.source] += [len(own), int(block.tokens[own].sum()), int(trained)]

    def totals(self) -> OutputTotals:
        """Return what was added."""
        samples, tokens, trained = self._sums.sum(axis=0).tolist()
        return OutputTotals(samples, tokens, trained, self._sums)
