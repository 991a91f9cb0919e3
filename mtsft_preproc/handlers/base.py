"""What every handler offers, and the rules for ``--map-keys``."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, shorten
from mtsft_preproc.errors import InputError, RecordError, SettingsError
from mtsft_preproc.readers import InputFile, Shard, readers
from mtsft_preproc.registry import Registry, nearest

__all__ = ["Handler", "check_columns", "handlers", "make_handler", "text_field"]

logger = logging.getLogger(__name__)

#: Records from the start of a file without a schema that are looked at for its columns.
_PEEK = 1000


class Handler(ABC):
    """Turns the records of one data format into dialogues.

    Args:
        map_keys: Columns of the data by key of the handler; what is not given keeps its default, and
            ``""`` leaves a key without a column.

    Raises:
        SettingsError: A key that the handler doesn't have.
    """

    #: The handler's keys with the column that each stands for by default; None: no column by default.
    keys: ClassVar[Mapping[str, str | None]]
    #: Keys of which the data must have a column (one of each group is enough).
    required: ClassVar[Sequence[Sequence[str]]]
    #: Names that data often have for a key without a default; one that is not read is worth a warning.
    usual: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, map_keys: Mapping[str, str] | None = None) -> None:
        given = dict(map_keys or {})
        for key in given:
            if key not in self.keys:
                raise SettingsError(f"--map-keys: unknown key {key!r}; {nearest(key, list(self.keys))}")
        for key, column in given.items():
            if not isinstance(column, str):
                raise SettingsError(
                    f"--map-keys: {key!r}: expected the name of a column, got {shorten(column)}"
                )
        self.given = given
        #: Column of each key that has one.
        self.columns: dict[str, str] = {
            key: column for key, column in {**self.keys, **given}.items() if column
        }
        self._refuse_twins()

    def _refuse_twins(self) -> None:
        """Refuse one column for two keys: its text would stand in the dialogue twice."""
        taken: dict[str, str] = {}
        for key, column in self.columns.items():
            if column in taken:
                twin = taken[column] if taken[column] not in self.given else key
                raise SettingsError(
                    f"--map-keys: {taken[column]!r} and {key!r} both stand for the column {column!r}; "
                    f'expected another column for one of them, or none: {{"{twin}": ""}}'
                )
            taken[column] = key

    @abstractmethod
    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        """Return the dialogue of one record.

        Raises:
            RecordError: The record can't be one.
        """


def make_handler(config: PreprocessConfig) -> Handler:
    """Return the handler that the settings name.

    Raises:
        SettingsError: There is none of that name, or ``--map-keys`` doesn't fit it.
    """
    return handlers.get(config.handler_name)(config.mapped())


#: All handlers, by the names that ``--handler-name`` takes.
handlers: Registry[type[Handler]] = Registry("handler", "--handler-name")


def text_field(record: Mapping[str, Any], column: str | None) -> str | None:
    """Return a field that holds text, or None where it is null, absent or not mapped.

    Raises:
        RecordError: ``wrong-type``.
    """
    value = record.get(column) if column else None
    if value is not None and not isinstance(value, str):
        raise RecordError("wrong-type", column or "", "text", shorten(value))
    return value


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


def _comes_later(file: InputFile, column: str) -> bool:
    """Return whether a needed column may stand in records behind the first ones."""
    return file.compression is None and readers.get(file.kind).may_hold(file, column)


def _columns_of(file: InputFile) -> list[str] | None:
    reader = readers.get(file.kind)
    columns = reader.columns(file)
    if columns is not None:
        return columns
    found: dict[str, None] = {}
    shard = Shard(0, 0, file, *_first_cut(file), max_records=_PEEK)
    records = 0
    for batch in reader.read(shard):
        records += len(batch.records)
        for record in batch.records:
            found.update(dict.fromkeys(record.value))
    return list(found) if records else None


def _first_cut(file: InputFile) -> tuple[int, int]:
    return next(iter(readers.get(file.kind).cut(file, 1 << 20)), (0, 0))


def _hint(wanted: Sequence[str], present: Sequence[str]) -> str:
    if not wanted:
        return f"available: {', '.join(present)}"
    return nearest(wanted[0], list(present))
