"""From "sample -> item" to places in the output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtsft_preproc.packing import chunks as chunking
from mtsft_preproc.packing.chunks import Int64s, Ints, chunks, numbers_up_to, sort_chunk

__all__ = ["aligned", "offsets_in_items", "order_by_item"]

_INT32_MAX = 2**31 - 1


def order_by_item(items: Ints, count: int) -> tuple[Ints, Int64s]:
    """Sort samples by item, and by number inside an item: the order in which they lie in the output.

    A counting sort; beside its results it holds a few arrays of a chunk.

    Args:
        items: Item of each sample, shape (S,), 0 <= item < count.
        count: How many items there are.

    Returns:
        The samples in that order, shape (S,), int32 (int64 above 2**31 samples); and where each item
        starts in it, shape (count + 1,), int64, the last entry being S.
    """
    first = np.zeros(count + 1, dtype=np.int64)
    sizes = first[1:]
    for _, run in chunks(items):
        np.add.at(sizes, run, 1)
    # Each entry becomes its item's start, and moves on as samples are placed: at the end it is the start
    # of the next item, which is what stands there in the result.
    ends = np.cumsum(sizes)
    sizes[1:] = ends[:-1]
    sizes[:1] = 0
    del ends
    order: Ints = np.empty(len(items), dtype=numbers_up_to(len(items)))
    for start, run in chunks(items):
        keys, samples = sort_chunk(run)
        heads = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.diff(heads, append=len(keys))
        present = keys[heads]
        order[np.arange(len(keys)) + np.repeat(sizes[present] - heads, counts)] = start + samples
        sizes[present] += counts
    return order, first


def offsets_in_items(lengths: npt.NDArray[np.int32], order: Ints, first: Int64s) -> npt.NDArray[np.int32]:
    """Return where each sample starts inside its item.

    Args:
        lengths: Length of each sample in tokens (aligned, if it is), shape (S,), int32.
        order: Samples in the order of the output, as of :func:`order_by_item`.
        first: Where each item starts in ``order``.

    Returns:
        Tokens before each sample in its item, int32, shape (S,), by sample number (not by ``order``).
    """
    offsets = np.empty(len(order), dtype=np.int32)
    item, count = 0, len(first) - 1
    while item < count:
        # Whole items, at least one, so that nothing is carried over.
        stop = max(int(np.searchsorted(first, first[item] + chunking.CHUNK, "right")) - 1, item + 1)
        starts = first[item : stop + 1] - first[item]
        samples = order[first[item] : first[stop]]
        before = np.zeros(len(samples) + 1, dtype=np.int64)
        np.cumsum(lengths[samples], out=before[1:])
        offsets[samples] = before[:-1] - np.repeat(before[starts[:-1]], np.diff(starts))
        item = stop
    return offsets


def aligned(lengths: npt.NDArray[np.int32], multiple: int) -> npt.NDArray[np.int32]:
    """Round lengths up to a multiple.

    Args:
        lengths: Lengths in tokens, shape (S,), int32, not negative.
        multiple: At least 1. With 1 the given array itself is returned.

    Returns:
        int32, shape (S,).

    Raises:
        ValueError: If ``multiple`` is below 1, or a length becomes too large for int32.

    >>> aligned(np.array([1, 8, 9], np.int32), 8).tolist()
    [8, 8, 16]
    """
    if multiple < 1:
        raise ValueError(f"multiple: expected at least 1, got {multiple}")
    if multiple == 1 or not len(lengths):
        return lengths
    longest = int(lengths.max())
    if longest + multiple - 1 > _INT32_MAX:
        raise ValueError(
            f"multiple: length {longest} can't be rounded up to a multiple of {multiple} in int32"
        )
    rounded = lengths + np.int32(multiple - 1)
    rounded //= np.int32(multiple)
    rounded *= np.int32(multiple)
    return rounded
