"""CSV and TSV with a header line; every value is text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard

__all__ = ["CsvReader"]

_FIELD_LIMIT = 1 << 30
_SURROGATE = re.compile("[\ud800-\udfff]")


class CsvReader(Reader):
    """Reads ``.csv`` and ``.tsv``; quoted values may hold line breaks, so a file makes one shard."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        yield 0, source.size

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        with _rows(shard.source) as (header, rows):
            batch = RecordBatch()
            for row, values in enumerate(values for values in rows if values):
                batch.size += sum(map(len, values)) + len(values)
                parsed = _record(row, header, values)
                if isinstance(parsed, Record):
                    batch.records.append(parsed)
                else:
                    batch.rejections.append(parsed)
                if batch.size >= BATCH_BYTES:
                    yield batch
                    batch = RecordBatch()
            if len(batch):
                yield batch

    def columns(self, source: InputFile) -> list[str] | None:
        with _rows(source) as (header, _):
            return header or None


def _record(row: int, header: list[str], values: list[str]) -> Record | Rejection:
    if len(values) != len(header):
        got = f"{len(values)} fields: {shorten(values)}"
        return Rejection(row, "wrong-columns", "", f"{len(header)} fields, as in the header", got)
    for name, value in zip(header, values, strict=True):
        if _SURROGATE.search(value):
            return Rejection(row, "invalid-utf8", name, "UTF-8 text", shorten(value))
    return Record(row, dict(zip(header, values, strict=True)))


@contextmanager
def _rows(source: InputFile) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = "\t" if source.path.lower().endswith(".tsv") else ","
    # Bytes that are not UTF-8 come in as lone surrogates, so that only their row is rejected.
    with open(source.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next((row for row in rows if row), [])
            if len(set(header)) != len(header):
                raise InputError(f"{source.path}: the header names a column twice: {header}")
            yield header, rows
        except csv.Error as error:
            raise InputError(f"{source.path}: line {rows.line_num}: {error}") from None
