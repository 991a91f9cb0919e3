"""Ways to damage an output, and what :func:`check_found` expects of ``mtsft verify`` then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage import Index, change_json, change_rows, change_words, edit, reseal

from mtsft_preproc.inspection import verify

__all__ = [
    "ENTRY",
    "Damage",
    "Damages",
    "append",
    "at",
    "both",
    "cell",
    "check_found",
    "drop_column",
    "entry",
    "extra_line",
    "first_padding",
    "forget",
    "index",
    "label_second_sample",
    "line",
    "more",
    "move_token",
    "no_parquet",
    "on_padding",
    "other_timings",
    "pair",
    "rows",
    "second_sample",
    "shift_second_sample",
    "swap_rows",
    "untrain",
    "wider_column",
    "words",
    "write_manifest",
]

Damage = Callable[[Path], Any]
Manifest = dict[str, Any]
#: By name: the kind of output; the damage; whether hashes and seals are made right again; the groups of
#: checks that fail; what a failure says.
Damages = dict[str, tuple[str, Damage, bool, tuple[str, ...], str]]


def at(prefix: Path, tail: str) -> Path:
    return prefix.with_name(prefix.name + tail)


def pair(prefix: Path, field: str, suffix: str = ".bin") -> Path:
    packed = "" if field in ("a", "b") else "packed_"
    return at(prefix, f"_{packed}{field}_document{suffix}")


def words(field: str, place: int, value: int) -> Damage:
    """Put a value at a place of a ``.bin``."""
    return lambda prefix: change_words(pair(prefix, field), lambda own: own.__setitem__(place, value))


def index(field: str, change: Callable[[Index], Any]) -> Damage:
    """Change an ``.idx``."""

    def damage(prefix: Path) -> None:
        own = Index(pair(prefix, field, ".idx"))
        change(own)
        own.write()

    return damage


def rows(change: Callable[[dict[str, list[Any]]], Any]) -> Damage:
    """Change the sidecar."""
    return lambda prefix: change_rows(at(prefix, ".sources.parquet"), change)


def cell(name: str, row: int, value: Any) -> Damage:
    return rows(lambda columns: columns[name].__setitem__(row, value))


def entry(*path: Any, value: Any) -> Damage:
    """Set an entry of the manifest; a callable makes the new value of the old one."""

    def change(manifest: Manifest) -> None:
        own: Any = manifest
        for name in path[:-1]:
            own = own[name]
        own[path[-1]] = value(own[path[-1]]) if callable(value) else value

    return lambda prefix: edit(prefix, change)


def more(number: int) -> int:
    return number + 1


def line(number: int, change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change a line of the rejections."""

    def damage(prefix: Path) -> None:
        path = at(prefix, ".rejected.jsonl")
        lines = path.read_text("utf-8").splitlines()
        own = json.loads(lines[number])
        change(own)
        lines[number] = json.dumps(own)
        path.write_text("\n".join(lines) + "\n", "utf-8")

    return damage


def both(*damages: Damage) -> Damage:
    def damage(prefix: Path) -> None:
        for own in damages:
            own(prefix)

    return damage


def untrain(prefix: Path) -> None:
    """Take all labels from item 3, and count accordingly."""
    lengths = Index(pair(prefix, "labels", ".idx")).lengths
    start, stop = int(lengths[:3].sum()), int(lengths[:4].sum())
    columns = pq.read_table(at(prefix, ".sources.parquet")).to_pydict()
    lost = columns["trained"][3]
    assert columns["item"][3] == 3
    change_words(pair(prefix, "labels"), lambda own: own.__setitem__(slice(start, stop), -100))
    cell("trained", 3, 0)(prefix)

    def recount(manifest: Manifest) -> None:
        manifest["trained_tokens"] -= lost
        manifest["sources"][0]["trained_tokens"] -= lost

    edit(prefix, recount)


def first_padding(prefix: Path) -> int:
    """Return the first token of a packed output that belongs to no sample."""
    columns = pq.read_table(at(prefix, ".sources.parquet")).to_pydict()
    ends: dict[int, int] = {}
    for item, offset, length in zip(columns["item"], columns["offset"], columns["length"], strict=True):
        ends[item] = max(ends.get(item, 0), offset + length)
    return next(200 * item + end for item, end in sorted(ends.items()) if end < 200)


