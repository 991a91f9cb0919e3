"""Arrow IPC: feather files (random access) and streams, as Hugging Face ``datasets`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.tabular import to_record_batches

__all__ = ["ArrowReader"]

_FILE_MAGIC = b"ARROW1"
_STREAM_MAGIC = b"\xff\xff\xff\xff"


class ArrowReader(Reader):
    """Reads ``.arrow`` and ``.feather``; a file is cut by record batches, a stream makes one shard."""

    name = "arrow"
    suffixes = (".arrow", ".feather", ".ipc")

    def sniff(self, head: bytes) -> bool:
        return head.startswith((_FILE_MAGIC, _STREAM_MAGIC))

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        with _open(source) as (reader, is_file):
            if not is_file:
                yield 0, 1
                return
            count = reader.num_record_batches
            step = max(1, count * shard_bytes // max(1, source.size))
            for start in range(0, count, step):
                yield start, min(start + step, count)

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        with _open(shard.source) as (reader, is_file):
            whole = (
                (reader.get_batch(at) for at in range(shard.start, shard.end)) if is_file else iter(reader)
            )
            try:
                yield from to_record_batches(_slices(whole, columns))
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{shard.source.path}: damaged: {error}") from None

    def columns(self, source: InputFile) -> list[str]:
        with _open(source) as (reader, _):
            return list(reader.schema.names)


def _slices(batches: Iterator[pa.RecordBatch], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        names = [name for name in columns or batch.schema.names if name in batch.schema.names]
        narrow = batch.select(names)
        for start in range(0, narrow.num_rows, 512):
            yield narrow.slice(start, 512)


class _open:  # noqa: N801 - reads as the function that it stands for
    """Open either form of Arrow IPC; as a context manager gives (reader, whether it is a file)."""

    def __init__(self, source: InputFile) -> None:
        try:
            self._map = pa.memory_map(source.path)
            self._is_file = self._map.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            self._map.seek(0)
            opened = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
            self._reader = opened(self._map)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{source.path}: not a readable arrow file: {error}") from None

    def __enter__(self) -> tuple[Any, bool]:
        return self._reader, self._is_file

    def __exit__(self, *_: object) -> None:
        self._map.close()
