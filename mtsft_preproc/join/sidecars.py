"""Joins what stands beside the datasets: the rejections, and where each sample came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import DatasetError, naming
from mtsft_preproc.join.datasets import copy_checked
from mtsft_preproc.join.inputs import JoinInput
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import RowGroups

__all__ = ["join_rejected", "join_sources"]


def join_rejected(inputs: Sequence[JoinInput], target: Path) -> str:
    """Write the rejections of all inputs, one behind the other, and return the sha256 of the file.

    Raises:
        DatasetError: One is not the file that its manifest tells of.
    """
    digest = hashlib.sha256()
    with naming(target), open(target, "xb") as out:

        def write(piece: memoryview) -> None:
            out.write(piece)
            digest.update(piece)

        for own in inputs:
            path = OutputPaths(own.prefix).rejected
            copy_checked(path, own.sha256(path), write)
    return digest.hexdigest()


def join_sources(inputs: Sequence[JoinInput], target: Path) -> tuple[str, npt.NDArray[np.int32]]:
    """Write the rows of all inputs, one behind the other, with numbers that count on.

    ``item`` counts the items of the inputs before, ``position`` their rows; all other columns stay as they
    are. Row groups have one size, so that the bytes don't tell how the inputs were cut.

    Returns:
        The sha256 of the file; and the column ``length``, int32, shape (rows,).

    Raises:
        DatasetError: One is not the file that its manifest tells of, or they have other columns.
    """
    files = [OutputPaths(own.prefix).sources for own in inputs]
    for own, path in zip(inputs, files, strict=True):
        copy_checked(path, own.sha256(path))
    schema = _schema(files)
    lengths = [np.zeros(0, np.int32)]
    with RowGroups(target, schema) as groups:
        for table in _shifted(inputs, files):
            lengths.append(table.column("length").to_numpy().astype(np.int32, copy=False))
            groups.add(table)
    return copy_checked(target, None), np.concatenate(lengths)


def _schema(files: Sequence[Path]) -> pa.Schema:
    """Return the schema of all files, without what only the file itself is concerned with."""
    found = []
    for path in files:
        try:
            schema = pq.read_schema(path)
        except pa.ArrowException as error:
            raise DatasetError(f"{path}: not a parquet file: {error}") from None
        found.append(pa.schema([field.remove_metadata() for field in schema]))
        for name in ("item", "length"):
            if name not in schema.names:
                raise DatasetError(
                    f"{path}: no column {name!r}; expected the sources of a dataset's samples"
                )
        if found[0] != found[-1]:
            columns = [{f"{field.name} ({field.type})" for field in own} for own in (found[0], found[-1])]
            apart = " ".join(sorted(columns[0] ^ columns[1])) or "their order"
            raise DatasetError(
                f"{files[0]} and {path} don't go together: their columns differ: {apart}; expected equal "
                "ones (--keep-columns)"
            )
    return found[0]


def _shifted(inputs: Sequence[JoinInput], files: Sequence[Path]) -> Iterator[pa.Table]:
    items = rows = 0
    for own, path in zip(inputs, files, strict=True):
        assert own.manifest is not None
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                table = _add(_add(file.read_row_group(group), "item", items), "position", rows)
                yield table.replace_schema_metadata()
            rows += file.metadata.num_rows
        items += own.manifest["items"]


def _add(table: pa.Table, name: str, count: int) -> pa.Table:
    if name not in table.column_names:
        return table
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    values = table.column(name).to_numpy().astype(np.int64) + count
    return table.set_column(at, field, pa.array(values, field.type))
