"""Which samples and rejections are looked at again: drawn by a key, whole records at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.inspection.finished import Finished
from mtsft_preproc.ledger import numbers_of
from mtsft_preproc.permutation import KeyedPermutation, derive_key

__all__ = ["drawn_rejections", "drawn_samples"]

Int64 = npt.NDArray[np.int64]
#: Rows of a file up to which a record has a number of its own: its file's number times this, plus its row.
_ROWS = 1 << 40


def drawn_samples(finished: Finished, count: int, seed: int) -> pa.Table:
    """Return the rows of the sidecar of drawn samples, and of all others of their records.

    Args:
        finished: The dataset.
        count: How many samples are drawn; 0: all.
        seed: Of the draw.

    Raises:
        DatasetError: The sidecar is damaged.
    """
    total = finished.sources.metadata.num_rows
    if count == 0 or count >= total:
        return pa.concat_tables([table for _, table in finished.row_groups()] or [_empty(finished)])
    places = np.sort(KeyedPermutation(total, derive_key(seed, "against", "samples"))(np.arange(count)))
    metadata = finished.sources.metadata
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    files: dict[tuple[str, str], int] = {}
    touched = np.unique(np.searchsorted(ends, places, side="right"))
    wanted = [np.zeros(0, np.int64)]
    for number, table in finished.row_groups(iter(touched.tolist())):
        first = int(ends[number]) - sizes[number]
        own = places[(places >= first) & (places < ends[number])] - first
        wanted.append(_records(table, files)[own])
    records = np.unique(np.concatenate(wanted))
    # The samples of a record stand together, but a row group may end between them.
    near = np.unique(np.concatenate([touched - 1, touched, touched + 1]))
    near = near[(near >= 0) & (near < len(sizes))]
    found = []
    for _, table in finished.row_groups(iter(near.tolist())):
        own = np.flatnonzero(np.isin(_records(table, files), records))
        found.append(table.take(pa.array(own)))
    return pa.concat_tables(found)


def _empty(finished: Finished) -> pa.Table:
    return finished.sources.schema_arrow.empty_table()


def _records(table: pa.Table, files: dict[tuple[str, str], int]) -> Int64:
    """Return a number for the record of each row, int64 (n,); ``files`` numbers sources and files."""
    codes = []
    names = []
    for name in ("source_name", "file"):
        column = table.column(name).combine_chunks().dictionary_encode()
        codes.append(column.indices.to_numpy(zero_copy_only=False).astype(np.int64))
        names.append(column.dictionary.to_pylist())
    pairs, own = np.unique(codes[0] * len(names[1]) + codes[1], return_inverse=True)
    numbers = [
        files.setdefault((names[0][pair // len(names[1])], names[1][pair % len(names[1])]), len(files))
        for pair in pairs.tolist()
    ]
    rows: Int64 = numbers_of(table.column("row")).astype(np.int64)
    found: Int64 = np.asarray(numbers, np.int64)[own] * _ROWS + rows
    return found


def drawn_rejections(path: Path, count: int, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield drawn lines of a ledger of rejections, with their numbers, counted from 1.

    Args:
        path: The ledger.
        count: How many lines are drawn; 0: all.
        seed: Of the draw.

    Raises:
        DatasetError: There is no such file, or a line is none of a ledger's.
    """
    try:
        with open(path, "rb") as lines:
            total = sum(1 for _ in lines)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    chosen = np.ones(total, np.bool_)
    if 0 < count < total:
        order = KeyedPermutation(total, derive_key(seed, "against", "rejected"))
        chosen[:] = False
        chosen[order(np.arange(count))] = True
    with open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if chosen[number]:
                try:
                    entry = json.loads(line)
                    known = {
                        "file": str(entry["file"]),
                        "row": int(entry["row"]),
                        "reason": entry["reason"],
                    }
                except (ValueError, KeyError, TypeError) as error:
                    raise DatasetError(f"{path}: line {number + 1}: no rejection: {error!r}") from None
                yield number + 1, {**entry, **known}
