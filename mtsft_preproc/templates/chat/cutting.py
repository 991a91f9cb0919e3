"""A proven text, cut into the pieces of a script: at the borders of turns, of kinds, and of words."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mtsft_preproc.templates.chat.expressions import Evaluate, Expression
from mtsft_preproc.templates.chat.kinds import Kinds
from mtsft_preproc.templates.chat.rendering import Guard
from mtsft_preproc.templates.chat.script import Script, ScriptTurn
from mtsft_preproc.templates.chat.tracing import Leaf, Piece
from mtsft_preproc.templates.chat.turns import Turn
from mtsft_preproc.templates.chat.written import Written
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Proven", "cut_pieces"]


class Proven(NamedTuple):
    """What is proven of a conversation.

    Attributes:
        full: Its text, and whose words stand where.
        turns: The turns of the assistant.
        kinds: What all else is.
        noted: What the template leaves out, each with the number of the message that it is about.
        guards: What all this holds for.
    """

    full: Written
    turns: list[Turn]
    kinds: Kinds
    noted: list[tuple[str, int]]
    guards: tuple[Guard, ...]

    @property
    def notes(self) -> list[str]:
        """What the template leaves out."""
        return list(dict.fromkeys(note for note, _ in self.noted))


def cut_pieces(
    proven: Proven, special: SpecialText, compile_words: Callable[[Expression], Evaluate]
) -> Script:
    """Return the script of a conversation.

    Args:
        proven: What was proven of it.
        special: Finds special tokens.
        compile_words: Makes a function of the expression of words.
    """
    full, turns, kinds, noted, guards = proven
    pieces: list[Piece] = []
    found: list[tuple[Kind, int]] = []
    made: list[ScriptTurn] = []
    place = 0
    for turn in turns:
        _add_others(pieces, found, kinds, full, place, turn.start)
        first = len(pieces)
        pieces += full.cut(turn.start, turn.end)
        found += [(Kind.GENERATED, turn.message)] * (len(pieces) - first)
        made.append(ScriptTurn(turn, first, len(pieces), *_tail(pieces[:first], special)))
        place = turn.end
    _add_others(pieces, found, kinds, full, place, len(full.text))
    tokens = _special_tokens(pieces, special)
    leaves = {number: piece for number, piece in enumerate(pieces) if isinstance(piece, Leaf)}
    return Script(
        [piece if isinstance(piece, str) else "" for piece in pieces],
        leaves,
        [(number, compile_words(leaf.expression)) for number, leaf in leaves.items()],
        list(leaves),
        np.asarray([kind for kind, _ in found], np.uint8),
        np.asarray([message for _, message in found], np.int64),
        guards,
        made,
        [index for index, _ in tokens],
        [place for _, place in tokens],
        proven.notes,
        noted,
    )


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
