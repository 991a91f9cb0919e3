"""``PREFIX.sources.parquet``: what it says of each sample, and whether the samples tile the items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.inspection.verify.report import SHOWN, Check
from mtsft_preproc.ledger import numbers_of, sidecar_schema

__all__ = ["Samples", "Spans", "check_packs", "check_singles", "read_samples"]

Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: What is kept of each sample.
_NUMBERS = {"item": np.int64, "offset": np.int32, "length": np.int32, "trained": np.int32}


@dataclass
class Samples:
    """The samples of an output, in the order of the sidecar.

    Attributes:
        file: Name of the sidecar.
        item: int64, shape (n,).
        offset: int32, shape (n,): first token in the item.
        length: int32, shape (n,): tokens; of the first group where there are several.
        trained: int32, shape (n,): trained tokens.
        by_source: Samples, tokens and trained tokens by name of the source.
        rows: int64 arrays of the rows of records, each row once, by source and file.
    """

    file: str
    item: Int64
    offset: Int32
    length: Int32
    trained: Int32
    by_source: dict[str, Int64] = field(default_factory=dict)
    rows: dict[tuple[str, str], Int64] = field(default_factory=dict)


@dataclass
class Spans:
    """Where samples lie, in the order in which they lie.

    Attributes:
        starts: int64, shape (n,): first token of each, counted through the file.
        lengths: int32, shape (n,): tokens of each.
        numbers: int32, shape (n,): the 1-based number of each in its item.
        rows: int64, shape (n,): its row of the sidecar; None: as they are.
    """

    starts: Int64
    lengths: Int32
    numbers: Int32
    rows: Int64 | None = None


def read_samples(
    check: Check, path: Path, manifest: Mapping[str, Any], others: Sequence[Int32], items: int
) -> Samples:
    """Read a sidecar, and look at each of its columns.

    Args:
        check: Takes the failures.
        path: The sidecar.
        manifest: That of the output.
        others: int32, shape (items,) each: tokens of each item in further groups of lengths.
        items: How many items there are; the most that a sample can name.
    """
    check.file = path.name
    known = {entry["path"] for entry in manifest["inputs"]}
    parts: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    sums: dict[str, Int64] = defaultdict(lambda: np.zeros(3, np.int64))
    rows: dict[tuple[str, str], list[Int64]] = defaultdict(list)
    for first, table in _groups(check, path, manifest):
        own = {name: numbers_of(table.column(name)) for name in ("item", "offset", "length", "trained")}
        own |= {name: numbers_of(table.column(name)) for name in ("position", "row")}
        _look(check, path.name, first, own, items)
        sane = (own["item"] >= 0) & (own["item"] < items)
        tokens = own["length"].astype(np.int64)
        for lengths in others:
            tokens[sane] += lengths[own["item"][sane]]
        if manifest["objective"] == "text":
            tokens = own["trained"].astype(np.int64)  # of all keys, some of whose texts may be empty
        for name in (*_NUMBERS, "position"):
            parts[name].append(own[name])
        for source, file, here in _stretches(table):
            if file not in known:
                check.fail(f"{path.name}, row {first + here[0]}", f"file {file!r} is none of the inputs")
            sums[source] += [
                len(here),
                int(tokens[here].sum()),
                int(own["trained"][here].sum(dtype=np.int64)),
            ]
            rows[source, file].append(np.unique(own["row"][here]))
    _look_at_positions(check, path.name, np.concatenate([np.zeros(0, np.int64), *parts["position"]]))
    numbers = {name: np.concatenate([np.zeros(0, kind), *parts[name]]) for name, kind in _NUMBERS.items()}
    return Samples(
        path.name,
        numbers["item"],
        numbers["offset"],
        numbers["length"],
        numbers["trained"],
        dict(sums),
        {name: np.unique(np.concatenate(own)) for name, own in rows.items()},
    )


def _groups(check: Check, path: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the row groups of a sidecar, each with the number of its first row."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        kept = manifest["settings"].get("keep_columns")
        wanted = sidecar_schema(schema.names[len(sidecar_schema()) :] if kept is None else kept)
        if not schema.equals(wanted, check_metadata=False):
            check.fail(path.name, f"columns {_shown(schema)}; expected {_shown(wanted)}")
            return
        first = 0
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            for place, name in enumerate(table.column_names):
                if not wanted.field(place).nullable and table.column(place).null_count:
                    raise ValueError(f"nulls in column {name!r}")
            yield first, table
            first += len(table)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{one.name} ({one.type}{'' if one.nullable else ', not null'})" for one in schema)


def _look(check: Check, name: str, first: int, own: Mapping[str, npt.NDArray[Any]], items: int) -> None:
    """Look at the numbers of some samples, each for itself."""
    for column in ("item", "offset", "length", "trained", "row"):
        values = own[column]
        most = items - 1 if column == "item" else np.iinfo(values.dtype).max
        places = np.flatnonzero((values < 0) | (values > most))
        check.add(
            [
                f"{name}, row {first + at}: {column} {values[at]}, expected 0 to {most}"
                for at in places[:SHOWN].tolist()
            ],
            len(places),
        )


def _look_at_positions(check: Check, name: str, positions: Int64) -> None:
    """Look whether each position is there once."""
    count = len(positions)
    check.each(
        np.flatnonzero((positions < 0) | (positions >= count)),
        lambda at: f"{name}, row {at}: position {positions[at]}, expected 0 to {count - 1}",
    )
    ordered = np.sort(positions)
    check.each(
        np.flatnonzero(ordered[1:] == ordered[:-1]),
        lambda at: (
            f"{name}, row {np.flatnonzero(positions == ordered[at])[1]}: position {ordered[at]} twice"
        ),
    )


def _stretches(table: pa.Table) -> Iterator[tuple[str, str, Int64]]:
    """Yield source, file and places of the samples of a table that share them."""
    if not len(table):
        return
    encoded = [table.column(name).combine_chunks().dictionary_encode() for name in ("source_name", "file")]
    sources, files = (own.indices.to_numpy(zero_copy_only=False).astype(np.int64) for own in encoded)
    names = [own.dictionary.to_pylist() for own in encoded]
    both = sources * len(names[1]) + files
    for code in np.unique(both).tolist():
        source, file = divmod(code, len(names[1]))
        yield names[0][source], names[1][file], np.flatnonzero(both == code)


def check_singles(check: Check, samples: Samples, lengths: Int32, skips_empty: bool) -> Spans | None:
    """Look whether each item is just one sample.

    Args:
        check: Takes the failures.
        samples: The samples.
        lengths: int32, shape (items,): tokens of each item.
        skips_empty: Whether a sample without tokens has no item; samples then name the place that they
            would have if all had one.

    Returns:
        Where they lie; None where they are not that.
    """
    count, name = len(samples.item), samples.file
    expected = count if skips_empty else len(lengths)
    if count != expected:
        check.fail(name, f"{count} rows, but there are {expected} items; expected one for each")
        return None
    failed = check.failed
    by_item = np.full(count, -1, np.int64)
    by_item[samples.item] = np.arange(count)
    twice = np.flatnonzero(by_item[samples.item] != np.arange(count))
    check.each(twice, lambda at: f"{name}, row {at}: item {samples.item[at]} has another row")
    moved = np.flatnonzero(samples.offset)
    check.each(
        moved,
        lambda at: f"{name}, row {at}: offset {samples.offset[at]}, expected 0 where nothing is packed",
    )
    if check.failed > failed:
        return None
    if skips_empty:
        by_item = by_item[samples.length[by_item] > 0]
    told = samples.length[by_item]
    if len(told) != len(lengths):
        check.fail(name, f"{len(told)} samples with tokens, but there are {len(lengths)} items")
        return None
    differ = np.flatnonzero(told != lengths)
    check.each(
        differ,
        lambda at: f"{name}, row {by_item[at]}: length {told[at]}, but item {at} has {lengths[at]} tokens",
    )
    if len(differ):
        return None
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Spans(starts, told, np.ones(len(told), np.int32), by_item)


def check_packs(
    check: Check, samples: Samples, starts: Int64, capacity: int, multiple: int
) -> Spans | None:
    """Look whether samples lie one behind the other in their items, and each item has some.

    Args:
        check: Takes the failures.
        samples: The samples.
        starts: int64, shape (items,): first token of each item, counted through the file.
        capacity: Tokens of an item.
        multiple: Each sample begins at a multiple of so many tokens.

    Returns:
        Where they lie; None where they don't lie like that.
    """
    failed, name = check.failed, samples.file
    places = starts[samples.item] + samples.offset
    order = np.argsort(places, kind="stable")
    items, offsets = samples.item[order], samples.offset[order].astype(np.int64)
    lengths = samples.length[order]
    first = np.diff(items, prepend=-1) != 0
    # Where the one before ends, rounded up; each item begins with a sample.
    wide = -(-lengths.astype(np.int64) // multiple) * multiple
    expected = np.where(first, 0, np.concatenate([[0], (offsets + wide)[:-1]]))
    apart = np.flatnonzero(offsets != expected)
    check.add(
        [
            f"{name}, row {order[at]}: offset {offsets[at]} in item {items[at]}, expected {expected[at]}, "
            "where the samples before it end"
            for at in apart[:SHOWN].tolist()
        ],
        len(apart),
    )
    long = np.flatnonzero(offsets + lengths > capacity)
    check.each(
        long,
        lambda at: (
            f"{name}, row {order[at]}: ends at token {offsets[at] + lengths[at]} of an item of {capacity}"
        ),
    )
    filled = np.zeros(len(starts), np.bool_)
    filled[items] = True
    empty = np.flatnonzero(~filled)
    check.each(empty, lambda at: f"{name}: no sample in item {at}")
    if check.failed > failed:
        return None
    begins = np.flatnonzero(first)
    numbers = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order)))) + 1
    return Spans(places[order], lengths, numbers.astype(np.int32), order)
