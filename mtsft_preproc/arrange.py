"""Which samples stand where: split, mix, pack and shuffle, by numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import SIDES, PreprocessConfig
from mtsft_preproc.errors import RejectedDataError
from mtsft_preproc.mixing import Mix, mixed_order, passes
from mtsft_preproc.packing import aligned, offsets_in_items, order_by_item, pack
from mtsft_preproc.permutation import KeyedPermutation, derive_key
from mtsft_preproc.survey import Questions, Survey

__all__ = ["Arrangement", "ArrangementSettings", "PackSettings", "arrange"]

Ints = npt.NDArray[np.integer]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


#: Records that a source may be drawn to: beyond all data there are, so a slip in the weights.
_MOST_RECORDS = 1 << 36


@dataclass(frozen=True)
class PackSettings:
    """How samples are packed.

    Attributes:
        capacity: Tokens of an item.
        multiple: Each sample takes up a multiple of so many tokens.
        neat: Whether the attention mask tells the samples of an item apart.
        window: Samples that are packed for themselves; None for all together.
    """

    capacity: int
    multiple: int = 1
    neat: bool = False
    window: int | None = None

    @classmethod
    def of(cls, config: PreprocessConfig) -> PackSettings | None:
        """Return what the settings of a run say."""
        if not config.pack:
            return None
        assert config.seq_length is not None
        return cls(config.seq_length, config.pad_to_multiple_of, config.neat_pack, config.pack_window())


@dataclass(frozen=True)
class ArrangementSettings:
    """How samples are arranged.

    Attributes:
        mix: The sources and their weights.
        packing: How they are packed, or None for one sample per item.
        shares: Of the sides of a split; empty for none.
        shuffle: Whether the items stand in a random order.
        dedup: Whether duplicates are left out.
        seed: Of all that is random.
    """

    mix: Mix
    packing: PackSettings | None = None
    shares: tuple[float, ...] = ()
    shuffle: bool = False
    dedup: bool = False
    seed: int = 0

    @classmethod
    def of(cls, config: PreprocessConfig, mix: Mix) -> ArrangementSettings:
        """Return what the settings of a run say."""
        dedup = config.dedup != "none"
        return cls(mix, PackSettings.of(config), config.split, config.shuffle, dedup, config.seed)

    @property
    def trivial(self) -> bool:
        """Whether every sample becomes an item, in order, in one output."""
        return self.mix.trivial and self.packing is None and not (self.shares or self.shuffle or self.dedup)

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides of the split that get a share; a single empty one without a split."""
        if not self.shares:
            return ("",)
        return tuple(name for name, share in zip(SIDES, self.shares, strict=False) if share > 0)

    def questions(self) -> Questions:
        """Return what has to be known of the samples."""
        mixed = not self.mix.trivial
        return Questions(
            shares=self.shares,
            seed=self.seed,
            dedup=self.dedup,
            records=mixed,
            trained=mixed and self.mix.weights_by == "trained_tokens",
        )


@dataclass
class Arrangement:
    """Which samples stand where in one output. A position is a place in the order before packing.

    Attributes:
        side: Side of the split, or ``""``.
        positions: Their number, N.
        items: Number of items.
        samples: Shape (N,): number of the sample at each position; None: all samples, in order.
        ascending: Whether ``samples`` ascend, each once.
        item: Shape (N,): item of each position; None: the position itself.
        offset: int32, shape (N,): first token of each position in its item; None: 0.
        order: Shape (N,): positions in the order in which they lie in the output; None: as they are.
        first: int64, shape (items + 1,): place in ``order`` at which each item starts; None: one sample per
            item.
        packing: How they are packed, or None.
    """

    side: str
    positions: int
    items: int
    samples: Ints | None = None
    ascending: bool = True
    item: Ints | None = None
    offset: Int32 | None = None
    order: Ints | None = None
    first: Int64 | None = None
    packing: PackSettings | None = None

    def __post_init__(self) -> None:
        self._by_sample: Ints | None = None

    def in_order(self, start: int, stop: int) -> Ints:
        """Return the samples at the places ``start`` to ``stop`` of the output."""
        positions = np.arange(start, stop) if self.order is None else self.order[start:stop]
        return positions if self.samples is None else self.samples[positions]

    def positions_of(self, start: int, stop: int) -> Ints:
        """Return the positions of the samples ``start`` to ``stop``, by sample, then by position."""
        if self.samples is None:
            return np.arange(start, stop)
        if not self.ascending and self._by_sample is None:
            self._by_sample = _small(np.argsort(self.samples, kind="stable"))
        low, high = (self._bound(value) for value in (start, stop))
        return np.arange(low, high) if self._by_sample is None else self._by_sample[low:high]

    def _bound(self, sample: int) -> int:
        """Return how many positions hold a lower sample.

        Not by ``searchsorted``, which would copy all samples for each call: to the type of its argument, or
        into the order that it needs.
        """
        by, samples = self._by_sample, self.samples
        assert samples is not None
        low, high = 0, self.positions
        while low < high:
            middle = (low + high) // 2
            if samples[middle if by is None else by[middle]] < sample:
                low = middle + 1
            else:
                high = middle
        return low


