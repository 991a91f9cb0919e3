"""A rendered conversation whose words can be exchanged: what others of its kind are filled into."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.expressions import Evaluate, Expression, paths
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation, Guard
from mtsft_preproc.templates.chat.tracing import OUTSIDE, Leaf, Piece
from mtsft_preproc.templates.chat.turns import Turn, prove_quickly, prove_turn
from mtsft_preproc.templates.chat.written import Written
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Script", "ScriptTurn", "write_once", "write_script"]

#: Owner of text that belongs to no message.
NOBODY = -1


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
        owners: int64: number of the message of each piece, or ``NOBODY``.
        guards: What the script holds for.
        turns: The turns of the assistant.
        special: Ids of the special tokens that the template writes.
        notes: What the template leaves out of the conversation.
    """

    literals: list[str]
    fills: list[tuple[int, Evaluate]]
    kinds: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int64]
    guards: tuple[Guard, ...]
    turns: list[ScriptTurn]
    special: list[int]
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


def write_script(renderer: ChatRenderer, conversation: Conversation, special: SpecialText) -> Script:
    """Render a conversation and prove each turn of the assistant, for all conversations like it.

    Raises:
        RecordError: ``template-error``, ``mask-unproven``, or ``not-rendered``.
    """
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
        prompt = renderer.trace(conversation.first(number), prompt=True)
        guards |= {guard.question: guard for guard in prompt.guards}
        history = functools.partial(_traced, renderer, conversation.first(number))
        turn = prove_turn(number, full, Written(prompt), reply_written, history, special)
        for question, answer in turn.guards:
            guards[question] = renderer.guard(question, answer)
        turns.append(turn)
    return _compile(renderer, full, turns, tuple(guards.values()), notes, special)


def write_once(renderer: ChatRenderer, conversation: Conversation, special: SpecialText) -> Script:
    """Do the same for this conversation alone: a script without guards, for a fraction of the time.

    One rendering is traced; the others are plain ones where they are beginnings of one another.

    Raises:
        RecordError: As :func:`write_script`.
    """
    full = Written(renderer.trace(conversation, keep=False))
    replies = functools.cache(lambda number: _traced(renderer, conversation.first(number + 1)))
    notes = _left_out(conversation, full, replies)
    turns = []
    for number in _targets(conversation):
        before, upto = conversation.first(number), conversation.first(number + 1)
        prompt = renderer.text(before, prompt=True)
        reply = full.text if upto.messages == conversation.messages else renderer.text(upto)
        content = conversation.messages[number].get("content") or ""
        turn = prove_quickly(number, full, prompt, reply, content, special)
        if turn is None:
            history = functools.partial(_traced, renderer, before)
            turn = prove_turn(
                number, full, _traced(renderer, before, True), replies(number), history, special
            )
        turns.append(turn)
    return _compile(renderer, full, turns, (), notes, special)


def _targets(conversation: Conversation) -> list[int]:
    return [
        number for number, message in enumerate(conversation.messages) if message["role"] == "assistant"
    ]


def _traced(renderer: ChatRenderer, conversation: Conversation, prompt: bool = False) -> Written:
    return Written(renderer.trace(conversation, prompt))


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


def _compile(
    renderer: ChatRenderer,
    full: Written,
    turns: list[Turn],
    guards: tuple[Guard, ...],
    notes: list[str],
    special: SpecialText,
) -> Script:
    """Cut the text at the borders of the turns, and make functions of its words."""
    pieces: list[Piece] = []
    kinds: list[int] = []
    owners: list[int] = []
    made: list[ScriptTurn] = []

    def add(start: int, end: int, message: int, generated: bool) -> None:
        for piece in full.cut(start, end):
            pieces.append(piece)
            kinds.append(Kind.GENERATED if generated else _kind(piece, first_words, len(pieces)))
            owners.append(message)

    first_words = _first_words(full)
    place = 0
    for turn in turns:
        add(place, turn.start, NOBODY, False)
        first = len(pieces)
        add(turn.start, turn.end, turn.message, True)
        made.append(ScriptTurn(turn, first, len(pieces), *_tail(pieces[:first], special)))
        place = turn.end
    add(place, len(full.text), NOBODY, False)
    literals = [piece if isinstance(piece, str) else "" for piece in pieces]
    return Script(
        literals,
        [
            (number, renderer.compile(piece.expression))
            for number, piece in enumerate(pieces)
            if isinstance(piece, Leaf)
        ],
        np.asarray(kinds, np.uint8),
        np.asarray(owners, np.int64),
        guards,
        made,
        _special_ids(pieces, special),
        notes,
    )


def _first_words(full: Written) -> int:
    return full.words[0].start if full.words else 0


def _kind(piece: Piece, first_words: int, number: int) -> Kind:
    """Return what a piece is that the model didn't generate."""
    if isinstance(piece, Leaf):
        return Kind.SYSTEM if piece.owners == {OUTSIDE} else Kind.CONTEXT
    return Kind.PREFIX if number == 1 and first_words else Kind.CONTEXT


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


def _special_ids(pieces: Sequence[Piece], special: SpecialText) -> list[int]:
    """Return the special tokens that the template's own text spells; its pieces joined where they touch."""
    found: list[int] = []
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            found += special.ids(text)
            text = ""
    return found + special.ids(text)
