"""Parses the elements of a JSON array from bytes that start at a border between two of them."""

from __future__ import annotations

import re

import orjson

from mtsft_preproc.dialogue import Record
from mtsft_preproc.readers.base import RecordBatch, too_large
from mtsft_preproc.readers.json_scan import ArrayScanner
from mtsft_preproc.readers.parse import parse_record, truncated
from mtsft_preproc.readers.suspects import holds_long_number, looks_sound

__all__ = ["ElementParser"]

#: The beginning of an object, up to its first name.
_FIRST = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*("[^"\\]*")')
_SEAM = rb"\}([ \t\r\n]*),[ \t\r\n]*\{[ \t\r\n]*%s[ \t\r\n]*:"


class ElementParser:
    """Parses the elements of a shard, block by block.

    Programs write all elements of an array in one manner, so what stands between the first two of them, up
    to the first name in the second one, mostly stands between any two. That it does is never taken for
    granted: behind a border, the bytes up to such a seam are an element if and only if they parse as an
    object, since no beginning of an object is an object as well. Where they don't, the scanner finds the
    borders.

    Args:
        limit: The most bytes of an element.
    """

    def __init__(self, limit: int) -> None:
        self._row = 0
        self._limit = limit
        self._seam = b""
        #: Bytes of the seam before its comma.
        self._head = 0

    def take(self, block: bytes, offset: int, last: bool, batch: RecordBatch) -> int:
        """Append the elements at the beginning of a block to a batch.

        Args:
            block: Bytes that begin at a border, or behind one's comma.
            offset: At which byte of the file that is.
            last: Whether the block ends at a border, too; else what is behind its last border is left.
            batch: Takes the records and the rejections; its size is left as it is.

        Returns:
            Bytes of the block that were used up.
        """
        before = len(batch.records), len(batch.rejections), len(batch.notes), self._row
        used = self._take(block, offset, last, batch)
        new = batch.records[before[0] :]
        ends = [*(record.byte_offset - offset for record in new[1:]), used]
        if not looks_sound(block[:used], ends, new):
            del batch.records[before[0] :], batch.rejections[before[1] :], batch.notes[before[2] :]
            self._row = before[3]
            used = self._by_scanner(block, 0, offset, last, batch)
        return used

    def refuse(self, size: int, offset: int, batch: RecordBatch) -> None:
        """Take note of an element that is too large, and was passed over."""
        batch.rejections.append(too_large(self._row, size, self._limit, offset))
        self._row += 1

    def _take(self, block: bytes, offset: int, last: bool, batch: RecordBatch) -> int:
        start, found = self._by_seam(block, offset, batch)
        if found and not last:
            return start
        if found and self._add(block[start:], offset + start, batch):
            return len(block)
        return self._by_scanner(block, start, offset, last, batch)

    def _by_scanner(self, block: bytes, start: int, offset: int, last: bool, batch: RecordBatch) -> int:
        for border in (ArrayScanner(depth=1).feed(block[start:]) + start).tolist():
            self.parse(block[start:border], offset + start, batch)
            start = border + 1
        if last:
            self.parse(block[start:], offset + start, batch)
            return len(block)
        return start

    def _by_seam(self, block: bytes, offset: int, batch: RecordBatch) -> tuple[int, bool]:
        """Append the elements that end at a seam.

        Returns:
            Where the first one starts that doesn't; whether there were any, and no seam behind the last.
        """
        if not self._seam and (first := _FIRST.match(block)):
            # A name that objects inside of the elements don't begin with, if they begin with another.
            seam = re.search(_SEAM % re.escape(first[1]), block)
            if seam:
                self._seam, self._head = seam[0], 1 + len(seam[1])
        if not self._seam or holds_long_number(block):
            return 0, False
        start = 0
        while (at := block.find(self._seam, start)) >= 0:
            border = at + self._head
            if not self._add(block[start:border], offset + start, batch):
                return start, False
            start = border + 1
        return start, start > 0

    def _add(self, raw: bytes, offset: int, batch: RecordBatch) -> bool:
        """Append an element without any trouble; return whether it is one."""
        if len(raw) > self._limit:
            return False
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return False
        if type(value) is not dict:
            return False
        batch.records.append(Record(self._row, value, offset))
        self._row += 1
        return True

    def parse(self, raw: bytes, offset: int, batch: RecordBatch) -> None:
        """Append whatever an element is."""
        if len(raw) > self._limit:
            self.refuse(len(raw), offset, batch)
            return
        parsed = parse_record(raw, self._row, offset, batch.notes)
        if isinstance(parsed, Record):
            batch.records.append(parsed)
        else:
            batch.rejections.append(parsed)
        self._row += 1

    def cut(self, raw: bytes, size: int, offset: int, batch: RecordBatch) -> None:
        """Take note of an element of which the file holds only the first ``size`` bytes."""
        text = raw.decode("utf-8", "backslashreplace")
        batch.rejections.append(truncated(self._row, size, offset, text))
        self._row += 1
