"""Records that were there before (``--dedup exact``), found on disk: memory doesn't grow with their number.

Records are parted by their digests into buckets, each small enough to be sorted in memory; equal ones meet
in one bucket. What a bucket finds is parted again, by sample number, for whoever goes through the samples
in order.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import OutputError, naming

__all__ = ["DuplicateFinder", "DuplicateRows", "Duplicates"]

_Ints = npt.NDArray[np.int64]
#: Structured arrays, of one of the types below.
_Rows = npt.NDArray[Any]

#: Bytes of a bucket, and of what is read of it at once.
_BUCKET_BYTES = 32 << 20
#: Bytes that wait in memory until they are parted and written.
_WAITING_BYTES = 16 << 20
#: Sample numbers whose duplicates stand in one file.
_RANGE = 1 << 20

_RECORD = np.dtype(
    [("content", "<u8"), ("variant", "<u8"), ("sample", "<i8"), ("row", "<i8"), ("file", "<i4")]
)
_DUPLICATE = np.dtype([("sample", "<i8"), ("row", "<i8"), ("file", "<i4")])


@dataclass(frozen=True)
class DuplicateRows:
    """Records that were there before, in columns.

    Attributes:
        samples: int64, shape (D,), ascending: number of the first sample of each.
        files: int32, shape (D,): where the first record with its digest stands.
        rows: int64, shape (D,): row of that in its file.
    """

    samples: _Ints
    files: npt.NDArray[np.int32]
    rows: _Ints


class DuplicateFinder:
    """Takes note of the digests of records, and tells which were there before.

    Args:
        folder: Scratch of its own; what is there already is removed.
        records: How many records to expect. With more it takes more memory, nothing else.
    """

    def __init__(self, folder: Path, records: int) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._folder = folder
        # Buckets differ a little in size; in one go each should be read none the less.
        self._number = max(1, -(-records * _RECORD.itemsize * 9 // (_BUCKET_BYTES * 8)))
        self._buckets = _Shelves(folder, "bucket", _RECORD)

    def add(self, digests: npt.NDArray[np.uint64], samples: _Ints, file: int, rows: _Ints) -> None:
        """Take note of the next records.

        Args:
            digests: uint64, shape (R, 2): those in which both numbers are equal are duplicates.
            samples: int64, shape (R,): number of the first sample of each record; ascending over all calls.
            file: The file that they all stand in.
            rows: int64, shape (R,): row of each in it.
        """
        records = np.empty(len(samples), _RECORD)
        records["content"], records["variant"] = digests[:, 0], digests[:, 1]
        records["sample"], records["row"], records["file"] = samples, rows, file
        # Both halves, so that many records that only differ in the second don't fill one bucket.
        buckets = (digests[:, 0] ^ digests[:, 1]) % np.uint64(self._number)
        self._buckets.put(buckets.astype(np.int64), records)

    def finish(self) -> Duplicates:
        """Find the duplicates among all records; nothing can be added afterwards.

        Raises:
            OutputError: What was written to the folder is no longer there.
        """
        self._buckets.write()
        found = _Shelves(self._folder, "range", _DUPLICATE)
        count = 0
        for number in sorted(self._buckets.written):
            count += _find(self._buckets, number, found)
            self._buckets.path(number).unlink()
        found.write()
        return Duplicates(found, count, _RANGE)


class Duplicates:
    """The duplicates among records, in the order of their samples. See :class:`DuplicateFinder`.

    Attributes:
        count: How many there are.
    """

    def __init__(self, shelves: _Shelves, count: int, span: int) -> None:
        self.count = count
        self._shelves = shelves
        self._span = span
        self._last: tuple[int, _Rows] = (-1, np.empty(0, _DUPLICATE))

    def between(self, start: int, stop: int) -> DuplicateRows:
        """Return the duplicates whose first sample has a number from ``start`` to ``stop - 1``.

        It is quick for ranges that follow each other upwards.

        Raises:
            OutputError: What was written to the folder is no longer there.
        """
        rows = np.empty(0, _DUPLICATE)
        if start < stop:
            numbers = range(start // self._span, (stop - 1) // self._span + 1)
            rows = np.concatenate([self._cut(number, start, stop) for number in numbers])
        columns = (np.ascontiguousarray(rows[name]) for name in ("sample", "file", "row"))
        return DuplicateRows(*columns)

    def _cut(self, number: int, start: int, stop: int) -> _Rows:
        """Return the duplicates of one range of numbers that lie between others."""
        if self._last[0] != number:
            self._last = (number, self._read(number))
        rows = self._last[1]
        first, end = np.searchsorted(rows["sample"], (start, stop))
        return rows[first:end]

    def _read(self, number: int) -> _Rows:
        rows = self._shelves.read(number, 0, self._shelves.written.get(number, 0))
        return rows[np.argsort(rows["sample"])]


class _Shelves:
    """Numbered files to which rows are appended, many at a time; one is open at once.

    Args:
        folder: Of the files.
        name: What their names start with.
        dtype: Of the rows.

    Attributes:
        written: How many rows stand in the file of each number that has one.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self.written: Counter[int] = Counter()
        self._folder = folder
        self._name = name
        self._dtype = dtype
        self._waiting: list[tuple[_Ints, _Rows]] = []
        self._size = 0

    def path(self, number: int) -> Path:
        """Return the file of a number."""
        return self._folder / f"{self._name}-{number:06d}"

    def put(self, numbers: _Ints, rows: _Rows) -> None:
        """Put rows, shape (R,), into the files with these numbers, int64 (R,), behind those put before."""
        if not len(rows):
            return
        self._waiting.append((numbers, rows))
        self._size += len(rows) * self._dtype.itemsize
        if self._size >= _WAITING_BYTES:
            self.write()

    def write(self) -> None:
        """Write what waits in memory."""
        if not self._waiting:
            return
        numbers, rows = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._size = [], 0
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        for number, own in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
            path = self.path(number)
            with naming(path), open(path, "ab") as file:
                file.write(rows[own].tobytes())
            self.written[number] += len(own)

    def read(self, number: int, start: int, count: int) -> _Rows:
        """Return rows of a file, shape (count,).

        Raises:
            OutputError: They are no longer there.
        """
        if not count:
            return np.empty(0, self._dtype)
        path = self.path(number)
        try:
            rows = np.fromfile(path, self._dtype, count, offset=start * self._dtype.itemsize)
        except OSError as error:
            raise OutputError(f"{path}: this run wrote it and can't read it: {error}") from error
        if len(rows) != count:
            raise OutputError(f"{path}: expected {count} rows from {start} on, got {len(rows)}")
        return rows


