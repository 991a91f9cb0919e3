"""What a template makes of dialogues: flat columns of segments, ready to be encoded in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

__all__ = ["Kind", "Mark", "SegmentBatch", "Stretch"]


class Kind(IntEnum):
    """What a segment is to a mask policy."""

    #: Stands before the dialogue: BOS and the like. Never trained.
    PREFIX = 0
    #: System text and tools. Never trained.
    SYSTEM = 1
    #: Words of the user, tool results, role headers, separators. Trained by ``full`` alone.
    CONTEXT = 2
    #: What the model would have produced, the token that stops it included.
    GENERATED = 3
    #: Words of a tool result, where a template is opened with ``train_on_tools``; else they are CONTEXT.
    OBSERVED = 4


class Mark(NamedTuple):
    """The state of a batch at one moment; see :meth:`SegmentBatch.mark`."""

    texts: int
    guarded: int
    stretches: int
    segments: int
    messages: int


class Stretch(NamedTuple):
    """A part of a text that is of another kind than its segment: a text is encoded whole.

    Attributes:
        text: Number of the text.
        start: Where in the text it starts, in characters.
        end: Where it ends.
        kind: What it is: ``SYSTEM`` or ``OBSERVED``.
        message: Number of the message that it is of, among all of the batch.
    """

    text: int
    start: int
    end: int
    kind: Kind
    message: int


@dataclass(slots=True)
class SegmentBatch:
    """The segments of many dialogues, in columns.

    A segment is a text that is encoded on its own, or a constant (an id, or a text that is the same in
    every dialogue) that was encoded once. Appending is the inner loop of rendering, so these are plain
    lists; everything behind them works on arrays.

    Attributes:
        texts: Texts to encode.
        guarded: Numbers of those texts in which special tokens are written as marks.
        stretches: Parts of texts that are of another kind than their segments.
        refs: Per segment: the number of its text, or ``~c`` for constant number c of the template.
        kinds: Per segment: a :class:`Kind`.
        message_ends: Per message: the number of segments up to and with it.
        trained: Per message: whether the mask policy trains what it generates.
        dialogue_ends: Per dialogue: the number of messages up to and with it.
        dialogues: Per dialogue: its number among all that were to be rendered.
    """

    texts: list[str] = field(default_factory=list)
    guarded: list[int] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    refs: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    message_ends: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    dialogue_ends: list[int] = field(default_factory=list)
    dialogues: list[int] = field(default_factory=list)

    def add_text(self, text: str, kind: Kind) -> None:
        """Append a text segment."""
        self.refs.append(len(self.texts))
        self.texts.append(text)
        self.kinds.append(kind)

    def add_guarded(self, text: str, kind: Kind) -> None:
        """Append a text segment whose control tokens are written as marks."""
        self.guarded.append(len(self.texts))
        self.add_text(text, kind)

    def add_stretch(self, text: int, start: int, length: int, kind: Kind, message: int = 0) -> None:
        """Say that a part of text number ``text`` is of kind ``kind``.

        Args:
            text: Number of the text.
            start: Where in the text the part starts.
            length: Its length.
            kind: Its kind.
            message: Number of its message, counted from the one that is being rendered.
        """
        if length:
            number = len(self.message_ends) + message
            self.stretches.append(Stretch(text, start, start + length, kind, number))

    def add_constant(self, number: int, kind: Kind) -> None:
        """Append constant ``number`` of the template."""
        self.refs.append(~number)
        self.kinds.append(kind)

    def end_message(self) -> None:
        """Close a message: the segments since the last call are its."""
        self.message_ends.append(len(self.refs))

    def end_dialogue(self, number: int, trained: Sequence[bool]) -> None:
        """Close dialogue ``number``; ``trained`` has one entry per message of it."""
        self.trained.extend(trained)
        self.dialogue_ends.append(len(self.message_ends))
        self.dialogues.append(number)

    def mark(self) -> Mark:
        """Return the state at the border between two dialogues."""
        return Mark(
            len(self.texts),
            len(self.guarded),
            len(self.stretches),
            len(self.refs),
            len(self.message_ends),
        )

    def rollback(self, mark: Mark) -> None:
        """Forget everything since ``mark``: the dialogue could not be rendered."""
        del self.texts[mark.texts :], self.guarded[mark.guarded :], self.stretches[mark.stretches :]
        del self.refs[mark.segments :], self.kinds[mark.segments :]
        del self.message_ends[mark.messages :]
