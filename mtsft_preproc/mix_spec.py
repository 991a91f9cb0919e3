"""The file behind ``--mix``: named sources with their inputs, handlers and weights.

YAML, and so JSON as well::

    weights_by: samples                        # or trained_tokens
    sources:
      chats:
        input: [a.parquet, more/*.jsonl]       # or one text; as behind --input
        handler: AlpacaStyleInstructionHandler # default: --handler-name
        map_keys: {history: histories}         # default: --map-keys
        weight: 0.7                            # or epochs: 2
        max_samples: 1000

Names of fields may have hyphens for underscores.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.mixing import Mix, Source
from mtsft_preproc.registry import nearest

__all__ = ["WEIGHTS_BY", "MixSpec", "SpecEntry", "make_mix", "read_mix_spec"]

#: What weights are shares of.
WEIGHTS_BY = ("samples", "trained_tokens")
_TOP = ("weights_by", "sources")
_FIELDS = ("input", "handler", "map_keys", "weight", "epochs", "max_samples")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class SpecEntry:
    """One source, as it was asked for.

    Attributes:
        name: Its name.
        inputs: Files, folders and globs; never empty.
        handler: Name of its handler as it was given, or None for that of the run.
        map_keys: Columns by key of the handler, or None for those of the run.
        weight: Above 0, or None.
        epochs: Above 0, or None; never beside a weight.
        max_samples: At least 1, or None for all.
    """

    name: str
    inputs: tuple[str, ...]
    handler: str | None = None
    map_keys: dict[str, Any] | None = None
    weight: float | None = None
    epochs: float | None = None
    max_samples: int | None = None


@dataclass(frozen=True)
class MixSpec:
    """What a mix file says.

    Attributes:
        entries: The sources, in its order.
        weights_by: One of :data:`WEIGHTS_BY`.
    """

    entries: tuple[SpecEntry, ...]
    weights_by: str = "samples"


def make_mix(entries: Sequence[SpecEntry], strategy: str, weights_by: str = "samples") -> Mix:
    """Return the mix of sources that take turns by their weights, or, without any, by equal ones.

    Where ``epochs`` are given, they count instead of weights, and a source without is gone through once.
    """
    weights = [entry.weight for entry in entries]
    if strategy != "concat" and all(entry.weight is None and entry.epochs is None for entry in entries):
        weights = [1.0] * len(entries)
    sources = tuple(
        Source(entry.name, weight, 1.0 if entry.epochs is None else entry.epochs, entry.max_samples)
        for entry, weight in zip(entries, weights, strict=True)
    )
    return Mix(strategy, weights_by, sources)


def read_mix_spec(path: str, strategy: str) -> MixSpec:
    """Read a mix file.

    Args:
        path: The file.
        strategy: ``--mix-strategy``, which its weights must go with.

    Raises:
        SettingsError: There is no such file, or something in it is not as it must be. The one line names
            file, source and field.
    """
    try:
        return _spec(_load(path), strategy)
    except SettingsError as error:
        raise SettingsError(f"--mix: {path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Also takes numbers such as ``1e-3`` for numbers, as JSON and YAML 1.2 do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+\Z"), list("-+0123456789")
)


def _load(path: str) -> Any:
    """Return what a YAML file holds.

    Raises:
        SettingsError: It can't be read, is not YAML, or has a key twice in one mapping, of which YAML's
            readers would keep the last without a word.
    """
    try:
        loader = _Loader(Path(path).read_text("utf-8-sig"))
        node = loader.get_single_node()
        _refuse_twice(node, set())
        return None if node is None else loader.construct_document(node)
    except OSError as error:
        raise SettingsError(f"{error.strerror or error}; expected a YAML file with sources") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise SettingsError(f"{where}not YAML: {reason}") from None
    # ValueError: no UTF-8, a date or a number that is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise SettingsError(f"not YAML: {reason}") from None


def _refuse_twice(node: yaml.Node | None, above: set[int]) -> None:
    """Refuse a key that stands twice in one mapping of a YAML document.

    Args:
        node: Root of the document or of a part of it.
        above: ``id()`` of the nodes that have been looked at; an alias stands for its anchor's.
    """
    if node is None or id(node) in above:
        return
    above.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_twice(child, above)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in seen:
                    raise SettingsError(
                        f"line {key.start_mark.line + 1}: {key.value!r} stands there twice; expected each "
                        "name once"
                    )
                seen.add((key.tag, key.value))
            _refuse_twice(key, above)
            _refuse_twice(value, above)


def _spec(content: Any, strategy: str) -> MixSpec:
    if not isinstance(content, dict):
        raise SettingsError(f'expected a mapping with "sources", got {shorten(content)}')
    content = _named(content, _TOP)
    weights_by = content.get("weights_by")
    if "weights_by" in content and weights_by not in WEIGHTS_BY:
        raise SettingsError(
            f"field 'weights_by': expected {' or '.join(WEIGHTS_BY)}, got {shorten(weights_by)}"
        )
    sources = content.get("sources")
    if not isinstance(sources, dict) or not sources:
        got = "none" if sources is None or sources == {} else shorten(sources)
        raise SettingsError(f"field 'sources': expected sources by their names, got {got}")
    entries = tuple(_entry(name, fields) for name, fields in sources.items())
    _check_weights(entries, strategy)
    if weights_by is not None and (strategy == "concat" or any(entry.epochs for entry in entries)):
        other = "--mix-strategy concat" if strategy == "concat" else "epochs"
        raise SettingsError(f"field 'weights_by': expected weights to go with it, got {other}")
    return MixSpec(entries, weights_by or "samples")


def _check_weights(entries: Sequence[SpecEntry], strategy: str) -> None:
    """Refuse weights that don't say the share of every source, or that nothing would come of."""
    weighted = [entry for entry in entries if entry.weight is not None]
    if not weighted:
        return
    if strategy == "concat":
        raise SettingsError(
            f"source {weighted[0].name!r}: field 'weight': expected --mix-strategy interleave_under or "
            "interleave_over with it, got concat"
        )
    for entry in entries:
        if entry.weight is None:
            got = "nothing" if entry.epochs is None else "epochs"
            raise SettingsError(
                f"source {entry.name!r}: field 'weight': expected one, as source {weighted[0].name!r} has, "
                f"got {got}"
            )


