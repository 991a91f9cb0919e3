"""Parquet, by row groups, only the columns that are needed."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.readers.base import InputFile, Reader, RecordBatch, Shard, refuse_damaged
from mtsft_preproc.readers.tabular import to_record_batches

__all__ = ["ParquetReader"]

_ROWS = 512
#: Shards that the row groups of a file are cut into where they are few. Who reads the last rows of a group
#: decodes all before them, which takes a thirtieth of the time that it takes to encode them.
_PIECES = 8
#: Decoded bytes that are read at once, by what the row groups say of their size.
_AT_ONCE = 1 << 24
#: Rejections of lost rows that are made at once.
_LOST = 4096


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
            borders = _sound_first_rows(file, source)
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
            if shard.end > file.metadata.num_rows:
                raise InputError(f"{shard.source.path}: became shorter while it was read")
            yield from _rows_of(file, _first_rows(file), shard, columns)

    def around(
        self, source: InputFile, rows: Sequence[int], columns: Sequence[str] | None
    ) -> Iterator[tuple[int, RecordBatch]]:
        """Yield what holds some rows of a file: of each row group, from its first to its last one of them.

        The file is opened once, and row groups without such rows are not decoded.

        Args:
            source: The file.
            rows: The rows, which rise, none twice; those that the file has not are left out.
            columns: As for :meth:`batches`.

        Yields:
            A row of the file, and records; their rows are counted from that one.

        Raises:
            DamagedFileError: The file has no readable footer; or it is damaged elsewhere, and its rules
                don't let the reading go on.
            InputError: The footer contradicts itself.
        """
        with _open(source) as file:
            borders = _sound_first_rows(file, source)
            done = 0
            for end in borders[1:]:
                stop = bisect.bisect_left(rows, end, done)
                if done < stop:
                    shard = Shard(0, 0, source, rows[done], rows[stop - 1] + 1)
                    for batch in _rows_of(file, borders, shard, columns):
                        yield shard.start, batch
                    done = stop

    def columns(self, source: InputFile) -> list[str]:
        with _open(source) as file:
            return list(file.schema_arrow.names)

    def count(self, shard: Shard, limit: int) -> int:
        try:
            _open(shard.source).close()
        except DamagedFileError:
            return super().count(shard, limit)
        return min(limit, shard.end - shard.start)


def _first_rows(file: pq.ParquetFile) -> list[int]:
    """Return the number of the first row of each row group, and that of all rows."""
    sizes = [int(file.metadata.row_group(group).num_rows) for group in range(file.num_row_groups)]
    return [0, *itertools.accumulate(sizes)]


def _sound_first_rows(file: pq.ParquetFile, source: InputFile) -> list[int]:
    """Return what :func:`_first_rows` does.

    Raises:
        InputError: The footer contradicts itself.
    """
    borders = _first_rows(file)
    if borders[-1] != file.metadata.num_rows:
        raise InputError(
            f"{source.path}: damaged: {borders[-1]} rows in its row groups, {file.metadata.num_rows} in all"
        )
    return borders


def _rows_of(
    file: pq.ParquetFile, borders: Sequence[int], shard: Shard, columns: Sequence[str] | None
) -> Iterator[RecordBatch]:
    """Yield the rows of a shard as records; what is lost to damage as rejections, where the rules say so.

    Row groups are read together. Where that fails, they are read one by one up to the damaged one, and then
    twice as many with each success: so damage costs no more than what lies around it.

    Args:
        file: The file.
        borders: What :func:`_first_rows` gives.
        shard: The rows.
        columns: The columns that are needed, or None for all.
    """
    row, most = shard.start, len(borders)
    while row < shard.end:
        groups, rows = _groups(borders, row, shard.end, most)
        try:
            for batch in _decoded(file, groups, rows, columns, shard, row):
                row += len(batch)
                yield batch
            if row < borders[groups.start] + rows.stop:
                raise pa.ArrowInvalid("fewer rows than the footer tells of")
            most = min(2 * most, len(borders))
        except (pa.ArrowException, OSError) as error:
            most = 1  # so that each is lost alone
            if shard.source.rules.past_damage and len(groups) > 1:
                continue
            damage = DamagedFileError(
                f"{shard.source.path}: damaged in row group{'s' if len(groups) > 1 else ''} "
                f"{'-'.join(map(str, sorted({groups[0], groups[-1]})))}: {_first_line(error)}"
            )
            if not shard.source.rules.past_damage:
                raise damage from None
            end = min(borders[groups.stop], shard.end)
            yield from _lost(range(row, end), shard, damage)
            row = end


def _groups(borders: Sequence[int], row: int, end: int, most: int) -> tuple[range, range]:
    """Return at most so many row groups with the rows from ``row`` on, and which rows of them."""
    first = bisect.bisect_right(borders, row) - 1
    last = min(bisect.bisect_left(borders, end), first + most)
    return range(first, last), range(row - borders[first], min(end, borders[last]) - borders[first])


def _decoded(
    file: pq.ParquetFile, groups: range, rows: range, columns: Sequence[str] | None, shard: Shard, row: int
) -> Iterator[RecordBatch]:
    """Yield some rows of row groups as records."""
    names = file.schema_arrow.names
    present = [name for name in columns or names if name in names]
    decoded = file.iter_batches(
        _rows_at_once(file, groups), row_groups=groups, columns=present, use_threads=False
    )
    yield from to_record_batches(_slices(decoded, rows), shard.source.rules.record_bytes, row - shard.start)


def _lost(rows: range, shard: Shard, damage: DamagedFileError) -> Iterator[RecordBatch]:
    """Yield a rejection for each row that is lost to damage."""
    for start in range(rows.start, rows.stop, _LOST):
        own = range(start, min(start + _LOST, rows.stop))
        yield RecordBatch(
            rejections=[refuse_damaged(row - shard.start, damage, shard.source) for row in own]
        )


def _rows_at_once(file: pq.ParquetFile, groups: Iterable[int]) -> int:
    """Return how many rows to decode at once: fewer where they are large."""
    least = _ROWS
    for group in groups:
        about = file.metadata.row_group(group)
        if about.num_rows:
            least = min(least, _AT_ONCE * about.num_rows // max(1, about.total_byte_size))
    return max(1, least)


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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(
            f"{source.path}: not a readable parquet file: {_first_line(error)}"
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
