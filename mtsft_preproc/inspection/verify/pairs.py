"""The structure of one ``.bin``/``.idx`` pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.indexed import bin_path, idx_path
from mtsft_preproc.indexed.layout import HEADER_BYTES, Header
from mtsft_preproc.inspection.verify.report import Check

__all__ = ["Pair", "check_equal_lengths", "open_pair"]

_WIDTH = 4
#: Items whose entries are looked at together.
_AT_ONCE = 1 << 20


@dataclass
class Pair:
    """A pair whose index is sound.

    Attributes:
        bin: Path of the tokens.
        idx: Path of the index.
        lengths: int32, shape (S,): tokens of each item, mapped.
        starts: int64, shape (S,): first token of each item, counted through the file.
    """

    bin: Path
    idx: Path
    lengths: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Number of tokens of all items."""
        return int(self.starts[-1]) + int(self.lengths[-1]) if len(self.starts) else 0

    def read(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Return tokens, int32 (stop - start,).

        They are read, not mapped: what was mapped stays in memory until the map goes.

        Raises:
            ValueError: The file has become shorter.
        """
        found = np.fromfile(self.bin, "<i4", stop - start, offset=_WIDTH * start)
        if len(found) != stop - start:
            raise ValueError(f"{stop - start} tokens from byte {_WIDTH * start} on, found {len(found)}")
        return found

    def place(self, token: int) -> str:
        """Return in words where a token lies."""
        item = int(np.searchsorted(self.starts, token, "right")) - 1
        return (
            f"{self.bin.name}, byte {_WIDTH * token} (item {item}, token {token - int(self.starts[item])})"
        )


def open_pair(check: Check, prefix: Path, empty: bool) -> Pair | None:
    """Open a pair, and look at its index.

    Args:
        check: Takes the failures.
        prefix: Path of the pair without suffixes.
        empty: Whether items without tokens are right.

    Returns:
        The pair; None where its index is damaged.
    """
    idx, data = idx_path(prefix), bin_path(prefix)
    check.file = idx.name
    failed = check.failed
    with open(idx, "rb") as file:
        header = Header.unpack(file.read(HEADER_BYTES), Path(idx.name))
    size = idx.stat().st_size
    if size != header.file_bytes:
        check.fail(
            f"{idx.name}, byte 18",
            f"{header.sequences} items and {header.documents} document borders make {header.file_bytes} "
            f"bytes, the file has {size}",
        )
        return None
    if header.dtype != np.dtype("<i4"):
        check.fail(f"{idx.name}, byte 17", f"tokens of type {header.dtype}, expected int32")
        return None
    index = np.memmap(idx, mode="r")
    count = header.sequences
    lengths = _view(index, HEADER_BYTES, "<i4", count)
    offsets = _view(index, HEADER_BYTES + 4 * count, "<i8", count)
    borders = _view(index, HEADER_BYTES + 12 * count, "<i8", header.documents)
    _look(check, idx, lengths, offsets, borders, 0 if empty else 1)
    ends = int(offsets[-1]) + _WIDTH * int(lengths[-1]) if count else 0
    if (actual := data.stat().st_size) != ends:
        check.fail(
            f"{data.name}, byte {min(actual, ends)}",
            f"{actual} bytes, but the items of {idx.name} end at {ends}",
        )
    if check.failed > failed:
        return None
    return Pair(data, idx, lengths, offsets // _WIDTH)


def _view(index: npt.NDArray[Any], start: int, dtype: str, count: int) -> npt.NDArray[Any]:
    view: npt.NDArray[Any] = np.asarray(index[start : start + np.dtype(dtype).itemsize * count]).view(dtype)
    return view


def _look(
    check: Check,
    idx: Path,
    lengths: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    borders: npt.NDArray[np.int64],
    least: int,
) -> None:
    """Look at all entries of an index, some at a time."""
    count = len(lengths)
    if len(borders) != count + 1:
        check.fail(
            f"{idx.name}, byte 26",
            f"{len(borders)} document borders of {count} items, expected {count + 1}",
        )
    if count and offsets[0] != 0:
        check.fail(
            f"{idx.name}, byte {HEADER_BYTES + 4 * count}", f"item 0 starts at {offsets[0]}, expected 0"
        )
    for first in range(0, count, _AT_ONCE):
        own = lengths[first : first + _AT_ONCE]
        short = first + np.flatnonzero(own < least)
        check.each(
            short,
            lambda at: (
                f"{idx.name}, byte {HEADER_BYTES + 4 * at} (item {at}): a length of {lengths[at]}, "
                f"expected {least} or more"
            ),
        )
        steps = np.diff(offsets[first : first + _AT_ONCE + 1])
        apart = first + np.flatnonzero(steps != own[: len(steps)].astype(np.int64) * _WIDTH)
        check.each(
            apart,
            lambda at: (
                f"{idx.name}, byte {HEADER_BYTES + 4 * count + 8 * (at + 1)}: item {at + 1} starts at "
                f"{offsets[at + 1]}, but item {at} with its {lengths[at]} tokens at {offsets[at]}"
            ),
        )
    for first in range(0, len(borders), _AT_ONCE):
        some = borders[first : first + _AT_ONCE]
        wrong = first + np.flatnonzero(some != np.arange(first, first + len(some)))
        check.each(
            wrong,
            lambda at: (
                f"{idx.name}, byte {HEADER_BYTES + 12 * count + 8 * at}: document border {borders[at]}, "
                f"expected {at}: a document per item"
            ),
        )


def check_equal_lengths(check: Check, pair: Pair, like: Pair) -> bool:
    """Look whether the items of a pair have the lengths of those of another; return it."""
    if len(pair.lengths) != len(like.lengths):
        check.fail(
            f"{pair.idx.name}, byte 18",
            f"{len(pair.lengths)} items, but {like.idx.name} has {len(like.lengths)}",
        )
        return False
    differ = np.flatnonzero(pair.lengths != like.lengths)
    check.each(
        differ,
        lambda at: (
            f"{pair.idx.name}, byte {HEADER_BYTES + 4 * at} (item {at}): a length of {pair.lengths[at]}, "
            f"but {like.idx.name} has {like.lengths[at]}"
        ),
    )
    return len(differ) == 0
