"""Parquet, by row groups, only the columns that are needed."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.tabular import to_record_batches

__all__ = ["ParquetReader"]

_ROWS = 512
#: Shards that the row groups of a file are cut into where they are few. Who reads the last rows of a group
#: decodes all before them, which takes a thirtieth of the time that it takes to encode them.
_PIECES = 8


class ParquetReader(Reader):
    """Reads ``.parquet`` files; small row groups are joined to one shard, large ones of a few are cut.

    Shards start and end at rows.
    """

    name = "parquet"
    suffixes = (".parquet", ".pq")

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        with _open(source) as file:
            borders = _first_rows(file)
            start, size = 0, 0
            for group, end in enumerate(borders[1:]):
                size += file.metadata.row_group(group).total_byte_size
                if size < shard_bytes and end < borders[-1]:
                    continue
                pieces = max(1, min(size // shard_bytes, _PIECES // file.num_row_groups))
                cuts = [start + (end - start) * piece // pieces for piece in range(pieces + 1)]
                yield from (own for own in itertools.pairwise(cuts) if own[0] < own[1])
                start, size = end, 0

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        with _open(shard.source) as file:
            names = file.schema_arrow.names
            present = [name for name in columns or names if name in names]
            borders = _first_rows(file)
            first = bisect.bisect_right(borders, shard.start) - 1
            groups = range(first, bisect.bisect_left(borders, shard.end))
            try:
                decoded = file.iter_batches(_ROWS, row_groups=groups, columns=present, use_threads=False)
                rows = range(shard.start - borders[first], shard.end - borders[first])
                yield from to_record_batches(_slices(decoded, rows))
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"{shard.source.path}: damaged in row groups {groups[0]} to {groups[-1]}: "
                    f"{_first_line(error)}"
                ) from None

    def columns(self, source: InputFile) -> list[str]:
        with _open(source) as file:
            return list(file.schema_arrow.names)

    def count(self, shard: Shard, limit: int) -> int:
        return min(limit, shard.end - shard.start)


def _first_rows(file: pq.ParquetFile) -> list[int]:
    """Return the number of the first row of each row group, and that of all rows."""
    sizes = [int(file.metadata.row_group(group).num_rows) for group in range(file.num_row_groups)]
    return [0, *itertools.accumulate(sizes)]


def _slices(batches: Iterable[pa.RecordBatch], rows: range) -> Iterator[pa.RecordBatch]:
    """Yield what holds these rows of record batches that follow each other."""
    before = 0
    for batch in batches:
        first, last = max(rows.start - before, 0), min(rows.stop - before, batch.num_rows)
        if first < last:
            yield batch.slice(first, last - first)
        before += batch.num_rows
        if before >= rows.stop:
            return


def _open(source: InputFile) -> pq.ParquetFile:
    try:
        # Without the checksums a flipped byte in an uncompressed page reads as other text. A buffered
        # stream bounds the memory of a large row group.
        return pq.ParquetFile(
            source.path, page_checksum_verification=True, buffer_size=1 << 20, pre_buffer=False
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source.path}: not a readable parquet file: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
