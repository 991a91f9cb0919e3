"""MOSS's own form: every field of a turn is a text of its own, with marks at both of its ends."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.moss import MARKS
from mtsft_preproc.templates.elements import data, ours
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.text_forms.form import UNANSWERED, TextForm
from mtsft_preproc.templates.text_forms.passages import Constant, Owner, Passage, Rendering, Span

__all__ = ["MossText"]

_BEFORE = {
    Role.USER: (None, Role.ASSISTANT, Role.OBSERVATION),
    Role.ASSISTANT: (Role.USER, Role.ASSISTANT, Role.OBSERVATION),
    Role.OBSERVATION: (Role.USER, Role.ASSISTANT),
}


class MossText(TextForm):
    """The meta instruction, then the fields of each turn.

    The model writes thoughts, commands and answer. Of what tools return it writes the marks, which belong
    to the message before, as MOSS's own trainer has it. Text that brings its marks along keeps them as they
    stand; other text gets them.
    """

    name = "moss_text"

    def render(self, dialogue: Dialogue, trained: Sequence[bool]) -> Rendering:
        """Return a dialogue in this form."""
        if dialogue.tools:
            raise _refusal("tools", f"no tools: {self.name} has them in its system text", dialogue.tools)
        messages, notes = _answered(dialogue.messages)
        parts: list[Passage | Constant] = []
        if dialogue.system:
            parts.append(Passage([Span(data(dialogue.system), Owner(Kind.SYSTEM, 0))]))
        before: Role | None = None
        for number, message in enumerate(messages):
            place = f"messages[{number}]"
            if message.role is Role.SYSTEM:
                raise _refusal(
                    place, f"no system text there: {self.name} has no place for it", message.text
                )
            if message.tool_calls:
                expected = f"commands as text: {self.name} has no place for tool calls"
                raise _refusal(f"{place}.tool_calls", expected, list(message.tool_calls))
            if before not in _BEFORE[message.role]:
                expected = "the user first, then answers, in turns"
                raise RecordError("role-order", place, expected, f"{message.role.name.lower()} there")
            parts += _fields(message, number, before, place)
            before = message.role
        return Rendering(parts, len(messages) - 1, notes)


def _answered(messages: list[Message]) -> tuple[list[Message], list[str]]:
    """Return the messages up to the last that the assistant wrote, and a note where there are more."""
    replies = [number for number, message in enumerate(messages) if message.role is Role.ASSISTANT]
    if not replies:
        raise RecordError("no-assistant", "", "a reply", "none")
    if replies[-1] == len(messages) - 1:
        return messages, []
    return messages[: replies[-1] + 1], [UNANSWERED]


def _fields(message: Message, number: int, before: Role | None, place: str) -> list[Passage]:
    """Return the passages of one message."""
    context, generated = Owner(Kind.CONTEXT, number), Owner(Kind.GENERATED, number)
    observed = Owner(Kind.OBSERVED, number)
    if message.role is Role.USER:
        return [_field("Human", message.text, context, context, place)]
    if message.role is Role.OBSERVATION:
        marks = Owner(Kind.GENERATED, number - 1) if before is Role.ASSISTANT else context
        return [_field("Tool Responses", message.text, marks, observed, place)]
    passages = []
    if message.reasoning is not None:
        reasoning = f"{place}.reasoning"
        passages.append(_field("Inner Thoughts", message.reasoning, generated, generated, reasoning))
    if message.content is not None:
        name = "Commands" if message.content.startswith(MARKS["Commands"][0]) else "MOSS"
        passages.append(_field(name, message.content, generated, generated, place))
    return passages


def _field(name: str, text: str, marks: Owner, inside: Owner, place: str) -> Passage:
    """Return a field. Where the tokenizer has the marks as special tokens they are meant as tokens."""
    opening, closing = MARKS[name]
    if not text.startswith(opening):
        spans = [
            Span(ours(f"{opening} "), marks),
            Span(data(text), inside),
            Span(ours(f"{closing}\n"), marks),
        ]
        return Passage(spans)
    end = len(text.rstrip()) - len(closing)
    if end < len(opening) or not text.startswith(closing, end):
        raise _refusal(place, f"text that ends with {closing}, as it starts with {opening}", text[-200:])
    spans = [
        Span(ours(opening), marks),
        Span(data(text[len(opening) : end]), inside),
        Span(ours(text[end:]), marks),
    ]
    return Passage(spans)


def _refusal(field: str, expected: str, got: object) -> RecordError:
    return RecordError("unsupported-message", field, expected, shorten(got))
