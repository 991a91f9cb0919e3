"""Parquet, by row groups, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.tabular import to_record_batches

__all__ = ["ParquetReader"]

_ROWS = 512


class ParquetReader(Reader):
    """Reads ``.parquet`` files; small row groups are joined to one shard, none is cut."""

    name = "parquet"
    suffixes = (".parquet", ".pq")

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        with _open(source) as file:
            start, size = 0, 0
            for group in range(file.num_row_groups):
                size += file.metadata.row_group(group).total_byte_size
                if size >= shard_bytes or group == file.num_row_groups - 1:
                    yield start, group + 1
                    start, size = group + 1, 0

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        with _open(shard.source) as file:
            names = file.schema_arrow.names
            present = [name for name in columns or names if name in names]
            groups = range(shard.start, shard.end)
            try:
                yield from to_record_batches(
                    file.iter_batches(_ROWS, row_groups=groups, columns=present, use_threads=False)
                )
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"{shard.source.path}: damaged in row groups {shard.start} to {shard.end - 1}: "
                    f"{_first_line(error)}"
                ) from None

    def columns(self, source: InputFile) -> list[str]:
        with _open(source) as file:
            return list(file.schema_arrow.names)

    def count(self, shard: Shard, limit: int) -> int:
        with _open(shard.source) as file:
            groups = range(shard.start, shard.end)
            rows = sum(int(file.metadata.row_group(group).num_rows) for group in groups)
            return min(limit, rows)


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
