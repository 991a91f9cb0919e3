"""How several sources become one sequence of records: how often each is gone through, and in which order.

A mix is planned from counts alone. Its result is a list of **occurrences**: a record of a source, which may
occur several times, once or never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RejectedDataError
from mtsft_preproc.permutation import derive_key, uniform

__all__ = ["Mix", "Source", "mixed_order", "passes"]

_Int64s = npt.NDArray[np.int64]

#: Occurrences whose places are computed together, so that what that takes beside the result stays small.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One source of a mix.

    Attributes:
        name: As the user gave it, or as the mix file does; no two sources have the same.
        weight: Its share of the mix, in proportion to the other weights; None where the sources have none.
        epochs: How often it is gone through where there are no weights; above 0.
        max_samples: The most records that are read of it, from the first, over all its files; None for all.
    """

    name: str
    weight: float | None = None
    epochs: float = 1.0
    max_samples: int | None = None


@dataclass(frozen=True)
class Mix:
    """All sources, and how they are mixed.

    Attributes:
        strategy: ``"concat"`` (source behind source), ``"interleave_under"`` (in turns, until the first
            source has been gone through once) or ``"interleave_over"`` (until each has been, at least).
            Where the sources have no weights, both interleave what ``epochs`` says.
        weights_by: What the weights are shares of: ``"samples"`` or ``"trained_tokens"``.
        sources: In the order in which they are read.
    """

    strategy: str
    weights_by: str
    sources: tuple[Source, ...]

    @property
    def interleaved(self) -> bool:
        """Whether the sources take turns."""
        return self.strategy != "concat"

    @property
    def trivial(self) -> bool:
        """Whether each record stands in the mix once, in the order in which it was read."""
        return not self.interleaved and all(source.epochs == 1 for source in self.sources)

    @property
    def shares(self) -> list[float] | None:
        """The share of the mix that each source is to have, or None where no weights ask for any."""
        weights = [source.weight for source in self.sources if source.weight is not None]
        if not self.interleaved or len(weights) != len(self.sources):
            return None
        total = math.fsum(weights)
        return [weight / total for weight in weights]


def passes(mix: Mix, measures: Sequence[int]) -> list[float]:
    """Return how often each source is gone through: 1.0 is once, 0.25 a quarter of its records.

    With shares ``p`` and measures ``M``, a mix of the size ``T`` takes ``T * p / M`` passes of a source. It
    is the largest with at most one pass of each (``T = min(M / p)``: ``interleave_under``), or the smallest
    with at least one pass of each (``T = max(M / p)``: ``interleave_over``). Just 1.0 comes out for the
    source that decides.

    Args:
        mix: The sources. Without shares, ``epochs`` is the answer.
        measures: Samples or trained tokens of each source, as ``mix.weights_by`` says.

    Raises:
        RejectedDataError: A source that is to have a share has nothing.
    """
    shares = mix.shares
    if shares is None:
        return [source.epochs for source in mix.sources]
    for source, measure in zip(mix.sources, measures, strict=True):
        if measure == 0:
            raise RejectedDataError(
                f"source {source.name!r}: no sample of it is there (rejected, duplicates, or on other "
                "sides of the split); expected some, as it is to have a share of the mix"
            )
    sizes = [measure / share for measure, share in zip(measures, shares, strict=True)]
    size = min(sizes) if mix.strategy == "interleave_under" else max(sizes)
    return [size / own for own in sizes]


def mixed_order(
    counts: Sequence[int], passes: Sequence[float], interleave: bool, key: int
) -> tuple[npt.NDArray[np.int32], _Int64s]:
    """Return the occurrences of a mix, in its order.

    A source occurs in whole passes over its records, in their order, and then in a part of one for what is
    left: ``fraction * count`` records, rounded, at least one where the source would not occur at all. These
    are spread evenly over the source, not its first ones, since files are often sorted: systematic sampling
    (Madow and Madow, 1944) from a keyed start.

    Interleaved, the ``j``-th of the ``m`` occurrences of a source stands at ``(j + u) / m`` of the mix,
    ``u`` in [0, 1) keyed by source and ``j``. So each source keeps its order, and every prefix of the mix
    holds its share of each source ``i`` to within ``(1 - s) + s * (k - 1)`` occurrences, with ``k`` sources
    and ``s = m[i] / sum(m)``: to within one with two sources, two with three. (The shares of independent
    draws wander by the square root of the prefix.)

    Memory: 12 bytes per occurrence come back; at most 32 are held on the way.

    Args:
        counts: Records of each source.
        passes: How often each source is gone through, as :func:`passes` returns it.
        interleave: Whether the sources take turns; otherwise they stand one behind the other.
        key: Key of the mix, as of :func:`~mtsft_preproc.permutation.derive_key`.

    Returns:
        int32 and int64, shape (N,): number of the source, number of the record within that source.
    """
    own = [
        _occurrences(count, often, derive_key(key, "partial", str(number)))
        for number, (count, often) in enumerate(zip(counts, passes, strict=True))
    ]
    sizes = [len(records) for records in own]
    sources = np.repeat(np.arange(len(own), dtype=np.int32), sizes)
    records = np.concatenate([np.empty(0, np.int64), *own])
    del own
    if interleave:
        order = np.argsort(_places(sizes, key), kind="stable")
        sources = sources[order]
        records = records[order]
    return sources, records


def _occurrences(count: int, often: float, key: int) -> _Int64s:
    """Return the records of one source, as often as they occur.

    Args:
        count: Records of the source.
        often: Passes.
        key: Key of its partial pass.

    Returns:
        int64, shape (M,).
    """
    if count == 0 or often <= 0:
        return np.empty(0, np.int64)
    whole = math.floor(often)
    rest = math.floor((often - whole) * count + 0.5)
    if whole == 0:
        rest = max(rest, 1)
    found = np.empty(whole * count + rest, np.int64)
    found[: whole * count].reshape(whole, count)[:] = np.arange(count)
    if rest:
        # In integers: record n is taken if a multiple of count / rest, from the start on, falls into it.
        start = int(uniform(key, [0])[0] * count)
        found[whole * count :] = (np.arange(rest) * count + start) // rest
    return found


def _places(sizes: Sequence[int], key: int) -> npt.NDArray[np.float64]:
    """Return where the occurrences of each source stand in the mix, source behind source.

    Args:
        sizes: Occurrences of each source.
        key: Key of the mix.

    Returns:
        float64 in [0, 1], shape (N,), ascending within each source.
    """
    places = np.empty(sum(sizes))
    at = 0
    for number, size in enumerate(sizes):
        own = derive_key(key, "interleave", str(number))
        for start in range(0, size, _BLOCK):
            index = np.arange(start, min(start + _BLOCK, size))
            places[at : at + len(index)] = (index + uniform(own, index)) / size
            at += len(index)
    return places
