"""A rendered conversation whose words can be exchanged: what others of its kind are filled into."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.expressions import Evaluate, Expression, paths
from mtsft_preproc.templates.chat.kinds import Headers, Kinds
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation, Guard
from mtsft_preproc.templates.chat.tracing import OUTSIDE, Leaf, Piece
from mtsft_preproc.templates.chat.turns import Turn, prove_quickly, prove_turn
from mtsft_preproc.templates.chat.written import Written
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Scribe", "Script", "ScriptTurn"]

#: Note on a greeting of the assistant that is context, as no serving engine asks for it.
_UNASKED = "greeting-not-trained"

T = TypeVar("T")

#: Characters of renderings that are kept at most.
_KEPT_CHARACTERS = 1 << 25


@dataclass(frozen=True, slots=True)
class ScriptTurn:
    """A proven turn, by pieces instead of characters.

    Attributes:
        turn: The turn of the conversation that the script was written from.
        first: Number of its first piece.
        stop: Number of the piece behind its last.
        tail: Text in front of it from the last special token on, if that is the template's own; else None.
        tail_from: Where that stretch starts: number of the piece and character in it.
    """

    turn: Turn
    first: int
    stop: int
    tail: str | None
    tail_from: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Script:
    """The pieces that conversations of one kind are written in.

    Attributes:
        literals: Text of each piece, ``""`` where it comes from the conversation.
        fills: Of those: number of the piece, and what it is filled with.
        kinds: uint8: the :class:`Kind` of each piece.
        owners: int64: number of the message of each piece, or -1.
        guards: What the script holds for.
        turns: The turns of the assistant.
        special: Ids of the special tokens that the template writes.
        places: Where each of them starts: number of the piece and character in it.
        notes: What the template leaves out of the conversation.
    """

    literals: list[str]
    fills: list[tuple[int, Evaluate]]
    kinds: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int64]
    guards: tuple[Guard, ...]
    turns: list[ScriptTurn]
    special: list[int]
    places: list[tuple[int, int]]
    notes: list[str]

    def holds(self, values: Sequence[Any]) -> bool:
        """Return whether another conversation of the same shape is rendered in the same pieces."""
        return all(guard.holds(values) for guard in self.guards)

    def writes(self, text: str, values: Sequence[Any]) -> bool:
        """Return whether filled with another conversation it is a text."""
        try:
            return "".join(self.fill(values)) == text
        except (LookupError, ValueError):
            # An operation failed on other text, out of range for instance.
            return False

    def fill(self, values: Sequence[Any]) -> list[str]:
        """Return the texts of the pieces for another conversation."""
        texts = self.literals.copy()
        for number, evaluate in self.fills:
            texts[number] = evaluate(values)
        return texts


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
                notes.append(_UNASKED)
                continue
            guards |= {guard.question: guard for guard in prompt.guards}
            history = functools.partial(self._traced, conversation.first(number))
            turn = prove_turn(number, full, Written(prompt), reply_written, history, self._special)
            for question, answer in turn.guards:
                guards[question] = renderer.guard(question, answer)
            turns.append(turn)
        return self._compile(conversation, full, turns, tuple(guards.values()), notes)

    def write_once(self, conversation: Conversation) -> Script:
        """Do the same for this conversation alone: a script without guards, for a fraction of the time.

        One rendering is traced; the others are plain ones where they are beginnings of one another.

        Raises:
            RecordError: As :meth:`write`.
        """
        special = self._special
        full = Written(self._renderer.trace(conversation, keep=False))
        replies = functools.cache(lambda number: self._traced(conversation.first(number + 1)))
        notes = _left_out(conversation, full, replies)
        turns = []
        for number in _targets(conversation):
            before, upto = conversation.first(number), conversation.first(number + 1)
            prompt = self._prompt(number, functools.partial(self._text, prompt=True), conversation)
            if prompt is None:
                notes.append(_UNASKED)
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
        return self._compile(conversation, full, turns, (), notes)

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

    def _compile(
        self,
        conversation: Conversation,
        full: Written,
        turns: list[Turn],
        guards: tuple[Guard, ...],
        notes: list[str],
    ) -> Script:
        """Cut the text at the borders of the turns, and make functions of its words."""
        kinds = Kinds(full, conversation, self._headers, self._special, self._observes)
        pieces: list[Piece] = []
        found: list[tuple[Kind, int]] = []
        made: list[ScriptTurn] = []
        place = 0
        for turn in turns:
            _add_others(pieces, found, kinds, full, place, turn.start)
            first = len(pieces)
            pieces += full.cut(turn.start, turn.end)
            found += [(Kind.GENERATED, turn.message)] * (len(pieces) - first)
            made.append(ScriptTurn(turn, first, len(pieces), *_tail(pieces[:first], self._special)))
            place = turn.end
        _add_others(pieces, found, kinds, full, place, len(full.text))
        tokens = _special_tokens(pieces, self._special)
        return Script(
            [piece if isinstance(piece, str) else "" for piece in pieces],
            [
                (number, self._renderer.compile(piece.expression))
                for number, piece in enumerate(pieces)
                if isinstance(piece, Leaf)
            ],
            np.asarray([kind for kind, _ in found], np.uint8),
            np.asarray([message for _, message in found], np.int64),
            guards,
            made,
            [index for index, _ in tokens],
            [place for _, place in tokens],
            notes,
        )


def _targets(conversation: Conversation) -> list[int]:
    """Return the messages of the assistant, those that are wanted."""
    wanted = conversation.wanted
    return [
        number
        for number, message in enumerate(conversation.messages)
        if message["role"] == "assistant" and (wanted is None or number in wanted)
    ]


def _left_out(conversation: Conversation, full: Written, replies: Callable[[int], Written]) -> list[str]:
    """Return notes on what the template doesn't write.

    Raises:
        RecordError: ``not-rendered``: it leaves out what the assistant says.
    """
    notes: dict[str, None] = {}
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
            notes[f"not-rendered-{field if is_target else message['role']}"] = None
    if conversation.tools and not any(OUTSIDE in words.leaf.owners for words in full.words):
        notes["not-rendered-tools"] = None
    return list(notes)


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


def _add_others(
    pieces: list[Piece], found: list[tuple[Kind, int]], kinds: Kinds, full: Written, start: int, end: int
) -> None:
    """Add the pieces of a stretch that the model didn't generate, with their kinds and messages."""
    borders = [start, *(place for place in kinds.borders if start < place < end), end]
    for low, high in itertools.pairwise(borders):
        place = low
        for piece in full.cut(low, high):
            pieces.append(piece)
            found.append(kinds.of(piece, place))
            place += len(piece.text if isinstance(piece, Leaf) else str(piece))


