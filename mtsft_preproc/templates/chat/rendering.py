"""Renders messages, and remembers how: the traces of earlier renderings, by the shape of the messages."""

from __future__ import annotations

import contextlib
import datetime
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError

from mtsft_preproc.dialogue import Message
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.templates.chat.environment import ChatEnvironment
from mtsft_preproc.templates.chat.expressions import Evaluate, Expression, compile_expression
from mtsft_preproc.templates.chat.messages import message_dict, message_shape, traced_messages, traced_tools
from mtsft_preproc.templates.chat.tracing import Leaf, Mark, Piece, Recorder, Traced, plain
from mtsft_preproc.templates.chat.tracing_environment import TracingEnvironment

__all__ = ["ChatRenderer", "Conversation", "Guard", "Trace"]

#: Traces that a worker keeps; the oldest go first.
_KEPT = 512
#: Traces of one shape, told apart by their guards.
_KEPT_OF_SHAPE = 8


@dataclass(slots=True)
class Conversation:
    """What a template is given.

    Attributes:
        messages: As ``chat_messages`` makes them.
        tools: The tools, or None.
        key: What the traces of its renderings are kept under.
        front: Messages in front that are not the dialogue's own: the system text.
        same: Per message what tells that it is the very message of another conversation; or None.
        wanted: Numbers of the messages of the assistant that have to be told from the rest; None: all.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None
    key: tuple[Any, ...]
    front: int = 0
    same: tuple[Any, ...] | None = None
    wanted: frozenset[int] | None = None

    @classmethod
    def of(cls, messages: list[dict[str, Any]], tools: list[Any], front: int | None = None) -> Conversation:
        """Make one; by default a system message that stands first is not the dialogue's own."""
        if front is None:
            front = int(bool(messages) and messages[0]["role"] == "system")
        # What stands in a list of tools beside objects isn't traced: it must be the same.
        others = [repr(tool) for tool in tools if not isinstance(tool, dict)]
        return cls(messages, tools or None, ((len(tools), *others), *map(message_shape, messages)), front)

    @classmethod
    def spoken(cls, messages: Sequence[Message], tools: list[Any], front: int) -> Conversation:
        """Make one of messages, of which ``front`` are not the dialogue's own, and a template's tools."""
        return cls.of([message_dict(message) for message in messages], list(tools), front)

    @property
    def values(self) -> list[Any]:
        """All that expressions are made of: the messages, and the tools behind them."""
        return [*self.messages, {"tools": self.tools}]

    def first(self, count: int) -> Conversation:
        """Return the conversation as it stood after ``count`` messages."""
        same = None if self.same is None else self.same[:count]
        return Conversation(self.messages[:count], self.tools, self.key[: count + 1], self.front, same)


@dataclass(slots=True)
class Guard:
    """A question that a rendering asked, and the answer for which its trace holds.

    Attributes:
        question: The question.
        answer: The answer.
        compile: Makes a function of the question, when it is asked first: most guards never are.
    """

    question: Expression
    answer: Any
    compile: Callable[[Expression], Evaluate]
    _ask: Evaluate | None = None

    def holds(self, values: Sequence[Any]) -> bool:
        """Return whether the answer is the same for another conversation of the same shape."""
        if self._ask is None:
            self._ask = self.compile(self.question)
        try:
            found = self._ask(values)
        except Exception:
            # The same operation on other text, out of range for instance: another rendering.
            return False
        return type(found) is type(self.answer) and bool(found == self.answer)


@dataclass(slots=True)
class Trace:
    """One rendering.

    Attributes:
        pieces: What was written; literal text that stands together is one piece.
        guards: What it holds for.
        compile: Makes a function of the expression of a piece, when it is needed.
    """

    pieces: tuple[Piece, ...]
    guards: tuple[Guard, ...]
    compile: Callable[[Expression], Evaluate]
    _fills: list[Evaluate] | None = None

    def of(self, values: Sequence[Any]) -> Trace:
        """Return the trace of another conversation for which the guards hold."""
        if self._fills is None:
            self._fills = [
                self.compile(piece.expression) for piece in self.pieces if isinstance(piece, Leaf)
            ]
        fills = iter(self._fills)
        pieces = tuple(
            Leaf(piece.expression, next(fills)(values), piece.owners) if isinstance(piece, Leaf) else piece
            for piece in self.pieces
        )
        return Trace(pieces, self.guards, self.compile, self._fills)


