"""What every reader offers, and the pieces of input that tasks are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.registry import Registry

__all__ = ["BATCH_BYTES", "InputFile", "Reader", "RecordBatch", "Shard", "readers"]

#: Raw bytes of input that go through the program together. Larger batches don't encode faster, but a
#: tokenizer's intermediate results take some fifty times the bytes of the text.
BATCH_BYTES = 1 << 18


@dataclass(frozen=True)
class InputFile:
    """One file of input.

    Attributes:
        path: As it was given, or as the folder or glob yielded it.
        kind: Name of the reader for it.
        size: Bytes.
        compression: ``"gzip"``, ``"zstd"`` or None.
        modified: When it was changed last, in nanoseconds.
    """

    path: str
    kind: str
    size: int
    compression: str | None = None
    modified: int = 0


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
    """

    records: list[Record] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.records) + len(self.rejections)


class Reader(ABC):
    """Reads one file format."""

    #: Name of the format.
    name: str
    #: File name endings, before a compression suffix, in lower case.
    suffixes: tuple[str, ...]

    def sniff(self, head: bytes) -> bool:
        """Return whether a file that starts so (BOM and leading space left out) is of this format."""
        return False

    @abstractmethod
    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the borders (start, end) of shards of about ``shard_bytes`` that cover the file.

        Raises:
            InputError: The file is damaged.
        """

    @abstractmethod
    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        """Yield the shard's records in order, in batches of about :data:`BATCH_BYTES`.

        Args:
            shard: What to read. ``max_records`` is not looked at here; see :meth:`read`.
            columns: The columns that are needed, or None for all. Formats that gain nothing by leaving
                columns out may give more.

        Raises:
            InputError: The file is damaged in a way that ends the reading.
        """

    def columns(self, source: InputFile) -> list[str] | None:
        """Return the names of the file's columns, or None where only reading the records can tell."""
        return None

    def may_hold(self, source: InputFile, column: str) -> bool:
        """Whether some record of a file without a schema may have a field ``column``."""
        return False

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> Iterator[RecordBatch]:
        """Yield the shard's records as :meth:`batches`, but no more than ``shard.max_records``."""
        left = shard.max_records
        for batch in self.batches(shard, columns):
            if left is not None and len(batch) > left:
                rows = [entry.row for entry in batch.records] + [entry.row for entry in batch.rejections]
                last = min(rows) + left
                batch.records = [record for record in batch.records if record.row < last]
                batch.rejections = [item for item in batch.rejections if item.row < last]
            if left is not None:
                left -= len(batch)
            yield batch
            if left == 0:
                return

    def count(self, shard: Shard, limit: int) -> int:
        """Return the number of records of ``shard``, counted no further than ``limit``."""
        total = 0
        for batch in self.batches(shard, None):
            total += len(batch)
            if total >= limit:
                return limit
        return total


#: All readers, by name.
readers: Registry[Reader] = Registry("input format", "--input")
