"""What a template makes of dialogues: flat columns of segments, ready to be encoded in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["TEXT", "Kind", "Mark", "RunTable", "SegmentBatch", "Segments", "Stretch"]

#: Stands for the next text of a batch where a segment's constant would be named.
TEXT = -1


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
    runs: int
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


class Segments(NamedTuple):
    """Segments in arrays.

    Attributes:
        constants: int64, shape (G,): the number of each segment's constant, or :data:`TEXT`; texts are
            taken in their order.
        kinds: uint8, shape (G,): the :class:`Kind` of each.
        message_ends: int64, shape (M,): segments up to and with each message.
    """

    constants: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.uint8]
    message_ends: npt.NDArray[np.int64]


class RunTable:
    """Runs of segments that occur again and again, by number.

    What a message adds to a batch is nearly always one of a few runs: a text and the constants around it.
    So rendering notes one number a message; what that stands for is looked up for a whole batch at once.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[tuple[tuple[int, Kind], ...], bool], int] = {}
        self._arrays: tuple[npt.NDArray[np.int64], ...] | None = None
        for kind in Kind:
            self.number([(TEXT, kind)])  # by the number of its kind
        #: The run without a segment that ends a message.
        self.end = self.number([], ends=True)

    def number(self, segments: Sequence[tuple[int, Kind]], ends: bool = False) -> int:
        """Return the number of a run.

        Args:
            segments: Per segment: the number of its constant, or :data:`TEXT`; and its kind.
            ends: Whether a message ends with it.
        """
        found = self._numbers.setdefault((tuple(segments), ends), len(self._numbers))
        self._arrays = None
        return found

    def constant(self, constant: int, kind: Kind) -> int:
        """Return the number of the run of one constant."""
        key = (((constant, kind),), False)
        found = self._numbers.get(key)
        return self.number(*key) if found is None else found

    def expand(self, runs: Sequence[int]) -> Segments:
        """Return the segments of many runs, one behind the other."""
        if self._arrays is None:
            self._arrays = self._columns()
        starts, sizes, ends, constants, kinds = self._arrays
        which = np.asarray(runs, np.int64)
        own = sizes[which]
        done = np.cumsum(own)
        places = np.repeat(starts[which] - done + own, own) + np.arange(done[-1] if len(done) else 0)
        return Segments(constants[places], kinds[places].astype(np.uint8), done[ends[which] > 0])

    def _columns(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return per run: where its segments start, how many, whether it ends; per segment: its columns."""
        runs = list(self._numbers)
        sizes = np.asarray([len(segments) for segments, _ in runs], np.int64)
        pairs = np.asarray([pair for segments, _ in runs for pair in segments], np.int64).reshape(-1, 2)
        ends = np.asarray([ends for _, ends in runs], np.int64)
        return np.cumsum(sizes) - sizes, sizes, ends, pairs[:, 0].copy(), pairs[:, 1].copy()


@dataclass(slots=True)
class SegmentBatch:
    """The segments of many dialogues, in columns.

    A segment is a text that is encoded on its own, or a constant (an id, or a text that is the same in
    every dialogue) that was encoded once. Appending is the inner loop of rendering, so these are plain
    lists; everything behind them works on arrays.

    Attributes:
        table: What the numbers in ``runs`` stand for.
        texts: Texts to encode, in the order of their segments.
        guarded: Numbers of those texts in which special tokens are written as marks.
        stretches: Parts of texts that are of another kind than their segments.
        runs: The segments, as numbers of runs.
        messages: Messages that have ended.
        trained: Per message: whether the mask policy trains what it generates.
        dialogue_ends: Per dialogue: the number of messages up to and with it.
        dialogues: Per dialogue: its number among all that were to be rendered.
    """

    table: RunTable = field(default_factory=RunTable)
    texts: list[str] = field(default_factory=list)
    guarded: list[int] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    messages: int = 0
    trained: list[bool] = field(default_factory=list)
    dialogue_ends: list[int] = field(default_factory=list)
    dialogues: list[int] = field(default_factory=list)

    def add_text(self, text: str, kind: Kind) -> None:
        """Append a text segment."""
        self.texts.append(text)
        self.runs.append(kind)

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
            self.stretches.append(Stretch(text, start, start + length, kind, self.messages + message))

    def add_constant(self, number: int, kind: Kind) -> None:
        """Append constant ``number`` of the template."""
        self.runs.append(self.table.constant(number, kind))

    def end_message(self) -> None:
        """Close a message: the segments since the last call are its."""
        self.runs.append(self.table.end)
        self.messages += 1

    def end_dialogue(self, number: int, trained: Sequence[bool]) -> None:
        """Close dialogue ``number``; ``trained`` has one entry per message of it."""
        self.trained += trained
        self.dialogue_ends.append(self.messages)
        self.dialogues.append(number)

    def mark(self) -> Mark:
        """Return the state at the border between two dialogues."""
        return Mark(len(self.texts), len(self.guarded), len(self.stretches), len(self.runs), self.messages)

    def rollback(self, mark: Mark) -> None:
        """Forget everything since ``mark``: the dialogue could not be rendered."""
        del self.texts[mark.texts :], self.guarded[mark.guarded :], self.stretches[mark.stretches :]
        del self.runs[mark.runs :]
        self.messages = mark.messages
