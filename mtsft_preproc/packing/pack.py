"""Which item each sample lies in.

Best-fit decreasing (BFD): samples from the longest to the shortest, each into the fullest item that still
holds it, else into a new one. Its work in Python goes by distinct lengths, its memory by arrays of int32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtsft_preproc.packing.best_fit import best_fit
from mtsft_preproc.packing.chunks import Int64s, Ints, chunks, numbers_up_to, sort_chunk
from mtsft_preproc.packing.knapsack import greedy_knapsack, greedy_patterns

__all__ = ["Packing", "pack"]


@dataclass(frozen=True)
class Packing:
    """Which item each sample lies in.

    Attributes:
        items: The item of each sample, shape (S,), int32 (int64 above 2**31 samples). Items are numbered in
            the order of their lowest sample.
        count: How many items there are.
    """

    items: Ints
    count: int


def pack(lengths: npt.NDArray[np.int32], capacity: int, window: int | None = None) -> Packing:
    """Pack samples into items by best-fit decreasing, or by greedy knapsack where that needs fewer.

    Of equally full items the one takes the sample that has been so full for longest, and samples of equal
    length go in the order of their numbers. The first rule changes neither the number of items nor how full
    they are, but which lengths come together.

    At its peak it holds 12 bytes a sample and 4 an item, ``lengths`` and the result included, and a few
    arrays of a chunk and of the longest length.

    Args:
        lengths: Length of each sample in tokens, shape (S,), int32.
        capacity: Tokens that an item holds.
        window: Pack each run of so many samples for itself; item numbers run on. ``None``: all together.

    Returns:
        The item of each sample.

    Raises:
        ValueError: If a length is below 1 or above the capacity, or ``capacity`` or ``window`` is below 1.

    >>> pack(np.array([3, 6, 4, 4], np.int32), capacity=10).items.tolist()
    [0, 1, 1, 0]
    """
    if capacity < 1 or (window is not None and window < 1):
        raise ValueError(f"capacity and window: expected at least 1, got {capacity} and {window}")
    _check(lengths, capacity)
    size = len(lengths)
    items: Ints = np.empty(size, dtype=numbers_up_to(size))
    step = window or max(size, 1)
    count = 0
    for start in range(0, size, step):
        count = _pack_run(lengths[start : start + step], capacity, items[start : start + step], count)
    return Packing(items, count)


def _pack_run(lengths: npt.NDArray[np.int32], capacity: int, items: Ints, number: int) -> int:
    """Pack one window into ``items``, numbering from ``number`` on; return the next free number."""
    counts = _counts(lengths)
    bins, count = best_fit(counts, capacity, items.dtype)
    if count * capacity - int(lengths.sum(dtype=np.int64)) >= capacity:  # else there can't be fewer
        patterns = greedy_patterns(counts, capacity)
        if (fewer := sum(repeats for repeats, _ in patterns)) < count:
            bins, count = greedy_knapsack(counts, patterns, items.dtype), fewer
    # Where the next sample of each length finds its bin.
    cursor = np.cumsum(counts) - counts
    labels = np.full(count, -1, dtype=items.dtype)
    for start, run in chunks(lengths):
        keys, samples = sort_chunk(run)
        present = np.bincount(keys, minlength=len(counts))
        shift = cursor - (np.cumsum(present) - present)
        chosen = np.empty(len(run), dtype=items.dtype)
        chosen[samples] = bins[np.arange(len(run)) + np.repeat(shift, present)]
        cursor += present
        number = _label(chosen, labels, number)
        items[start : start + len(run)] = labels[chosen]
    return number


def _label(chosen: Ints, labels: Ints, number: int) -> int:
    """Number the bins that a chunk of samples is the first to use, in the order of their first samples.

    Args:
        chosen: Bin of each sample of the chunk, shape (N,).
        labels: Number of each bin, or -1; filled in.
        number: The next free number.

    Returns:
        The next free number behind it.
    """
    fresh = chosen[labels[chosen] < 0]
    places = np.arange(len(fresh), dtype=labels.dtype)
    labels[fresh[::-1]] = places[::-1]  # of equal indices the last is written: each bin's first place
    firsts = fresh[labels[fresh] == places]
    labels[firsts] = np.arange(number, number + len(firsts), dtype=labels.dtype)
    return number + len(firsts)


def _counts(lengths: npt.NDArray[np.int32]) -> Int64s:
    """Count the samples of each length, shape (longest + 1,)."""
    counts = np.zeros(int(lengths.max()) + 1, dtype=np.int64)
    for _, run in chunks(lengths):
        counts += np.bincount(run, minlength=len(counts))
    return counts


def _check(lengths: npt.NDArray[np.int32], capacity: int) -> None:
    if not len(lengths) or (lengths.min() >= 1 and lengths.max() <= capacity):
        return
    sample = int(np.flatnonzero((lengths < 1) | (lengths > capacity))[0])
    raise ValueError(f"sample {sample}: expected a length of 1 to {capacity}, got {lengths[sample]}")
