"""Is a dialogue that was written without the template what the template writes?

The first dialogue of each shape is proven whole, however long it is: it is rendered on traced strings, so
that of every character is known who wrote it, and each of its turns is compared with the prompt that a
serving engine would render and with the dialogue as it stood when the turn was the newest. Text, kinds,
turns and notes must be those that were composed.

Two things are not proven twice. What a turn is depends on what stands up to it: where a dialogue of another
shape begins alike, down to the fragment behind the turn, the turn is proven already. And where a dialogue
is like a proven one in all but the number of tools, only its text is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtsft_preproc.dialogue import Message
from mtsft_preproc.templates.chat.cutting import Proven
from mtsft_preproc.templates.chat.headers import common_length
from mtsft_preproc.templates.chat.script import Script, ScriptTurn
from mtsft_preproc.templates.chat.turns import Turn
from mtsft_preproc.templates.segments import Kind

__all__ = [
    "Beginning",
    "Beginnings",
    "ShapeDifference",
    "ShapeDiffers",
    "difference",
    "is_proven",
    "turns_of",
]

#: Characters that a message shows of each text, some of them in front of where they part.
_SHOWN, _IN_FRONT = 80, 20


class ShapeDifference(NamedTuple):
    """A dialogue that was composed otherwise than the template writes it.

    Attributes:
        shape: Who speaks in it, in words.
        what: What is different: its text, or who is taken to have written it.
        composed: What was composed, from a little in front of where it differs.
        rendered: What the template writes there.
    """

    shape: str
    what: str
    composed: str
    rendered: str

    def __str__(self) -> str:
        return f"{self.shape}: {self.what}: {self.composed!r} composed, {self.rendered!r} rendered"


class ShapeDiffers(Exception):  # noqa: N818  # news for the caller, no error
    """A dialogue of a proven shape is not what the template writes; what was composed is to be done again.

    Never shown to the user as an error: whoever encodes renders every dialogue from there on.

    Args:
        difference: The dialogue, and what is different.
    """

    def __init__(self, difference: ShapeDifference) -> None:
        super().__init__(difference)
        self.difference = difference

    def __str__(self) -> str:
        return str(self.difference)


#: Number of a beginning, and of the fragment that ends its last turn.
Beginning = tuple[int, int | None]


class Beginnings:
    """Beginnings of dialogues of which the last turn is proven."""

    def __init__(self) -> None:
        #: Number of a beginning, by that of the one without its last message, and look and fragment of it.
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._proven: set[Beginning] = set()
        self._whole: set[Beginning] = set()

    def __len__(self) -> int:
        return len(self._numbers)

    def clear(self) -> None:
        """Forget all."""
        self._numbers.clear()
        self._proven.clear()
        self._whole.clear()

    def of(
        self, key: Sequence[int], fragments: Sequence[int], behind: Sequence[int | None]
    ) -> list[Beginning]:
        """Return, per message, what tells the beginning that ends with it.

        Args:
            key: The looks of the tools and of the messages.
            fragments: The number of the fragment of each message.
            behind: That of the fragment which ends its turn; None where more than one may.
        """
        found: list[Beginning] = []
        number = -2 if key[0] else -1
        for look, fragment, end in zip(key[1:], fragments, behind, strict=True):
            number = self._numbers.setdefault((number, look, fragment), len(self._numbers))
            found.append((number, end))
        return found

    def known(self, path: Sequence[Beginning], turns: Sequence[Turn]) -> dict[int, Turn]:
        """Return the turns that are proven, by their messages."""
        return {turn.message: turn for turn in turns if path[turn.message] in self._proven}

    def is_whole(self, path: Sequence[Beginning]) -> bool:
        """Return whether a dialogue that is told by the same, up to its end, was proven."""
        return path[-1] in self._whole

    def add(self, path: Sequence[Beginning], turns: Sequence[Turn]) -> None:
        """Take up that a dialogue was proven whole."""
        self._whole.add(path[-1])
        self._proven.update(path[turn.message] for turn in turns if path[turn.message][1] is not None)


def turns_of(script: Script, texts: Sequence[str]) -> list[Turn]:
    """Return the turns of a composed dialogue, by characters.

    Args:
        script: Its pieces.
        texts: Their texts.
    """
    places = list(itertools.accumulate(map(len, texts), initial=0))
    return [made.turn.at(places[made.first], places[made.stop]) for made in script.turns]


def is_proven(
    script: Script,
    texts: Sequence[str],
    owners: Sequence[frozenset[int]],
    claimed: Sequence[Turn],
    proven: Proven,
) -> bool:
    """Return whether a composed dialogue is what was proven of it, compared piece by piece.

    Where words were cut in two, that can't be seen so: :func:`difference` has the last word.

    Args:
        script: Its pieces.
        texts: Their texts.
        owners: Of each piece with words: the messages whose they are, and ``OUTSIDE`` for the tools.
        claimed: Its turns.
        proven: What was proven.
    """
    full, kinds = proven.full, proven.kinds
    starts = list(itertools.accumulate(map(len, texts), initial=0))
    if full.text != "".join(texts) or len(owners) != len(full.words) or proven.notes != script.notes:
        return False
    leaves = {}
    for piece, own, words in zip(script.words, owners, full.words, strict=True):
        if starts[piece] != words.start or starts[piece + 1] != words.end or own != words.leaf.owners:
            return False
        leaves[piece] = words.leaf
    if list(map(_placed, claimed)) != list(map(_placed, proven.turns)):
        return False
    found = [(0, 0)] * len(texts)
    for made in script.turns:
        found[made.first : made.stop] = [(Kind.GENERATED, made.turn.message)] * (made.stop - made.first)
    inside = {place for turn in claimed for place in kinds.borders if turn.start < place < turn.end}
    if not inside.union(starts).issuperset(kinds.borders):
        return False
    for piece, (kind, _) in enumerate(found):
        if not kind:
            found[piece] = kinds.of(leaves.get(piece, texts[piece]), starts[piece])
    return found == list(zip(script.kinds.tolist(), script.owners.tolist(), strict=True))


def difference(
    messages: Sequence[Message], composed: tuple[Script, str], rendered: tuple[Script | None, str]
) -> ShapeDifference | None:
    """Compare what was composed with what was rendered; None where it is the same.

    Args:
        messages: The dialogue.
        composed: Script and text.
        rendered: The same of the template; a script of None is not compared.
    """
    known, text = composed
    proven, right = rendered
    if text != right:
        start = max(0, common_length(text, right) - _IN_FRONT)
        return _said(messages, "text", text[start : start + _SHOWN], right[start : start + _SHOWN])
    if proven is None:
        return None
    for what, one, other in (
        ("kinds of the pieces", known.kinds, proven.kinds),
        ("messages of the pieces", known.owners, proven.owners),
    ):
        if not np.array_equal(one, other):
            return _said(messages, what, str(one.tolist())[:_SHOWN], str(other.tolist())[:_SHOWN])
    for own, right_one in itertools.zip_longest(map(_told, known.turns), map(_told, proven.turns)):
        if own != right_one:
            return _said(messages, "turn", str(own), str(right_one))
    if known.notes != proven.notes:
        return _said(messages, "notes", ", ".join(known.notes), ", ".join(proven.notes))
    return None


def _said(messages: Sequence[Message], what: str, composed: str, rendered: str) -> ShapeDifference:
    names = [message.role.name.lower() for message in messages]
    roles = " ".join(names[:8]) + (f" ... ({len(names)} messages)" if len(names) > 8 else "")
    return ShapeDifference(roles, what, composed, rendered)


def _placed(turn: Turn) -> tuple[object, ...]:
    return turn.message, turn.start, turn.end, turn.stop, turn.prompt_same, turn.reply_same


def _told(made: ScriptTurn) -> tuple[object, ...]:
    turn = made.turn
    return turn.message, turn.stop, turn.prompt_same, turn.reply_same, made.first, made.stop, made.tail
