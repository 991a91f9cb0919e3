"""How tools and calls are written: the texts that stand behind a prompt type's ``tool_format``.

Each text comes in pieces, so that what a record says of its tools can't be taken for control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mtsft_preproc.dialogue import Message, Role, ToolCall, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.elements import Piece, data, joined, ours

__all__ = [
    "RESULT_CLOSES",
    "RESULT_OPENS",
    "ToolFormat",
    "arguments_text",
    "in_rounds",
    "tool_formats",
    "tools_text",
]

#: A round: the number of its first message, the source (several results may be one), the target.
Round = tuple[int, list[Message], Message]
_NAMES = {
    Role.USER: "a user message",
    Role.OBSERVATION: "a tool result",
    Role.ASSISTANT: "an assistant message",
    Role.SYSTEM: "a system message",
}
#: ``json.dumps`` makes an encoder each time that the settings are not the usual ones.
_json = json.JSONEncoder(ensure_ascii=False).encode
_ELSEWHERE = "--chat-template may have a place for it"

#: Text between two results where each stands in these tags, as Qwen, Ling and GLM-4.5 have it.
RESULT_OPENS, RESULT_CLOSES = "<tool_response>\n", "\n</tool_response>"


@dataclass(frozen=True)
class ToolFormat:
    """How tools and calls are written.

    Attributes:
        tools: Writes the tools text of tools (``{"type": "function", "function": {...}}``).
        call: Writes a call in a format that has a place for content only. Takes the call and its place
            in the dialogue, for errors.
        joint: Stands between the system text and the tools text; None: the tools text has a system
            message of its own in front.
        governs: Whether the tools text asks for another form of calls than the format's elements have:
            in a dialogue with tools, calls and results are then written in that form.
    """

    tools: Callable[[Sequence[dict[str, Any]]], list[Piece]]
    call: Callable[[ToolCall, str], list[Piece]]
    joint: str | None = ""
    governs: bool = False


def in_rounds(messages: Sequence[Message], joins_results: bool) -> list[Round]:
    """Return a dialogue in rounds of a source and a target; what nobody answers at its end is left out.

    Args:
        messages: All messages.
        joins_results: Whether results that stand in a row become one source.

    Raises:
        RecordError: ``role-order``: source and target don't alternate; ``unsupported-message``: there is a
            system message, or a source holds what a target alone may hold; ``no-assistant``.
    """
    answered = _answered(messages)
    rounds: list[Round] = []
    place = 0
    while place < answered:
        start, source = place, messages[place]
        if source.role is Role.ASSISTANT or source.role is Role.SYSTEM:
            raise _misplaced(place, "a user message or a tool result", source)
        if source.tool_calls or source.reasoning:
            held = "tool calls" if source.tool_calls else "reasoning"
            expected = f"{held} in an assistant message"
            raise RecordError("unsupported-message", f"messages[{place}]", expected, _NAMES[source.role])
        place += 1
        if joins_results and source.role is Role.OBSERVATION:
            while messages[place].role is Role.OBSERVATION:
                place += 1
        target = messages[place]
        if target.role is not Role.ASSISTANT:
            results = source.role is Role.OBSERVATION and target.role is Role.OBSERVATION
            hint = ", as the prompt type has no place for several tool results in a row" if results else ""
            raise _misplaced(place, f"an assistant message{hint}", target)
        rounds.append((start, list(messages[start:place]), target))
        place += 1
    return rounds


def _answered(messages: Sequence[Message]) -> int:
    """Return how many messages there are up to the last one of the assistant."""
    count = len(messages)
    while count and messages[count - 1].role is not Role.ASSISTANT:
        count -= 1
        if messages[count].role is Role.SYSTEM:
            raise _misplaced(count, "", messages[count])
    if not messages:
        raise RecordError("empty-dialogue", "messages", "a message", "none")
    if not count:
        raise RecordError("no-assistant", "messages", "an assistant message", "none")
    return count


def _misplaced(place: int, expected: str, got: Message) -> RecordError:
    """Return the error of a message that the order of a prompt type has no place for."""
    if got.role is Role.SYSTEM:
        reason, expected = "unsupported-message", "no system message inside the dialogue"
    else:
        reason = "role-order"
    return RecordError(reason, f"messages[{place}]", f"{expected}; {_ELSEWHERE}", _NAMES[got.role])


def tools_text(tool_format: str, tools: Sequence[Any]) -> tuple[Piece, ...]:
    """Return the text about the tools of a dialogue.

    Raises:
        RecordError: A tool is not an object, or has no name.
    """
    try:
        # Most dialogues of a data set share their tools; the text is made once for equal ones.
        return _tools_text(tool_format, _json(tools))
    except (TypeError, ValueError, RecursionError):
        raise RecordError("wrong-type", "tools", "JSON objects", shorten(tools)) from None


def arguments_text(call: ToolCall, where: str) -> str:
    """Return the arguments as they are written: text as it is, anything else as JSON.

    Raises:
        RecordError: They are not JSON.
    """
    if isinstance(call.arguments, str):
        return call.arguments
    try:
        return _json(call.arguments)
    except (TypeError, ValueError, RecursionError):
        got = shorten(call.arguments)
    raise RecordError("wrong-type", f"{where}.arguments", "a JSON object", got)


@lru_cache(maxsize=256)
def _tools_text(tool_format: str, tools: str) -> tuple[Piece, ...]:
    wrapped = [_wrapped(tool, f"tools[{number}]") for number, tool in enumerate(json.loads(tools))]
    return tuple(tool_formats[tool_format].tools(wrapped))


def _wrapped(tool: Any, where: str) -> dict[str, Any]:
    """Return a tool with ``{"type": "function"}`` around its function object."""
    if isinstance(tool, dict) and "function" not in tool:
        tool = {"type": "function", "function": tool}
    function = tool["function"] if isinstance(tool, dict) else tool
    if not isinstance(function, dict):
        raise RecordError("wrong-type", where, "an object", shorten(function))
    if not isinstance(function.get("name"), str):
        raise RecordError("missing-field", f"{where}.name", "a name", shorten(function.get("name")))
    assert isinstance(tool, dict)
    return tool


def _json_data(value: Any, indent: int | None = None) -> Piece:
    return data(_json(value) if indent is None else json.dumps(value, ensure_ascii=False, indent=indent))


def _action_tools(tools: Sequence[dict[str, Any]]) -> list[Piece]:
    pieces = [ours("You have access to the following tools:\n")]
    for number, tool in enumerate(tools):
        function = tool["function"]
        pieces += [
            ours("> Tool Name: "), data(function["name"]),
            ours("\nTool Description: "), _words(function.get("description", "")), ours("\nTool Args:\n"),
        ]  # fmt: skip
        pieces += [*_parameters(function, f"tools[{number}].parameters"), ours("\n")]
    pieces.append(ours("Use the following format if using a tool:\n```\nAction: tool name (one of ["))
    pieces += _listed([data(tool["function"]["name"]) for tool in tools])
    pieces.append(
        ours(
            "]).\nAction Input: the input to the tool, in a JSON format representing the kwargs "
            '(e.g. ```{"input": "hello world", "num_beams": 5}```).\n```\n'
        )
    )
    return pieces


def _parameters(function: dict[str, Any], where: str) -> list[Piece]:
    """Return a line for each parameter."""
    schema = _object(function.get("parameters"), where)
    needed = schema.get("required")
    pieces = []
    for name, given in _object(schema.get("properties"), f"{where}.properties").items():
        parameter = _object(given, f"{where}.properties.{name}")
        required = ", required): " if isinstance(needed, list) and name in needed else "): "
        pieces += [ours("  - "), data(name), ours(" ("), _words(parameter.get("type", "")), ours(required)]
        pieces.append(_words(parameter.get("description", "")))
        choices, items = parameter.get("enum"), parameter.get("items")
        if isinstance(choices, list) and choices:
            listed = [data(item) if isinstance(item, str) else _json_data(item) for item in choices]
            pieces += [ours(", should be one of ["), *_listed(listed), ours("]")]
        if isinstance(items, dict) and items:
            pieces += [ours(", where each item should be "), _words(items.get("type", ""))]
        pieces.append(ours("\n"))
    return pieces


def _object(value: Any, where: str) -> dict[str, Any]:
    """Return an object; none is as good as an empty one."""
    if value is not None and not isinstance(value, dict):
        raise RecordError("wrong-type", where, "an object", shorten(value))
    return value or {}


def _words(value: Any) -> Piece:
    """Return a description or a type; a list of types stands as Python prints it, as in the original."""
    return data("" if value is None else str(value))


def _listed(items: Iterable[Piece]) -> list[Piece]:
    return joined([[item] for item in items], ours(", "))


def _action_call(call: ToolCall, where: str) -> list[Piece]:
    arguments = data(arguments_text(call, where))
    return [ours("Action: "), data(call.name), ours("\nAction Input: "), arguments]


def _signatures(tools: Sequence[dict[str, Any]]) -> list[Piece]:
    """Return the start that Qwen's and GLM's tools texts share."""
    pieces = [
        ours(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
        )
    ]
    for tool in tools:
        pieces += [ours("\n"), _json_data(tool)]
    return [*pieces, ours("\n</tools>\n\n")]


def _qwen_tools(tools: Sequence[dict[str, Any]]) -> list[Piece]:
    return [
        *_signatures(tools),
        ours(
            "For each function call, return a json object with function name and arguments within "
            "<tool_call></tool_call> XML tags:\n<tool_call>\n"
            '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
        ),
    ]


def _qwen_call(call: ToolCall, where: str) -> list[Piece]:
    arguments = data(arguments_text(call, where))
    opening = ours('<tool_call>\n{"name": "')
    return [opening, data(call.name), ours('", "arguments": '), arguments, ours("}\n</tool_call>")]


def _glm4_tools(tools: Sequence[dict[str, Any]]) -> list[Piece]:
    pieces = [
        ours(
            "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
            "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
        )
    ]
    for function in [tool["function"] for tool in tools]:
        # One line break, as transformers renders the template: it trims the other behind a block.
        pieces += [ours("\n## "), data(function["name"]), ours("\n\n"), _json_data(function, indent=4)]
        pieces.append(ours("\n在调用上述函数时，请使用 Json 格式表示调用的参数。"))
    return pieces


def _glm4_call(call: ToolCall, where: str) -> list[Piece]:
    return [data(call.name), ours("\n"), data(arguments_text(call, where))]


def _glm4_moe_tools(tools: Sequence[dict[str, Any]]) -> list[Piece]:
    argument = "<arg_key>{{arg-key-{0}}}</arg_key>\n<arg_value>{{arg-value-{0}}}</arg_value>\n"
    return [
        *_signatures(tools),
        ours(
            "For each function call, output the function name and arguments within the following XML "
            "format:\n<tool_call>{function-name}\n"
            + argument.format(1)
            + argument.format(2)
            + "...\n</tool_call>"
        ),
    ]


def _glm4_moe_call(call: ToolCall, where: str) -> list[Piece]:
    arguments = arguments_text(call, where)
    try:
        pairs = json.loads(arguments)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, dict):
        raise RecordError("unsupported-message", f"{where}.arguments", "a JSON object", shorten(arguments))
    pieces = [ours("<tool_call>"), data(call.name), ours("\n")]
    for key, value in pairs.items():
        pieces += [ours("<arg_key>"), data(key), ours("</arg_key>\n<arg_value>")]
        pieces += [data(value) if isinstance(value, str) else _json_data(value)]
        pieces.append(ours("</arg_value>\n"))
    return [*pieces, ours("</tool_call>")]


_QWEN = ToolFormat(_qwen_tools, _qwen_call, joint="\n\n")

#: What ``tool_format`` may be.
tool_formats: dict[str, ToolFormat] = {
    "default": ToolFormat(_action_tools, _action_call),
    "qwen": _QWEN,
    "ling": _QWEN,
    "glm4": ToolFormat(_glm4_tools, _glm4_call, joint=None),
    "glm4_moe": ToolFormat(_glm4_moe_tools, _glm4_moe_call, joint=None, governs=True),
}
