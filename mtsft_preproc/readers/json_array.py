"""One JSON array of objects, streamed: no more than a batch of it is ever in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard
from mtsft_preproc.readers.json_elements import ElementParser
from mtsft_preproc.readers.json_scan import ArrayScanner
from mtsft_preproc.readers.json_tail import ARRAY_SPACE, array_start, damaged_tail
from mtsft_preproc.readers.parse import holds_key

__all__ = ["JsonArrayReader"]

#: Bytes that are read at a time to cut a file.
_CHUNK = 1 << 19


class JsonArrayReader(Reader):
    """Reads ``.json`` files that hold one array.

    Where an element ends can be told only by someone who has followed the nesting from the first byte
    on, so :meth:`cut` scans the file once, in bulk; the parsing is left to the tasks.
    """

    name = "json"
    suffixes = (".json",)
    # An array has a closing bracket; where it ends inside an element, all behind that is lost.
    damages = frozenset({"damaged-file", "truncated"})

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"[")

    def cut(self, source: InputFile, shard_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the borders of shards; one that ends with the file holds its damage, and no other does."""
        start = array_start(source)
        try:
            for shard in _sound_shards(source, shard_bytes, start):
                yield shard
                start = shard[1] + 1
        except DamagedFileError:
            if not source.rules.past_damage:
                raise
            yield start, source.size

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        if shard.end == shard.source.size:
            yield from damaged_tail(shard, BATCH_BYTES)
            return
        limit = shard.source.rules.record_bytes
        parser, batch = ElementParser(limit), RecordBatch()
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
                if len(rest) > limit and not last:
                    border = _next_border(file, rest, offset, shard.end)
                    parser.refuse(border - offset, offset, batch)
                    batch.size += min(border + 1, shard.end) - offset - len(rest)
                    last, offset, rest = border == shard.end, border + 1, b""
                    file.seek(offset)
                if len(batch):
                    yield batch
                    batch = RecordBatch()

    def may_hold(self, source: InputFile, column: str) -> bool:
        return holds_key(source.path, column)

    def count(self, shard: Shard, limit: int) -> int:
        if shard.end == shard.source.size:
            return super().count(shard, limit)
        scanner, total = ArrayScanner(depth=1), 1
        with open(shard.source.path, "rb") as file:
            file.seek(shard.start)
            while total < limit and (left := shard.end - file.tell()) > 0:
                total += len(scanner.feed(file.read(min(_CHUNK, left))))
        return min(total, limit)


def _sound_shards(source: InputFile, shard_bytes: int, first: int) -> Iterator[tuple[int, int]]:
    """Yield the shards of an array whose elements begin at byte ``first``, as far as they are sound.

    Raises:
        DamagedFileError: There is something behind them, or the array doesn't end.
    """
    scanner, start, offset = ArrayScanner(depth=1), first, first
    with open(source.path, "rb") as file:
        file.seek(first)
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
                raise DamagedFileError(f"{source.path}: malformed JSON: expected ']' at byte {closing}")
            if scanner.depth < 0:
                break
            offset += len(chunk)
    _check_end(source, scanner, start, offset)


def _next_border(file: BinaryIO, rest: bytes, offset: int, end: int) -> int:
    """Return where the element that begins at ``offset`` ends, of which nothing is kept.

    Args:
        file: The file, behind ``rest``.
        rest: The beginning of the element.
        offset: Byte of the file at which that is.
        end: Where the last element ends.
    """
    scanner = ArrayScanner(depth=1)
    chunk = rest
    while True:
        borders = scanner.feed(chunk)
        if len(borders):
            return offset + int(borders[0])
        offset += len(chunk)
        chunk = file.read(min(_CHUNK, end - offset))
        if not chunk:
            return end


def _check_end(source: InputFile, scanner: ArrayScanner, start: int, offset: int) -> None:
    if scanner.depth < 0 or scanner.trailing or (scanner.closed and _tail(source, start)):
        raise DamagedFileError(
            f"{source.path}: malformed JSON: expected the end of the file behind the array, which "
            f"closes before byte {start}"
        )
    if not scanner.closed:
        inside = "inside a string" if scanner.in_string else "before the closing bracket"
        raise DamagedFileError(
            f"{source.path}: truncated or malformed JSON: the file ends {inside} (byte {offset})"
        )


def _blank(file: BinaryIO, start: int, end: int) -> bool:
    """Return whether there is only white space from ``start`` to ``end``: an array of no elements."""
    here = file.tell()
    file.seek(start)
    blank = True
    while blank and (left := end - file.tell()):
        blank = not file.read(min(left, _CHUNK)).strip(ARRAY_SPACE)
    file.seek(here)
    return blank


def _tail(source: InputFile, start: int) -> bytes:
    with open(source.path, "rb") as file:
        file.seek(start)
        while block := file.read(_CHUNK):
            if rest := block.strip(ARRAY_SPACE):
                return rest[:20]
    return b""