def _find(buckets: _Shelves, number: int, found: _Shelves) -> int:
    """Put the duplicates of a bucket on their shelves, and return how many there are.

    Of a bucket that many equal records have made too large, one piece after the other is compared with
    itself and with the first ones of the pieces before it.
    """
    total, piece = buckets.written[number], max(1, _BUCKET_BYTES // _RECORD.itemsize)
    count = 0
    firsts = np.empty(0, _RECORD)
    for start in range(0, total, piece):
        rows = buckets.read(number, start, min(piece, total - start))
        if start:
            rows = np.concatenate([firsts, rows])
        again, originals = _repeated(rows)
        found.put(rows["sample"][again] // _RANGE, _duplicates(rows, again, originals))
        count += len(again)
        if start + piece < total:
            firsts = np.delete(rows, again)
    return count


def _repeated(rows: _Rows) -> tuple[_Ints, _Ints]:
    """Return which rows were there before, and which row each repeats: int64, shape (D,), both."""
    content = np.ascontiguousarray(rows["content"])
    order = np.argsort(content)
    twins = np.diff(content[order]) == 0
    # All whose first number is another's too: in most data these are few. In their old order, which a
    # stable sort keeps among equals, so that the first stays in front.
    candidates = np.sort(order[np.append(twins, False) | np.insert(twins, 0, False)])
    content, variant = content[candidates], rows["variant"][candidates]
    order = np.lexsort((variant, content))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(content[order]) != 0) | (np.diff(variant[order]) != 0)
    places = candidates[order]
    return places[~new], places[new][np.cumsum(new) - 1][~new]


def _duplicates(rows: _Rows, again: _Ints, originals: _Ints) -> _Rows:
    """Return what is told of each row that was there before, shape (D,)."""
    told = np.empty(len(again), _DUPLICATE)
    told["sample"] = rows["sample"][again]
    told["row"], told["file"] = rows["row"][originals], rows["file"][originals]
    return told
