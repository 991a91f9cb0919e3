"""CSV and TSV with a header line; every value is text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard, too_large
from mtsft_preproc.readers.parse import refuse_bom

__all__ = ["CsvReader"]

#: Characters of a row that is passed over which are read at a time.
_CHUNK = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")


class CsvReader(Reader):
    """Reads ``.csv`` and ``.tsv``; quoted values may hold line breaks, so a file makes one shard."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        yield 0, source.size

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        batch, row = RecordBatch(), 0
        try:
            with _rows(shard.source) as (header, rows):
                for found in _sized(rows):
                    if isinstance(found, int):
                        limit = shard.source.rules.record_bytes
                        batch.rejections.append(too_large(row, found, limit))
                    else:
                        batch.size += sum(map(len, found)) + len(found)
                        _add(row, header, found, batch)
                    row += 1
                    if batch.size >= BATCH_BYTES:
                        yield batch
                        batch = RecordBatch()
        except DamagedFileError:
            if len(batch):
                yield batch
            raise
        if len(batch):
            yield batch

    def columns(self, source: InputFile) -> list[str] | None:
        with _rows(source) as (header, _):
            return header or None


def _add(row: int, header: list[str], values: list[str], batch: RecordBatch) -> None:
    if values[0].startswith("\ufeff"):
        bom = refuse_bom(",".join(values).encode("utf-8", "surrogateescape"), row, -1)
        batch.rejections += [bom] if bom else []
        return
    parsed = _record(row, header, values)
    if isinstance(parsed, Record):
        batch.records.append(parsed)
    else:
        batch.rejections.append(parsed)


def _record(row: int, header: list[str], values: list[str]) -> Record | Rejection:
    if len(values) != len(header):
        got = f"{len(values)} fields: {shorten(values)}"
        return Rejection(row, "wrong-columns", "", f"{len(header)} fields, as in the header", got)
    for name, value in zip(header, values, strict=True):
        if _SURROGATE.search(value):
            return Rejection(row, "invalid-utf8", name, "UTF-8 text", shorten(value))
    return Record(row, dict(zip(header, values, strict=True)))


def _sized(rows: _Rows) -> Iterator[list[str] | int]:
    """Yield the rows that are not blank; of one that is too large its bytes."""
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except _TooLargeError as error:
            yield int(error.args[0])
            continue
        if values:
            yield values


class _TooLargeError(Exception):
    """A row has more bytes than it may have: so many."""


class _Rows:
    """The rows of a file, of which none is held that is too large.

    Args:
        file: The text.
        limit: The most bytes of a row.
        delimiter: What stands between two fields.
    """

    def __init__(self, file: TextIO, limit: int, delimiter: str) -> None:
        self._file = file
        self._limit = limit
        self._size = 0
        self._reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)
        self._settings = delimiter
        self._line = 0

    @property
    def line(self) -> int:
        """Number of the last line that was read, from 1."""
        return self._line

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        self._size = 0
        try:
            return next(self._reader)
        except _TooLargeError:
            # The generator has ended with that.
            self._reader = csv.reader(self._lines(), delimiter=self._settings, strict=True)
            raise

    def _lines(self) -> Iterator[str]:
        # csv asks for another line of the same row only inside of quotes.
        while line := self._file.readline(self._limit + 1):
            inside = self._size > 0
            self._line += 1
            self._size += _bytes(line)
            if self._size > self._limit:
                self._pass_over(line, inside)
                raise _TooLargeError(self._size)
            yield line

    def _pass_over(self, line: str, inside: bool) -> None:
        """Go on to the end of the row: a line end outside of quotes."""
        while True:
            inside ^= bool(line.count('"') & 1)
            if line.endswith(("\n", "\r")) and not inside:
                return
            line = self._file.readline(_CHUNK)
            if not line:
                return
            self._size += _bytes(line)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


@contextmanager
def _rows(source: InputFile) -> Iterator[tuple[list[str], _Rows]]:
    limit = source.rules.record_bytes
    csv.field_size_limit(limit)  # in characters, of which a row has fewer
    delimiter = "\t" if source.path.lower().endswith(".tsv") else ","
    # Bytes that are not UTF-8 come in as lone surrogates, so that only their row is rejected.
    with open(source.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _Rows(file, limit, delimiter)
        try:
            header = next((row for row in rows if row), [])
            if bad := next((name for name in header if _SURROGATE.search(name)), None):
                raise InputError(f"{source.path}: the header is not UTF-8: {shorten(bad)}")
            if len(set(header)) != len(header):
                raise InputError(f"{source.path}: the header names a column twice: {header}")
            yield header, rows
        except csv.Error as error:
            raise DamagedFileError(f"{source.path}: line {rows.line}: {error}") from None
        except _TooLargeError as error:
            raise DamagedFileError(f"{source.path}: the header has more than {error} bytes") from None