def arrange(survey: Survey, settings: ArrangementSettings) -> list[Arrangement]:
    """Return what stands where, for each output.

    Memory, beside the survey's: per position 4 bytes each for item, offset and order (8 with more than
    2**31 samples); 4 for its sample where something is left out, 4 more and what
    :func:`~mtsft_preproc.mixing.mixed_order` takes where sources are mixed.

    Args:
        survey: The samples.
        settings: How to arrange them.

    Raises:
        RejectedDataError: A source of the mix has no sample.
    """
    found = []
    for side in settings.sides:
        samples, ascending = _chosen(survey, settings, side)
        count = survey.samples if samples is None else len(samples)
        arrangement = Arrangement(side, count, count, samples, ascending, packing=settings.packing)
        if settings.packing is not None:
            _pack(arrangement, survey, settings.packing)
        if settings.shuffle:
            # One key for all sides, so that a side that is shuffled later has the same order.
            _shuffle(arrangement, derive_key(settings.seed, "shuffle"))
        found.append(arrangement)
    return found


def _chosen(survey: Survey, settings: ArrangementSettings, side: str) -> tuple[Ints | None, bool]:
    """Return the samples of an output in the order before packing, and whether they ascend."""
    live = None if survey.dropped is None or not survey.dropped.any() else ~survey.dropped
    if survey.side is not None:
        own = survey.side == SIDES.index(side)
        live = own if live is None else live & own
    if survey.order is not None:
        return _small(survey.order if live is None else survey.order[live[survey.order]]), False
    # What is repeated or left out is for training; the other sides hold every record once.
    if settings.mix.trivial or side not in ("", SIDES[0]):
        return (None if live is None else _small(np.flatnonzero(live))), True
    return _mixed(survey, settings, live), False


def _mixed(survey: Survey, settings: ArrangementSettings, live: npt.NDArray[np.bool_] | None) -> Ints:
    """Return the samples of a mix: records are drawn, and bring all their samples along."""
    assert survey.starts_record is not None
    samples = _small(np.arange(survey.samples) if live is None else np.flatnonzero(live))
    starts = np.flatnonzero(survey.starts_record[samples])
    sizes = np.diff(starts, append=len(samples))
    bounds = np.searchsorted(samples[starts], survey.bounds)
    if survey.trained is None:
        measures = np.diff(np.searchsorted(samples, survey.bounds)).tolist()
    else:
        before = np.concatenate([[0], np.cumsum(survey.trained[samples], dtype=np.int64)])
        measures = np.diff(before[np.searchsorted(samples, survey.bounds)]).tolist()
    counts = np.diff(bounds).tolist()
    often = passes(settings.mix, measures)
    _refuse_endless(settings.mix, counts, often)
    sources, records = mixed_order(
        counts,
        often,
        settings.mix.strategy != "concat",
        derive_key(settings.seed, "mix"),
    )
    drawn = bounds[sources] + records
    if len(starts) != len(samples):
        own = sizes[drawn]
        ends = np.cumsum(own)
        drawn = np.repeat(starts[drawn] - (ends - own), own) + np.arange(own.sum())
    found: Ints = samples[drawn]
    return found


def _refuse_endless(mix: Mix, counts: list[int], often: list[float]) -> None:
    """Refuse a mix that no disk holds, before memory is asked for it."""
    total, longest = max(
        (count * times, number) for number, (count, times) in enumerate(zip(counts, often, strict=True))
    )
    if total > _MOST_RECORDS:
        raise RejectedDataError(
            f"source {mix.sources[longest].name!r}: {often[longest]:.3g} passes over its {counts[longest]} "
            "records, which no disk holds; expected fewer epochs, or a weight that suits its size"
        )


def _pack(arrangement: Arrangement, survey: Survey, packing: PackSettings) -> None:
    (lengths,) = survey.lengths.values()
    if arrangement.samples is not None:
        lengths = lengths[arrangement.samples]
    lengths = aligned(lengths, packing.multiple)
    packed = pack(lengths, packing.capacity, packing.window)
    arrangement.items = packed.count
    arrangement.item = packed.items
    arrangement.order, arrangement.first = order_by_item(packed.items, packed.count)
    arrangement.offset = offsets_in_items(lengths, arrangement.order, arrangement.first)


def _shuffle(arrangement: Arrangement, key: int) -> None:
    """Put the items in a random order."""
    permutation = KeyedPermutation(arrangement.items, key)
    where = _small(permutation(np.arange(arrangement.items)))
    if arrangement.first is None or arrangement.order is None:
        arrangement.item = where
        arrangement.order = _small(permutation.inverse(np.arange(arrangement.items)))
        return
    assert arrangement.item is not None
    arrangement.item = where[arrangement.item]
    old = permutation.inverse(np.arange(arrangement.items))
    sizes = np.diff(arrangement.first)[old]
    first = np.concatenate([[0], np.cumsum(sizes)])
    places = np.repeat(arrangement.first[old] - first[:-1], sizes) + np.arange(arrangement.positions)
    arrangement.order = arrangement.order[places]
    arrangement.first = first


def _small(numbers: Ints) -> Ints:
    """Return numbers in 4 bytes each, where they fit."""
    small: Ints = numbers.astype(np.int32) if not len(numbers) or numbers.max() < 2**31 else numbers
    return small
