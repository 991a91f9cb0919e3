"""Writes scripts: renders a conversation, proves its turns, and cuts its text into pieces."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.cutting import Proven, cut_pieces
from mtsft_preproc.templates.chat.expressions import Expression, paths
from mtsft_preproc.templates.chat.kinds import Headers, Kinds
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation, Guard
from mtsft_preproc.templates.chat.script import UNASKED, Script
from mtsft_preproc.templates.chat.tracing import OUTSIDE
from mtsft_preproc.templates.chat.turns import Turn, prove_quickly, prove_turn
from mtsft_preproc.templates.chat.written import Written
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Claim", "Scribe"]

T = TypeVar("T")

#: Characters of renderings that are kept at most.
_KEPT_CHARACTERS = 1 << 25


class Claim(NamedTuple):
    """What is known of a conversation before it is rendered.

    Attributes:
        text: What the template is to write.
        turns: Proven turns, by the numbers of their messages.
    """

    text: str
    turns: Mapping[int, Turn]


class Scribe:
    """Writes scripts.

    Args:
        renderer: The template.
        special: Finds special tokens.
        observes: Whether the words of tool results are told apart from the rest.
    """

    def __init__(self, renderer: ChatRenderer, special: SpecialText, observes: bool = False) -> None:
        self._renderer = renderer
        self._special = special
        self._observes = observes
        self._headers = Headers(renderer, special)
        self._kept: dict[tuple[Any, ...], str] = {}
        self._kept_characters = 0

    def forget(self) -> None:
        """Forget the renderings that are kept for conversations which share messages."""
        self._kept.clear()
        self._kept_characters = 0

    def write(self, conversation: Conversation) -> Script:
        """Render a conversation and prove each turn of the assistant, for all conversations like it.

        Raises:
            RecordError: ``template-refused``, ``mask-unproven``, or ``not-rendered``.
        """
        renderer = self._renderer
        trace = renderer.trace(conversation)
        full = Written(trace)
        guards: dict[Expression, Guard] = {guard.question: guard for guard in trace.guards}
        replies = {}
        for number in _targets(conversation):
            reply = renderer.trace(conversation.first(number + 1))
            guards |= {guard.question: guard for guard in reply.guards}
            replies[number] = Written(reply)
        notes = _left_out(conversation, full, replies.__getitem__)
        for question, answer in _emptiness(conversation, full):
            guards.setdefault(question, renderer.guard(question, answer))
        turns = []
        for number, reply_written in replies.items():
            prompt = self._prompt(number, functools.partial(renderer.trace, prompt=True), conversation)
            if prompt is None:
                notes.append((UNASKED, number))
                continue
            guards |= {guard.question: guard for guard in prompt.guards}
            history = functools.partial(self._traced, conversation.first(number))
            turn = prove_turn(number, full, Written(prompt), reply_written, history, self._special)
            for question, answer in turn.guards:
                guards[question] = renderer.guard(question, answer)
            turns.append(turn)
        kinds = Kinds(full, conversation, self._headers, self._special, self._observes)
        return self.compile(Proven(full, turns, kinds, notes, tuple(guards.values())))

    def write_once(self, conversation: Conversation) -> Script:
        """Do the same for this conversation alone, for a fraction of the time: its guards are not all.

        Raises:
            RecordError: As :meth:`write`.
        """
        return self.compile(self.prove(conversation))

    def prove(self, conversation: Conversation, claim: Claim | None = None) -> Proven:
        """Prove each turn of the assistant, for this conversation alone.

        One rendering is traced; the others are plain ones where they are beginnings of one another.

        Args:
            conversation: The conversation.
            claim: What is known of it, if anything: where its text is what the template writes, turns that
                were proven of another dialogue with the same beginning are not proven once more.

        Raises:
            RecordError: As :meth:`write`.
        """
        special = self._special
        trace = self._renderer.trace(conversation, keep=False)
        full = Written(trace)
        replies = functools.cache(lambda number: self._traced(conversation.first(number + 1)))
        notes = _left_out(conversation, full, replies)
        known = claim.turns if claim is not None and claim.text == full.text else {}
        turns = []
        for number in _targets(conversation):
            if number in known:
                turns.append(known[number])
                continue
            before, upto = conversation.first(number), conversation.first(number + 1)
            prompt = self._prompt(number, functools.partial(self._text, prompt=True), conversation)
            if prompt is None:
                notes.append((UNASKED, number))
                continue
            reply = full.text if upto.messages == conversation.messages else self._text(upto)
            content = conversation.messages[number].get("content") or ""
            turn = prove_quickly(number, full, prompt, reply, content, special)
            if turn is None:
                history = functools.partial(self._traced, before)
                turn = prove_turn(
                    number, full, self._traced(before, True), replies(number), history, special
                )
            turns.append(turn)
        told = (self._renderer.guard(*asked) for turn in turns for asked in turn.guards)
        kinds = Kinds(full, conversation, self._headers, special, self._observes)
        return Proven(full, turns, kinds, notes, (*trace.guards, *told))

    def questions(self, conversation: Conversation) -> list[Guard]:
        """Return what a template asks where a dialogue is not over yet, and what tells turns from others.

        Looked at are the first turn and the last two.

        Raises:
            RecordError: ``template-refused`` or ``mask-unproven``.
        """
        render = functools.partial(self._renderer.trace, keep=False)
        full = Written(render(conversation))
        turns = _targets(conversation)
        found: list[Guard] = []
        for number in sorted({*turns[:1], *turns[-2:]}):
            reply = render(conversation.first(number + 1))
            found += reply.guards
            if not number:
                continue
            prompt = render(conversation.first(number), True)
            history = functools.partial(self._traced, conversation.first(number))
            turn = prove_turn(number, full, Written(prompt), Written(reply), history, self._special)
            found += [*prompt.guards, *itertools.starmap(self._renderer.guard, turn.guards)]
        return found

    def _prompt(
        self, number: int, render: Callable[[Conversation], T], conversation: Conversation
    ) -> T | None:
        """Render what stands in front of a turn; None where that is nothing, and the template refuses it.

        A greeting, with which the assistant opens a dialogue, is then no turn that a model was asked for.
        """
        try:
            return render(conversation.first(number))
        except RecordError:
            if number:
                raise
            return None

    def _text(self, conversation: Conversation, prompt: bool = False) -> str:
        """Render, what the conversation has in common with others once."""
        if conversation.same is None:
            return self._renderer.text(conversation, prompt)
        key = (prompt, id(conversation.tools), *conversation.same)
        if key not in self._kept:
            text = self._renderer.text(conversation, prompt)
            self._kept_characters += len(text)
            if self._kept_characters > _KEPT_CHARACTERS:
                self.forget()
            self._kept[key] = text
        return self._kept[key]

    def _traced(self, conversation: Conversation, prompt: bool = False) -> Written:
        return Written(self._renderer.trace(conversation, prompt))

    def compile(self, proven: Proven) -> Script:
        """Cut what was proven into pieces, and make functions of its words."""
        return cut_pieces(proven, self._special, self._renderer.compile)


def _targets(conversation: Conversation) -> list[int]:
    """Return the messages of the assistant, those that are wanted."""
    wanted = conversation.wanted
    return [
        number
        for number, message in enumerate(conversation.messages)
        if message["role"] == "assistant" and (wanted is None or number in wanted)
    ]


def _left_out(
    conversation: Conversation, full: Written, replies: Callable[[int], Written]
) -> list[tuple[str, int]]:
    """Return notes on what the template doesn't write, with the messages.

    Raises:
        RecordError: ``not-rendered``: it leaves out what the assistant says.
    """
    notes: list[tuple[str, int]] = []
    shown = _written_fields(full)
    for number, message in enumerate(conversation.messages):
        is_target = message["role"] == "assistant"
        for field in ("content", "reasoning_content", "tool_calls"):
            value = message.get(field)
            if not value or (isinstance(value, str) and not value.strip()):
                continue
            # What is left out once the dialogue has gone on is another matter.
            names = {(number, field), (number, "thinking" if field == "reasoning_content" else field)}
            if names & shown or (is_target and names & _written_fields(replies(number))):
                continue
            if is_target and field != "reasoning_content":
                raise RecordError(
                    "not-rendered", f"messages[{number}].{field}", "a template that writes it", "none of it"
                )
            notes.append((f"not-rendered-{field if is_target else message['role']}", number))
    if conversation.tools and not any(OUTSIDE in words.leaf.owners for words in full.words):
        notes.append(("not-rendered-tools", len(conversation.messages)))
    return notes


def _emptiness(conversation: Conversation, full: Written) -> Iterator[tuple[Expression, bool]]:
    """Yield what of a conversation is empty: that proves less, and has another script."""
    for number, message in enumerate(conversation.messages):
        for field in ("content", "reasoning_content"):
            if field in message:
                stripped = ("call", "strip", ("at", (number, field)), (), ())
                yield ("truth", stripped), bool(message[field].strip())
    for words in full.words:
        yield ("truth", words.leaf.expression), bool(words.leaf.text)


def _written_fields(written: Written) -> set[tuple[Any, ...]]:
    """Return (number of the message, field) of all that stands in a text."""
    return {path[:2] for words in written.words for path in paths(words.leaf.expression)}
