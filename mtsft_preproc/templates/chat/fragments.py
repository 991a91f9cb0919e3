"""What a template writes for one message of a dialogue, cut out of proven renderings.

A rendered text is cut behind the last words of each message: what stands between them and the last words of
the next is that one's *fragment*, the template's own text in front included. Which fragment a message has
depends on its look, on who speaks around it, and on where it stands; where something in a dialogue is out
of the ordinary (thoughts, odd text), on the whole dialogue. Of messages in the same place the same fragment
is expected; where two are found, none is used.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Message, Role
from mtsft_preproc.templates.chat.looks import Look
from mtsft_preproc.templates.chat.script import UNASKED, Script, ScriptTurn
from mtsft_preproc.templates.chat.speakers import Source, moved, owners_of
from mtsft_preproc.templates.chat.turns import Turn

__all__ = ["Fragment", "cut_script", "join_script", "places_of"]

#: A piece by the message whose fragment it is in, counted from another one, and its number there.
Spot = tuple[int, int]
Write = Callable[[Sequence[Message], int, Any], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class FragmentTurn:
    """The turn that ends in a fragment's message, as :class:`ScriptTurn` has it, by spots.

    Attributes:
        first: Its first piece.
        stop: The piece behind its last.
        tail: As in ``ScriptTurn``.
        tail_from: The piece where that stretch starts, None for the start of the text; and the character.
        said: Text of the stop token, and whether prompt and reply are those of serving.
    """

    first: Spot
    stop: Spot
    tail: str | None
    tail_from: tuple[Spot | None, int]
    said: tuple[str, bool, bool]


class FragmentColumns(NamedTuple):
    """The pieces of a fragment.

    Attributes:
        kinds: uint8, shape (P,): as ``Fragment.kinds``.
        owned: bool, shape (P,): which are a message's.
        owners: int64, shape (P,): of which, counted from the fragment's own.
        words: Numbers of the pieces with words.
    """

    kinds: npt.NDArray[np.uint8]
    owned: npt.NDArray[np.bool_]
    owners: npt.NDArray[np.int64]
    words: list[int]


@dataclass(frozen=True)
class Fragment:
    """What is written for one message; two are equal if they write the same.

    Attributes:
        parts: Per piece its text, or the expression of its words, places counted from the message.
        kinds: Per piece its kind.
        owners: Per piece its message, counted from this one; None: nobody's.
        special: (id, piece, character in it) of each special token of the template.
        turn: The turn of this message, if it is one.
        notes: What of the message the template leaves out.
    """

    parts: tuple[Any, ...]
    kinds: tuple[int, ...]
    owners: tuple[int | None, ...]
    special: tuple[tuple[int, int, int], ...]
    turn: FragmentTurn | None
    notes: tuple[str, ...]

    @functools.cached_property
    def words(self) -> tuple[frozenset[int | None], ...]:
        """Whose the words among the pieces are: messages, counted from this one; None: the tools."""
        return tuple(owners_of(part) for part in self.parts if not isinstance(part, str))

    @functools.cached_property
    def around_tools(self) -> tuple[Any, ...]:
        """What stands in front of the tools that it writes, and behind; all of it, if it writes none."""
        tools = [
            piece
            for piece, part in enumerate(self.parts)
            if not isinstance(part, str) and owners_of(part) == {None}
        ]
        inner = self.parts[tools[0] : tools[-1] + 1] if tools else ()
        others = any(not isinstance(part, str) and owners_of(part) != {None} for part in inner)
        if not tools or self.turn or others:
            return (self,)
        pieces = list(zip(self.parts, self.kinds, self.owners, strict=True))
        return tuple(pieces[: tools[0]]), tuple(pieces[tools[-1] + 1 :]), self.notes

    @functools.cached_property
    def columns(self) -> FragmentColumns:
        """Its pieces in columns, for scripts that are made of it."""
        words = [piece for piece, part in enumerate(self.parts) if not isinstance(part, str)]
        return FragmentColumns(
            np.asarray(self.kinds, np.uint8),
            np.asarray([owner is not None for owner in self.owners], bool),
            np.asarray([owner or 0 for owner in self.owners], np.int64),
            words,
        )

    def compile(self, source: Source) -> Write:
        """Return the function that writes the texts of the pieces."""
        return source.function(self.parts)


def places_of(looks: Sequence[Look], tools: int, roles: Sequence[Role]) -> list[Any]:
    """Return what the fragment of each message, and of the end behind them, depends on."""
    if not all(look.plain for look in looks):
        everything = (tools, *(look.number for look in looks))
        return [(number, everything) for number in range(len(looks) + 1)]
    count = len(looks)
    users = [number for number, role in enumerate(roles) if role is Role.USER]
    first, last = (users[0], users[-1]) if users else (count, -1)
    numbers = [0, 0, *(look.number for look in looks), -1, -1, -1]
    general = (tools, roles[0] if roles else None)
    return [
        (
            general, *numbers[place : place + 5], min(place, 3), min(count - place, 3), place & 1,
            (place > first) - (place < first), (place > last) - (place < last),
        )
        for place in range(count + 1)
    ]  # fmt: skip


def cut_script(script: Script, count: int) -> list[Fragment]:
    """Cut a script of ``count`` messages into their fragments, and that of the end."""
    starts = _starts(script, count)
    ends = [*starts[1:], len(script.kinds)]

    def spot(piece: int, base: int) -> Spot:
        # The end of a fragment is the start of the next one: told by the nearer of them.
        holds = [place for place, start in enumerate(starts) if start <= piece <= ends[place]]
        number = min(holds, key=lambda place: abs(place - base))
        return number - base, piece - starts[number]

    turns = {}
    for made in script.turns:
        turn, own = made.turn, made.turn.message
        piece, place = made.tail_from
        has_special = piece or place or made.tail is not None
        tail_from = (spot(piece, own) if has_special else None, place)
        said = (turn.stop, turn.prompt_same, turn.reply_same)
        turns[own] = FragmentTurn(spot(made.first, own), spot(made.stop, own), made.tail, tail_from, said)
    tokens = list(zip(script.special, script.places, strict=True))
    owners = script.owners.tolist()
    return [
        Fragment(
            tuple(
                moved(leaf.expression, -number)
                if (leaf := script.leaves.get(piece))
                else script.literals[piece]
                for piece in range(start, end)
            ),
            tuple(script.kinds[start:end].tolist()),
            tuple(None if owner < 0 else owner - number for owner in owners[start:end]),
            tuple(
                (index, piece - start, place) for index, (piece, place) in tokens if start <= piece < end
            ),
            turns.get(number),
            tuple(note for note, message in script.noted if message == number),
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _starts(script: Script, count: int) -> list[int]:
    """Return the number of the first piece of each fragment."""
    starts = [0]
    behind = 0
    for piece, leaf in sorted(script.leaves.items()):
        owner = max(leaf.owners)
        if owner >= len(starts):
            # Messages without words of their own in between have no pieces.
            starts += [behind] * (owner - len(starts) + 1)
        behind = piece + 1
    return starts + [behind] * (count + 1 - len(starts))


def join_script(fragments: Sequence[Fragment]) -> Script:
    """Return the script that fragments make, one behind the other; without what it writes.

    Raises:
        ValueError: They don't fit each other.
    """
    starts = list(itertools.accumulate((len(one.kinds) for one in fragments), initial=0))

    def piece_at(number: int, spot: Spot) -> int:
        if not 0 <= number + spot[0] < len(fragments):
            raise ValueError(f"the turn of message {number} reaches beyond the dialogue")
        return starts[number + spot[0]] + spot[1]

    columns = [one.columns for one in fragments]
    kinds, owned, owners = (np.concatenate(column) for column in list(zip(*columns, strict=True))[:3])
    numbers = np.repeat(np.arange(len(fragments)), [len(one.kinds) for one in fragments])
    owners = np.where(owned, owners + numbers, -1)
    own_of = owners.tolist()
    tokens = [
        (index, (starts[number] + piece, place))
        for number, one in enumerate(fragments)
        for index, piece, place in one.special
    ]
    turns = []
    for number, one in enumerate(fragments):
        if one.turn is None:
            continue
        first, stop = (piece_at(number, spot) for spot in (one.turn.first, one.turn.stop))
        if set(own_of[first:stop]) - {number}:
            raise ValueError(f"the turn of message {number} holds what is not its own")
        opens, place = one.turn.tail_from
        tail_from = (0 if opens is None else piece_at(number, opens), place)
        turn = Turn(number, -1, -1, *one.turn.said)
        turns.append(ScriptTurn(turn, first, stop, one.turn.tail, tail_from))
    noted = [(note, number) for number, one in enumerate(fragments) for note in one.notes]
    names = dict.fromkeys(note for note, _ in sorted(noted, key=lambda pair: pair[0] == UNASKED))
    return Script(
        [""] * len(kinds),
        {},
        [],
        [start + piece for start, one in zip(starts, columns, strict=False) for piece in one.words],
        kinds,
        owners,
        (),
        turns,
        [index for index, _ in tokens],
        [place for _, place in tokens],
        list(names),
        noted,
    )
