"""Single records of a file of input, by their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import InputFile, ReadingRules, RecordBatch, Shard, readers
from mtsft_preproc.readers.base import BATCH_BYTES
from mtsft_preproc.readers.lines import line_blocks
from mtsft_preproc.readers.parquet import ParquetReader
from mtsft_preproc.readers.parse import SPACE

__all__ = ["records_at"]

#: Formats with a record per line, in which a line is a shard.
_LINES = ("jsonl", "text")
_WHOLE = 1 << 62


def records_at(
    file: InputFile, rows: Sequence[int], record_bytes: int, columns: Sequence[str] | None = None
) -> Iterator[Record | Rejection]:
    """Yield the records at some rows, in one pass: what lies between them is passed over where it can be.

    Of parquet, only the row groups with wanted rows are decoded; lines that are not wanted are counted, not
    parsed; other formats are read up to the last wanted row.

    Args:
        file: The file.
        rows: The rows, which rise, none twice.
        record_bytes: The most bytes of a record; of a longer line no more is held.
        columns: The columns that the run read, or None for all. Of parquet and arrow only these count for
            ``record_bytes``: with others, a record could be too large that the run kept.

    Yields:
        A record per row, with the row in its file; or why the row could not be read.

    Raises:
        InputError: The file is damaged, or has fewer rows.
    """
    # Past damage, as the run may have been told to go: what it kept stands in the dataset.
    file = replace(file, rules=ReadingRules(record_bytes, past_damage=True))
    if file.kind == "parquet":
        found = _of_parquet(file, rows, columns)
    elif file.kind in _LINES and not file.compression:
        found = _of_lines(file, rows, columns)
    else:
        found = _of_any(file, rows, columns)
    count = 0
    for record in found:
        count += 1
        yield record
    if count < len(rows):
        raise InputError(f"{file.path}: no row {rows[count]}; the dataset was made of it")


def _of_parquet(
    file: InputFile, rows: Sequence[int], columns: Sequence[str] | None
) -> Iterator[Record | Rejection]:
    reader, wanted = readers.get(file.kind), set(rows)
    assert isinstance(reader, ParquetReader)
    for first, batch in reader.around(file, rows, columns):
        yield from _picked(batch, wanted, first)


def _of_lines(
    file: InputFile, rows: Sequence[int], columns: Sequence[str] | None
) -> Iterator[Record | Rejection]:
    wanted = iter(rows)
    row = next(wanted, None)
    for number, (start, end) in enumerate(_lines(file)):
        if row is None:
            return
        if number == row:
            for batch in readers.get(file.kind).read(Shard(0, 0, file, start, end), columns):
                yield from _picked(batch, {row}, row)
            row = next(wanted, None)


def _lines(file: InputFile) -> Iterator[tuple[int, int]]:
    """Yield the first byte of each line that is not blank, and the one behind its end.

    A line that is too long is never held whole.
    """
    for own in line_blocks(Shard(0, 0, file, 0, file.size), BATCH_BYTES):
        start = own.offset
        if own.too_long:
            yield start, min(start + own.too_long + 1, file.size)
        for line in own.lines:
            end = min(start + len(line) + 1, file.size)  # the last one may have no LF
            if line.strip(SPACE):
                yield start, end
            start = end


def _of_any(
    file: InputFile, rows: Sequence[int], columns: Sequence[str] | None
) -> Iterator[Record | Rejection]:
    wanted, before = list(rows), 0
    for start, end in readers.get(file.kind).cut(file, _WHOLE):
        if not wanted:
            return
        shard, last = Shard(0, 0, file, start, end), 0
        for batch in readers.get(file.kind).read(shard, columns):
            for entry in _in_order(batch):
                last = entry.row + 1
                if wanted and entry.row + before == wanted[0]:
                    yield replace(entry, row=wanted.pop(0))
            if not wanted:
                return
        before += last


def _picked(batch: RecordBatch, wanted: set[int], first: int) -> Iterator[Record | Rejection]:
    """Yield those of some records, counted from row ``first`` of their file, that are wanted."""
    for entry in _in_order(batch):
        if entry.row + first in wanted:
            yield replace(entry, row=entry.row + first)


def _in_order(batch: RecordBatch) -> list[Record | Rejection]:
    entries: list[Record | Rejection] = [*batch.records, *batch.rejections]
    return sorted(entries, key=lambda entry: entry.row)
