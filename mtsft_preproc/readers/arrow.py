"""Arrow IPC: feather files (random access) and streams, as Hugging Face ``datasets`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mtsft_preproc.errors import DamagedFileError
from mtsft_preproc.readers.base import InputFile, Reader, RecordBatch, Shard, refuse_damaged
from mtsft_preproc.readers.tabular import to_record_batches

__all__ = ["ArrowReader"]

_FILE_MAGIC = b"ARROW1"
_STREAM_MAGIC = b"\xff\xff\xff\xff"
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


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
            if not is_file:
                yield from _readable(iter(reader), columns, shard.source, "the stream", 0)
                return
            row = 0
            for at in range(shard.start, shard.end):
                try:
                    for batch in _readable(
                        _one(reader, at), columns, shard.source, f"record batch {at}", row
                    ):
                        row += len(batch)
                        yield batch
                except DamagedFileError as error:
                    if not shard.source.rules.past_damage:
                        raise
                    # How many rows it had can't be told; those behind it are numbered as if it were one.
                    yield RecordBatch(rejections=[refuse_damaged(row, error, shard.source)])
                    row += 1

    def columns(self, source: InputFile) -> list[str]:
        with _open(source) as (reader, _):
            return list(reader.schema.names)


def _one(reader: Any, at: int) -> Iterator[pa.RecordBatch]:
    yield reader.get_batch(at)


def _readable(
    whole: Iterator[pa.RecordBatch], columns: Sequence[str] | None, source: InputFile, place: str, row: int
) -> Iterator[RecordBatch]:
    """Yield the rows of Arrow's record batches as records, from a row on.

    Raises:
        DamagedFileError: They can't be read; those before were yielded.
    """
    try:
        yield from to_record_batches(_slices(whole, columns), source.rules.record_bytes, row)
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{source.path}: damaged in {place}: {error}") from None


def _slices(batches: Iterator[pa.RecordBatch], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate()
        names = [name for name in columns or batch.schema.names if name in batch.schema.names]
        narrow = batch.select(names)
        for start in range(0, narrow.num_rows, 512):
            yield _checked(narrow.slice(start, 512))


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch that can be read: where its offsets lead out of it, pyarrow ends the process.

    Raises:
        pyarrow.ArrowInvalid: They do so. Text that is not UTF-8 is left to be found row by row.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        # It told of the first fault alone; as bytes, text has none.
        for column in batch.columns:
            column.view(_as_bytes(column.type)).validate(full=True)
    return batch


def _as_bytes(kind: Any) -> Any:
    """Return an Arrow type of the same layout, with bytes for text."""
    if kind in _BYTES:
        return _BYTES[kind]
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _as_bytes(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_as_bytes(kind.value_type))
    return pa.list_(_as_bytes(kind.value_type)) if pa.types.is_list(kind) else kind


class _open:  # noqa: N801 - reads as the function that it stands for
    """Open either form of Arrow IPC; as a context manager gives (reader, whether it is a file)."""

    def __init__(self, source: InputFile) -> None:
        try:
            self._map = pa.memory_map(source.path)
            self._is_file = self._map.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            self._map.seek(0)
            opened = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
            self._reader = opened(self._map)
            _ = self._reader.schema.names  # names that are not UTF-8 are an error only here
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedFileError(f"{source.path}: not a readable arrow file: {error}") from None

    def __enter__(self) -> tuple[Any, bool]:
        return self._reader, self._is_file

    def __exit__(self, *_: object) -> None:
        self._map.close()
