"""What the files of a tokenizer folder say about chats, in a form that can be hashed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import TokenizerError

__all__ = ["chat_templates", "checked_templates", "named_templates", "read_settings", "stop_ids"]


def chat_templates(folder: Path, config: Any) -> tuple[tuple[str, str], ...]:
    """Return the chat templates of ``folder`` by name, as transformers finds them.

    Args:
        folder: The tokenizer folder.
        config: Its ``tokenizer_config.json``'s entry; files go before it.

    Raises:
        TokenizerError: The entry is no chat template.
    """
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    default = folder / "chat_template.jinja"
    if default.is_file():
        files.setdefault("default", default)
    if files:
        return named_templates({name: path.read_text("utf-8") for name, path in files.items()})
    return checked_templates(folder, config)


def checked_templates(folder: Path, config: Any) -> tuple[tuple[str, str], ...]:
    """Return what an entry of ``tokenizer_config.json`` holds, as :func:`named_templates` does.

    Raises:
        TokenizerError: The entry is no chat template; the message names ``folder``.
    """
    try:
        return named_templates(config)
    except (AttributeError, KeyError, TypeError):
        raise TokenizerError(
            f"{folder}: chat_template in tokenizer_config.json: expected text or a list of objects with "
            f"'name' and 'template', found {type(config).__name__}"
        ) from None


def named_templates(value: Any) -> tuple[tuple[str, str], ...]:
    """Return what a tokenizer's ``chat_template`` holds as (name, template) pairs, sorted by name.

    >>> named_templates("{{ x }}")
    (('default', '{{ x }}'),)
    >>> named_templates([{"name": "tool_use", "template": "b"}, {"name": "default", "template": "a"}])
    (('default', 'a'), ('tool_use', 'b'))
    >>> named_templates(None)
    ()
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (("default", value),)
    if isinstance(value, list):
        value = {entry["name"]: entry["template"] for entry in value}
    if not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError("a name or a template that is no text")
    return tuple(sorted(value.items()))


def stop_ids(folder: Path, eos_id: int) -> tuple[int, ...]:
    """Return the ids that end generation: ``eos_id``, then those in ``generation_config.json``.

    Raises:
        TokenizerError: The file is there and can't be read.
    """
    path = folder / "generation_config.json"
    found = read_settings(path).get("eos_token_id") if path.is_file() else None
    ids: Iterable[Any] = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(index) is int for index in ids):
        raise TokenizerError(f"{path}: eos_token_id is an id or a list of ids, not {found!r}")
    return tuple(dict.fromkeys([eos_id, *ids]))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        TokenizerError: The file holds something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found
