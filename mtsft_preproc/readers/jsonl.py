"""JSON Lines: one object a line, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.parse import holds_key, is_settings, parse_record

__all__ = ["JsonLinesReader"]

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n\v\f"


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
        row, batch = 0, RecordBatch()
        for offset, line in _lines(shard):
            batch.size += len(line)
            if not line.strip(_SPACE):
                continue
            parsed = self.parse(line, row, -1 if shard.source.compression else offset)
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

    def parse(self, line: bytes, row: int, byte_offset: int) -> Record | Rejection:
        """Return what a line is that isn't blank."""
        return parse_record(line, row, byte_offset)

    def may_hold(self, source: InputFile, column: str) -> bool:
        # Of a compressed file only reading the whole could tell: the records will.
        return bool(source.compression) or holds_key(source.path, column)

    def count(self, shard: Shard, limit: int) -> int:
        total = 0
        for _, line in _lines(shard):
            total += bool(line.strip(_SPACE))
            if total == limit:
                break
        return total


def _lines(shard: Shard) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset, line) for the lines of a shard, without a BOM."""
    source = shard.source
    offset = shard.start
    left = None if source.compression else shard.end - shard.start
    pieces: list[bytes] = []  # of a line that goes on over blocks; joined once, as it may be huge
    with _open(source) as file:
        if not source.compression:
            file.seek(shard.start)
        while block := _block(source, file, left):
            left = None if left is None else left - len(block)
            lines = block.split(b"\n")
            for line in lines[:-1]:
                if pieces:
                    line = b"".join([*pieces, line])
                    pieces = []
                yield offset, _without_bom(line, offset)
                offset += len(line) + 1
            if lines[-1]:
                pieces.append(lines[-1])
    if left:
        raise InputError(f"{source.path}: became shorter while it was read")
    if pieces:
        yield offset, _without_bom(b"".join(pieces), offset)


def _block(source: InputFile, file: Any, left: int | None) -> bytes:
    try:
        return bytes(file.read(BATCH_BYTES if left is None else min(BATCH_BYTES, left)))
    except (OSError, EOFError) as error:
        raise InputError(f"{source.path}: can't be decompressed: {error}") from None


def _without_bom(line: bytes, offset: int) -> bytes:
    return line.removeprefix(_BOM) if offset == 0 else line


def _open(source: InputFile) -> Any:
    if source.compression:
        return pa.input_stream(source.path, compression=source.compression)
    return open(source.path, "rb")
