"""Plain text: one document a line, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.jsonl import JsonLinesReader, shard_lines

__all__ = ["TextReader"]

_COLUMN = "text"
#: Files of both kinds are cut alike, and have a record in each line that isn't blank.
_LINES = JsonLinesReader()


class TextReader(Reader):
    """Reads ``.txt``, also ``.gz`` and ``.zst``, cut as JSON lines are.

    Each line is a record ``{"text": line}`` without its line end (LF or CRLF); lines of white space alone
    are none, and a BOM is passed over. Only its name tells that a file is text: that could be anything.
    """

    name = "text"
    suffixes = (".txt",)

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        return _LINES.cut(source, shard_bytes)

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        row, batch = 0, RecordBatch()
        for offset, line in shard_lines(shard):
            batch.size += len(line)
            if not line.strip():
                continue
            parsed = _parse(line.removesuffix(b"\r"), row, -1 if shard.source.compression else offset)
            if isinstance(parsed, Record):
                batch.records.append(parsed)
            else:
                batch.rejections.append(parsed)
            row += 1
            if batch.size >= BATCH_BYTES:
                yield batch
                batch = RecordBatch()
        if batch.size:
            yield batch

    def columns(self, source: InputFile) -> list[str] | None:
        return [_COLUMN]

    def may_hold(self, source: InputFile, column: str) -> bool:
        return column == _COLUMN

    def count(self, shard: Shard, limit: int) -> int:
        return _LINES.count(shard, limit)


def _parse(line: bytes, row: int, byte_offset: int) -> Record | Rejection:
    try:
        return Record(row, {_COLUMN: line.decode("utf-8")}, byte_offset)
    except UnicodeDecodeError as error:
        got = f"byte {line[error.start : error.start + 1]!r} at byte {error.start} of the line"
        text = line.decode("utf-8", "backslashreplace")
        return Rejection(row, "invalid-utf8", "", "UTF-8 text", got, byte_offset, record=text)
