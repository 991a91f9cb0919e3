"""The columns that data have, against those that a handler reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from mtsft_preproc.errors import DamagedFileError, InputError, SettingsError
from mtsft_preproc.handlers.base import Handler
from mtsft_preproc.readers import InputFile, Shard, readers
from mtsft_preproc.registry import nearest

__all__ = ["METADATA", "check_columns", "check_kept", "first_records"]

#: Field in which data keep what is not a column of its own.
METADATA = "metadata"

logger = logging.getLogger(__name__)

#: Records from the start of a file without a schema that are looked at for its columns.
_PEEK = 1000
#: Bytes of them behind which no more are looked at.
_PEEK_BYTES = 1 << 26


def check_columns(handler: Handler, files: Iterable[InputFile]) -> None:
    """Refuse, before any work, a mapping that the data can't serve.

    Every file must have the columns that the handler needs; a column that ``--map-keys`` names must
    stand in one file at least.

    Raises:
        InputError: A file lacks a needed column.
        SettingsError: No file has a column that ``--map-keys`` names.
    """
    missing = {key: column for key, column in handler.given.items() if column}
    seen: dict[str, None] = {}
    for file in files:
        present = _columns_of(file)
        if present is None:
            continue  # A file without records lacks nothing.
        if len(set(present)) != len(present):
            twice = sorted({name for name in present if present.count(name) > 1})
            raise InputError(f"{file.path}: two columns have the name {' and '.join(map(repr, twice))}")
        seen.update(dict.fromkeys(present))
        missing = {
            key: column
            for key, column in missing.items()
            if column not in present and not readers.get(file.kind).may_hold(file, column)
        }
        for group in handler.required:
            wanted = [handler.columns[key] for key in group if key in handler.columns]
            if not any(column in present or _comes_later(file, column) for column in wanted):
                raise InputError(
                    f"{file.path}: no column {' or '.join(map(repr, wanted)) or repr(group[0])} "
                    f"(--map-keys {'/'.join(group)}); {_hint(wanted, present)}"
                )
    for key, column in missing.items():
        if seen:
            raise SettingsError(
                f"--map-keys: {key!r}: the data has no column {column!r}; {_hint([column], list(seen))}"
            )
    for key, names in handler.usual.items():
        unread = [name for name in names if name in seen and name not in handler.columns.values()]
        if unread and key not in handler.columns:
            logger.warning(
                "the data has a column %r, which is not read; to read it: --map-keys '{\"%s\":\"%s\"}'",
                unread[0], key, unread[0],
            )  # fmt: skip


def check_kept(names: Sequence[str], files: Iterable[InputFile]) -> None:
    """Refuse columns to keep that no file has, neither as a column nor in its ``metadata``.

    Raises:
        SettingsError: There is none of that name.
    """
    if not names:
        return
    files = list(files)
    present: dict[str, None] = {}
    for file in files:
        present.update(dict.fromkeys(_columns_of(file) or ()))
        if any(name not in present for name in names) and METADATA in present:
            for record in first_records(file):
                inner = record.get(METADATA)
                if isinstance(inner, str):
                    # What stands in JSON text is looked for when it is read.
                    return
                present.update(dict.fromkeys(inner if isinstance(inner, dict) else ()))
    for name in names:
        if name not in present and not any(_comes_later(file, name) for file in files):
            hint = _hint([name], list(present))
            raise SettingsError(f"--keep-columns: the data has no column {name!r}; {hint}")


def _comes_later(file: InputFile, column: str) -> bool:
    """Return whether a needed column may stand in records behind the first ones."""
    return file.compression is None and readers.get(file.kind).may_hold(file, column)


def _columns_of(file: InputFile) -> list[str] | None:
    try:
        columns = readers.get(file.kind).columns(file)
    except DamagedFileError:
        if not file.rules.past_damage:
            raise
        return None
    if columns is not None:
        return columns
    found: dict[str, None] = {}
    records = first_records(file)
    for record in records:
        found.update(dict.fromkeys(record))
    return list(found) if records else None


def first_records(file: InputFile, count: int = _PEEK) -> list[dict[str, Any]]:
    """Return the first records of a file, those that can't be parsed left out, and no more than fit."""
    shard = Shard(0, 0, file, *_first_cut(file), max_records=count)
    records: list[dict[str, Any]] = []
    size = 0
    for batch in readers.get(file.kind).read(shard):
        records += [record.value for record in batch.records]
        size += batch.size
        if size > _PEEK_BYTES:
            break
    return records


def _first_cut(file: InputFile) -> tuple[int, int]:
    return next(iter(readers.get(file.kind).pieces(file, 1 << 20)), (0, 0))


def _hint(wanted: Sequence[str], present: Sequence[str]) -> str:
    if not wanted:
        return f"available: {', '.join(present)}"
    return nearest(wanted[0], list(present))
