"""Names that the command line takes, and what they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from mtsft_preproc.errors import SettingsError

__all__ = ["Registry", "nearest"]

T = TypeVar("T")


def nearest(name: str, choices: list[str]) -> str:
    """Return the part of an error message that helps: the nearest names, then all of them.

    >>> nearest("quen", ["gemma", "qwen"])
    "did you mean 'qwen'? available: gemma, qwen"
    """
    folded = {choice.lower(): choice for choice in choices}
    close = [folded[hit] for hit in difflib.get_close_matches(name.lower(), list(folded), n=3)]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}available: {', '.join(sorted(choices)) or '(none)'}"


class Registry(Generic[T]):
    """A table of names that refuses duplicates and never falls back.

    Args:
        what: What the names stand for, as an error message calls it, and the flag that takes them:
            ``Registry("handler", "--handler-name")``.
    """

    def __init__(self, what: str, flag: str) -> None:
        self._what = what
        self._flag = flag
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def add(self, name: str, entry: T, *aliases: str) -> T:
        """Register ``entry`` under ``name`` and ``aliases``.

        Raises:
            ValueError: A name is taken already; two entries of one name are a bug in the program.
        """
        for label in (name, *aliases):
            if label in self._entries or label in self._aliases:
                raise ValueError(f"{self._what} {label!r} is registered twice")
        self._entries[name] = entry
        self._aliases.update(dict.fromkeys(aliases, name))
        return entry

    def discard(self, name: str) -> None:
        """Take away the entry with the full name ``name``, if there is one, and its aliases."""
        self._entries.pop(name, None)
        self._aliases = {alias: full for alias, full in self._aliases.items() if full != name}

    def aliases(self, name: str) -> list[str]:
        """Return the further names of the entry with the full name ``name``."""
        return [alias for alias, full in self._aliases.items() if full == name]

    def canonical(self, name: str) -> str:
        """Return the full name behind ``name``.

        Raises:
            SettingsError: Nothing is registered under it; the message names the nearest and all names.
        """
        if name in self._entries:
            return name
        if name in self._aliases:
            return self._aliases[name]
        known = [*self._entries, *self._aliases]
        raise SettingsError(f"{self._flag}: unknown {self._what} {name!r}; {nearest(name, known)}")

    def get(self, name: str) -> T:
        """Return what ``name`` stands for.

        Raises:
            SettingsError: As :meth:`canonical`.
        """
        return self._entries[self.canonical(name)]

    def names(self) -> list[str]:
        """Return the full names, in the order of registration."""
        return list(self._entries)

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries.values())