def _tail(pieces: Sequence[Piece], special: SpecialText) -> tuple[str | None, tuple[int, int]]:
    """Return the text from the last special token of the template on, and where it starts."""
    behind = ""
    for number in range(len(pieces) - 1, -1, -1):
        piece = pieces[number]
        if isinstance(piece, str):
            found = special.tokens(piece)
            if found:
                place = found[-1].start()
                all_literal = all(isinstance(later, str) for later in pieces[number + 1 :])
                return (piece[place:] + behind if all_literal else None), (number, place)
            behind = piece + behind
    return None, (0, 0)


def _special_tokens(pieces: Sequence[Piece], special: SpecialText) -> list[tuple[int, tuple[int, int]]]:
    """Return id and place of the special tokens that the template's own text spells.

    Its pieces are joined where they touch; a place is the number of a piece and a character in it.
    """
    found: list[tuple[int, tuple[int, int]]] = []
    run: list[tuple[int, str]] = []
    for number, piece in enumerate([*pieces, None]):
        if isinstance(piece, str):
            run.append((number, piece))
        elif run:
            found += _of_run(run, special)
            run = []
    return found


def _of_run(run: list[tuple[int, str]], special: SpecialText) -> Iterator[tuple[int, tuple[int, int]]]:
    text = "".join(piece for _, piece in run)
    starts = [0, *itertools.accumulate(len(piece) for _, piece in run)]
    for match, index in zip(special.tokens(text), special.ids(text), strict=True):
        at = bisect.bisect_right(starts, match.start()) - 1
        yield index, (run[at][0], match.start() - starts[at])