class ChatRenderer:
    """One chat template, compiled.

    Args:
        templates: Texts by name; one that is named ``tool_use`` takes the conversations with tools, as in
            transformers, where the other is named ``default``.
        variables: What the template is given beside the messages: special tokens by name, and the
            settings of ``--chat-template-kwargs``.
        today: The date that templates may print.

    Raises:
        TemplateError: The template doesn't compile.
    """

    def __init__(
        self, templates: Mapping[str, str], variables: Mapping[str, Any], today: datetime.date
    ) -> None:
        self._variables = dict(variables)
        self._environment = ChatEnvironment(today)
        tracing = TracingEnvironment(today, self._environment)
        try:
            self._plain = {name: self._environment.from_string(text) for name, text in templates.items()}
            self._tracing = {name: tracing.from_string(text) for name, text in templates.items()}
            for compiled in (*self._plain.values(), *self._tracing.values()):
                # Looked through for each rendering: faster as one dict than as a chain of them.
                compiled.globals = dict(compiled.globals)
        except Exception as error:
            line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
            raise TemplateError(f"--chat-template: can't be compiled: {line}{error}") from None
        self._traces: OrderedDict[tuple[Any, ...], list[Trace]] = OrderedDict()

    def text(self, conversation: Conversation, prompt: bool = False) -> str:
        """Render, as ``apply_chat_template(..., tokenize=False)`` does.

        Args:
            conversation: The conversation.
            prompt: Whether to add the generation prompt.

        Raises:
            RecordError: ``template-refused``: the template refuses the conversation, or fails on it.
        """
        return self._render(self._plain, conversation.messages, conversation.tools, prompt)

    def trace(self, conversation: Conversation, prompt: bool = False, keep: bool = True) -> Trace:
        """Render with every piece of text traced to where it came from.

        Args:
            conversation: The conversation.
            prompt: Whether to add the generation prompt.
            keep: Whether another conversation of the same shape may use the trace.

        Raises:
            RecordError: ``template-refused``; ``mask-unproven``: the traced text is not the text, as the
                template does something that tracing doesn't follow.
        """
        if not keep:
            return self._trace(conversation, prompt)
        key = (*conversation.key, prompt)
        known = self._traces.setdefault(key, [])
        self._traces.move_to_end(key)
        values = conversation.values
        for trace in known:
            if all(guard.holds(values) for guard in trace.guards):
                # An operation may fail on other text, out of range for instance: another rendering.
                with contextlib.suppress(LookupError, ValueError):
                    return trace.of(values)
        trace = self._trace(conversation, prompt)
        known.insert(0, trace)
        del known[_KEPT_OF_SHAPE:]
        if len(self._traces) > _KEPT:
            self._traces.popitem(last=False)
        return trace

    @property
    def call_filter(self) -> Callable[..., Any]:
        """``call_filter(name, value, args, kwargs)`` of the template's environment."""
        return self._environment.call_filter

    def compile(self, expression: Expression) -> Evaluate:
        """Return a function of the messages."""
        return compile_expression(expression, self._environment.call_filter)

    def guard(self, question: Expression, answer: Any) -> Guard:
        """Make a guard."""
        return Guard(question, answer, self.compile)

    def _trace(self, conversation: Conversation, prompt: bool) -> Trace:
        text = self.text(conversation, prompt)
        recorder = Recorder()
        messages = traced_messages(conversation.messages, recorder)
        tools = traced_tools(conversation.tools, recorder)
        try:
            traced = self._render(self._tracing, messages, tools, prompt)
        except RecordError:
            traced = ""
        if plain(traced) != text:
            raise RecordError("mask-unproven", "", "a template whose text can be traced", "other text")
        pieces = merged(traced.pieces) if isinstance(traced, Traced) else (text,)
        guards = tuple(self.guard(question, answer) for question, answer in recorder.guards.items())
        return Trace(pieces, guards, self.compile)

    def _render(self, compiled: Mapping[str, Any], messages: list[Any], tools: Any, prompt: bool) -> str:
        name = "tool_use" if tools is not None and "tool_use" in compiled else "default"
        try:
            rendered: str = compiled[name].render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=prompt,
                **self._variables,
            )
        except Exception as error:
            # Templates are code of strangers: they raise on purpose, and fail in every other way too.
            raise RecordError(
                "template-refused",
                "",
                "a dialogue that the chat template takes",
                f"{type(error).__name__}: {error}",
            ) from None
        return rendered


def merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join literal pieces that stand together, and drop empty ones."""
    found: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Leaf | Mark):
            found.append(piece)
        elif found and isinstance(found[-1], str):
            found[-1] += str(piece)
        elif piece:
            found.append(str(piece))
    return tuple(found)
