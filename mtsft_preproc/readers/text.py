"""Plain text: one document a line, plain or compressed."""

from __future__ import annotations

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.readers.base import InputFile
from mtsft_preproc.readers.jsonl import JsonLinesReader

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

    def parse(self, line: bytes, row: int, byte_offset: int) -> Record | Rejection:
        line = line.removesuffix(b"\r")
        try:
            return Record(row, {_COLUMN: line.decode("utf-8")}, byte_offset)
        except UnicodeDecodeError as error:
            got = f"byte {line[error.start : error.start + 1]!r} at byte {error.start} of the line"
            text = line.decode("utf-8", "backslashreplace")
            return Rejection(row, "invalid-utf8", "", "UTF-8 text", got, byte_offset, record=text)

    def columns(self, source: InputFile) -> list[str] | None:
        return [_COLUMN]

    def may_hold(self, source: InputFile, column: str) -> bool:
        return column == _COLUMN
