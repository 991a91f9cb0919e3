"""A dialogue as chat templates see it: the list of messages that ``apply_chat_template`` hands over."""

from __future__ import annotations

from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.chat.environment import KeptObject
from mtsft_preproc.templates.chat.tracing import OUTSIDE, Leaf, Object, Recorder, Traced

__all__ = [
    "chat_messages",
    "chat_tools",
    "message_dict",
    "message_shape",
    "traced_messages",
    "traced_tools",
]

_ROLES = {
    Role.USER: "user", Role.ASSISTANT: "assistant", Role.OBSERVATION: "tool", Role.SYSTEM: "system",
}  # fmt: skip
#: Fields whose text is not the data's.
_FIXED = frozenset({"role", "type"})


def chat_messages(dialogue: Dialogue) -> list[dict[str, Any]]:
    """Return the messages, the system text as the first of them; what is None is left out.

    Thoughts go by the names under which templates look for them: ``reasoning_content`` and ``thinking``.
    """
    system = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
    return system + [message_dict(message) for message in dialogue.messages]


def chat_tools(tools: list[Any]) -> list[Any]:
    """Return the tools as requests to a serving engine hold them: functions of a type.

    Data often have the function alone, which templates would write otherwise, or refuse.
    """
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and "function" not in tool
        else tool
        for tool in tools
    ]


def message_dict(message: Message) -> dict[str, Any]:
    """Return a message as templates take it."""
    made: dict[str, Any] = {} if message.reasoning is None else {"thinking": message.reasoning}
    made["role"] = _ROLES[message.role]
    if message.content is not None:
        made["content"] = message.content
    if message.tool_calls:
        made["tool_calls"] = [
            ({} if call.id is None else {"id": call.id})
            | {"type": "function", "function": {"name": call.name, "arguments": _kept(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.name is not None:
        made["name"] = message.name
    if message.call_id is not None:
        made["tool_call_id"] = message.call_id
    if message.reasoning is not None:
        made["reasoning_content"] = message.reasoning
    return made


def _kept(arguments: Any) -> Any:
    # A dialogue is rendered once per turn to prove it: its objects are written once.
    return KeptObject(arguments) if isinstance(arguments, dict) else arguments


def message_shape(message: dict[str, Any]) -> tuple[Any, ...]:
    """Return what of a message is not text of the data: what two that are rendered alike have in common."""
    calls = tuple(
        ("id" in call, type(call["function"]["arguments"])) for call in message.get("tool_calls", ())
    )
    return (message["role"], tuple(message), calls)


def traced_messages(messages: list[dict[str, Any]], recorder: Recorder) -> list[dict[str, Any]]:
    """Return the messages with traced strings in them."""
    return [
        {key: _traced(key, value, (number, key), recorder) for key, value in message.items()}
        for number, message in enumerate(messages)
    ]


def _traced(key: Any, value: Any, path: tuple[Any, ...], recorder: Recorder) -> Any:
    if isinstance(value, str):
        if key in _FIXED:
            return value
        return Traced.of((Leaf(("at", path), value, frozenset((path[0],))),), recorder)
    if isinstance(value, dict):
        if key == "arguments":
            return Object(value, path, recorder)
        return {name: _traced(name, item, (*path, name), recorder) for name, item in value.items()}
    if isinstance(value, list):
        return [_traced(number, item, (*path, number), recorder) for number, item in enumerate(value)]
    return value


def traced_tools(tools: list[Any] | None, recorder: Recorder) -> list[Any] | None:
    """Return the tools with traced strings in them."""
    if tools is None:
        return None
    return [
        Object(tool, (OUTSIDE, "tools", number), recorder) if isinstance(tool, dict) else tool
        for number, tool in enumerate(tools)
    ]
