"""A rendered conversation whose words can be exchanged: what others of its kind are filled into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.templates.chat.expressions import Evaluate
from mtsft_preproc.templates.chat.rendering import Guard
from mtsft_preproc.templates.chat.tracing import Leaf
from mtsft_preproc.templates.chat.turns import Turn

__all__ = ["UNASKED", "Script", "ScriptTurn", "TurnColumns"]

#: Note on a greeting of the assistant that is context, as no serving engine asks for it.
UNASKED = "greeting-not-trained"


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


class TurnColumns(NamedTuple):
    """The turns of a script in columns.

    Attributes:
        messages: int64, shape (T,): the message of each.
        firsts: int64, shape (T,): number of its first piece.
        stable: bool, shape (T,): whether it is trained in the text that it is generated in.
        tails: object, shape (T,): as ``ScriptTurn.tail``.
        stopless: Messages of the turns that no stop token ends.
    """

    messages: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    stable: npt.NDArray[np.bool_]
    tails: npt.NDArray[np.object_]
    stopless: list[int]


@dataclass(slots=True)
class Script:
    """The pieces that conversations of one kind are written in.

    Attributes:
        literals: Text of each piece, ``""`` where it comes from the conversation.
        leaves: Of those, by number of the piece: what it is made of.
        fills: The same, compiled.
        words: Numbers of those pieces.
        kinds: uint8: the :class:`Kind` of each piece.
        owners: int64: number of the message of each piece, or -1.
        guards: What the script holds for.
        turns: The turns of the assistant.
        special: Ids of the special tokens that the template writes.
        places: Where each of them starts: number of the piece and character in it.
        notes: What the template leaves out of the conversation.
        noted: The same, each with the number of the message that it is about; the tools are behind them.
        meant: int64: ``special`` as an array.
        columns: ``turns`` in columns.
        opening: Of how many pieces the system's part is that may be encoded alone; None: not looked at yet.
    """

    literals: list[str]
    leaves: dict[int, Leaf]
    fills: list[tuple[int, Evaluate]]
    words: list[int]
    kinds: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int64]
    guards: tuple[Guard, ...]
    turns: list[ScriptTurn]
    special: list[int]
    places: list[tuple[int, int]]
    notes: list[str]
    noted: list[tuple[str, int]]
    meant: npt.NDArray[np.int64] = field(init=False)
    columns: TurnColumns = field(init=False)
    opening: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.meant = np.asarray(self.special, np.int64)
        self.columns = TurnColumns(
            np.asarray([made.turn.message for made in self.turns], np.int64),
            np.asarray([made.first for made in self.turns], np.int64),
            np.asarray([made.turn.stable for made in self.turns], bool),
            np.asarray([made.tail for made in self.turns], object),
            [made.turn.message for made in self.turns if not made.turn.stop],
        )

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
