"""Parts -> the staged ``.bin``/``.idx`` pairs, checked while they are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.indexed import IndexedWriter
from mtsft_preproc.parts import Container

__all__ = ["merge_parts"]

_CHUNK = 1 << 20
_NO_LENGTHS = np.zeros(0, np.int32)


def merge_parts(
    parts: Sequence[Path],
    datasets: Sequence[DatasetSpec],
    lengths: Mapping[str, npt.NDArray[np.int32]],
    prefixes: Mapping[str, Path],
) -> dict[str, str]:
    """Write the datasets, side by side.

    Args:
        parts: The parts in order.
        datasets: What to write.
        lengths: int32, shape (S,): tokens of each sample, by group.
        prefixes: Where each dataset goes, by its name.

    Returns:
        The sha256 of each file, by name.

    Raises:
        DatasetError: A part is damaged.
    """
    with ThreadPoolExecutor(len(datasets)) as threads:
        jobs = []
        for dataset in datasets:
            own = lengths[dataset.group]
            if dataset.skips_empty:
                own = own[own > 0]
            prefix = prefixes[dataset.name]
            if dataset.stored:
                jobs.append(threads.submit(_copy, dataset.name, parts, own, prefix))
            else:
                jobs.append(threads.submit(_write_ones, own, prefix))
        found: dict[str, str] = {}
        for job in jobs:
            found |= job.result()
    return found


def _copy(
    stream: str, parts: Sequence[Path], lengths: npt.NDArray[np.int32], prefix: Path
) -> dict[str, str]:
    with IndexedWriter(prefix) as writer:
        for path in parts:
            for piece in Container(path).tokens(stream):
                writer.write_raw(piece, _NO_LENGTHS)
        writer.write_raw(memoryview(b""), lengths)
    return _named(writer)


def _write_ones(lengths: npt.NDArray[np.int32], prefix: Path) -> dict[str, str]:
    ones = np.ones(_CHUNK, "<i4")
    left = int(lengths.sum(dtype=np.int64))
    with IndexedWriter(prefix) as writer:
        while left:
            count = min(left, _CHUNK)
            writer.write_raw(ones[:count], _NO_LENGTHS)
            left -= count
        writer.write_raw(memoryview(b""), lengths)
    return _named(writer)


def _named(writer: IndexedWriter) -> dict[str, str]:
    return {
        writer.bin_path.name: writer.sha256[".bin"],
        writer.idx_path.name: writer.sha256[".idx"],
    }
