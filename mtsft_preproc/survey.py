"""All samples of a run at a glance: what arranging them takes, without a token of them.

In memory stands what is needed of every sample at once; on disk, for those who copy tokens, where each
sample's tokens lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.duplicates import DuplicateFinder, Duplicates
from mtsft_preproc.errors import naming
from mtsft_preproc.splitting import sides

__all__ = ["Questions", "SampleIndex", "Survey", "Surveyor"]

Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Questions:
    """What there is to find out.

    Attributes:
        shares: Of the sides of a split; empty for none.
        seed: Of the split.
        dedup: Whether to look for duplicates.
        records: Whether it matters which samples are of one record.
        trained: Whether the trained tokens of each sample matter.
    """

    shares: tuple[float, ...] = ()
    seed: int = 0
    dedup: bool = False
    records: bool = False
    trained: bool = False


@dataclass(frozen=True)
class SampleIndex:
    """Where the tokens of each sample lie; pickles as paths.

    Attributes:
        folder: Of the arrays, without headers: ``lengths-GROUP``, int32, tokens of each sample, and
            ``places-STREAM``, int64, byte at which they start in their file.
        streams: The token streams, with the group of lengths of each.
        files: For each file of samples: the path of each stream, in the order of ``streams``.
        starts: Number of the first sample of each file.
    """

    folder: str
    streams: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, ...], ...]
    starts: tuple[int, ...]

    def lengths(self, group: str) -> Int32:
        """Return the tokens of each sample, int32 (S,), mapped."""
        return _mapped(Path(self.folder) / f"lengths-{group}", "<i4")

    def places(self, stream: str) -> Int64:
        """Return the byte at which the tokens of each sample start in their file, int64 (S,), mapped."""
        return _mapped(Path(self.folder) / f"places-{stream}", "<i8")


def _mapped(path: Path, dtype: str) -> npt.NDArray[Any]:
    # An empty file can't be mapped.
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r")


@dataclass
class Survey:
    """What is known of S samples in their order.

    Attributes:
        lengths: int32, shape (S,): tokens of each, by group.
        bounds: int64, shape (sources + 1,): number of the first sample of each source, then S.
        index: Where their tokens lie.
        duplicates: Those found, or None if none were looked for.
        side: int8, shape (S,): side of the split of each, or None without a split.
        dropped: bool, shape (S,): samples that are in no output (duplicates, and what is too long for a new
            packing), or None.
        starts_record: bool, shape (S,): whether a sample is the first of its record, or None if nobody
            asked.
        trained: int32, shape (S,): trained tokens of each, or None if nobody asked.
        order: int64, shape (S,): the samples in the order before packing, or None if they are numbered so.
    """

    lengths: dict[str, Int32]
    bounds: Int64
    index: SampleIndex
    duplicates: Duplicates | None = None
    side: npt.NDArray[np.int8] | None = None
    dropped: Bools | None = None
    starts_record: Bools | None = None
    trained: Int32 | None = None
    order: Int64 | None = None

    @property
    def samples(self) -> int:
        """Their number, S."""
        return int(self.bounds[-1])


@dataclass
class Surveyor:
    """Makes a survey of samples that come file by file, in their order.

    Args:
        folder: Where its arrays go; what is there from before is replaced.
        streams: The token streams, with the group of lengths of each.
        groups: The groups of lengths.
        sources: Number of sources.
        questions: What there is to find out.
        records: About how many records there are.
        index: Whether tokens are going to be copied; else nothing is written.
    """

    folder: Path
    streams: tuple[tuple[str, str], ...]
    groups: Sequence[str]
    sources: int
    questions: Questions
    records: int
    index: bool = True
    _files: list[tuple[str, ...]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _counts: Int64 = field(init=False)
    _lengths: dict[str, list[Int32]] = field(default_factory=dict)
    _sides: list[npt.NDArray[np.int8]] = field(default_factory=list)
    _dropped: list[Bools] = field(default_factory=list)
    _first: list[Bools] = field(default_factory=list)
    _trained: list[Int32] = field(default_factory=list)
    _samples: int = 0

    def __post_init__(self) -> None:
        if self.index:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._counts = np.zeros(self.sources, np.int64)
        self._finder = (
            DuplicateFinder(self.folder / "duplicates", self.records) if self.questions.dedup else None
        )
        for group in self.groups:
            self._write("wb", f"lengths-{group}", np.zeros(0, "<i4"))
        for stream, _ in self.streams:
            self._write("wb", f"places-{stream}", np.zeros(0, "<i8"))

    def add(
        self,
        source: int,
        file: int,
        paths: tuple[str, ...],
        lengths: Mapping[str, Int32],
        places: Mapping[str, Int64],
        rows: Int64,
        digests: UInt64,
        trained: Int32,
        dropped: Bools | None = None,
    ) -> None:
        """Take note of the next samples.

        Args:
            source: Number of their source.
            file: Number of the file of input that they came from, for duplicates.
            paths: The file of each stream that holds their tokens.
            lengths: int32, shape (N,): tokens of each, by group.
            places: int64, shape (N,): byte at which the tokens of each start, by stream.
            rows: int64, shape (N,): row of the record of each in that file of input. Samples of one record
                follow each other, in one call.
            digests: uint64, shape (N, 2): of the record of each.
            trained: int32, shape (N,): trained tokens of each.
            dropped: bool, shape (N,): which are in no output.
        """
        count = len(rows)
        if self.index:
            self._files.append(paths)
            self._starts.append(self._samples)
        self._counts[source:] += count
        for group in self.groups:
            self._lengths.setdefault(group, []).append(lengths[group])
            self._write("ab", f"lengths-{group}", lengths[group].astype("<i4", copy=False))
        for stream, _ in self.streams if self.index else ():
            self._write("ab", f"places-{stream}", places[stream].astype("<i8", copy=False))
        first = np.diff(rows, prepend=-1) != 0
        asked = self.questions
        if self._finder is not None:
            live = np.flatnonzero(first)
            if dropped is not None and count:
                # Of a record that lives, its first sample may be dropped.
                live = live[np.logical_or.reduceat(~dropped, live)]
            self._finder.add(digests[live], live + self._samples, file, rows[live])
        if asked.records or asked.dedup:
            self._first.append(first)
        if asked.shares:
            self._sides.append(sides(digests[:, 0], asked.shares, asked.seed))
        if asked.trained:
            self._trained.append(trained)
        if dropped is not None:
            self._dropped.append(dropped)
        self._samples += count

    def _write(self, mode: str, name: str, values: npt.NDArray[Any]) -> None:
        if self.index:
            with naming(self.folder / name), open(self.folder / name, mode) as file:
                file.write(np.ascontiguousarray(values).tobytes())

    def finish(self) -> Survey:
        """Return the survey."""
        asked = self.questions
        survey = Survey(
            lengths={group: _joined(self._lengths.pop(group, []), np.int32) for group in self.groups},
            bounds=np.concatenate([[0], self._counts]),
            index=SampleIndex(str(self.folder), self.streams, tuple(self._files), tuple(self._starts)),
            side=_joined(self._sides, np.int8) if self.questions.shares else None,
            dropped=_joined(self._dropped, np.bool_) if self._dropped else None,
            starts_record=_joined(self._first, np.bool_) if asked.records or asked.dedup else None,
            trained=_joined(self._trained, np.int32) if self.questions.trained else None,
        )
        if self._finder is not None:
            survey.duplicates = self._finder.finish()
            _drop_duplicates(survey, survey.duplicates)
        return survey


def _joined(pieces: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *pieces])


def _drop_duplicates(survey: Survey, duplicates: Duplicates) -> None:
    """Mark all samples of the records that are duplicates."""
    assert survey.starts_record is not None
    if survey.dropped is None:
        survey.dropped = np.zeros(survey.samples, np.bool_)
    under_way = False
    for start in range(0, survey.samples, _CHUNK):
        stop = min(start + _CHUNK, survey.samples)
        first = survey.starts_record[start:stop]
        marks = np.zeros(stop - start, np.bool_)
        marks[duplicates.between(start, stop).samples - start] = True
        # A record's mark holds for all its samples, also where the chunk begins in the middle of a record.
        numbers = np.cumsum(first)
        of_record = np.concatenate([[under_way], marks[first]])
        found = of_record[numbers]
        survey.dropped[start:stop] |= found
        under_way = bool(found[-1])
