"""Dialogues by seed, with what trips chat templates up."""

from __future__ import annotations

import random
from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall

HARMLESS = [
    "Hello there.", "你好，世界！", "What is 2 + 2?", "def f(x):\n    return x\n",
    "👩\u200d👩\u200d👧 e\u0301 café", "a", "42", "- one\n- two", '{"json": [1, 2]}',
    "naïve “quotes” — dash", "It is a sunny day in Łódź.", "𝔘nicode ｆｕｌｌ",
]  # fmt: skip
SPACES = ["", " ", "\n", "\n\n", "  ", "\t", " \r\n"]
HOSTILE = [
    "{{content}}", "{% if x %}", "{{ messages }}", "{%- endfor %}", "<|im_end|>", "<|im_start|>user\n",
    "</s>", "[INST]", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<|user|>",
    "<think>", "</think>", "<think>\nhm\n</think>\n\n", "<tool_call>", "</tool_call>", "&lt;b&gt; <b>",
    "%s %(x)s", "'\"\\", "Assistant:", "### Response:",
]  # fmt: skip
NAMES = ["get_weather", "find-restaurants", "calc", "搜索"]
KEYS = ["city", "days", "query", "名"]


def text(rng: random.Random, hostile: float) -> str:
    """Return a message's text: rarely empty, sometimes with white space around or control tokens in it."""
    if rng.random() < 0.05:
        return rng.choice(SPACES)
    parts = rng.choices(HARMLESS, k=rng.randint(1, 3))
    if rng.random() < hostile:
        parts.insert(rng.randint(0, len(parts)), rng.choice(HOSTILE))
    joined = rng.choice(["", " ", "\n", "\n\n"]).join(parts)
    before, after = (rng.choice(SPACES) if rng.random() < 0.12 else "" for _ in range(2))
    return before + joined + after


def arguments(rng: random.Random, hostile: float) -> Any:
    """Return the arguments of a call: an object, or now and then its text."""
    values = [text(rng, hostile), rng.randint(0, 99), rng.choice([True, None, 1.5])]
    values.append({"x": [text(rng, hostile), 1]})
    made = {key: rng.choice(values) for key in rng.sample(KEYS, rng.randint(0, 3))}
    return '{"city": "Łódź"}' if rng.random() < 0.1 else made


def tools(rng: random.Random, hostile: float) -> list[Any]:
    """Return tools in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": text(rng, hostile),
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": "string", "description": f"the {key}"}
                        for key in KEYS[: rng.randint(1, 3)]
                    },
                    "required": [KEYS[0]],
                },
            },
        }
        for name in rng.sample(NAMES, rng.randint(1, 3))
    ]


def dialogue(rng: random.Random, hostile: float = 0.15) -> Dialogue:
    """Return a dialogue of one to six rounds; ``hostile`` is how often text spells what it should not."""
    uses_tools, reasons = rng.random() < 0.3, rng.random() < 0.25
    identified = rng.random() < 0.7
    messages: list[Message] = []
    for _ in range(rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6])):
        messages.append(Message(Role.USER, text(rng, hostile)))
        while uses_tools and rng.random() < 0.45:
            messages += _calls(rng, identified, reasons, len(messages), hostile)
        messages.append(Message(Role.ASSISTANT, text(rng, hostile), _thought(rng, reasons, hostile)))
    if uses_tools and rng.random() < 0.15:
        messages[-1:] = _calls(rng, identified, reasons, len(messages), hostile)[:1]
    system = text(rng, hostile) if rng.random() < 0.5 else ""
    return Dialogue(messages, system, tools(rng, hostile) if uses_tools and rng.random() < 0.9 else [])


def _thought(rng: random.Random, reasons: bool, hostile: float) -> str | None:
    return text(rng, hostile) if reasons and rng.random() < 0.7 else None


def _calls(
    rng: random.Random, identified: bool, reasons: bool, number: int, hostile: float
) -> list[Message]:
    """Return a message with calls, most often one of them, and their results."""
    calls = tuple(
        ToolCall(
            rng.choice(NAMES),
            arguments(rng, hostile),
            f"call{number:03d}{place:02d}" if identified else None,
        )
        for place in range(rng.choice([1, 1, 1, 2, 3]))
    )
    content = rng.choice([None, None, "", text(rng, hostile)])
    results = [
        Message(
            Role.OBSERVATION,
            text(rng, hostile),
            name=call.name if rng.random() < 0.8 else None,
            call_id=call.id,
        )
        for call in calls
    ]
    return [Message(Role.ASSISTANT, content, _thought(rng, reasons, hostile), calls), *results]


def retold(rng: random.Random, told: Dialogue, hostile: float = 0.15) -> Dialogue:
    """Return a dialogue of the same shape with other words; its tools stay."""

    def other(value: Any) -> Any:
        if isinstance(value, str):
            return text(rng, hostile)
        if isinstance(value, dict):
            return {key: other(item) for key, item in value.items()}
        return [other(item) for item in value] if isinstance(value, list) else value

    messages = [
        Message(
            message.role,
            other(message.content),
            other(message.reasoning),
            tuple(
                ToolCall(rng.choice(NAMES), other(call.arguments), call.id) for call in message.tool_calls
            ),
            message.name and rng.choice(NAMES),
            message.call_id,
        )
        for message in told.messages
    ]
    return Dialogue(messages, told.system and (text(rng, hostile) or "x"), told.tools)


def seeded(name: str, count: int, hostile: float = 0.15) -> list[Dialogue]:
    """Return ``count`` dialogues that depend on ``name`` alone."""
    return [dialogue(random.Random(f"{name}/{number}"), hostile) for number in range(count)]


def flags(dialogues: list[Dialogue]) -> list[list[bool]]:
    """Return the policy that trains every message of the assistant."""
    return [[message.role.is_target for message in item.messages] for item in dialogues]
