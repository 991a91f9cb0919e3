"""What becomes of samples that are longer than ``--seq-length``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["overlong"]


def overlong(lengths: npt.NDArray[np.int64], seq_length: int | None) -> npt.NDArray[np.bool_]:
    """Return which samples are over the limit; one of exactly ``seq_length`` tokens is not.

    Args:
        lengths: int64, shape (S,): tokens of each sample.
        seq_length: The limit, or None.

    Returns:
        bool, shape (S,).
    """
    if seq_length is None:
        return np.zeros(len(lengths), bool)
    over: npt.NDArray[np.bool_] = lengths > seq_length
    return over
