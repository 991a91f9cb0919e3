"""The byte layout of an ``.idx`` file, and nothing else.

Source: ``megatron/core/datasets/indexed_dataset.py`` of Megatron-core 0.16.1 (``_INDEX_HEADER``,
``DType``, ``_IndexWriter``); the table stands in the README of this folder.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import DatasetError

__all__ = [
    "DTYPE_CODES",
    "HEADER_BYTES",
    "SFT_FIELDS",
    "Header",
    "bin_path",
    "dataset_prefix",
    "idx_path",
    "pack_index",
]

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
HEADER_BYTES = _HEADER.size

#: Code of each token type, as Megatron-core numbers them.
DTYPE_CODES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
#: Fields of a supervised fine-tuning dataset, in the order in which they are published.
SFT_FIELDS = ("input_ids", "labels", "attention_mask")
_CODE_OF = {dtype: code for code, dtype in DTYPE_CODES.items()}


def bin_path(prefix: str | Path) -> Path:
    """Return the path of the token file of ``prefix``."""
    return Path(f"{prefix}.bin")


def idx_path(prefix: str | Path) -> Path:
    """Return the path of the index file of ``prefix``."""
    return Path(f"{prefix}.idx")


def dataset_prefix(prefix: str | Path, field: str) -> Path:
    """Return the path, without suffix, of the pair that holds ``field`` of samples of ``prefix``.

    Trainers of MindSpeed-LLM take every match of ``PREFIX_packed_*_document*`` as a field, so nothing but
    datasets may be called that.
    """
    return Path(f"{prefix}_packed_{field}_document")


class Header(NamedTuple):
    """The fixed-size start of an ``.idx`` file.

    Attributes:
        dtype: Type of the tokens in ``.bin``.
        sequences: Number of sequences, S.
        documents: Length of the document index, D (number of documents plus one).
    """

    dtype: np.dtype[Any]
    sequences: int
    documents: int

    @property
    def file_bytes(self) -> int:
        """Size that an ``.idx`` file with this header has."""
        return HEADER_BYTES + 12 * self.sequences + 8 * self.documents

    def pack(self) -> bytes:
        """Return the header's bytes."""
        return _HEADER.pack(MAGIC, VERSION, _CODE_OF[self.dtype], self.sequences, self.documents)

    @classmethod
    def unpack(cls, raw: bytes, path: Path) -> Header:
        """Read a header.

        Raises:
            DatasetError: The bytes are not such a header; the message names ``path``.
        """
        if len(raw) < HEADER_BYTES:
            raise DatasetError(
                f"{path}: {len(raw)} bytes, but an .idx file starts with {HEADER_BYTES} bytes of header"
            )
        magic, version, code, sequences, documents = _HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise DatasetError(f"{path}: not an .idx file (starts with {magic!r}, not {MAGIC!r})")
        if version != VERSION:
            raise DatasetError(f"{path}: index version {version}, expected {VERSION}")
        if code not in DTYPE_CODES:
            raise DatasetError(f"{path}: unknown token type code {code}, expected 1 to 8")
        return cls(DTYPE_CODES[code], sequences, documents)


def pack_index(
    lengths: npt.NDArray[np.int32],
    dtype: np.dtype[Any],
    documents: npt.NDArray[np.int64] | None = None,
) -> tuple[bytes, npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the four pieces of an ``.idx`` file, in file order.

    Args:
        lengths: int32, shape (S,): tokens of each sequence.
        dtype: Type of the tokens.
        documents: int64, shape (D,): number of the first sequence of each document, then S; None for one
            document per sequence.

    Returns:
        The header; lengths, int32 (S,); byte offsets into ``.bin``, int64 (S,); document index,
        int64 (D,).

    Raises:
        ValueError: ``documents`` does not run from 0 to S.
    """
    count = len(lengths)
    offsets = np.zeros(count, np.int64)
    # int64 from the first addition on: Megatron's own writer once overflowed int32 here.
    np.cumsum(lengths[:-1], dtype=np.int64, out=offsets[1:])
    offsets *= dtype.itemsize
    if documents is None:
        documents = np.arange(count + 1, dtype=np.int64)
    elif (
        not len(documents)
        or documents[0] != 0
        or documents[-1] != count
        or (documents[1:] < documents[:-1]).any()
    ):
        raise ValueError(f"the document index does not run from 0 to {count}")
    header = Header(dtype, count, len(documents)).pack()
    return header, lengths.astype("<i4", copy=False), offsets, documents.astype("<i8", copy=False)
