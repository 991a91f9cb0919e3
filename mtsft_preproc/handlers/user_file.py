"""Handlers of the user's own, out of a Python file that ``--handler-path`` names."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers.base import DialogueHandler, Handler, PairHandler, TextHandler, handlers

__all__ = ["handler", "load_user_handlers", "user_file_sha256"]

H = TypeVar("H", bound=type[Handler])

_KINDS = (DialogueHandler, PairHandler, TextHandler)
#: Words that ``--handler-name`` takes and that are no handler.
_RESERVED = ("auto", "LlamaFactoryInstructionHandler", "llama-factory")

#: Module that each file was loaded as, by the file's real path.
_modules: dict[str, str] = {}
#: Full names of the handlers that each module registered.
_names: dict[str, list[str]] = {}


def handler(name: str, *aliases: str) -> Callable[[H], H]:
    """Return a decorator that makes a class a handler which ``--handler-name`` knows as ``name``.

    Args:
        name: The full name.
        aliases: Further names.

    Raises:
        SettingsError: The class can't be a handler, or a name is taken already.
    """
    if isinstance(name, type):
        raise SettingsError(f'class {name.__name__}: write @handler("its-name") in front of it')

    def register(cls: H) -> H:
        for label in (name, *aliases):
            if not isinstance(label, str) or not label.strip() or label in _RESERVED:
                raise SettingsError(
                    f"handler {label!r}: expected a name, but none of {', '.join(_RESERVED)}"
                )
        _check(cls, name)
        try:
            handlers.add(name, cls, *aliases)
        except ValueError as error:
            raise SettingsError(f"{error}; take a name of its own") from None
        return cls

    return register


def user_file_sha256(path: str) -> str:
    """Return the hash of what the file holds, for the fingerprint of a run.

    Raises:
        SettingsError: The file can't be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def load_user_handlers(path: str) -> list[str]:
    """Run a Python file and return the names of the handlers that it registers.

    What a file holds is run once per process; a file that was changed since takes the place of what it
    held before. Its module is named by its content, so that the objects of its classes go to another
    process that has loaded the file, too, and to none that has loaded another state of it.

    Raises:
        SettingsError: The file can't be read or run, or registers no handler.
    """
    source = _read(path)
    place = os.path.realpath(path)
    module = f"mtsft_user_handlers_{hashlib.sha256(source).hexdigest()[:32]}"
    if module not in _names:
        earlier = _modules.get(place)
        replaced = _forget(earlier) if earlier else []
        try:
            _names[module] = _run(source, module, path)
        except SettingsError:
            _restore(earlier, replaced)
            raise
        if earlier:
            sys.modules.pop(earlier, None)
    _modules[place] = module
    return list(_names[module])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"--handler-path: {path}: {reason}; expected a Python file") from None


def _run(source: bytes, name: str, path: str) -> list[str]:
    """Run the source as a module and return the names of the handlers that are new."""
    before = set(handlers.names())
    module = ModuleType(name)
    module.__file__ = path
    # Classes look up their module while they are made (dataclasses do), and pickle looks it up by name.
    sys.modules[name] = module
    try:
        # Not by the import system: its bytecode cache doesn't see a change within the same second.
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
        found = [label for label in handlers.names() if label not in before]
        if not found:
            raise SettingsError('it registers no handler; expected a class under @handler("its-name")')
    except (Exception, SystemExit) as error:
        for label in handlers.names():
            if label not in before:
                handlers.discard(label)
        del sys.modules[name]
        line = _line(error, path)
        where = f"{path}, line {line}" if line else path
        what = str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"--handler-path: {where}: {what}") from error
    return found


def _line(error: BaseException, path: str) -> int | None:
    """Return the line of the file on which an error came up; None where it did not come out of a line."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None


def _forget(module: str) -> list[tuple[str, type[Handler], list[str]]]:
    """Take a module's handlers out of the registry and return them with their names and aliases."""
    taken = [(name, handlers.get(name), handlers.aliases(name)) for name in _names.pop(module, [])]
    for name, _, _ in taken:
        handlers.discard(name)
    return taken


def _restore(module: str | None, taken: Sequence[tuple[str, type[Handler], list[str]]]) -> None:
    if module is not None and taken:
        _names[module] = [name for name, _, _ in taken]
        for name, cls, aliases in taken:
            handlers.add(name, cls, *aliases)


def _check(cls: Any, name: str) -> None:
    """Refuse a class that can't be a handler, and say all that it lacks."""
    kinds = ", ".join(kind.__name__ for kind in _KINDS)
    if not isinstance(cls, type) or not issubclass(cls, _KINDS):
        called = getattr(cls, "__name__", repr(cls))
        raise SettingsError(f"handler {name!r}: {called} is no class of the kind {kinds}")
    lacks = [f"{method}()" for method in sorted(getattr(cls, "__abstractmethods__", ()))]
    lacks += [attribute for attribute in ("keys", "required") if not hasattr(cls, attribute)]
    if lacks:
        raise SettingsError(f"handler {name!r}: class {cls.__name__} lacks {', '.join(lacks)}")
    keys, required = cls.keys, cls.required
    if not isinstance(keys, Mapping) or not all(_is_key(key, column) for key, column in keys.items()):
        raise SettingsError(
            f"handler {name!r}: keys: expected the column of the data (or None) by key, as in "
            f'{{"question": "question"}}, got {keys!r}'
        )
    known = cls.all_keys()
    groups = required if isinstance(required, list | tuple) else [required]
    if not all(isinstance(group, list | tuple) and group and set(group) <= set(known) for group in groups):
        raise SettingsError(
            f"handler {name!r}: required: expected groups of keys of which the data must have one, as in "
            f'(("question",), ("answer",)), out of {", ".join(known)}; got {required!r}'
        )


def _is_key(key: object, column: object) -> bool:
    return isinstance(key, str) and (column is None or isinstance(column, str))
