"""JSON Lines: one object a line, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mtsft_preproc.errors import DamagedFileError
from mtsft_preproc.readers.base import BATCH_BYTES, InputFile, Reader, RecordBatch, Shard, too_large
from mtsft_preproc.readers.lines import Lines, line_blocks
from mtsft_preproc.readers.parse import (
    SPACE,
    holds_key,
    is_settings,
    name_truncated,
    parse_lines,
)
from mtsft_preproc.readers.suspects import holds_long_number, looks_sound

__all__ = ["JsonLinesReader"]

#: Bytes of a line that are looked at together for its end.
_CHUNK = 1 << 20


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
                while (piece := file.readline(_CHUNK)) and not piece.endswith(b"\n"):
                    pass
                end = min(file.tell(), source.size)
                yield start, end
                start = end

    def batches(self, shard: Shard, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
        row = 0
        for own in line_blocks(shard, BATCH_BYTES):
            batch = RecordBatch(size=own.size)
            offset = -1 if shard.source.compression else own.offset
            if own.too_long:
                limit = shard.source.rules.record_bytes
                batch.rejections.append(too_large(row, own.too_long, limit, offset))
                row += 1
            else:
                row += self.parse(own, row, offset, batch)
            yield batch

    def parse(self, own: Lines, row: int, byte_offset: int, batch: RecordBatch) -> int:
        """Append what lines hold to a batch; return how many of them are not blank."""
        joined = b"\n".join(own.lines)
        careful = holds_long_number(joined)
        rows = parse_lines(own.lines, row, byte_offset, careful, batch)
        lengths = np.fromiter(map(len, own.lines), np.int64, len(own.lines))
        ends = np.cumsum(lengths + 1)[lengths > 0]
        if not looks_sound(joined, ends, batch.records):
            batch.records.clear()
            batch.rejections.clear()
            batch.notes.clear()
            parse_lines(own.lines, row, byte_offset, True, batch)
        if not own.ended:
            name_truncated(own.lines[-1], row + rows - 1, batch)
        return rows

    def may_hold(self, source: InputFile, column: str) -> bool:
        # Of a compressed file only reading the whole could tell: the records will.
        return bool(source.compression) or holds_key(source.path, column)

    def count(self, shard: Shard, limit: int) -> int:
        total = 0
        try:
            for own in line_blocks(shard, BATCH_BYTES):
                total += bool(own.too_long) + sum(bool(line.strip(SPACE)) for line in own.lines)
                if total >= limit:
                    return limit
        except DamagedFileError:
            if not shard.source.rules.past_damage:
                raise
            total += 1  # the rejection that stands for what is lost
        return min(total, limit)
