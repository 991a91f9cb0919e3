"""Joins ``.bin``/``.idx`` pairs, and copies files while their sha256 is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed import IndexedDataset, IndexedWriter, bin_path, idx_path
from mtsft_preproc.join.inputs import JoinInput

__all__ = ["copy_checked", "join_datasets", "joined_index"]

_CHUNK = 1 << 22
#: Pairs that are copied at once: hashing is what takes the time, and each holds its index in memory.
_AT_ONCE = 3
_NO_LENGTHS = np.zeros(0, np.int32)


def joined_index(
    lengths: Sequence[npt.NDArray[np.int32]], documents: Sequence[npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Join indexes as Megatron-core's ``IndexedDatasetBuilder.add_index`` does.

    Args:
        lengths: int32, shape (S_k,), per input: tokens of each sequence.
        documents: int64, shape (D_k,), per input: number of the first sequence of each document, from 0,
            then S_k.

    Returns:
        Lengths, int32, shape (sum of S_k,); document index, int64, shape (1 + sum of (D_k - 1),).
    """
    before = np.cumsum([0, *map(len, lengths)], dtype=np.int64)[:-1]
    borders = [own[1:] + first for own, first in zip(documents, before, strict=True)]
    return (
        np.concatenate([_NO_LENGTHS, *lengths], dtype=np.int32),
        np.concatenate([np.zeros(1, np.int64), *borders], dtype=np.int64),
    )


def join_datasets(inputs: Sequence[JoinInput], prefixes: Mapping[str, Path]) -> dict[str, str]:
    """Write all datasets of the output.

    Args:
        inputs: What is joined, in order.
        prefixes: Where each dataset goes, by its name in :attr:`JoinInput.datasets`.

    Returns:
        The sha256 of each file, by name.

    Raises:
        DatasetError: A file of an input is not the one that its manifest tells of.
    """
    with ThreadPoolExecutor(min(len(prefixes), _AT_ONCE)) as threads:
        jobs = [threads.submit(_join_one, inputs, name, prefix) for name, prefix in prefixes.items()]
        found: dict[str, str] = {}
        for job in jobs:
            found |= job.result()
    return found


def _join_one(inputs: Sequence[JoinInput], name: str, prefix: Path) -> dict[str, str]:
    pairs: list[tuple[JoinInput, IndexedDataset]] = [(own, own.datasets[name]) for own in inputs]
    # Before they are used: the arrays are views of the files.
    for own, pair in pairs:
        index = idx_path(pair.prefix)
        if own.manifest is not None:
            copy_checked(index, own.sha256(index))
    lengths, documents = joined_index(
        [pair.lengths for _, pair in pairs], [pair.document_index for _, pair in pairs]
    )
    with IndexedWriter(prefix, pairs[0][1].dtype, documents) as writer:
        for own, pair in pairs:
            data = bin_path(pair.prefix)
            copy_checked(data, own.sha256(data), lambda piece: writer.write_raw(piece, _NO_LENGTHS))
        writer.write_raw(b"", lengths)
    return {
        writer.bin_path.name: writer.sha256[".bin"],
        writer.idx_path.name: writer.sha256[".idx"],
    }


def copy_checked(path: Path, expected: str | None, write: Callable[[memoryview], Any] | None = None) -> str:
    """Read a file in pieces, hand them on, and return its sha256.

    Args:
        path: The file.
        expected: The sha256 that it must have, or None where nobody knows.
        write: Takes the pieces, or None.

    Raises:
        DatasetError: It has another; raised behind the last piece.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    try:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                piece = buffer[:count]
                digest.update(piece)
                if write is not None:
                    write(piece)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    found = digest.hexdigest()
    if expected is not None and found != expected:
        raise DatasetError(
            f"{path}: damaged: its sha256 is {found[:12]}..., the manifest says {expected[:12]}..."
        )
    return found
