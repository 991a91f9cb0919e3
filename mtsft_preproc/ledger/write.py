"""Writes both files of the ledger, and makes the counts add up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mtsft_preproc.arrange import Arrangement
from mtsft_preproc.duplicates import Duplicates
from mtsft_preproc.errors import DatasetError, RecordError, naming
from mtsft_preproc.ledger.block import Block, Totals
from mtsft_preproc.ledger.columns import numbers_of
from mtsft_preproc.ledger.sidecar import Sidecar

__all__ = ["write_ledger"]


def write_ledger(
    blocks: Iterable[Block],
    outputs: Sequence[tuple[Arrangement, Path]],
    rejected: Path,
    schema: pa.Schema,
    sources: int,
    duplicates: Duplicates | None = None,
    file_of: Callable[[int], str] | None = None,
) -> Totals:
    """Write both files of the ledger.

    Args:
        blocks: All samples in their order.
        outputs: What stands where, and where its sources sidecar goes.
        rejected: Where the rejections go.
        schema: Of the blocks.
        sources: Number of sources.
        duplicates: Records that are left out since they were there before.
        file_of: The file of input by the number under which duplicates know it.

    Returns:
        The totals.

    Raises:
        DatasetError: The counts don't add up.
    """
    totals = Totals()
    with ExitStack() as stack:
        lines = stack.enter_context(open(rejected, "xb"))
        sidecars = [
            stack.enter_context(Sidecar(arrangement, path, schema, sources))
            for arrangement, path in outputs
        ]
        for block in blocks:
            there = np.zeros(len(block.records), np.bool_)
            for sidecar in sidecars:
                there |= sidecar.add(block)
            alive = len(np.unique(block.records[there]))
            if not there.all():
                block.rejections = _with_absent(block, there, duplicates, file_of)
            with naming(rejected):
                _write_lines(lines, block.rejections)
            totals.add(block, alive)
        with naming(rejected):
            lines.flush()
        totals.outputs = [sidecar.totals() for sidecar in sidecars]
    if totals.read != totals.kept + totals.rejected.total():
        raise DatasetError(
            f"the ledger does not add up: {totals.read} records read, {totals.kept} kept, "
            f"{totals.rejected.total()} rejected; nothing was published"
        )
    return totals


def _with_absent(
    block: Block,
    there: npt.NDArray[np.bool_],
    duplicates: Duplicates | None,
    file_of: Callable[[int], str] | None,
) -> list[dict[str, Any]]:
    """Return the rejections with those of the records that are in no output."""
    rows = numbers_of(block.table.column("row"))
    told = {entry["row"] for entry in block.rejections if "turn" not in entry}
    found: dict[int, RecordError] = {}
    if duplicates is not None and file_of is not None:
        own = duplicates.between(block.first, block.first + len(there))
        for sample, file, row in zip(
            own.samples.tolist(), own.files.tolist(), own.rows.tolist(), strict=True
        ):
            found[int(rows[sample - block.first])] = RecordError(
                "duplicate",
                "",
                "a dialogue that was not there before",
                f"that of {file_of(file)}, row {row}",
            )
    left_out = RecordError("left-out", "", "a record that the mix has a place for", "one that is over")
    absent = np.setdiff1d(rows[~there], rows[there]).tolist()
    new = {
        row: {"file": block.path, "row": row, **vars(found.get(row, left_out))}
        for row in absent
        if row not in told
    }
    # Of a record that is left out whole, single samples that were lost before are not lost on top of it.
    old = [entry for entry in block.rejections if entry["row"] not in new]
    return sorted([*old, *new.values()], key=lambda entry: (entry["row"], entry.get("turn", -1)))


def _write_lines(file: BinaryIO, entries: Iterable[dict[str, Any]]) -> None:
    for entry in entries:
        try:
            text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        except ValueError:
            # A record of a parquet file can hold numbers that JSON has no form for; they become text.
            text = json.dumps(json.loads(json.dumps(entry), parse_constant=str), ensure_ascii=False)
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")
