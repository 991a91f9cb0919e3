"""The lines of a file, a block at a time; a line that is too long is passed over, and never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mtsft_preproc.readers.base import Shard
from mtsft_preproc.readers.decompress import open_stream
from mtsft_preproc.readers.parse import SPACE

__all__ = ["BOM", "GrowingLine", "Lines", "line_blocks"]

BOM = b"\xef\xbb\xbf"


@dataclass
class Lines:
    """Lines that follow each other.

    Attributes:
        offset: Byte of the file (uncompressed) at which the first one starts.
        lines: Without their LF. One line of more bytes than are allowed is none of them: see ``too_long``.
        size: Bytes that were read for them.
        too_long: Bytes of a line that is too long and stands alone here; 0 otherwise.
        ended: Whether the last line has an LF.
    """

    offset: int
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    too_long: int = 0
    ended: bool = True


class GrowingLine:
    """A record that goes on over blocks. Its pieces are joined once; when it is too long they are let go.

    Args:
        limit: The most bytes that are kept.

    Attributes:
        length: Bytes, whether they are kept or not.
        blank: Whether they are all white space.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self.length = 0
        self.blank = True

    def add(self, piece: bytes) -> None:
        """Append bytes."""
        self.length += len(piece)
        self.blank = self.blank and not piece.strip(SPACE)
        if self.length > self._limit:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    @property
    def is_too_long(self) -> bool:
        """Whether there are more bytes than are kept."""
        return self.length > self._limit

    def joined(self) -> bytes:
        """Return the bytes; none where there are too many."""
        return b"".join(self._pieces)


def line_blocks(shard: Shard, block_bytes: int) -> Iterator[Lines]:
    """Yield the lines of a shard, without a BOM.

    Args:
        shard: Of a file of lines.
        block_bytes: Bytes that are read at a time.

    Raises:
        InputError: The file became shorter.
        DamagedFileError: It can't be decompressed; the whole lines before that were yielded.
    """
    limit = shard.source.rules.record_bytes
    offset, size = shard.start, 0
    line = GrowingLine(limit)
    start = b"" if offset == 0 else None
    for block in open_stream(shard, block_bytes):
        size += len(block)
        if start is not None:
            start += block
            if BOM.startswith(start) and len(start) < len(BOM):
                continue  # so far
            block, start = start, None
            if block.startswith(BOM):
                block, offset = block[len(BOM) :], len(BOM)
        lines = block.split(b"\n")
        last = lines.pop()
        if lines:
            head, before = lines.pop(0), line.length
            line.add(head)
            if line.is_too_long or len(block) > limit:
                for each in _one_by_one(line, [head, *lines], offset, limit):
                    each.size, size = size, 0
                    yield each
            else:
                yield Lines(offset, [line.joined(), *lines], size)
            offset += before + len(head) + 1 + sum(map(len, lines)) + len(lines)
            line, size = GrowingLine(limit), 0
        if last:
            line.add(last)
    line.add(start or b"")
    if line.length:
        for each in _one_by_one(line, [b""], offset, limit):
            each.size, each.ended = size, False
            yield each


def _one_by_one(line: GrowingLine, lines: list[bytes], offset: int, limit: int) -> Iterator[Lines]:
    """Yield lines of which some may be too long, each alone.

    Args:
        line: The first one, whole.
        lines: All of them; the first one is not looked at.
        offset: Of the first one.
        limit: The most bytes of a line.
    """
    if not line.is_too_long:
        yield Lines(offset, [line.joined()])
    elif not line.blank:
        yield Lines(offset, too_long=line.length)
    offset += line.length + 1
    for other in lines[1:]:
        if len(other) <= limit:
            yield Lines(offset, [other])
        elif other.strip(SPACE):
            yield Lines(offset, too_long=len(other))
        offset += len(other) + 1
