"""The files that a dataset was made of: where they lie now, and whether they are still the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import InputError
from mtsft_preproc.hashing import hashing_threads, start_hashing
from mtsft_preproc.readers import InputFile, find_inputs

__all__ = ["HASHES", "InputFiles"]

_THREADS = 2
#: Forms of hashes, as the manifest names them.
HASHES = ("sha256", "sha256_by_chunk")


class InputFiles:
    """Finds the files that manifests name.

    A file that has the size of then, and was not written since the dataset was, is taken for the same; else
    its content decides, whose hash the manifest tells. :meth:`check` looks at that anyway.

    Args:
        entries: The manifest's entries on its inputs.
        made: When the dataset was made, in nanoseconds: the time of its manifest.
        given: Files (folders, patterns) that take the place of those, for data that moved: matched by their
            names where these tell them apart, else in their order. None: the manifest's paths.
        flag: The flag by which they are given, for messages.

    Raises:
        InputError: What is given is not there, or does not fit.
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]],
        made: int,
        given: Sequence[str] | None = None,
        flag: str = "--input",
    ) -> None:
        self._flag = flag
        self._made = made
        self._places = {own["path"]: own["path"] for own in entries}
        self._known: dict[str, InputFile | InputError] = {}
        self._checked: dict[str, InputError | None] = {}
        if given is not None:
            self._places = _matched(list(self._places), _paths(given, flag), flag)

    def check_sizes(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Look whether what was given can be what it stands for, without reading it.

        Raises:
            InputError: A file has another size.
        """
        for entry in entries:
            place = self._places[entry["path"]]
            if (size := os.path.getsize(place)) != entry["bytes"]:
                raise InputError(
                    f"{self._flag}: {place}: {size} bytes; expected {entry['path']} of which the dataset "
                    f"was made, {entry['bytes']} bytes"
                )

    def open(self, entry: Mapping[str, Any]) -> InputFile:
        """Return a file, ready to be read.

        Args:
            entry: The manifest's entry on it.

        Raises:
            InputError: It is gone, or is not what it was.
        """
        path = entry["path"]
        if path not in self._known:
            try:
                self._known[path] = self._find(entry)
            except InputError as error:
                self._known[path] = error
        found = self._known[path]
        if isinstance(found, InputError):
            raise found
        return found

    def _find(self, entry: Mapping[str, Any]) -> InputFile:
        place = self._places[entry["path"]]
        if not os.path.isfile(place):
            where = "" if os.path.isabs(place) else f" (looked up from {os.getcwd()})"
            raise InputError(f"{place}: no such file{where}; the dataset was made of it")
        try:
            [file] = find_inputs([place])
        except InputError as error:
            raise InputError(str(error).removeprefix("--input: ")) from None
        if file.size != entry["bytes"]:
            raise InputError(
                f"{place}: changed since the dataset was made of it: {file.size} bytes, the manifest says "
                f"{entry['bytes']}"
            )
        if file.modified > self._made:
            self.check(entry)
        return file

    def check(self, entry: Mapping[str, Any]) -> None:
        """Read all of a file, once, to see whether it is what it was.

        Raises:
            InputError: It isn't, or can't be read.
        """
        path = entry["path"]
        if path not in self._checked:
            self._checked[path] = self._compare(Path(self._places[path]), entry)
        if (error := self._checked[path]) is not None:
            raise error

    def _compare(self, place: Path, entry: Mapping[str, Any]) -> InputError | None:
        try:
            with hashing_threads(_THREADS) as threads:
                found = start_hashing(place, threads)()
        except OSError as error:
            return InputError(f"{place}: {error.strerror}")
        except InputError as error:
            return error
        for form in HASHES:
            if form in entry and entry[form] != found.get(form):
                return InputError(
                    f"{place}: changed since the dataset was made of it: {form} "
                    f"{str(found.get(form))[:12]}, the manifest says {entry[form][:12]}"
                )
        return None


def _paths(given: Sequence[str], flag: str) -> list[str]:
    """Return the files behind what was given."""
    try:
        return [file.path for file in find_inputs(given)]
    except InputError as error:
        raise InputError(f"{flag}: {str(error).removeprefix('--input: ')}") from None


def _matched(paths: list[str], given: list[str], flag: str) -> dict[str, str]:
    """Return what takes the place of each path."""
    names = [os.path.basename(path) for path in paths]
    by_name = {os.path.basename(path): path for path in given}
    if len(by_name) == len(given) and len(set(names)) == len(names) and set(names) <= by_name.keys():
        return {path: by_name[name] for path, name in zip(paths, names, strict=True)}
    if len(given) == len(paths):
        return dict(zip(paths, given, strict=True))
    raise InputError(
        f"{flag}: the dataset was made of {len(paths)} files ({', '.join(names[:5])}"
        f"{', ...' if len(names) > 5 else ''}); expected as many, or files of these names, got {len(given)}"
    )
