"""LLaMA-Factory's ``dataset_info.json``: which files, formats and columns the names of datasets stand for.

The rules are those of LLaMA-Factory's ``data/README.md`` and ``data/parser.py``. The one that surprises: an
entry with ``columns`` reads no column that it doesn't name, not even those that are the default otherwise.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.registry import nearest

__all__ = ["DatasetEntry", "read_dataset_info"]

_FILE = "dataset_info.json"
_REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_OF_REMOTE = ("subset", "split", "folder", "revision")
_FIELDS = ("file_name", "formatting", "ranking", "num_samples", "columns", "tags", *_REMOTE, *_OF_REMOTE)
#: Columns without which the rest of such a record means something else.
_UNUSABLE = {
    "images": "images can't be trained on here",
    "videos": "videos can't be trained on here",
    "audios": "audio can't be trained on here",
    "kto_tag": "KTO data (a reply with a verdict) has no format here",
}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
#: What the tags are where the messages are those of OpenAI's interface.
_OPENAI_TAGS = {
    "role_tag": ("role",),
    "content_tag": ("content",),
    "user_tag": ("user",),
    "assistant_tag": ("assistant",),
    "observation_tag": ("tool",),
    # LLaMA-Factory wants a name of its own here, though its data tells calls by "tool_calls".
    "function_tag": ("function_call", "function", "assistant", "tool_calls"),
    "system_tag": ("system", "developer"),
}


@dataclass(frozen=True)
class _Format:
    """How the records of a formatting are read.

    Attributes:
        handler: Full name of the handler.
        columns: The handler's keys with LLaMA-Factory's default columns; ``""``: not read by default.
        always: Keys that keep their default where ``columns`` doesn't name them, since there is nothing to
            read without them.
    """

    handler: str
    columns: Mapping[str, str]
    always: frozenset[str] = frozenset()


_ROW = {"prompt": "instruction", "query": "input"}
_BESIDE = {"history": "", "system": ""}
_CHAT = {"messages": "conversations", "system": "", "tools": ""}
_PAIR = {"chosen": "chosen", "rejected": "rejected"}
#: By formatting and ranking.
_FORMATS: dict[tuple[str, bool], _Format] = {
    ("alpaca", False): _Format("AlpacaStyleInstructionHandler", {**_ROW, "response": "output", **_BESIDE}),
    ("alpaca", True): _Format("AlpacaStylePairwiseHandler", {**_ROW, **_PAIR, **_BESIDE}, frozenset(_PAIR)),
    ("sharegpt", False): _Format("SharegptStyleInstructionHandler", _CHAT, frozenset({"messages"})),
    ("sharegpt", True): _Format(
        "SharegptStylePairwiseHandler", {**_CHAT, **_PAIR}, frozenset({"messages", *_PAIR})
    ),
    ("openai", False): _Format("OpenAIInstructionHandler", _CHAT, frozenset({"messages"})),
}


@dataclass(frozen=True)
class DatasetEntry:
    """One dataset of ``dataset_info.json``.

    Attributes:
        name: The name under which it stands there.
        path: Its file or folder.
        handler: Full name of the handler that reads it.
        map_keys: The handler's map-keys.
        max_samples: How many of its records are read, from the first, or None for all.
    """

    name: str
    path: str
    handler: str
    map_keys: dict[str, Any]
    max_samples: int | None = None


def read_dataset_info(folder: str | None, names: str) -> list[DatasetEntry]:
    """Return the datasets that ``names`` lists, in its order.

    Args:
        folder: The folder of ``dataset_info.json``, in which the files of the datasets are, too.
        names: Names with commas between them; of ``a/b``, the part behind the last ``/`` counts.

    Raises:
        SettingsError: There is no such file, name or data, or the entry asks for what can't be done.
    """
    if folder is None:
        raise SettingsError(
            "--dataset-dir: LlamaFactoryInstructionHandler needs the folder of dataset_info.json"
        )
    info = _load(folder)
    wanted = [name.strip().rsplit("/", 1)[-1].strip() for name in names.split(",")]
    if not all(wanted):
        raise SettingsError(f"--input: expected names of datasets with commas between them, got {names!r}")
    for name in wanted:
        if name not in info:
            where = os.path.join(folder, _FILE)
            raise SettingsError(f"--input: {where} has no dataset {name!r}; {nearest(name, list(info))}")
    return [_entry(folder, name, info[name]) for name in wanted]


def _load(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, _FILE)
    try:
        info = json.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"--dataset-dir: {path}: {reason}; expected LLaMA-Factory's {_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--dataset-dir: {path}: not JSON ({error})") from None
    if not isinstance(info, dict):
        raise SettingsError(
            f"--dataset-dir: {path}: expected an object, by name of dataset, got {shorten(info)}"
        )
    return info


def _entry(folder: str, name: str, entry: Any) -> DatasetEntry:
    try:
        if not isinstance(entry, dict):
            raise SettingsError(f"expected an object, got {shorten(entry)}")
        _refuse_unknown(entry)
        _refuse_remote(entry)
        path = os.path.join(folder, _typed(entry, "file_name", str, "the name of a file or folder"))
        if not os.path.exists(path):
            raise SettingsError(f'"file_name": there is no {str(path)!r}')
        kind, shape = _format(entry)
        map_keys: dict[str, Any] = _columns(entry, kind, shape)
        tags = _tags(entry, kind)
        if tags:
            map_keys["tags"] = tags
        return DatasetEntry(name, path, shape.handler, map_keys, _max_samples(entry))
    except SettingsError as error:
        where = os.path.join(folder, _FILE)
        raise SettingsError(f"--dataset-dir: {where}, dataset {name!r}: {error}") from None


def _typed(entry: Mapping[str, Any], field: str, kind: type, expected: str, default: Any = None) -> Any:
    value = entry.get(field)
    if value is None:
        value = default
    if not isinstance(value, kind) or value == "":
        raise SettingsError(f'"{field}": expected {expected}, got {shorten(value)}')
    return value


def _refuse_unknown(entry: Mapping[str, Any]) -> None:
    """Refuse a field that is a known one but for its spelling; further fields are comments."""
    for field in entry:
        close = difflib.get_close_matches(field, _FIELDS, n=1, cutoff=0.7)
        if field not in _FIELDS and close:
            raise SettingsError(f"unknown field {field!r}; did you mean {close[0]!r}?")


def _refuse_remote(entry: Mapping[str, Any]) -> None:
    for field in _REMOTE:
        if entry.get(field) is not None:
            raise SettingsError(
                f'"{field}": nothing is downloaded, and no script of the data is run; save the data in the '
                f'folder and name them in "file_name" instead of "{field}"'
            )
    for field in _OF_REMOTE:
        if entry.get(field) is not None and (field, entry[field]) != ("split", "train"):
            raise SettingsError(
                f'"{field}": {entry[field]!r} is a part of a dataset on a hub, which a local file lacks'
            )


def _format(entry: Mapping[str, Any]) -> tuple[str, _Format]:
    kind = _typed(entry, "formatting", str, "text", "alpaca")
    ranking = _typed(entry, "ranking", bool, "true or false", False)
    kinds = list(dict.fromkeys(known for known, _ in _FORMATS))
    if kind not in kinds:
        raise SettingsError(f'"formatting": unknown {kind!r}; {nearest(kind, kinds)}')
    if (kind, ranking) not in _FORMATS:
        able = ", ".join(known for known, ranked in _FORMATS if ranked is ranking)
        raise SettingsError(f'"ranking": there is none for the formatting {kind}; available: {able}')
    return kind, _FORMATS[kind, ranking]


def _columns(entry: Mapping[str, Any], kind: str, shape: _Format) -> dict[str, Any]:
    if entry.get("columns") is None:
        return dict(shape.columns)
    columns = _typed(entry, "columns", dict, "an object")
    # To LLaMA-Factory, null is as good as not named.
    named = {key: column for key, column in columns.items() if column is not None}
    for key, column in named.items():
        if key in _UNUSABLE:
            raise SettingsError(f'"columns": "{key}": {_UNUSABLE[key]}')
        if key not in shape.columns:
            ranking = "with" if "chosen" in shape.columns else "without"
            raise SettingsError(
                f'"columns": the formatting {kind} {ranking} "ranking" reads no {key!r}; '
                f"{nearest(key, list(shape.columns))}"
            )
        if not isinstance(column, str) or not column:
            raise SettingsError(f'"columns": "{key}": expected the name of a column, got {shorten(column)}')
    return {
        key: named.get(key, default if key in shape.always else "")
        for key, default in shape.columns.items()
    }


def _tags(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the tags that are not the handler's defaults."""
    if entry.get("tags") is None:
        return {}
    given = {
        tag: name for tag, name in _typed(entry, "tags", dict, "an object").items() if name is not None
    }
    if kind == "alpaca" and given:
        raise SettingsError('"tags": the formatting alpaca has none; expected "formatting": "sharegpt"')
    for tag, name in given.items():
        if tag not in _TAGS:
            raise SettingsError(f'"tags": unknown tag {tag!r}; {nearest(tag, list(_TAGS))}')
        if not isinstance(name, str):
            raise SettingsError(f'"tags": "{tag}": expected text, got {shorten(name)}')
        if kind == "openai" and name not in _OPENAI_TAGS[tag]:
            able = " or ".join(map(repr, _OPENAI_TAGS[tag]))
            raise SettingsError(
                f'"tags": "{tag}": the formatting openai has {able}, got {name!r}; '
                'expected "formatting": "sharegpt"'
            )
    return {} if kind == "openai" else {tag: name for tag, name in given.items() if name != _TAGS[tag]}


def _max_samples(entry: Mapping[str, Any]) -> int | None:
    samples = entry.get("num_samples")
    if samples is None:
        return None
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise SettingsError(f'"num_samples": expected a positive integer, got {shorten(samples)}')
    return samples
