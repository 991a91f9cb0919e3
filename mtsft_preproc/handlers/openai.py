"""Chat messages with roles, calls and results, as OpenAI's interface has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Outline, Role, ToolCall, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import DialogueHandler, summary_of
from mtsft_preproc.handlers.message_text import (
    Said,
    message_list,
    read_content,
    role_of,
    system_of,
    train_flag,
)
from mtsft_preproc.handlers.tool_json import read_calls, read_tools

__all__ = ["OpenAIHandler"]

#: Fields under which the assistant's thoughts are known.
_REASONING = ("reasoning_content", "reasoning", "thinking")
_REASONING_NAMES = frozenset(_REASONING)
#: Looked up once: an enum's members are slow to get at.
_ASSISTANT, _OBSERVATION = Role.ASSISTANT, Role.OBSERVATION
_SYSTEMS = bytes([Role.SYSTEM])
_TEXT = frozenset({str})


class OpenAIHandler(DialogueHandler):
    """Records with ``messages`` of ``{"role", "content"}``, and with tools and calls of them.

    The content is text or a list of typed parts. System and developer messages in front are the system
    text. Roles follow each other as they like, but a tool's result has to answer a call.
    """

    keys: ClassVar[Mapping[str, str | None]] = {"messages": "messages", "tools": "tools", "system": None}
    required = (("messages",),)
    usual: ClassVar[Mapping[str, Sequence[str]]] = {"system": ("system",)}
    #: What the names of roles stand for.
    roles: ClassVar[Mapping[str, Role]] = {
        "system": Role.SYSTEM,
        "developer": Role.SYSTEM,
        "user": Role.USER,
        "assistant": Role.ASSISTANT,
        "tool": Role.OBSERVATION,
        "function": Role.OBSERVATION,
        "observation": Role.OBSERVATION,
    }
    #: Key of the messages, and the fields of a message that hold calls.
    messages_key: ClassVar[str] = "messages"
    call_fields: ClassVar[Sequence[str]] = ("tool_calls", "function_call")

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        columns = self.columns
        column = columns.get(self.messages_key, "")
        given, from_text = message_list(record, column)
        notes: list[str] = []
        outline = self._outline(given, column, notes, from_text)
        if outline.rich or _OBSERVATION in outline.roles:
            _link_results(outline, column)
        if _ASSISTANT not in outline.roles:
            raise RecordError("no-assistant", column, "a message of the assistant", "none")
        outline, leading = _cut_leading(outline, notes)
        system = leading or ""
        if "system" in columns:
            system = system_of(record, columns["system"], leading, notes)
        tools = columns.get("tools")
        found = read_tools(record.get(tools), tools, notes) if tools else []
        summary = summary_of(record, columns) if "summary" in columns else ""
        return Dialogue(outline, system, found, notes, summary)

    def _outline(self, given: list[Any], column: str, notes: list[str], from_text: bool) -> Outline:
        """Return what messages hold: nearly all are a role and a text."""
        known = self.roles
        try:
            roles = bytearray([known[item["role"]] for item in given])
            texts = [item.get("content") for item in given]
            sizes = list(map(len, given))
        except (AttributeError, KeyError, TypeError):
            # Some message is none, or has no role that is known.
            roles, texts, sizes = bytearray(len(given)), [None] * len(given), [0] * len(given)
        rich: dict[int, Message] = {}
        if sizes.count(2) < len(given) or not _TEXT.issuperset(map(type, texts)):
            for number, text in enumerate(texts):
                if type(text) is str and sizes[number] == 2:
                    continue
                message = self._message(given[number], f"{column}[{number}]", notes, from_text)
                roles[number], texts[number] = message.role, message.text
                if message.is_rich:
                    rich[number] = message
        return Outline(bytes(roles), texts, rich)

    def said(
        self, message: Mapping[str, Any], role: Role, place: str, notes: list[str], from_text: bool
    ) -> Said:
        """Return what the content of a message holds."""
        return read_content(message.get("content"), f"{place}.content", role, notes, from_text)

    def _message(self, item: Any, place: str, notes: list[str], from_text: bool) -> Message:
        role = role_of(item, "role", place, self.roles)
        said = self.said(item, role, place, notes, from_text)
        message = Message(role, said.text)
        if len(item) > 2 or said.text is None or said.calls or said.reasoning is not None:
            message.tool_calls = self._calls(item, said, role, place, notes, from_text)
            message.reasoning = _reasoning(item, said, role, place)
            message.name = _label(item, "name", place)
            if role is Role.OBSERVATION:
                message.call_id = _label(item, "tool_call_id", place)
            message.train = train_flag(item, place)
        if message.content is None and not message.tool_calls:
            expected = "text or calls" if role is Role.ASSISTANT else "text"
            raise RecordError("missing-field", f"{place}.content", expected, "null")
        return message

    def _calls(
        self, item: Mapping[str, Any], said: Said, role: Role, place: str, notes: list[str], from_text: bool
    ) -> tuple[ToolCall, ...]:
        """Return the calls of a message, which stand in one of several places."""
        calls = said.calls
        for field in self.call_fields:
            value = item.get(field)
            if not value and (value is None or value == [] or value == ""):
                continue
            where = f"{place}.{field}"
            if role is not Role.ASSISTANT:
                raise RecordError("wrong-type", where, "null: the assistant alone calls", shorten(value))
            if calls:
                raise RecordError("bad-tool-json", where, "calls in one place", "calls in two places")
            calls = read_calls(value, where, notes, from_text)
        return calls


def _reasoning(item: Mapping[str, Any], said: Said, role: Role, place: str) -> str | None:
    """Return the thoughts of a message; several fields of them must say the same."""
    found = said.reasoning
    if _REASONING_NAMES.isdisjoint(item):
        return found
    for field in _REASONING:
        value = item.get(field)
        if value is None:
            continue
        where = f"{place}.{field}"
        if not isinstance(value, str):
            raise RecordError("wrong-type", where, "text", shorten(value))
        if role is not Role.ASSISTANT:
            if value:
                raise RecordError("wrong-type", where, "null: the assistant alone thinks", shorten(value))
            continue
        if found is not None and found != value:
            raise RecordError("wrong-type", where, "the same thoughts in all fields", shorten(value))
        found = value
    return found


def _label(item: Mapping[str, Any], field: str, place: str) -> str | None:
    """Return a name or an id; an empty one is none."""
    value = item.get(field)
    if value is not None and not isinstance(value, str):
        raise RecordError("wrong-type", f"{place}.{field}", "text", shorten(value))
    return value or None


def _link_results(outline: Outline, column: str) -> None:
    """Check that each result answers a call, and give it the name of the tool where the data don't."""
    names: dict[str, str] = {}
    calling = False
    for number, role in enumerate(outline.roles):
        message = outline.rich.get(number)
        if role == _ASSISTANT:
            calling = message is not None and bool(message.tool_calls)
            if calling and message is not None:
                names.update(_names_by_id(message.tool_calls, f"{column}[{number}]"))
        elif role != _OBSERVATION:
            calling = False
        elif not calling:
            expected = "a result behind the message that calls"
            raise RecordError("orphan-tool-result", f"{column}[{number}]", expected, "no call")
        elif message is not None and message.call_id is not None:
            if message.call_id not in names:
                place, got = f"{column}[{number}].tool_call_id", shorten(message.call_id)
                raise RecordError("orphan-tool-result", place, "the id of a call", got)
            if message.name is None:
                message.name = names[message.call_id]


def _names_by_id(calls: Sequence[ToolCall], place: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for call in calls:
        if call.id is not None and names.setdefault(call.id, call.name) != call.name:
            # A result of that id could be either's.
            raise RecordError("bad-tool-json", place, "an id of its own for each call", shorten(call.id))
    return names


def _cut_leading(outline: Outline, notes: list[str]) -> tuple[Outline, str | None]:
    """Return the messages without the system messages in front, and what those say, or None."""
    roles, texts, rich = outline
    count = len(roles) - len(roles.lstrip(_SYSTEMS))
    if not count:
        return outline, None
    if any(message.train for number, message in rich.items() if number < count):
        notes.append("system-not-trained")
    text = "\n\n".join([text for text in texts[:count] if text])
    behind = {number - count: message for number, message in rich.items() if number >= count}
    return Outline(roles[count:], texts[count:], behind), text
