"""Writes one ``.bin``/``.idx`` pair."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import OutputError, naming
from mtsft_preproc.indexed.layout import DTYPE_CODES, bin_path, idx_path, pack_index

__all__ = ["IndexedWriter"]


class IndexedWriter:
    """Writes a ``.bin``/``.idx`` pair whose index appears only when everything before it is on disk.

    A context manager: on a clean exit both files are complete and synced; when an exception is under
    way the index is not written, so a half-written dataset can't be opened.

    Args:
        prefix: Path of the pair without its suffixes.
        dtype: Type of the tokens.
        documents: int64, shape (D,): number of the first sequence of each document, then the number of
            all sequences; None for one document per sequence.

    Raises:
        OutputError: One of the files exists already.

    Example:
        >>> import tempfile, pathlib
        >>> from mtsft_preproc.indexed import IndexedDataset
        >>> prefix = pathlib.Path(tempfile.mkdtemp()) / "toy"
        >>> with IndexedWriter(prefix) as writer:
        ...     writer.write(np.array([5, 6, 7, 8], np.int32), np.array([3, 1], np.int32))
        >>> [item.tolist() for item in IndexedDataset(prefix)]
        [[5, 6, 7], [8]]
    """

    def __init__(
        self,
        prefix: str | Path,
        dtype: npt.DTypeLike = np.int32,
        documents: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.bin_path = bin_path(prefix)
        self.idx_path = idx_path(prefix)
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        if self.dtype not in DTYPE_CODES.values():
            raise ValueError(f"{self.dtype} is no token type of an .idx file")
        self._documents = documents
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._tokens = 0
        self._hash = hashlib.sha256()
        if self.idx_path.exists():
            raise OutputError(f"{self.idx_path} exists already")
        try:
            self._bin: BinaryIO = open(self.bin_path, "xb")  # noqa: SIM115
        except FileExistsError:
            raise OutputError(f"{self.bin_path} exists already") from None
        #: sha256 of each file, by its suffix; filled on a clean exit.
        self.sha256: dict[str, str] = {}

    def write(self, tokens: npt.NDArray[Any], lengths: npt.NDArray[np.int32]) -> None:
        """Append sequences.

        Args:
            tokens: Shape (N,): the tokens of all the sequences, one behind the other.
            lengths: int32, shape (S,), summing to N.

        Raises:
            ValueError: The lengths don't sum to N.
        """
        if int(lengths.sum(dtype=np.int64)) != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, but lengths that sum to {lengths.sum()}")
        self.write_raw(np.ascontiguousarray(tokens, self.dtype), lengths)

    def write_raw(self, raw: Any, lengths: npt.NDArray[np.int32]) -> None:
        """Append a buffer of tokens of the writer's type; ``lengths`` as in :meth:`write`."""
        view = memoryview(raw).cast("B")
        with naming(self.bin_path):
            self._bin.write(view)
        self._hash.update(view)
        self._tokens += view.nbytes // self.dtype.itemsize
        self._lengths.append(lengths)

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with naming(self.bin_path):
                    _sync(self._bin)
                self.sha256[".bin"] = self._hash.hexdigest()
                self._write_index()
        finally:
            with naming(self.bin_path):
                self._bin.close()

    def _write_index(self) -> None:
        lengths = np.concatenate([np.zeros(0, np.int32), *self._lengths])
        if int(lengths.sum(dtype=np.int64)) != self._tokens:
            raise ValueError(f"{self._tokens} tokens were written for lengths that don't sum to that")
        digest = hashlib.sha256()
        pieces: tuple[Any, ...] = pack_index(lengths, self.dtype, self._documents)
        with naming(self.idx_path), open(self.idx_path, "xb") as file:
            for piece in pieces:
                view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
                file.write(view)
                digest.update(view)
            _sync(file)
        self.sha256[".idx"] = digest.hexdigest()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
