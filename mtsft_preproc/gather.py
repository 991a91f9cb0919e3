"""Copies the tokens of samples to where they were arranged: a pure task per range of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.arrange import Arrangement, PackSettings
from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.errors import DatasetError, naming
from mtsft_preproc.packing import aligned
from mtsft_preproc.parts import Container, ContainerWriter
from mtsft_preproc.survey import SampleIndex, Survey

__all__ = [
    "GatherItems",
    "Range",
    "check_part",
    "gathered_datasets",
    "item_lengths",
    "plan_ranges",
    "save_order",
]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: Tokens of a range, counted once per group of lengths: what bounds the memory of a task.
_RANGE_TOKENS = 1 << 22
_CHUNK = 1 << 20


def check_part(path: str) -> None:
    """Check the hashes of a part that samples are about to be copied out of. A pure task.

    Raises:
        DatasetError: It is not what was written.
    """
    Container(Path(path)).check()


@dataclass(frozen=True)
class Range:
    """A range of the items of an output.

    Attributes:
        index: Its number.
        items: Its first item, and the one behind its last.
        places: The same for the samples, in the order in which they lie in the output.
    """

    index: int
    items: tuple[int, int]
    places: tuple[int, int]


def plan_ranges(arrangement: Arrangement, survey: Survey) -> list[Range]:
    """Cut the items of an output into ranges of about as many tokens; never by the number of workers."""
    if arrangement.first is not None and arrangement.packing is not None:
        step = max(1, _RANGE_TOKENS // arrangement.packing.capacity)
        borders = [*range(0, arrangement.items, step), arrangement.items]
        places = arrangement.first[borders].tolist()
    else:
        borders = places = _borders(arrangement, survey)
    return [
        Range(number, (borders[number], borders[number + 1]), (places[number], places[number + 1]))
        for number in range(len(borders) - 1)
    ]


def _borders(arrangement: Arrangement, survey: Survey) -> list[int]:
    """Return where ranges of single samples begin and end."""
    borders = [0]
    tokens = last = 0
    for start in range(0, arrangement.positions, _CHUNK):
        samples = arrangement.in_order(start, min(start + _CHUNK, arrangement.positions))
        sizes = np.zeros(len(samples), np.int64)
        for lengths in survey.lengths.values():
            sizes += lengths[samples]
        ends = tokens + np.cumsum(sizes)
        # A sample belongs to the range in which its first token lies, counting on through the output.
        numbers = (ends - sizes) // _RANGE_TOKENS
        borders += (start + np.flatnonzero(np.diff(numbers, prepend=last))).tolist()
        tokens, last = int(ends[-1]), int(numbers[-1])
    return sorted({*borders, arrangement.positions})


def save_order(arrangement: Arrangement, folder: Path) -> None:
    """Write down, for the tasks, which samples lie where: ``samples``, int64, and ``first``, int64."""
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder / "samples"), open(folder / "samples", "wb") as file:
        for start in range(0, arrangement.positions, _CHUNK):
            samples = arrangement.in_order(start, min(start + _CHUNK, arrangement.positions))
            file.write(samples.astype("<i8").tobytes())
    if arrangement.first is not None:
        with naming(folder / "first"):
            (folder / "first").write_bytes(arrangement.first.astype("<i8").tobytes())


def item_lengths(
    arrangement: Arrangement, survey: Survey, folder: Path
) -> dict[str, npt.NDArray[np.int32]]:
    """Return the tokens of each item, int32 (items,), by group."""
    if arrangement.packing is not None:
        full = np.full(arrangement.items, arrangement.packing.capacity, np.int32)
        return dict.fromkeys(survey.lengths, full)
    if arrangement.samples is None and arrangement.order is None:
        return survey.lengths
    samples = _read(folder / "samples", 0, arrangement.positions)
    return {group: own[samples] for group, own in survey.lengths.items()}


def gathered_datasets(
    datasets: Sequence[DatasetSpec], packing: PackSettings | None
) -> tuple[DatasetSpec, ...]:
    """Return the datasets as gathering leaves them: a mask that tells samples apart is stored, too."""
    neat = packing is not None and packing.neat
    return tuple(DatasetSpec(own.name, own.group, own.stored or neat, own.skips_empty) for own in datasets)


@dataclass(frozen=True)
class GatherItems:
    """Makes the items of a range, and publishes them as one file. Safe to run twice, anywhere.

    Attributes:
        fingerprint: Of the run; a file of another is never taken for this one's.
        index: Where the samples lie.
        order: Folder that :func:`save_order` wrote.
        folder: Where the files go.
        packing: How the samples are packed, or None.
        fills: What padding is, by stream.
        unlabelled: Streams of labels: the first label of a packed sample is ignored, since it would be
            predicted from the last token of another sample. (Alone, no trainer uses it.)
        mask: Name of the attention mask to write, with the number of the sample inside its item, or None.
    """

    fingerprint: str
    index: SampleIndex
    order: str
    folder: str
    packing: PackSettings | None
    fills: Mapping[str, int]
    unlabelled: tuple[str, ...] = ()
    mask: str | None = None

    def path(self, span: Range) -> Path:
        """Return where the items of a range go."""
        return Path(self.folder) / f"{span.index:08d}.items"

    def identity(self, span: Range) -> dict[str, Any]:
        """Return what the file of a range is the work of."""
        output = Path(self.folder).name
        return {
            "fingerprint": self.fingerprint,
            "gathered": [output, span.index, *span.items, *span.places],
        }

    def finished(self, span: Range) -> bool:
        """Return whether the file of a range is there, this run's, and whole."""
        if not self.path(span).exists():
            return False
        try:
            found = Container(self.path(span))
            found.check()
        except DatasetError:
            return False
        return found.identity == self.identity(span)

    def __call__(self, span: Range) -> int:
        """Gather a range; return the bytes of its tokens."""
        start, stop = span.places
        samples = _read(Path(self.order) / "samples", start, stop)
        sizes = (
            np.diff(_read(Path(self.order) / "first", span.items[0], span.items[1] + 1))
            if self.packing
            else None
        )
        tokens: dict[str, Int32] = {}
        for stream, group in self.index.streams:
            lengths = self.index.lengths(group)[samples]
            starts, total = self._starts(lengths, sizes)
            out = np.full(total, self.fills.get(stream, 0), np.int32)
            self._copy(stream, samples, lengths, starts, out)
            if stream in self.unlabelled and self.packing:
                out[starts] = self.fills[stream]
            tokens[stream] = out
        if self.mask is not None:
            assert sizes is not None
            tokens[self.mask] = _numbers(lengths, starts, sizes, total)
        with ContainerWriter(self.path(span), self.identity(span), list(tokens)) as writer:
            writer.add(tokens)
        return sum(own.nbytes for own in tokens.values())

    def _starts(self, lengths: Int32, sizes: Int64 | None) -> tuple[Int64, int]:
        """Return where each sample starts in the range, int64 (n,), and the tokens of the range.

        Args:
            lengths: int32, shape (n,): tokens of each sample.
            sizes: int64, shape (items,): samples of each item, or None for one each.
        """
        if self.packing is None or sizes is None:
            ends = np.cumsum(lengths, dtype=np.int64)
            return ends - lengths, int(ends[-1]) if len(ends) else 0
        wide = aligned(lengths, self.packing.multiple).astype(np.int64)
        before = np.cumsum(wide) - wide
        firsts = np.cumsum(sizes) - sizes
        item = np.repeat(np.arange(len(sizes)), sizes)
        starts = before - before[firsts][item] + item * self.packing.capacity
        return starts, len(sizes) * self.packing.capacity

    def _copy(self, stream: str, samples: Int64, lengths: Int32, starts: Int64, out: Int32) -> None:
        """Copy the tokens of samples to where they start, file by file and from the front to the back."""
        number = [name for name, _ in self.index.streams].index(stream)
        by_sample = np.argsort(samples, kind="stable")
        samples, lengths, starts = (
            samples[by_sample],
            lengths[by_sample].astype(np.int64),
            starts[by_sample],
        )
        places = self.index.places(stream)[samples] // 4
        file_starts = np.asarray(self.index.starts)
        files = np.searchsorted(file_starts, samples, "right") - 1
        # What lies together here and there is copied together.
        apart = (
            (np.diff(files) != 0) | (np.diff(places) != lengths[:-1]) | (np.diff(starts) != lengths[:-1])
        )
        runs = np.flatnonzero(np.concatenate([[True], apart])) if len(samples) else np.zeros(0, np.int64)
        ends = np.append(runs[1:], len(samples)) - 1
        counts = places[ends] + lengths[ends] - places[runs]
        borders = np.flatnonzero(np.diff(files[runs], prepend=-1))
        for low, high in zip(borders.tolist(), [*borders[1:].tolist(), len(runs)], strict=True):
            source = _tokens(self.index.files[int(files[runs[low]])][number])
            for here, there, count in zip(
                places[runs[low:high]].tolist(),
                starts[runs[low:high]].tolist(),
                counts[low:high].tolist(),
                strict=True,
            ):
                out[there : there + count] = source[here : here + count]


def _numbers(lengths: Int32, starts: Int64, sizes: Int64, total: int) -> Int32:
    """Return, int32 (total,), the 1-based number of the sample that each token belongs to; 0 on padding."""
    out = np.zeros(total, np.int32)
    number = np.arange(len(lengths)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    ends = np.cumsum(lengths, dtype=np.int64)
    places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    out[places] = np.repeat(number, lengths)
    return out


def _tokens(path: str) -> Int32:
    """Return the words of a file, mapped; only some of them are tokens."""
    count = Path(path).stat().st_size // 4
    # As a plain array: slicing a memmap costs several times as much.
    return np.asarray(np.memmap(path, "<i4", mode="r", shape=(count,))) if count else np.zeros(0, np.int32)


def _read(path: Path, start: int, stop: int) -> Int64:
    """Return some of the numbers of a file of int64."""
    return np.fromfile(path, "<i8", count=stop - start, offset=8 * start)
