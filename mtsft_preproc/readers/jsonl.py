"""JSON Lines: one object a line, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.parse import SPACE, holds_key, holds_long_number, is_settings, parse_lines

__all__ = ["JsonLinesReader"]

_BOM = b"\xef\xbb\xbf"


class JsonLinesReader(Reader):
    """Reads ``.jsonl`` and ``.ndjson``, also ``.gz`` and ``.zst``.

    A plain file is cut at the first line end behind each multiple of the shard size; a compressed one
    can't be entered in the middle and makes one shard. Lines end with LF or CRLF; blank lines and a BOM
    are passed over.
    """

    name = "jsonl"
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"{") and not is_settings(head)

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        if source.compression:
            yield 0, source.size
            return
        start = 0
        with open(source.path, "rb") as file:
            while start < source.size:
                file.seek(start + shard_bytes - 1)
                file.readline()
                end = min(file.tell(), source.size)
                yield start, end
                start = end

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        row = 0
        for offset, lines, size in _line_blocks(shard):
            batch = RecordBatch(size=size)
            row += self.parse(lines, row, -1 if shard.source.compression else offset, batch)
            yield batch

    def parse(self, lines: list[bytes], row: int, byte_offset: int, batch: RecordBatch) -> int:
        """Append what lines hold to a batch; return how many of them are not blank."""
        careful = holds_long_number(b"\n".join(lines))
        return parse_lines(lines, row, byte_offset, careful, batch)

    def may_hold(self, source: InputFile, column: str) -> bool:
        # Of a compressed file only reading the whole could tell: the records will.
        return bool(source.compression) or holds_key(source.path, column)

    def count(self, shard: Shard, limit: int) -> int:
        total = 0
        for _, lines, _ in _line_blocks(shard):
            for line in lines:
                total += bool(line.strip(SPACE))
                if total == limit:
                    return total
        return total


def _line_blocks(shard: Shard) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield the lines of a shard, without a BOM, a block at a time.

    Yields:
        Byte offset of the first line; the lines; the bytes that were read for them.
    """
    source = shard.source
    offset = shard.start
    left = None if source.compression else shard.end - shard.start
    size = 0
    pieces: list[bytes] = []  # of a line that goes on over blocks; joined once, as it may be huge
    with _open(source) as file:
        if not source.compression:
            file.seek(shard.start)
        while block := _block(source, file, left):
            left = None if left is None else left - len(block)
            size += len(block)
            lines = block.split(b"\n")
            last = lines.pop()
            if lines:
                lines[0] = b"".join([*pieces, lines[0]])
                if offset == 0 and lines[0].startswith(_BOM):
                    yield 0, [lines[0].removeprefix(_BOM)], 0
                    offset = len(lines.pop(0)) + 1
                yield offset, lines, size
                offset += sum(map(len, lines)) + len(lines)
                size, pieces = 0, []
            if last:
                pieces.append(last)
    if left:
        raise InputError(f"{source.path}: became shorter while it was read")
    if pieces:
        line = b"".join(pieces)
        yield offset, [line.removeprefix(_BOM) if offset == 0 else line], size


def _block(source: InputFile, file: Any, left: int | None) -> bytes:
    try:
        return bytes(file.read(BATCH_BYTES if left is None else min(BATCH_BYTES, left)))
    except (OSError, EOFError) as error:
        raise InputError(f"{source.path}: can't be decompressed: {error}") from None


def _open(source: InputFile) -> Any:
    if source.compression:
        return pa.input_stream(source.path, compression=source.compression)
    return open(source.path, "rb")
