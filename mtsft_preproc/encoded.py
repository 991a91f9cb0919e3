"""What the tasks have encoded, read back part by part: for the survey, and for the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mtsft_preproc.ledger import Block, numbers_column, same_column, sample_schema
from mtsft_preproc.parts import PartReader
from mtsft_preproc.plan import Plan
from mtsft_preproc.readers import Shard
from mtsft_preproc.survey import Questions, Survey, Surveyor
from mtsft_preproc.tasks import EncodeShard

__all__ = ["part_blocks", "survey_parts"]


def survey_parts(
    plan: Plan, task: EncodeShard, folder: Path, questions: Questions, records: int, index: bool
) -> Survey:
    """Return what is known of all samples.

    Args:
        plan: The run.
        task: What made the parts.
        folder: Where the survey's arrays go.
        questions: What there is to find out.
        records: How many records were read.
        index: Whether tokens are going to be copied sample by sample.

    Raises:
        DatasetError: A part is damaged.
    """
    streams = tuple((own.name, own.group) for own in plan.datasets if own.stored)
    groups = list(dict.fromkeys(own.group for own in plan.datasets))
    surveyor = Surveyor(folder, streams, groups, len(plan.mix.sources), questions, records, index)
    for shard, part, first_row in _parts(plan, task):
        columns = part.columns()
        lengths = {group: columns[f"lengths:{group}"] for group in groups}
        surveyor.add(
            source=plan.owners[shard.file],
            file=shard.file,
            paths=(str(part.path),) * len(streams),
            lengths=lengths,
            places={name: part.places(name, lengths[group]) for name, group in streams} if index else {},
            rows=columns["rows"] + first_row,
            digests=columns["digests"],
            trained=columns["trained"],
        )
    return surveyor.finish()


def _parts(plan: Plan, task: EncodeShard) -> Iterator[tuple[Shard, PartReader, int]]:
    """Yield the parts in order, each with the number of the records of its file before it."""
    rows: Counter[int] = Counter()
    for shard in plan.shards:
        part = task.open(shard)
        yield shard, part, rows[shard.file]
        rows[shard.file] += part.summary.records


def part_blocks(plan: Plan, task: EncodeShard) -> Iterator[Block]:
    """Yield what the ledger has to say of each part.

    Raises:
        DatasetError: A part is damaged.
    """
    first = 0
    for shard, part, first_row in _parts(plan, task):
        columns, rejections = part.tail()
        summary, path = part.summary, shard.source.path
        count = len(columns["rows"])
        owner = plan.owners[shard.file]
        yield Block(
            first=first,
            source=owner,
            path=path,
            table=_table(plan, part, columns, first_row, path, plan.mix.sources[owner].name),
            tokens=sum(
                (columns[f"lengths:{group}"].astype(np.int64) for group in part.groups),
                np.zeros(count, np.int64),
            ),
            records=np.cumsum(np.diff(columns["rows"], prepend=-1) != 0) - 1,
            read=summary.records,
            rejections=[_line(entry, path, first_row) for entry in rejections],
            notes=summary.notes,
            parity=summary.parity,
            differences=[
                {"file": path, **item, "row": item["row"] + first_row} for item in summary.first_differences
            ],
        )
        first += count


def _table(
    plan: Plan, part: PartReader, columns: dict[str, Any], first_row: int, path: str, source: str
) -> pa.Table:
    count = len(columns["rows"])
    turns = columns["turns"]
    digests = pa.py_buffer(np.ascontiguousarray(columns["digests"], "<u8").tobytes())
    kept = [
        pa.array([own[place] for own in columns["kept"]], pa.string())
        for place in range(len(plan.config.keep_columns))
    ]
    return pa.Table.from_arrays(
        [
            numbers_column(columns[f"lengths:{part.groups[0]}"]),
            numbers_column(columns["trained"]),
            same_column(source, count),
            same_column(path, count),
            numbers_column(columns["rows"] + first_row),
            numbers_column(turns, turns < 0),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, digests]),
            *kept,
        ],
        schema=sample_schema(plan.config.keep_columns),
    )


def _line(entry: dict[str, Any], path: str, first_row: int) -> dict[str, Any]:
    """Return a rejection as the ledger says it."""
    out: dict[str, Any] = {"file": path, "row": entry["row"] + first_row}
    if entry["byte_offset"] >= 0:
        out["byte_offset"] = entry["byte_offset"]
    if entry["turn"] >= 0:
        out["turn"] = entry["turn"]
    out |= {name: entry[name] for name in ("reason", "field", "expected", "got")}
    if entry["record"] is not None:
        out["record"] = entry["record"]
    return out
