"""One JSON array of objects, streamed: no more than a batch of it is ever in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.json_elements import ElementParser
from mtsft_preproc.readers.json_scan import ArrayScanner
from mtsft_preproc.readers.parse import holds_key

__all__ = ["JsonArrayReader"]

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
#: Bytes that are read at a time to cut a file.
_CHUNK = 1 << 19


class JsonArrayReader(Reader):
    """Reads ``.json`` files that hold one array.

    Where an element ends can be told only by someone who has followed the nesting from the first byte
    on, so :meth:`cut` scans the file once, in bulk; the parsing is left to the tasks.
    """

    name = "json"
    suffixes = (".json",)

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"[")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        scanner = ArrayScanner()
        with open(source.path, "rb") as file:
            offset = _skip_bom(file.read(3))
            file.seek(offset)
            start = first = _array_start(source, file.read(_CHUNK), offset)
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                borders = scanner.feed(chunk) + offset
                closing = int(borders[-1]) if scanner.closed and len(borders) else -1
                while True:
                    at = int(np.searchsorted(borders, start + shard_bytes))
                    if at == len(borders):
                        if closing < start:
                            break
                        at -= 1  # what is left of the array makes a shard, however small
                    end = int(borders[at])
                    if start > first or end != closing or not _blank(file, start, end):
                        yield start, end
                    start = end + 1
                if closing >= 0 and chunk[closing - offset] != ord("]"):
                    raise InputError(f"{source.path}: malformed JSON: expected ']' at byte {closing}")
                if scanner.depth < 0:
                    break
                offset += len(chunk)
        _check_end(source, scanner, start, offset)

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        parser, batch = ElementParser(), RecordBatch()
        offset, rest = shard.start, b""
        with open(shard.source.path, "rb") as file:
            file.seek(offset)
            last = False
            while not last:
                # An element of many blocks is not joined to each of them, but to twice as much each time.
                chunk = file.read(min(max(BATCH_BYTES, len(rest)), shard.end - file.tell()))
                last = file.tell() == shard.end
                if not chunk and not last:
                    raise InputError(f"{shard.source.path}: became shorter while it was read")
                block = rest + chunk
                used = parser.take(block, offset, last, batch)
                offset, rest = offset + used, block[used:]
                batch.size += len(chunk)
                if len(batch):
                    yield batch
                    batch = RecordBatch()

    def may_hold(self, source: InputFile, column: str) -> bool:
        return holds_key(source.path, column)

    def count(self, shard: Shard, limit: int) -> int:
        scanner, total = ArrayScanner(depth=1), 1
        with open(shard.source.path, "rb") as file:
            file.seek(shard.start)
            while total < limit and (left := shard.end - file.tell()) > 0:
                total += len(scanner.feed(file.read(min(_CHUNK, left))))
        return min(total, limit)


def _skip_bom(head: bytes) -> int:
    return len(_BOM) if head == _BOM else 0


def _array_start(source: InputFile, head: bytes, offset: int) -> int:
    stripped = head.lstrip(_SPACE)
    if not stripped.startswith(b"["):
        raise InputError(f"{source.path}: expected '[', got {stripped[:20]!r}")
    return offset + len(head) - len(stripped) + 1


def _check_end(source: InputFile, scanner: ArrayScanner, start: int, offset: int) -> None:
    if scanner.depth < 0 or scanner.trailing or (scanner.closed and _tail(source, start)):
        raise InputError(
            f"{source.path}: malformed JSON: expected the end of the file behind the array, which "
            f"closes before byte {start}"
        )
    if not scanner.closed:
        inside = "inside a string" if scanner.in_string else "before the closing bracket"
        raise InputError(
            f"{source.path}: truncated or malformed JSON: the file ends {inside} (byte {offset})"
        )


def _blank(file: BinaryIO, start: int, end: int) -> bool:
    """Return whether there is only white space from ``start`` to ``end``: an array of no elements."""
    here = file.tell()
    file.seek(start)
    blank = True
    while blank and (left := end - file.tell()):
        blank = not file.read(min(left, _CHUNK)).strip(_SPACE)
    file.seek(here)
    return blank


def _tail(source: InputFile, start: int) -> bytes:
    with open(source.path, "rb") as file:
        file.seek(start)
        while block := file.read(_CHUNK):
            if rest := block.strip(_SPACE):
                return rest[:20]
    return b""
