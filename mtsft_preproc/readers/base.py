"""What every reader offers, and the pieces of input that tasks are made of."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.registry import Registry

__all__ = [
    "BATCH_BYTES",
    "InputFile",
    "Reader",
    "ReadingRules",
    "RecordBatch",
    "Shard",
    "readers",
    "refuse_changed",
    "refuse_damaged",
    "too_large",
]

#: Raw bytes of input that go through the program together. Larger batches don't encode faster, but a
#: tokenizer's intermediate results take some fifty times the bytes of the text.
BATCH_BYTES = 1 << 18


@dataclass(frozen=True)
class ReadingRules:
    """What becomes of input that is not as it should be.

    Attributes:
        record_bytes: The most bytes of a record; a larger one is rejected, and never held whole where the
            format allows for that.
        past_damage: Whether the reading goes on past damage to a file, and what is lost becomes rejections;
            else it ends the reading.
    """

    record_bytes: int = 64 << 20
    past_damage: bool = False


@dataclass(frozen=True)
class InputFile:
    """One file of input.

    Attributes:
        path: As it was given, or as the folder or glob yielded it.
        kind: Name of the reader for it.
        size: Bytes.
        compression: ``"gzip"``, ``"zstd"`` or None.
        modified: When it was changed last, in nanoseconds.
        rules: How it is read.
    """

    path: str
    kind: str
    size: int
    compression: str | None = None
    modified: int = 0
    rules: ReadingRules = ReadingRules()


def refuse_changed(source: InputFile) -> None:
    """Refuse what was read from a file that changed since it was looked at.

    Raises:
        InputError: Its size or date is another, or it is gone.
    """
    try:
        status = os.stat(source.path)
        same = (status.st_size, status.st_mtime_ns) == (source.size, source.modified)
    except OSError:
        same = False
    if not same:
        raise InputError(f"{source.path}: changed or vanished while it was read; run the command again")


@dataclass(frozen=True)
class Shard:
    """What one task reads: a run of whole records of one file.

    Attributes:
        index: Number of the shard; shards are numbered in the order of files and records.
        file: Number of the file among the inputs.
        source: The file.
        start: First byte (text formats), row (parquet) or record batch (Arrow).
        end: The one behind the last.
        max_records: Read only the first so many records, or None for all.
    """

    index: int
    file: int
    source: InputFile
    start: int
    end: int
    max_records: int | None = None


@dataclass(slots=True)
class RecordBatch:
    """A few hundred records of a shard, in order.

    Attributes:
        records: Those that could be parsed.
        rejections: Those that could not.
        size: Raw bytes of input behind them, for the progress display.
        notes: Row and kind of what is odd in a harmless way.
    """

    records: list[Record] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    size: int = 0
    notes: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.rejections)


class Reader(ABC):
    """Reads one file format."""

    #: Name of the format.
    name: str
    #: File name endings, before a compression suffix, in lower case.
    suffixes: tuple[str, ...]
    #: Reasons of rejections that say that the file is damaged, not a record alone.
    damages: frozenset[str] = frozenset({"damaged-file"})

    def sniff(self, head: bytes) -> bool:
        """Return whether a file that starts so (BOM and leading space left out) is of this format."""
        return False

    @abstractmethod
    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the borders (start, end) of shards of about ``shard_bytes`` that cover the file.

        Raises:
            DamagedFileError: The file is damaged.
        """

    @abstractmethod
    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        """Yield the shard's records in order, in batches of about :data:`BATCH_BYTES`.

        Args:
            shard: What to read. ``max_records`` is not looked at here; see :meth:`read`.
            columns: The columns that are needed, or None for all. Formats that gain nothing by leaving
                columns out may give more.

        Raises:
            DamagedFileError: The file is damaged in a way that ends the reading of the shard; what is
                readable before that was yielded.
            InputError: The file has changed.
        """

    def columns(self, source: InputFile) -> list[str] | None:
        """Return the names of the file's columns, or None where only reading the records can tell."""
        return None

    def may_hold(self, source: InputFile, column: str) -> bool:
        """Whether some record of a file without a schema may have a field ``column``."""
        return False

    def pieces(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the borders of shards as :meth:`cut`; one shard of a file that can't be cut.

        Raises:
            DamagedFileError: The file is damaged, and its rules don't let the reading go on.
        """
        try:
            yield from list(self.cut(source, shard_bytes))
        except DamagedFileError:
            if not source.rules.past_damage:
                raise
            yield 0, max(1, source.size)

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> Iterator[RecordBatch]:
        """Yield the shard's records as :meth:`batches`, but no more than ``shard.max_records``.

        Where the rules of the file let it, the reading goes on past damage: one rejection stands for all
        that is lost behind it, but where the reader itself knows better.

        Raises:
            DamagedFileError: The file is damaged, and its rules don't let the reading go on.
        """
        left = shard.max_records
        for batch in self._past_damage(shard, columns):
            if left is not None and len(batch) > left:
                rows = [entry.row for entry in batch.records] + [entry.row for entry in batch.rejections]
                last = min(rows) + left
                batch.records = [record for record in batch.records if record.row < last]
                batch.rejections = [item for item in batch.rejections if item.row < last]
                batch.notes = [(row, note) for row, note in batch.notes if row < last]
            if left is not None:
                left -= len(batch)
            yield batch
            if left == 0:
                return

    def _past_damage(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        row = 0
        try:
            for batch in self.batches(shard, columns):
                row += len(batch)
                yield batch
        except DamagedFileError as error:
            if not shard.source.rules.past_damage:
                raise
            yield RecordBatch(rejections=[refuse_damaged(row, error, shard.source)])

    def count(self, shard: Shard, limit: int) -> int:
        """Return the number of records of ``shard``, counted no further than ``limit``."""
        total = 0
        for batch in self._past_damage(shard, None):
            total += len(batch)
            if total >= limit:
                return limit
        return total


def refuse_damaged(row: int, error: DamagedFileError, source: InputFile) -> Rejection:
    """Return the rejection that stands for what damage to a file has cost, from this row on."""
    what = str(error.args[0]).removeprefix(f"{source.path}: ")
    return Rejection(row, "damaged-file", "", "a file that is whole", what)


def too_large(row: int, size: int, limit: int, byte_offset: int = -1) -> Rejection:
    """Return the rejection of a record of ``size`` bytes where ``limit`` are allowed."""
    expected = f"at most {limit} bytes (--max-record-mb {limit / (1 << 20):g})"
    return Rejection(row, "too-large", "", expected, f"{size} bytes", byte_offset)


#: All readers, by name.
readers: Registry[Reader] = Registry("input format", "--input")
