"""The ledger: what became of every record.

``PREFIX.rejected.jsonl`` has a line per rejected record; ``PREFIX.sources.parquet`` a row per sample.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.parts import PartReader
from mtsft_preproc.readers import InputFile, Shard

__all__ = ["Totals", "write_ledger"]

_GROUP_ROWS = 1 << 16
_SCHEMA = pa.schema(
    [
        pa.field("item", pa.int64(), nullable=False),
        pa.field("offset", pa.int32(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("trained", pa.int32(), nullable=False),
        pa.field("file", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("turn", pa.int32()),
    ]
)


@dataclass
class Totals:
    """The counts of a whole run; ``read`` equals ``kept`` plus the sum of ``rejected``."""

    read: int = 0
    kept: int = 0
    samples: int = 0
    tokens: int = 0
    trained: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    #: Samples lost of records that kept others, by reason.
    lost: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    parity: Counter[str] = field(default_factory=Counter)
    #: The first few turns whose training text isn't serving text: file, row and what differs.
    differences: list[dict[str, Any]] = field(default_factory=list)
    #: Records read and rejected, by number of the file.
    by_file: dict[int, list[int]] = field(default_factory=dict)

    def add(self, shard: Shard, part: PartReader, columns: Mapping[str, Any]) -> None:
        """Add a part."""
        summary = part.summary
        rejected = summary.rejected.total()
        self.read += summary.records
        # A record may make several samples; it is kept once.
        self.kept += len(np.unique(columns["rows"]))
        self.samples += summary.samples
        self.tokens += summary.tokens
        self.trained += summary.trained
        self.rejected.update(summary.rejected)
        self.lost.update(summary.lost)
        self.notes.update(summary.notes)
        self.parity.update(summary.parity)
        first_row = self.by_file.get(shard.file, [0])[0]
        for item in summary.first_differences[: 3 - len(self.differences)]:
            self.differences.append({"file": shard.source.path, **item, "row": item["row"] + first_row})
        read_and_rejected = self.by_file.setdefault(shard.file, [0, 0])
        read_and_rejected[0] += summary.records
        read_and_rejected[1] += rejected


def write_ledger(
    work: Iterable[tuple[Shard, PartReader]],
    files: list[InputFile],
    folder: Path,
    names: tuple[str, str],
    keep_columns: Sequence[str] = (),
) -> tuple[Totals, dict[str, npt.NDArray[np.int32]]]:
    """Write both files of the ledger.

    Args:
        work: The shards in order, with their parts.
        files: The inputs, by number.
        folder: Where the files go.
        names: Their names: rejected, sources.
        keep_columns: Columns of the records that each sample takes along.

    Returns:
        The totals, and the lengths of all samples, int32 (S,), by group.

    Raises:
        DatasetError: A part is damaged, or the counts don't add up.
    """
    totals = Totals()
    lengths: dict[str, list[npt.NDArray[np.int32]]] = {}
    schema = _SCHEMA
    for name in keep_columns:
        schema = schema.append(pa.field(name, pa.string()))
    paths = pa.array([file.path for file in files], pa.string())
    with (
        open(folder / names[0], "xb") as rejected,
        pq.ParquetWriter(
            folder / names[1], schema, compression="zstd", write_page_checksum=True
        ) as sources,
    ):
        groups = _RowGroups(sources)
        for shard, part in work:
            columns, rejections = part.tail()
            first_row = totals.by_file.get(shard.file, [0])[0]
            own = columns[f"lengths:{part.groups[0]}"]
            table = _samples(totals.samples, first_row, shard.file, own, columns, paths)
            for place, name in enumerate(keep_columns):
                values = pa.array([kept[place] for kept in columns["kept"]], pa.string())
                table = table.append_column(schema.field(name), values)
            groups.add(table)
            for entry in rejections:
                rejected.write(_line(entry, files[shard.file].path, first_row))
            totals.add(shard, part, columns)
            for group in part.groups:
                lengths.setdefault(group, []).append(columns[f"lengths:{group}"])
        groups.flush()
    if totals.read != totals.kept + totals.rejected.total():
        raise DatasetError(
            f"the ledger does not add up: {totals.read} records read, {totals.kept} kept, "
            f"{totals.rejected.total()} rejected; nothing was published"
        )
    return totals, {group: np.concatenate(own) for group, own in lengths.items()}


class _RowGroups:
    """Writes row groups of one size, whatever the size of the shards: the bytes must not tell."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            joined = pa.concat_tables(self._waiting)
            whole = len(joined) - len(joined) % _GROUP_ROWS
            for start in range(0, whole, _GROUP_ROWS):
                self._writer.write_table(joined.slice(start, _GROUP_ROWS).combine_chunks())
            self._waiting = [joined.slice(whole)]

    def flush(self) -> None:
        joined = pa.concat_tables(self._waiting) if self._waiting else None
        if joined is not None and len(joined):
            self._writer.write_table(joined.combine_chunks())


def _samples(
    first_item: int,
    first_row: int,
    file: int,
    lengths: npt.NDArray[np.int32],
    columns: Mapping[str, Any],
    paths: pa.Array,
) -> pa.Table:
    count = len(columns["rows"])
    turns = columns["turns"]
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(first_item, first_item + count, dtype=np.int64)),
            pa.array(np.zeros(count, np.int32)),
            pa.array(lengths),
            pa.array(columns["trained"]),
            pa.DictionaryArray.from_arrays(pa.array(np.full(count, file, np.int32)), paths),
            pa.array(columns["rows"] + first_row),
            pa.array(turns, mask=turns < 0),
        ],
        schema=_SCHEMA,
    )


def _line(entry: dict[str, Any], path: str, first_row: int) -> bytes:
    out: dict[str, Any] = {"file": path, "row": entry["row"] + first_row}
    if entry["byte_offset"] >= 0:
        out["byte_offset"] = entry["byte_offset"]
    if entry["turn"] >= 0:
        out["turn"] = entry["turn"]
    out |= {name: entry[name] for name in ("reason", "field", "expected", "got")}
    if entry["record"] is not None:
        out["record"] = entry["record"]
    try:
        text = json.dumps(out, ensure_ascii=False, allow_nan=False)
    except ValueError:
        # A record of a parquet file can hold numbers that JSON has no form for; they become text.
        text = json.dumps(json.loads(json.dumps(out), parse_constant=str), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
