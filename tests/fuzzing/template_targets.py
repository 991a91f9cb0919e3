"""Chat templates of strangers."""

from __future__ import annotations

import datetime
import functools
from random import Random
from typing import Any

import numpy as np

from fuzzing.engine import Target
from fuzzing.mutation import havoc, text_havoc
from fuzzing.record_targets import encoder_of
from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates import ChatRenderer, ChatTemplate, ShapeDiffers
from mtsft_preproc.tokenization import Adjustment

__all__ = ["ChatTemplateTarget"]

_PLAIN = b"""{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%} <|im_start|>assistant
{% endif %}"""
_RICH = b"""{%- if tools %}{{ 'tools: ' + (tools | tojson) }}\n{% endif %}
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}
{%- if m.reasoning_content and loop.index0 > ns.last %}{{ '<think>' + m.reasoning_content + '</think>' }}
{%- endif %}
{%- generation %}{{ m.content or '' }}{% endgeneration %}
{%- for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}
{%- endfor %}
{%- else %}{{ m.content | trim }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
_STRICT = b"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}
{%- set messages = messages[1:] %}{% endif %}{% for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}
{%- if m['role'] == 'user' %}[INST] {% if loop.first and s is defined %}{{ s }}{% endif %}
{{- m['content'] }} [/INST]
{%- else %} {{ m['content'].split('</think>')[-1].strip() }}{{ eos_token }}{% endif %}{% endfor %}"""
_CHATS = [
    Dialogue([Message(Role.USER, "Hi?"), Message(Role.ASSISTANT, "Yes.")], "Be kind."),
    Dialogue(
        [
            Message(Role.USER, " a\n"),
            Message(Role.ASSISTANT, "b <think>", reasoning="r"),
            Message(Role.USER, "a"),
            Message(Role.ASSISTANT, "a", reasoning="\n\n"),
        ]
    ),
    Dialogue(
        [
            Message(Role.USER, "<|im_end|>"),
            Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", {"x": ["é", 1]}, "c"),)),
            Message(Role.OBSERVATION, "1", call_id="c", name="f"),
            Message(Role.ASSISTANT, "One."),
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}],
    ),
]


class ChatTemplateTarget(Target):
    """A template, on a few dialogues: refused, or rendered, composed and cut to tokens alike.

    There is nothing in it by which a loop gets long: how long a template runs, the sandbox doesn't bound.
    """

    name = "chat_template"
    tokens = (
        b"{{", b"}}", b"{%", b"%}", b"{%-", b"-%}", b"{% endif %}", b"{% endfor %}", b"{% else %}", b"{#",
        b"#}",
        b"m", b"message", b"messages", b"loop.first", b"loop.last", b"loop.index0", b"loop.previtem",
        b"not",
        b"is defined", b"is none", b"is string", b"| trim", b"| tojson", b"| upper", b"| length",
        b"| first",
        b"| join(',')", b"| replace('a', 'b')", b".strip()", b".split('a')", b".split('</think>')[-1]",
        b"[0]", b"[-1]",
        b"[::-1]", b"[1:]", b".content", b"['role']", b".items()", b".get('x')", b".__class__", b".mro()",
        b"+ 1", b"~",
        b"in", b"== 'user'", b"{% set x = 1 %}", b"{% break %}", b"{% generation %}",
        b"{% endgeneration %}",
        b"{% macro f(x) %}", b"{% endmacro %}", b"{{ f(m) }}", b"namespace(x=1)", b"raise_exception('x')",
        b"none",
        b"strftime_now('%Y')", b"{% if false %}", b"{% if m.content %}", b"'<|im_end|>'", b"bos_token",
        b"eos_token",
        b"\xff", "é".encode(), b"%", b"'", b"(", b")", b"range(3)", b"{% include 'a' %}",
        b"| map(attribute='role')",
        b"| selectattr('role', 'equalto', 'user') | list", b"| default('x')", b"| safe", b"| string",
        b"| int",
        b"{{ 1 / 0 }}", b"tools", b"m.tool_calls", b"m.reasoning_content", b"add_generation_prompt",
    )  # fmt: skip
    most = 2500

    def seeds(self) -> list[bytes]:
        return [_PLAIN, _RICH, _STRICT]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.25:
            return havoc(rng, data, other, self.tokens)
        return text_havoc(rng, data, other, self.tokens)

    def run(self, data: bytes) -> object:
        encoder = encoder_of(Adjustment(), self.folder)
        text = data.decode("utf-8", "replace")
        renderer = ChatRenderer({"default": text}, dict(encoder.spec.special_tokens_map), datetime.date.min)
        make = functools.partial(
            ChatTemplate, encoder=encoder, special_tokens_in_text="plain", parity="report"
        )
        flags = [[message.role.is_target for message in own.messages] for own in _CHATS]
        whole = make(renderer).encode(_CHATS, flags)
        for error in whole.failed.values():
            assert error.reason in REASONS, error.reason
        for number in range(len(_CHATS)):
            alone = make(renderer).encode(_CHATS[number : number + 1], flags[number : number + 1])
            assert (0 in alone.failed) == (number in whole.failed), "it depends on what is beside it"
        # Of an object (a generator of a filter) a template prints the address: mostly another each time.
        if not any(error.got == "other text" for error in whole.failed.values()):
            self._compare(make(renderer), flags, whole)
        return tuple(whole.failed[at].reason if at in whole.failed else "" for at in range(len(_CHATS)))

    @staticmethod
    def _compare(template: ChatTemplate, flags: list[list[bool]], whole: Any) -> None:
        """Check that what is composed is what is rendered; that it is found out where it isn't."""
        template.composes = True
        for _ in range(2):
            try:
                composed = template.encode(_CHATS, flags)
            except ShapeDiffers:
                return
            assert composed.failed.keys() == whole.failed.keys()
            assert np.array_equal(composed.ids, whole.ids), "composed otherwise than rendered"
            assert np.array_equal(composed.mask(), whole.mask()), "another mask"
