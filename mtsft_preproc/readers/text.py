"""Plain text: one document a line, plain or compressed."""

from __future__ import annotations

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.readers.base import InputFile, RecordBatch
from mtsft_preproc.readers.jsonl import JsonLinesReader
from mtsft_preproc.readers.lines import Lines
from mtsft_preproc.readers.parse import SPACE, refuse_bom

__all__ = ["TextReader"]

_COLUMN = "text"


class TextReader(JsonLinesReader):
    """Reads ``.txt``, also ``.gz`` and ``.zst``, cut as JSON lines are.

    Each line is a record ``{"text": line}`` without its line end (LF or CRLF); lines of white space alone
    are none, and a BOM is passed over. Only its name tells that a file is text: that could be anything.
    """

    name = "text"
    suffixes = (".txt",)

    def sniff(self, head: bytes) -> bool:
        return False

    def parse(self, own: Lines, row: int, byte_offset: int, batch: RecordBatch) -> int:
        first, offset = row, byte_offset
        for line in own.lines:
            if line.strip(SPACE):
                _add(line.removesuffix(b"\r"), row, offset, batch)
                row += 1
            if byte_offset >= 0:
                offset += len(line) + 1
        return row - first

    def columns(self, source: InputFile) -> list[str] | None:
        return [_COLUMN]

    def may_hold(self, source: InputFile, column: str) -> bool:
        return column == _COLUMN


def _add(line: bytes, row: int, byte_offset: int, batch: RecordBatch) -> None:
    if bom := refuse_bom(line, row, byte_offset):
        batch.rejections.append(bom)
        return
    try:
        batch.records.append(Record(row, {_COLUMN: line.decode("utf-8")}, byte_offset))
    except UnicodeDecodeError as error:
        got = f"byte {line[error.start : error.start + 1]!r} at byte {error.start} of the line"
        text = line.decode("utf-8", "backslashreplace")
        batch.rejections.append(
            Rejection(row, "invalid-utf8", "", "UTF-8 text", got, byte_offset, record=text)
        )
