"""Reads one ``.bin``/``.idx`` pair, ours or Megatron-core's, with numpy alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed.layout import HEADER_BYTES, Header, bin_path, idx_path

__all__ = ["IndexedDataset"]


class IndexedDataset:
    """A memory-mapped dataset of token sequences.

    Opening checks the header, the size of the index, that its lengths and offsets agree and that
    ``.bin`` has just the size that they say. Pickles as its path alone; the copy maps the files anew.

    Args:
        prefix: Path of the pair without its suffixes.

    Raises:
        DatasetError: A file is missing, or the two don't fit each other.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self._open()

    def _open(self) -> None:
        idx, data = idx_path(self.prefix), bin_path(self.prefix)
        for path in (idx, data):
            if not path.is_file():
                raise DatasetError(f"{path}: no such file")
        with open(idx, "rb") as file:
            header = Header.unpack(file.read(HEADER_BYTES), idx)
        size = idx.stat().st_size
        if size != header.file_bytes:
            raise DatasetError(
                f"{idx}: {size} bytes, but its header ({header.sequences} sequences, "
                f"{header.documents} document borders) makes {header.file_bytes}"
            )
        self.dtype: np.dtype[Any] = header.dtype
        index = np.memmap(idx, mode="r")
        count = header.sequences
        #: int32, shape (S,): tokens of each sequence.
        self.lengths: npt.NDArray[np.int32] = self._view(index, HEADER_BYTES, "<i4", count)
        #: int64, shape (S,): where each sequence starts in ``.bin``, in bytes.
        self.offsets: npt.NDArray[np.int64] = self._view(index, HEADER_BYTES + 4 * count, "<i8", count)
        #: int64, shape (D,): number of the first sequence of each document, then S.
        self.document_index: npt.NDArray[np.int64] = self._view(
            index, HEADER_BYTES + 12 * count, "<i8", header.documents
        )
        borders = self.document_index
        if not len(borders) or borders[0] != 0 or borders[-1] != count or (np.diff(borders) < 0).any():
            raise DatasetError(f"{idx}: the document index does not run from 0 to {count}")
        self._check_sizes(idx, data)
        # An empty file can't be mapped.
        self._tokens: npt.NDArray[Any] = (
            np.memmap(data, self.dtype, mode="r") if data.stat().st_size else np.zeros(0, self.dtype)
        )

    @staticmethod
    def _view(index: npt.NDArray[Any], start: int, dtype: str, count: int) -> npt.NDArray[Any]:
        width = np.dtype(dtype).itemsize
        view: npt.NDArray[Any] = np.asarray(index[start : start + width * count]).view(dtype)
        return view

    def _check_sizes(self, idx: Path, data: Path) -> None:
        width, size = self.dtype.itemsize, data.stat().st_size
        if len(self) == 0:
            expected = 0
        else:
            ends = self.offsets + self.lengths.astype(np.int64) * width
            if int(self.lengths.min()) < 0 or int(self.offsets[0]) != 0:
                raise DatasetError(f"{idx}: a negative length, or a first offset that is not 0")
            if not np.array_equal(ends[:-1], self.offsets[1:]):
                bad = int(np.flatnonzero(ends[:-1] != self.offsets[1:])[0])
                raise DatasetError(
                    f"{idx}: sequence {bad} ends at byte {ends[bad]}, "
                    f"but the next one starts at {self.offsets[bad + 1]}"
                )
            expected = int(ends[-1])
        if size != expected:
            raise DatasetError(f"{data}: {size} bytes, but {idx.name} makes {expected}")

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """Shape (N,): the tokens of all sequences, one behind the other, mapped read-only."""
        return self._tokens

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        """Return sequence ``index`` as a read-only view of the mapped file, or a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        start = int(self.offsets[at]) // self.dtype.itemsize
        item: npt.NDArray[Any] = self._tokens[start : start + int(self.lengths[at])]
        return item

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[at] for at in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.prefix = state["prefix"]
        self._open()
