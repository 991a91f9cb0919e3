"""A finished dataset of any kind, with its sidecar: what stands where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.encoding import DatasetSpec, datasets_of_objective
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.join.inputs import has_manifest, open_output
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import numbers_of

__all__ = ["Finished", "open_finished"]

Int64 = npt.NDArray[np.int64]

#: Columns of the sidecar that say of a sample what it is, and where.
_COLUMNS = [
    "item", "offset", "length", "trained", "position", "source_name", "file", "row", "turn", "digest",
]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A finished dataset.

    Attributes:
        paths: Where its files lie.
        manifest: The manifest's content.
        specs: Its ``.bin``/``.idx`` pairs.
        datasets: The pairs, opened, by :attr:`DatasetSpec.name`.
        sources: The sidecar.
    """

    paths: OutputPaths
    manifest: Mapping[str, Any]
    specs: tuple[DatasetSpec, ...]
    datasets: Mapping[str, IndexedDataset]
    sources: pq.ParquetFile

    @property
    def groups(self) -> dict[str, list[DatasetSpec]]:
        """The pairs by their group of lengths: each is one sequence of tokens per sample."""
        found: dict[str, list[DatasetSpec]] = {}
        for spec in self.specs:
            found.setdefault(spec.group, []).append(spec)
        return found

    @property
    def items(self) -> int:
        """How many items it has."""
        return int(self.manifest["items"])

    def row_groups(self, numbers: Iterator[int] | range | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield row groups of the sidecar: number, and table of :data:`_COLUMNS`.

        Raises:
            DatasetError: The sidecar is damaged.
        """
        for number in range(self.sources.num_row_groups) if numbers is None else numbers:
            yield number, self._read(number, _COLUMNS)

    def samples_of(self, items: Int64) -> list[dict[str, Any]]:
        """Return the rows of the sidecar for the samples in some items, by item and offset.

        The sidecar stands in the order of the input, so all of its column ``item`` is looked at.

        Args:
            items: int64, shape (I,): numbers of items, as the sidecar counts them.
        """
        found: list[dict[str, Any]] = []
        for number in range(self.sources.num_row_groups):
            if not self._may_hold(number, items):
                continue
            own = np.isin(numbers_of(self._read(number, ["item"]).column("item")), items)
            if own.any():
                table = self._read(number, _COLUMNS)
                found += table.take(pa.array(np.flatnonzero(own))).to_pylist()
        return sorted(found, key=lambda row: (row["item"], row["offset"]))

    def _may_hold(self, number: int, items: Int64) -> bool:
        """Return whether a row group may hold one of the items, by the least and greatest in it."""
        column = self.sources.schema_arrow.get_field_index("item")
        known = self.sources.metadata.row_group(number).column(column).statistics
        if known is None or not known.has_min_max:
            return True
        return bool(((items >= known.min) & (items <= known.max)).any())

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        try:
            return self.sources.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.paths.sources}: damaged in row group {number}: {error}") from None

    def numbers_of_items(self, group: str) -> Int64 | None:
        """Return, int64 of shape (items of the group's pairs,), the number that the sidecar gives each.

        Text documents without a text for a key have no item there, so that the items of the key count
        otherwise than the sidecar does.

        Returns:
            None where both count alike.

        Raises:
            DatasetError: The sidecar doesn't tell: it has the lengths of the first key alone.
        """
        [spec, *_] = self.groups[group]
        count = len(self.datasets[spec.name])
        if count == self.items:
            return None
        if spec is not self.specs[0]:
            raise DatasetError(
                f"{self.datasets[spec.name].prefix}: some documents have no text for {group!r}, and the "
                "sources sidecar doesn't tell which; expected the first of the keys, "
                f"{self.specs[0].group!r}"
            )
        there = np.zeros(self.items, np.bool_)
        for number in range(self.sources.num_row_groups):
            table = self._read(number, ["item", "length"])
            item, length = (numbers_of(table.column(name)) for name in ("item", "length"))
            there[item[length > 0]] = True
        found = np.flatnonzero(there)
        if len(found) != count:
            raise DatasetError(
                f"{self.datasets[spec.name].prefix}: {count} items, but the sources sidecar tells of "
                f"{len(found)}"
            )
        return found


def open_finished(prefix: str | Path) -> Finished:
    """Open a finished dataset.

    Raises:
        DatasetError: There is none with a manifest and a sources sidecar, or its files are damaged or a
            mixture.
    """
    path = Path(prefix)
    if not path.name or not has_manifest(path):
        raise DatasetError(
            f"{prefix}.manifest.json: no such file; expected the output prefix of a dataset of this "
            "program, whose manifest and sources sidecar say where its samples came from"
        )
    opened = open_output(path)
    assert opened.manifest is not None
    paths = OutputPaths(path)
    specs = datasets_of_objective(opened.manifest["objective"], opened.manifest["fields"])
    by_path = {own.prefix: own for own in opened.datasets.values()}
    datasets = {}
    for spec in specs:
        if paths.dataset(spec.name) not in by_path:
            raise DatasetError(f"{paths.manifest}: names no {paths.dataset(spec.name).name}.idx")
        datasets[spec.name] = by_path[paths.dataset(spec.name)]
    try:
        sources = pq.ParquetFile(paths.sources, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{paths.sources}: not a parquet file: {error}") from None
    if missing := [name for name in _COLUMNS if name not in sources.schema_arrow.names]:
        raise DatasetError(f"{paths.sources}: no column {', '.join(missing)}; made by an older version?")
    return Finished(paths, opened.manifest, specs, datasets, sources)
