"""Which side of a split (train, valid, test) a record stands on, by what it says and the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.permutation import derive_key, uniform

__all__ = ["sides"]


def sides(content: npt.NDArray[np.uint64], shares: Sequence[float], seed: int) -> npt.NDArray[np.int8]:
    """Return the number of the side of each record.

    Neither the other records nor their order play a part: a record stays on its side when data are added,
    and equal dialogues stand on one side. The shares are reached as well as chance reaches them.

    Args:
        content: uint64, shape (N,): digest of what each record says.
        shares: Of the sides, relative to each other: finite, not negative, not all 0. A side with the
            share 0 gets nothing.
        seed: Of the run.

    Returns:
        int8, shape (N,): from 0 to the number of shares less 1.
    """
    ends = np.cumsum(np.asarray(shares, np.float64))
    # All but the last end: what lies behind them is the last side's, so that rounding loses no record.
    # Shares of 0 at the end start at 1 sharp, which no record's number reaches.
    borders = ends[:-1] / ends[-1]
    numbers = uniform(derive_key(seed, "split"), content)
    return np.searchsorted(borders, numbers, side="right").astype(np.int8)
