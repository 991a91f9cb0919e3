"""The tokens: ids within the vocabulary, labels that are the ids where something is trained, masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtsft_preproc.inspection.verify.pairs import Pair
from mtsft_preproc.inspection.verify.report import SHOWN, Check
from mtsft_preproc.inspection.verify.samples import Spans

__all__ = ["Group", "Rules", "Seen", "all_of", "check_tokens"]

Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: Tokens that are looked at together; a thread takes some fifty bytes for each.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Rules:
    """What must hold of tokens.

    Attributes:
        vocabulary: Number of ids.
        ignored: Label of what is not trained.
        late: Label of the first position behind a turn whose end is taught there; None where the chat
            format does no such thing.
        pad: Id of padding.
        packed: Whether items are packs.
        neat: Whether the attention mask tells the samples of an item apart.
        needs_trained: Whether a sample must have a trained token.
    """

    vocabulary: int
    ignored: int
    late: int | None
    pad: int
    packed: bool = False
    neat: bool = False
    needs_trained: bool = True


@dataclass(frozen=True)
class Group:
    """Datasets with equal lengths.

    Attributes:
        ids: Token ids.
        labels: Their labels, or None.
        mask: Their attention mask, or None.
        spans: Where the samples lie; None: nobody knows, and where nothing is packed they are the items.
    """

    ids: Pair
    labels: Pair | None = None
    mask: Pair | None = None
    spans: Spans | None = None


@dataclass
class Seen:
    """What was found.

    Attributes:
        trained: int32, shape (n,): trained tokens of each sample, in the order of the spans (of each item
            where there are none).
        total: Trained tokens of all.
        taught_late: Labels that teach the end of the turn before.
    """

    trained: Int32
    total: int = 0
    taught_late: int = 0


@dataclass
class _Found:
    """What was found in a stretch of items: the fields of :class:`Seen`, and lines of failures."""

    trained: Int32
    total: int = 0
    taught_late: int = 0
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def tell(self, pair: Pair, first: int, wrong: Bools, what: Callable[[int], str]) -> None:
        """Add a failure for each token that is wrong.

        Args:
            pair: Where it is.
            first: Number of the first token of the stretch.
            wrong: bool, shape (t,): which tokens.
            what: Says of a place in the stretch what is wrong.
        """
        if not wrong.any():
            return
        places = np.flatnonzero(wrong)
        self.count += len(places)
        shown = places[: SHOWN - len(self.lines)].tolist()
        self.lines += [f"{pair.place(first + at)}: {what(at)}" for at in shown]


def check_tokens(check: Check, group: Group, rules: Rules, threads: ThreadPoolExecutor) -> Seen:
    """Read all tokens of a group of datasets, a stretch of items at a time, and look at them.

    Args:
        check: Takes the failures.
        group: The datasets.
        rules: What must hold.
        threads: Each takes a stretch at a time; numpy lets go of the interpreter's lock.
    """
    check.file = group.ids.bin.name
    found = Seen(np.zeros(0, np.int32))
    pieces = [found.trained]
    for own in threads.map(lambda span: _look(group, rules, *span), _stretches(group.ids)):
        check.add(own.lines, own.count)
        pieces.append(own.trained)
        found.total += own.total
        found.taught_late += own.taught_late
    found.trained = np.concatenate(pieces)
    return found


def _stretches(pair: Pair) -> Iterator[tuple[int, int]]:
    """Yield first and last item (exclusive) of stretches of whole items."""
    wanted = np.arange(0, pair.tokens, _AT_ONCE)
    borders = sorted({*np.searchsorted(pair.starts, wanted).tolist(), len(pair.starts)})
    yield from itertools.pairwise(borders)


def _look(group: Group, rules: Rules, low: int, high: int) -> _Found:
    """Look at the items from ``low`` to ``high``."""
    starts, lengths = group.ids.starts[low:high], group.ids.lengths[low:high]
    first, last = int(starts[0]), int(starts[-1]) + int(lengths[-1])
    spans = _spans(group.spans, starts, lengths, first, last, rules.packed)
    own = None if spans is None else (spans.starts - first, spans.starts - first + spans.lengths)
    found = _Found(np.zeros(0, np.int32))
    ids = group.ids.read(first, last)
    outside = (ids < 0) | (ids >= rules.vocabulary)
    found.tell(group.ids, first, outside, lambda at: (
        f"id {ids[at]}, but the vocabulary has {rules.vocabulary}"
    ))  # fmt: skip
    padding = None
    if spans is not None and rules.packed:
        numbers = _numbers(spans, first, last)
        padding = numbers == 0
        found.tell(group.ids, first, padding & (ids != rules.pad), lambda at: (
            f"id {ids[at]} on padding, expected {rules.pad}"
        ))  # fmt: skip
    if group.mask is not None:
        mask = group.mask.read(first, last)
        wanted = numbers if rules.neat and padding is not None else np.ones(1, np.int32)
        if not rules.neat or padding is not None:
            wanted = np.broadcast_to(wanted, mask.shape)
            found.tell(group.mask, first, mask != wanted, lambda at: f"{mask[at]}, expected {wanted[at]}")
    if group.labels is not None:
        labels = group.labels.read(first, last)
        found.total = int(np.count_nonzero(labels != rules.ignored))
        _look_at_labels(group.labels, rules, ids, labels, first, found)
        if padding is not None and own is not None:
            found.tell(group.labels, first, padding & (labels != rules.ignored), lambda at: (
                f"label {labels[at]} on padding, expected {rules.ignored}"
            ))  # fmt: skip
            begins = np.zeros(len(labels), np.bool_)
            begins[own[0]] = True
            found.tell(group.labels, first, begins & (labels != rules.ignored), lambda at: (
                f"label {labels[at]} at the first token of a sample in a pack, expected {rules.ignored}"
            ))  # fmt: skip
        if own is not None:
            _count_trained(group.labels, rules, labels, own, first, found)
    return found


def _spans(
    spans: Spans | None, starts: Int64, lengths: Int32, first: int, last: int, packed: bool
) -> Spans | None:
    """Return the samples in a stretch; of a dataset that is not packed its items where nobody tells."""
    if spans is None:
        return None if packed else Spans(starts, lengths, np.ones(len(starts), np.int32))
    if not packed:
        return Spans(starts, lengths, np.ones(len(starts), np.int32))
    low, high = np.searchsorted(spans.starts, [first, last])
    return Spans(spans.starts[low:high], spans.lengths[low:high], spans.numbers[low:high])


def _numbers(spans: Spans, first: int, last: int) -> Int32:
    """Return the number of the sample that each token belongs to, int32 (last - first,); 0 on padding."""
    ends = spans.starts + spans.lengths
    gaps = np.append(spans.starts[1:], last) - ends
    lead = np.zeros(int(spans.starts[0]) - first if len(spans.starts) else last - first, np.int32)
    values = np.stack([spans.numbers, np.zeros_like(spans.numbers)], axis=1).ravel()
    counts = np.stack([spans.lengths.astype(np.int64), gaps], axis=1).ravel()
    return np.concatenate([lead, np.repeat(values, counts)])


def _look_at_labels(pair: Pair, rules: Rules, ids: Int32, labels: Int32, first: int, found: _Found) -> None:
    """Look whether labels are the ids, the ignore index, or the end of the turn before."""
    other = (labels != ids) & (labels != rules.ignored)
    if rules.late is not None:
        late = other & (labels == rules.late)
        found.taught_late = int(np.count_nonzero(late))
        other &= ~late
    also = "" if rules.late is None else f", the end of a turn {rules.late}"
    found.tell(pair, first, other, lambda at: (
        f"label {labels[at]}, expected the id {ids[at]}{also} or {rules.ignored}"
    ))  # fmt: skip


def _count_trained(
    pair: Pair, rules: Rules, labels: Int32, own: tuple[Int64, Int64], first: int, found: _Found
) -> None:
    """Count the trained tokens of each sample, from ``own[0]`` to ``own[1]``."""
    before = np.zeros(len(labels) + 1, np.int32)
    np.cumsum(labels != rules.ignored, out=before[1:])
    found.trained = before[own[1]] - before[own[0]]
    if rules.needs_trained:
        none = np.flatnonzero(found.trained == 0)
        found.count += len(none)
        shown = none[: SHOWN - len(found.lines)].tolist()
        found.lines += [
            f"{pair.place(first + int(own[0][at]))}: no token is trained of the sample of "
            f"{own[1][at] - own[0][at]} tokens that starts here"
            for at in shown
        ]


def all_of(parts: Iterable[Seen]) -> Seen:
    """Return groups of equal items together: trained tokens are added up."""
    first, *others = parts
    for own in others:
        first = Seen(
            first.trained + own.trained, first.total + own.total, first.taught_late + own.taught_late
        )
    return first