def on_padding(field: str, value: int) -> Damage:
    return lambda prefix: words(field, first_padding(prefix), value)(prefix)


def second_sample(prefix: Path) -> tuple[int, int]:
    """Return offset and row of the second sample of item 0."""
    columns = pq.read_table(at(prefix, ".sources.parquet")).to_pydict()
    own = [(columns["offset"][row], row) for row, item in enumerate(columns["item"]) if item == 0]
    return sorted(own)[1]


def label_second_sample(prefix: Path) -> None:
    """Train the first token of the second sample of item 0, and count accordingly."""
    offset, row = second_sample(prefix)
    ids = np.fromfile(pair(prefix, "input_ids"), "<i4")
    words("labels", offset, int(ids[offset]))(prefix)
    rows(lambda columns: columns["trained"].__setitem__(row, columns["trained"][row] + 1))(prefix)

    def recount(manifest: Manifest) -> None:
        manifest["trained_tokens"] += 1
        manifest["sources"][0]["trained_tokens"] += 1

    edit(prefix, recount)


def shift_second_sample(by: int) -> Damage:
    def damage(prefix: Path) -> None:
        offset, row = second_sample(prefix)
        cell("offset", row, offset + by)(prefix)

    return damage


def move_token(own: Index) -> None:
    """Let item 1 begin a token earlier."""
    lengths = own.lengths.copy()
    lengths[0] -= 1
    lengths[1] += 1
    own.from_lengths(lengths)


def drop_column(prefix: Path) -> None:
    path = at(prefix, ".sources.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["turn"]), path, write_page_checksum=True)


def wider_column(prefix: Path) -> None:
    path = at(prefix, ".sources.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("length")
    column = table.column("length").cast(pa.int64())
    pq.write_table(table.set_column(place, "length", column), path, write_page_checksum=True)


def no_parquet(prefix: Path) -> None:
    path = at(prefix, ".sources.parquet")
    path.write_bytes(path.read_bytes()[:-9])


def swap_rows(columns: dict[str, list[Any]]) -> None:
    for name in ("item", "position"):
        columns[name][0], columns[name][1] = columns[name][1], columns[name][0]


def forget(*path: str) -> Damage:
    def change(manifest: Manifest) -> None:
        own: Any = manifest
        for name in path[:-1]:
            own = own[name]
        del own[path[-1]]

    return lambda prefix: edit(prefix, change)


def write_manifest(make: Callable[[bytes], bytes]) -> Damage:
    def damage(prefix: Path) -> None:
        path = at(prefix, ".manifest.json")
        path.write_bytes(make(path.read_bytes()))

    return damage


def extra_line(prefix: Path) -> None:
    path = at(prefix, ".rejected.jsonl")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]), "utf-8")


def append(suffix: str, raw: bytes) -> Damage:
    def damage(prefix: Path) -> None:
        path = pair(prefix, "labels", suffix)
        path.write_bytes(path.read_bytes() + raw)

    return damage


def other_timings(prefix: Path) -> None:
    change_json(at(prefix, ".timings.json"), lambda own: own.update(manifest_sha256="0f" * 32))


#: What a manifest may say of a file.
ENTRY = {"bytes": 0, "sha256": "0" * 63 + "1"}


def check_found(name: str, damages: Damages, copy_of: Callable[[str], Path]) -> None:
    """Damage an output, and check that just the right groups of checks find it, and name it."""
    kind, damage, right, groups, says = damages[name]
    prefix = copy_of(kind)
    damage(prefix)
    if right:
        reseal(prefix)
    report = verify(str(prefix))
    failed = [check for check in report.checks if check.failed]
    assert not report.ok
    assert tuple(sorted({check.name for check in failed})) == groups, [own.failures for own in failed]
    lines = [line for check in failed for line in check.failures]
    assert any(re.search(says, line) for line in lines), lines
    assert all("\n" not in line for line in lines)
