"""Arrays a chunk at a time, and chunks sorted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["Int64s", "Ints", "chunks", "numbers_up_to", "sort_chunk"]

Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Int64s = npt.NDArray[np.int64]

#: Samples handled at a time; not above 2**20, since a place in the chunk is the low 20 bits of a sort key.
CHUNK = 1 << 18
_BITS = np.int64(20)
_MASK = np.int64((1 << 20) - 1)


def chunks(values: Ints) -> Iterator[tuple[int, Ints]]:
    """Yield each chunk of an array, behind where it starts."""
    for start in range(0, len(values), CHUNK):
        yield start, values[start : start + CHUNK]


def sort_chunk(run: Ints) -> tuple[Int64s, Int64s]:
    """Sort a chunk, stably; return its values and their places in the chunk, int64."""
    keys = run.astype(np.int64)
    keys <<= _BITS
    keys |= np.arange(len(run))
    keys.sort()
    return keys >> _BITS, keys & _MASK


def numbers_up_to(size: int) -> np.dtype[np.signedinteger]:
    """Return the type of numbers below ``size``."""
    return np.dtype(np.int32 if size <= 1 << 31 else np.int64)