def _named(given: dict[Any, Any], known: Sequence[str]) -> dict[str, Any]:
    """Return fields by their names, with underscores for hyphens."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_") if isinstance(key, str) else key
        if name not in known:
            shown = repr(key) if isinstance(key, str) else shorten(key)
            raise SettingsError(f"unknown field {shown}; {nearest(str(name), list(known))}")
        if name in found:
            raise SettingsError(f"field {name!r}: expected it once, got it with a hyphen, too")
        found[name] = value
    return found


def _entry(name: Any, fields: Any) -> SpecEntry:
    if not _is_text(name):
        raise SettingsError(f"field 'sources': expected a text as name of each source, got {shorten(name)}")
    try:
        if not isinstance(fields, dict):
            raise SettingsError(f'expected a mapping with "input", got {shorten(fields)}')
        return _fields(name, _named(fields, _FIELDS))
    except SettingsError as error:
        raise SettingsError(f"source {name!r}: {error}") from None


def _fields(name: str, given: dict[str, Any]) -> SpecEntry:
    def read(field: str, right: Callable[[Any], bool], expected: str) -> Any:
        value = given.get(field)
        if field in given and not right(value):
            raise SettingsError(f"field {field!r}: expected {expected}, got {shorten(value)}")
        return value

    if "input" not in given:
        raise SettingsError("field 'input': expected files, folders or globs, got nothing")
    inputs = read("input", _is_inputs, "a file, folder or glob, or a list of them")
    if "weight" in given and "epochs" in given:
        raise SettingsError("fields 'weight' and 'epochs': expected one of them, got both")
    map_keys = read("map_keys", lambda value: isinstance(value, dict), "a mapping from keys to columns")
    if map_keys is not None:
        _check_map_keys(map_keys)
    weight = read("weight", _is_positive, "a number above 0")
    epochs = read("epochs", _is_positive, "a number above 0")
    return SpecEntry(
        name,
        (inputs,) if isinstance(inputs, str) else tuple(inputs),
        read("handler", _is_text, "the name of a handler"),
        map_keys,
        None if weight is None else float(weight),
        None if epochs is None else float(epochs),
        read("max_samples", _is_count, "a whole number of at least 1"),
    )


def _check_map_keys(map_keys: dict[Any, Any]) -> None:
    """Refuse keys and columns that are no text: YAML takes ``no``, ``5`` and ``2024-01-01`` for none.

    Which keys there are is for the handler to say.
    """
    for key, column in map_keys.items():
        pairs = column.items() if key == "tags" and isinstance(column, dict) else [(key, column)]
        for where, text in pairs:
            if not isinstance(where, str):
                raise SettingsError(f"field 'map_keys': expected texts as keys, got {shorten(where)}")
            if not (text == "" or _is_text(text)):
                raise SettingsError(
                    f"field 'map_keys': {where!r}: expected the name of a column, got {shorten(text)}"
                )


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False  # half a character, by an escape
    return True


def _is_inputs(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and value != [] and all(map(_is_text, value)))


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
