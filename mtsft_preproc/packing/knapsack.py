"""Greedy knapsack, in patterns: each item takes the longest samples that still fit, again and again.

Known from LLaMA-Factory's packing; its items hold what first-fit decreasing puts into them. It needs more
items than best-fit decreasing far more often than fewer; where it needs fewer, it is taken.
"""

from __future__ import annotations

import bisect

import numpy as np

from mtsft_preproc.packing.chunks import Int64s, Ints

__all__ = ["greedy_knapsack", "greedy_patterns"]

#: How many items hold the same, and what: (length, samples of it) pairs.
Pattern = tuple[int, list[tuple[int, int]]]


def greedy_patterns(counts: Int64s, capacity: int) -> list[Pattern]:
    """Return what the items of greedy knapsack hold.

    A pattern goes on until a length of it is used up, so there are about as many as distinct lengths.

    Args:
        counts: How many samples there are of each length, shape (longest + 1,).
        capacity: Tokens that an item holds.
    """
    lengths = np.flatnonzero(counts).tolist()
    left = {length: int(counts[length]) for length in lengths}
    patterns: list[Pattern] = []
    while lengths:
        room, held = capacity, []
        top = len(lengths)
        while top := bisect.bisect_right(lengths, room, 0, top):
            length = lengths[top - 1]
            taken = min(room // length, left[length])
            held.append((length, taken))
            room -= taken * length
            top -= 1
        repeats = min(left[length] // taken for length, taken in held)
        patterns.append((repeats, held))
        for length, taken in held:
            left[length] -= repeats * taken
            if not left[length]:
                lengths.pop(bisect.bisect_left(lengths, length))
    return patterns


def greedy_knapsack(counts: Int64s, patterns: list[Pattern], dtype: np.dtype[np.signedinteger]) -> Ints:
    """Return the item of each sample, samples sorted by length from the shortest, shape (S,).

    Args:
        counts: How many samples there are of each length, shape (longest + 1,).
        patterns: As of :func:`greedy_patterns`.
        dtype: Of the result.
    """
    cursor = np.cumsum(counts) - counts
    items: Ints = np.empty(int(counts.sum()), dtype=dtype)
    opened = 0
    for repeats, held in patterns:
        own = np.arange(opened, opened + repeats, dtype=dtype)
        for length, taken in held:
            start = int(cursor[length])
            items[start : start + repeats * taken] = np.repeat(own, taken)
            cursor[length] += repeats * taken
        opened += repeats
    return items
