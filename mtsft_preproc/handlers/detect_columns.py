"""What the first records hold, column by column: the material of :mod:`mtsft_preproc.handlers.detect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mtsft_preproc.handlers.base import handlers

__all__ = ["Columns", "Detected", "UnclearError", "found", "holds_objects"]

#: Columns that an error message describes at most.
_DESCRIBED = 12


@dataclass(frozen=True)
class Detected:
    """What the records are.

    Attributes:
        handler: Full name of the handler that reads them.
        map_keys: Its map-keys; only what is not the default.
        why: What tells so, and which columns are not read, for the user to check.
    """

    handler: str
    map_keys: dict[str, Any]
    why: str


class UnclearError(Exception):
    """A format nearly fits; the message says what is in the way."""


class Columns:
    """The values of the first records by column.

    Args:
        records: The records.
        texts: Columns in which JSON text is what somebody says.

    Attributes:
        raw: What is not null, as the data hold it.
        values: The same, where JSON text of a list or an object counts as what it holds.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], texts: Collection[str] = ()) -> None:
        self.raw: dict[str, list[Any]] = {}
        for record in records:
            for name, value in record.items():
                held = self.raw.setdefault(name, [])
                if value is not None:
                    held.append(value)
        self.values = {
            name: held if name in texts else [_open(value) for value in held]
            for name, held in self.raw.items()
        }

    def plain(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` that are columns of no objects, as the data spell them."""
        spelled = {name.lower(): name for name in self.raw} | {name: name for name in self.raw}
        return [spelled[name] for name in names if name in spelled and not self._structured(spelled[name])]

    def _structured(self, name: str) -> bool:
        held = self.raw[name]
        return 2 * sum(holds_objects(value) for value in held) > len(held)

    def is_text(self, name: str) -> bool:
        """Return whether most of what a column holds is text."""
        held = self.raw.get(name, [])
        return 2 * sum(isinstance(value, str) for value in held) > len(held)

    def beside(self, *names: str) -> dict[str, str]:
        """Return the mapping of those keys that are columns of the same name."""
        return {name: name for name in names if name in self.raw}

    def lists(self, name: str) -> list[list[Mapping[str, Any]]]:
        """Return the lists of a column that mostly holds lists of objects; else none."""
        lists = [value for value in self.values[name] if isinstance(value, list)]
        objects = [[entry for entry in value if isinstance(entry, Mapping)] for value in lists]
        if 2 * len(lists) <= len(self.values[name]) or 2 * sum(map(len, objects)) <= sum(map(len, lists)):
            return []
        return [value for value in objects if value]

    def describe(self) -> str:
        """Return the columns with what they hold, for an error message."""
        said = [f"{name!r} ({self._holds(name)})" for name in list(self.raw)[:_DESCRIBED]]
        more = len(self.raw) - len(said)
        return ", ".join(said) + (f" and {more} more" if more else "")

    def _holds(self, name: str) -> str:
        lists = self.lists(name)
        if lists:
            return f"lists of objects with {', '.join(map(repr, lists[0][0]))}"
        kinds = Counter(type(value).__name__ for value in self.values[name])
        kind = kinds.most_common(1)[0][0] if kinds else "null"
        return {"str": "text", "dict": "objects", "list": "lists"}.get(kind, kind)


def holds_objects(value: Any) -> bool:
    """Return whether a value is an object or a list of them."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, Mapping) for entry in value)
    return isinstance(value, Mapping)


def found(
    columns: Columns,
    handler: str,
    why: str,
    mapped: Mapping[str, str] | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    reads: Sequence[str] = (),
) -> Detected:
    """Return a find.

    Args:
        columns: The columns; those that hold something and are not read are named.
        handler: Full name of the handler.
        why: What tells so.
        mapped: Column by key of the handler; what it reads by default anyway is left out.
        tags: The tags that are not the defaults.
        reads: Columns that the handler reads by other means than its keys.
    """
    keys = handlers.get(handler).all_keys()
    read = {*reads, *{**keys, **(mapped or {})}.values()}
    unread = [name for name, held in columns.raw.items() if held and name not in read]
    if unread:
        why = f"{why}; not read: {', '.join(map(repr, unread))}"
    map_keys: dict[str, Any] = {
        key: column for key, column in (mapped or {}).items() if (keys.get(key) or "") != column
    }
    if tags:
        map_keys["tags"] = dict(tags)
    return Detected(handler, map_keys, why)


def _open(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except ValueError:
            return value
    return value
