"""Arrow columns of numbers and of one text, from buffers and back.

The conversions of pyarrow import pandas where it is installed, which takes longer than a ledger of a
hundred thousand samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["numbers_column", "numbers_of", "same_column"]


def numbers_column(values: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a column of numbers.

    Args:
        values: Shape (n,), of a numeric type.
        null: bool, shape (n,): which of them are none, or None for no such.
    """
    valid = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    raw = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, raw])


def same_column(text: str, count: int) -> pa.Array:
    """Return a column of strings, ``count`` times the same one."""
    raw = text.encode()
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(len(raw))
    return pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(raw * count)]
    )


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the numbers of a column that holds no null, shape (n,)."""
    dtype = np.dtype(column.type.to_pandas_dtype())  # a numpy type in spite of its name
    chunks = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, dtype), *chunks])
