"""What the handlers of chat messages share: the list of messages, their roles, flags and contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mtsft_preproc.dialogue import Role, ToolCall, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import text_field
from mtsft_preproc.handlers.tool_json import json_text, parse_json, read_calls

__all__ = ["Said", "message_list", "read_content", "role_of", "system_of", "train_flag"]

T = TypeVar("T")

_MESSAGES = "a list of messages, or JSON text of one"
#: Fields with which data say whether a message is trained.
_FLAGS = ("train", "weight", "loss", "loss_weight")
_FLAG_NAMES = frozenset(_FLAGS)
#: Where a part of a content holds what it says, by its type; the first that is not null counts.
_PARTS = {
    "text": ("text", "value"),
    "reasoning": ("reasoning", "text", "value"),
    "thinking": ("thinking", "text", "value"),
    "tool_call": ("tool_call", "value", "text"),
    "tool_result": ("tool_result", "value", "text"),
}
#: Types of parts that messages may have, in the order in which they may follow each other.
_ORDER = {
    Role.ASSISTANT: {"reasoning": 0, "thinking": 0, "text": 1, "tool_call": 2},
    Role.OBSERVATION: {"text": 0, "tool_result": 0},
    Role.USER: {"text": 0},
    Role.SYSTEM: {"text": 0},
}


def message_list(record: Mapping[str, Any], column: str) -> tuple[list[Any], bool]:
    """Return the messages of a record, and whether they came as JSON text.

    Raises:
        RecordError: ``missing-field``, ``wrong-type`` or ``empty-dialogue``.
    """
    value: Any = record.get(column)
    from_text = isinstance(value, str)
    if from_text:
        try:
            # An empty cell of a CSV file is null.
            value = parse_json(value, column) if value.strip() else None
        except ValueError:
            raise RecordError("wrong-type", column, _MESSAGES, shorten(value)) from None
    if value is None:
        raise RecordError("missing-field", column, "a list of messages", "null")
    if not isinstance(value, list):
        raise RecordError("wrong-type", column, _MESSAGES, shorten(value))
    if not value:
        raise RecordError("empty-dialogue", column, "a list of messages", "an empty one")
    return value, from_text


def role_of(message: Any, field: str, place: str, roles: Mapping[str, T]) -> T:
    """Return what the name of a message's role stands for.

    Raises:
        RecordError: ``wrong-type``, ``missing-field`` or ``unknown-role``.
    """
    if not isinstance(message, dict):
        raise RecordError("wrong-type", place, "an object with a role and a content", shorten(message))
    name = message.get(field)
    if isinstance(name, str) and name in roles:
        return roles[name]
    where, known = f"{place}.{field}", f"one of {', '.join(roles)}"
    if name is None:
        raise RecordError("missing-field", where, known, "null")
    if not isinstance(name, str):
        raise RecordError("wrong-type", where, known, shorten(name))
    raise RecordError("unknown-role", where, known, shorten(name))


def train_flag(message: Mapping[str, Any], place: str) -> bool | None:
    """Return whether the data want a message trained, or None where they don't say.

    Raises:
        RecordError: ``wrong-type``: a flag is neither 0 nor 1, or two of them disagree.
    """
    found: bool | None = None
    if _FLAG_NAMES.isdisjoint(message):
        return found
    for name in _FLAGS:
        value = message.get(name)
        if value is None:
            continue
        # A weight between the two would be lost: labels hold no weights.
        if not isinstance(value, int | float) or value not in (0, 1):
            raise RecordError("wrong-type", f"{place}.{name}", "0 or 1", shorten(value))
        if found is not None and found != bool(value):
            raise RecordError("wrong-type", f"{place}.{name}", "flags that agree", shorten(value))
        found = bool(value)
    return found


def system_of(record: Mapping[str, Any], column: str | None, leading: str | None, notes: list[str]) -> str:
    """Return the system text of a record: that of its messages, else that of the column.

    Args:
        record: The record.
        column: The system column, or None.
        leading: What the messages in front say, or None where there are none.
        notes: Takes ``system-column-unused`` where both say something else.

    Raises:
        RecordError: ``wrong-type``.
    """
    own = text_field(record, column) or ""
    if leading is None:
        return own
    if own and own != leading:
        notes.append("system-column-unused")
    return leading


@dataclass(slots=True)
class Said:
    """What a content holds; None where it has no part of a kind."""

    text: str | None = None
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()


def read_content(value: Any, place: str, role: Role, notes: list[str], from_text: bool) -> Said:
    """Return what a content says: text, null, or a list of typed parts.

    Args:
        value: The content.
        place: Its place, for errors.
        role: Who speaks: only the assistant thinks and calls, only a tool gives results.
        notes: As :func:`~mtsft_preproc.handlers.tool_json.read_calls` takes them.
        from_text: As :func:`~mtsft_preproc.handlers.tool_json.read_calls` takes it.

    Raises:
        RecordError: ``wrong-type``, ``missing-field`` or ``bad-tool-json``.
    """
    if value is None or isinstance(value, str):
        return Said(value)
    if not isinstance(value, list):
        raise RecordError("wrong-type", place, "text or a list of typed parts", shorten(value))
    said, rank = Said(), 0
    for number, part in enumerate(value):
        where = f"{place}[{number}]"
        kind, payload = _part(part, where, role)
        # A part without a word may stand anywhere.
        rank_here = _ORDER[role][kind] if payload != "" else rank
        if rank_here < rank:
            # A message has its thoughts in front of its text, and its calls behind: nothing is moved.
            raise RecordError("wrong-type", where, "reasoning, then text, then calls", shorten(kind))
        rank = rank_here
        if kind == "tool_call":
            said.calls += read_calls(payload, where, notes, from_text)
        elif kind == "tool_result":
            said.text = (said.text or "") + _result(payload, where)
        elif not isinstance(payload, str):
            raise RecordError("wrong-type", where, f"text in a part of type {kind}", shorten(payload))
        elif kind == "text":
            said.text = (said.text or "") + payload
        else:
            said.reasoning = (said.reasoning or "") + payload
    return said


def _part(part: Any, place: str, role: Role) -> tuple[str, Any]:
    """Return the type of a part, which the role must allow, and what it holds."""
    if not isinstance(part, dict):
        raise RecordError("wrong-type", place, 'a part {"type": ..., "text": ...}', shorten(part))
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _ORDER[role]:
        known = " or ".join(_ORDER[role])
        raise RecordError("wrong-type", place, f"a part of type {known}", f"type {shorten(kind)}")
    payload = next((part[name] for name in _PARTS[kind] if part.get(name) is not None), None)
    if payload is None:
        raise RecordError("missing-field", place, " or ".join(_PARTS[kind]), "null")
    return kind, payload


def _result(value: Any, place: str) -> str:
    return value if isinstance(value, str) else json_text(value, place)
