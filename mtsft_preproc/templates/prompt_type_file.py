"""Reads a user's own prompt types: a JSON file in the form of MindSpeed-LLM's ``templates.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.errors import SettingsError, TemplateError
from mtsft_preproc.registry import Registry
from mtsft_preproc.templates.prompt_type import Element, Elements, PromptType, Special, Style, Token
from mtsft_preproc.templates.tool_text import tool_formats

__all__ = ["read_prompt_types"]

_FORMATS = {
    "format_user": "user",
    "format_assistant": "assistant",
    "format_system": "system",
    "format_function": "function",
    "format_observation": "observation",
    "format_separator": "separator",
    "format_prefix": "prefix",
}
#: Entries that are taken over as they are, with the type that each must have.
_PLAIN: dict[str, type] = {"default_system": str, "efficient_eos": bool, "replace_eos": bool}
#: Known to the original and without effect on what it writes.
_IGNORED = frozenset({"force_system", "image_token", "video_token", "format_tools"})


def read_prompt_types(path: str) -> Registry[PromptType]:
    """Read ``--prompt-type-path``.

    Raises:
        SettingsError: There is no such file.
        TemplateError: It is not of the form; the message names file, entry and field.
    """
    try:
        entries = json.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"--prompt-type-path: {path}: {error.strerror}") from None
    except ValueError as error:
        raise TemplateError(f"--prompt-type-path: {path}: not valid JSON: {error}") from None
    if not isinstance(entries, list):
        raise TemplateError(f"--prompt-type-path: {path}: expected a list of prompt types")
    found: Registry[PromptType] = Registry(f"prompt type of {path}", "--prompt-type")
    for number, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"{path}: entry {number} ({name!r})"
        if not isinstance(name, str) or not name:
            raise TemplateError(f"{where}: expected an object with a name")
        if entry.get("template_class") == "DeepSeek4Template":
            continue  # Rendered by the model's own Jinja template, not from a table of elements.
        if name in found.names():
            raise TemplateError(f"{where}: there are two of this name")
        found.add(name, _prompt_type(entry, where))
    return found


def _prompt_type(entry: dict[str, Any], where: str) -> PromptType:
    fields: dict[str, Any] = {"name": entry["name"]}
    for key, value in entry.items():
        if key in _FORMATS:
            fields[_FORMATS[key]] = _elements(value, f"{where}: {key}")
        elif key in _PLAIN:
            if not isinstance(value, _PLAIN[key]):
                raise TemplateError(f"{where}: {key}: expected {_PLAIN[key].__name__}, got {value!r}")
            fields[key] = value
        elif key in ("stop_words", "thought_words"):
            fields[key] = _strings(value, f"{where}: {key}")
        elif key == "template_class":
            fields["style"] = _style(value, where)
        elif key not in _IGNORED and key != "name":
            known = sorted([*_FORMATS, *_PLAIN, *_IGNORED, "stop_words", "thought_words"])
            raise TemplateError(f"{where}: unknown field {key!r}; known: {', '.join(known)}")
    for name in ("user", "assistant", "system", "observation"):
        if name in fields:
            _check_content(fields[name], f"{where}: format_{name}")
    if "function" in fields:
        _check_function(fields["function"], f"{where}: format_function")
    tools = entry.get("format_tools") or entry.get("format_function") or {}
    if not isinstance(tools, dict):
        raise TemplateError(f"{where}: format_tools: expected an object, got {shorten(tools)}")
    fields["tool_format"] = _tool_format(tools.get("tool_format") or "default", where)
    if len(fields.get("thought_words", ("", ""))) != 2:
        raise TemplateError(f"{where}: thought_words: expected two strings")
    if fields.get("replace_eos") and not fields.get("stop_words"):
        raise TemplateError(f"{where}: replace_eos: expected stop_words to take the first of")
    return PromptType(**fields)


def _elements(value: Any, where: str) -> Elements:
    slots = value.get("slots") if isinstance(value, dict) else None
    if not isinstance(slots, list):
        raise TemplateError(f'{where}: expected {{"slots": [...]}}, got {shorten(value)}')
    return tuple(_element(slot, where) for slot in slots)


def _check_content(elements: Elements, where: str) -> None:
    """Refuse a format that would leave out the text, or write it twice."""
    places = sum(element.count("{{content}}") for element in elements if isinstance(element, str))
    if places != 1:
        raise TemplateError(f"{where}: expected {{{{content}}}} in one place, found it in {places}")


def _check_function(elements: Elements, where: str) -> None:
    """Refuse a format that would leave out a part of a call, or write it twice."""
    texts = [element for element in elements if isinstance(element, str)]
    found = [
        sum(text.count(f"{{{{{name}}}}}") for text in texts) for name in ("content", "name", "arguments")
    ]
    if found not in ([1, 0, 0], [0, 1, 1]):
        raise TemplateError(
            f"{where}: expected either {{{{content}}}} or {{{{name}}}} and {{{{arguments}}}}, once"
        )


def _tool_format(value: Any, where: str) -> str:
    if isinstance(value, str) and value in tool_formats:
        return value
    known = ", ".join(sorted(tool_formats))
    raise TemplateError(f"{where}: format_tools: unknown tool_format {value!r}; available: {known}")


def _element(slot: Any, where: str) -> Element:
    if isinstance(slot, str):
        return slot
    if isinstance(slot, dict) and list(slot) == ["token"] and isinstance(slot["token"], str):
        return Token(slot["token"])
    if slot in (["bos_token"], ["eos_token"]):
        return Special(slot[0])
    raise TemplateError(
        f'{where}: expected a string, {{"token": T}}, ["bos_token"] or ["eos_token"], got {shorten(slot)}'
    )


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise TemplateError(f"{where}: expected a list of strings, got {shorten(value)}")


def _style(value: Any, where: str) -> Style:
    try:
        return Style(value)
    except ValueError:
        known = ", ".join(style.value for style in Style)
        raise TemplateError(
            f"{where}: template_class: unknown class {value!r}; available: {known}"
        ) from None
