"""What a template sees of a message beside its words: the fields that are there, and its answers.

A template that is run on traced strings tells what it asks of them: is there a ``</think>`` in the content,
does it start with white space? Here the questions are gathered by the kind of message that they were asked
of, and from then on every message of that kind is asked all of them, whether the template would get to the
question or not. So the *look* of a message, a small number, stands for all that decides how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from mtsft_preproc.dialogue import Message, Role, ToolCall
from mtsft_preproc.templates.chat.expressions import Expression, paths
from mtsft_preproc.templates.chat.rendering import Guard
from mtsft_preproc.templates.chat.speakers import Source, Tools, moved
from mtsft_preproc.templates.chat.tracing import OUTSIDE

__all__ = ["Form", "Look", "Looks", "form_of"]

#: Questions about one kind of message, and about tools; and characters of one: more are no questions of a
#: template about text, but comparisons with the text that was traced.
_ASKED, _ASKED_OF_TOOLS, _LENGTH = 24, 400, 400
#: Looks that are told apart; beyond, all are forgotten.
_KNOWN = 4096

Form = tuple[Any, ...]
Ask = Callable[[Sequence[Message], int, Any], tuple[Any, ...]]


class Look:
    """The look of a message.

    Attributes:
        number: Tells it from others.
        form: Its role and what fields it has.
        plain: Whether its answers are those of an ordinary word, and nobody thinks in it.
    """

    __slots__ = ("form", "number", "plain")

    def __init__(self, number: int, form: Form, plain: bool) -> None:
        self.number, self.form, self.plain = number, form, plain


class Looks:
    """Looks at messages.

    Args:
        source: Compiles questions.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._questions: dict[Form, dict[Expression, None]] = {}
        self._of: dict[Form, tuple[Ask, tuple[Any, ...], dict[tuple[Any, ...], Look]]] = {}
        self._count = self._kept = 0
        #: Rises when a new question came: what was told apart by looks until then isn't, any more.
        self.epoch = 0

    def of(self, messages: Sequence[Message], number: int) -> Look:
        """Return the look of a message of a dialogue."""
        form = form_of(messages[number])
        known = self._of.get(form)
        if known is None:
            known = self._open(form, messages[number])
        ask, usual, looks = known
        answers = ask(messages, number, None)
        look = looks.get(answers)
        if look is None:
            look = looks[answers] = self._new(form, answers == usual and not form[2])
        return look

    def of_tools(self, tools: Tools) -> int:
        """Return what tells tools from others that are written in other words of the template."""
        if not tools:
            return 0
        if tools.look is None or tools.look[0] != self.epoch:
            others = tuple(repr(tool) for tool in tools if not isinstance(tool, dict))
            form = (OUTSIDE, len(tools), others)
            ask, _, known = self._of.get(form) or self._open(form, _NOBODY)
            answers = ask([_NOBODY], 0, tools)
            if answers not in known:
                known[answers] = self._new(form, True)
            tools.look = (self.epoch, known[answers].number)
        number: int = tools.look[1]
        return number

    def learn(self, guards: Iterable[Guard], messages: Sequence[Message], tools: Tools) -> bool:
        """Take up the questions of renderings of a dialogue.

        Returns:
            Whether all of them are about one message each, or about the tools.
        """
        of_tools = (OUTSIDE, len(tools), tuple(repr(tool) for tool in tools if not isinstance(tool, dict)))
        for guard in guards:
            question = guard.question
            owners = {OUTSIDE if path[1] == "tools" else path[0] for path in paths(question)}
            if not owners:
                continue
            if not isinstance(guard.answer, Hashable):
                return False
            if len(owners) > 1:
                return False
            [owner] = owners
            form = of_tools if owner == OUTSIDE else form_of(messages[owner])
            asked = self._questions.setdefault(form, {})
            question = moved(question, -owner) if owner != OUTSIDE else question
            if question in asked:
                continue
            if len(repr(question)) > _LENGTH:
                return False
            if len(asked) >= (_ASKED_OF_TOOLS if owner == OUTSIDE else _ASKED):
                return False
            asked[question] = None
            self._forget()
        return True

    def _forget(self) -> None:
        self._of.clear()
        self._kept = 0
        self.epoch += 1

    def _new(self, form: Form, plain: bool) -> Look:
        self._count += 1
        self._kept += 1
        if self._kept > _KNOWN:
            self._forget()
        return Look(self._count, form, plain)

    def _open(self, form: Form, message: Message) -> Any:
        """Write the function that asks all questions about messages of a form, and ask it of a word."""
        ask = self._source.answers(self._questions.get(form, ()))
        usual = () if form[0] == OUTSIDE else ask([_word(message)], 0, None)
        found = self._of[form] = (ask, usual, {})
        return found


def form_of(message: Message) -> Form:
    """Return what of a message is not text: its role, how full its content is, and which fields it has."""
    content = message.content
    if content:
        full = 3 if not content[0].isspace() or content.strip() else 2
    else:
        full = 0 if content is None else 1
    if not message.tool_calls and message.reasoning is message.name is message.call_id is None:
        return _SIMPLE[message.role][full]
    thought = message.reasoning
    return (
        message.role, full, 0 if thought is None else 1 if not thought else 2 if not thought.strip() else 3,
        tuple((call.id is None, type(call.arguments)) for call in message.tool_calls),
        message.name is None, message.call_id is None,
    )  # fmt: skip


_SIMPLE = {role: [(role, full, 0) for full in range(4)] for role in Role}
_NOBODY = Message(Role.USER, "")


def _word(message: Message) -> Message:
    """Return a message of the same form that says a word."""
    calls = tuple(
        ToolCall("word", call.arguments, None if call.id is None else "word") for call in message.tool_calls
    )
    content = "word" if message.content and message.content.strip() else message.content
    return Message(
        message.role,
        content,
        message.reasoning and "word",
        calls,
        None if message.name is None else "word",
        None if message.call_id is None else "word",
    )
