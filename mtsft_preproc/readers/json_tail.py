"""A JSON array that is damaged: where it starts, and what is left of it up to the damage."""

from __future__ import annotations

from collections.abc import Iterator

from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.readers.base import InputFile, RecordBatch, Shard
from mtsft_preproc.readers.json_elements import ElementParser
from mtsft_preproc.readers.json_scan import ArrayScanner
from mtsft_preproc.readers.lines import GrowingLine

__all__ = ["ARRAY_SPACE", "array_start", "damaged_tail"]

#: White space between the elements.
ARRAY_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
#: Bytes in front of the array that are looked at together.
_HEAD = 1 << 19


def array_start(source: InputFile) -> int:
    """Return the byte behind the bracket that opens the array.

    Raises:
        DamagedFileError: There is none.
    """
    stripped, offset = b"", 0
    with open(source.path, "rb") as file:
        if file.read(len(_BOM)) == _BOM:
            offset = len(_BOM)
        file.seek(offset)
        while not stripped and (head := file.read(_HEAD)):
            stripped = head.lstrip(ARRAY_SPACE)
            offset += len(head) - len(stripped)
    if not stripped.startswith(b"["):
        raise DamagedFileError(f"{source.path}: expected '[', got {stripped[:20]!r}")
    return offset + 1


def damaged_tail(shard: Shard, block_bytes: int) -> Iterator[RecordBatch]:
    """Yield the elements of the shard that a damaged file ends with.

    An element that the file ends in is ``truncated``, and stands for all that the array held behind it.

    Args:
        shard: From behind the bracket that opens the array, or behind a border, to the end of the file.
        block_bytes: Bytes that are read at a time.

    Raises:
        DamagedFileError: There is something behind the array, or it ends between two elements.
        InputError: The file became shorter.
    """
    source = shard.source
    first = array_start(source)
    scanner, parser = ArrayScanner(depth=1), ElementParser(source.rules.record_bytes)
    element, start, offset = GrowingLine(source.rules.record_bytes), shard.start, shard.start
    with open(source.path, "rb") as file:
        file.seek(shard.start - 1)
        scanner.closed = shard.start > first and file.read(1) != b","
        file.seek(shard.start)
        while not scanner.closed and (block := file.read(block_bytes)):
            batch, at = RecordBatch(size=len(block)), 0
            for border in scanner.feed(block).tolist():
                element.add(block[at:border])
                at = border + 1
                if not (scanner.closed and start == first and element.blank):
                    _end(element, start, parser, batch)
                element, start = GrowingLine(source.rules.record_bytes), offset + at
            element.add(block[at:])
            offset += len(block)
            yield batch
    if scanner.closed:
        raise DamagedFileError(
            f"{source.path}: malformed JSON: the array closes before byte {start}; "
            f"what stands from there on, {source.size - start} bytes, is lost"
        )
    if offset < source.size:
        raise InputError(f"{source.path}: became shorter while it was read")
    batch = RecordBatch()
    if not element.blank and (scanner.in_string or scanner.depth > 1 or element.is_too_long):
        parser.cut(element.joined(), element.length, start, batch)
        yield batch
        return
    if not element.blank:
        _end(element, start, parser, batch)
        yield batch
    raise DamagedFileError(
        f"{source.path}: truncated or malformed JSON: the file ends before the closing bracket "
        f"(byte {offset})"
    )


def _end(element: GrowingLine, start: int, parser: ElementParser, batch: RecordBatch) -> None:
    """Append an element that ends at a border."""
    if element.is_too_long:
        parser.refuse(element.length, start, batch)
    else:
        parser.parse(element.joined(), start, batch)
