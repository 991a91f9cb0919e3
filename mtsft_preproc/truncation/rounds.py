"""``recent``, ``head`` and ``window``: whole rounds, as many as fit.

How long a shorter dialogue is, only rendering it tells: formats open, close and number rounds, leave
thoughts out of earlier ones, and take in a system text. So the number of rounds is searched for by
rendering. Tokens are nearly proportional to characters, which makes two or three renderings enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates import WHOLE, Template
from mtsft_preproc.truncation.pieces import Piece, round_starts, sizes

__all__ = ["ROUND_RULES", "fit_rounds"]

ROUND_RULES = ("recent", "head", "window")

#: Characters that are rendered at a time.
_AT_ONCE = 1 << 21


@dataclass(slots=True)
class _Search:
    """Looks for the most rounds of a piece that fit.

    Attributes:
        piece: The piece.
        borders: Where its rounds start, and where the last one ends.
        weights: Characters of each round.
        newest: Whether the newest rounds are kept, or the first ones.
        summarizes: Whether a summary takes the place of what is cut.
        last: Number of the last round that may be kept, plus one.
        rate: Tokens per character of the whole dialogue.
        fits: Rounds that are known to fit; 0 where none are.
        over: Rounds that are known not to fit, or one more than there are.
        error: Why a part of it can't be rendered, or None.
    """

    piece: Piece
    borders: list[int]
    weights: list[int]
    newest: bool
    summarizes: bool
    last: int
    rate: float
    fits: int = 0
    over: int = 0
    error: RecordError | None = None
    _seen: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.over = self.last + 1

    @property
    def open(self) -> bool:
        """Whether it is not yet known."""
        return self.error is None and self.over - self.fits > 1

    def kept(self, rounds: int) -> Piece:
        """Return the piece with so many rounds."""
        if self.newest:
            start = self.borders[self.last - rounds]
            summarized = self.summarizes and rounds < self.last
            return self.piece.part(start, self.borders[self.last], summarized)
        return self.piece.part(0, self.borders[rounds])

    def saw(self, rounds: int, tokens: int, limit: int) -> None:
        """Take note of how long so many rounds are."""
        self._seen[rounds] = tokens
        if tokens <= limit:
            self.fits = max(self.fits, rounds)
        else:
            self.over = min(self.over, rounds)

    def guesses(self, limit: int) -> list[int]:
        """Return the numbers of rounds to try next, between what fits and what does not.

        That which should fit, and one more: if that does not, all is known. Together they cost little more
        than one of them, as equal texts are encoded once.
        """
        rounds = np.arange(self.last + 1)
        weights = self.weights[: self.last]
        reach = np.concatenate([[0], np.cumsum(weights[::-1] if self.newest else weights)])
        near = min(self._seen, key=lambda count: abs(self._seen[count] - limit), default=0)
        # What stands in front of the rounds counts as if it were part of them: that evens out as soon as
        # one number of rounds has been tried.
        tokens = self._seen.get(near, 0) + (reach - reach[near]) * self.rate
        guessed = int(rounds[tokens <= limit].max(initial=1))
        first = min(max(guessed, self.fits + 1), self.over - 1)
        return [first, first + 1] if first + 1 < self.over else [first]


def fit_rounds(
    rule: str, template: Template, pieces: Sequence[Piece], lengths: Sequence[int], limit: int
) -> list[list[Piece] | RecordError]:
    """Cut pieces that are too long at the borders of their rounds.

    Args:
        rule: One of :data:`ROUND_RULES`.
        template: Renders them.
        pieces: Pieces with more than ``limit`` tokens.
        lengths: Their tokens.
        limit: The most tokens of a sample.

    Returns:
        Per piece: what becomes a sample each, or why nothing does.
    """
    searches: list[list[_Search]] = []
    for piece, tokens in zip(pieces, lengths, strict=True):
        texts = sizes(piece.dialogue)
        borders = [*round_starts(piece.dialogue.messages), len(texts)]
        weights = [1 + sum(texts[start:end]) for start, end in itertools.pairwise(borders)]
        count, rate = len(weights), tokens / sum(weights)
        lasts = _trained_rounds(piece, borders) if rule == "window" else [count]
        newest, summarizes = rule != "head", rule == "recent"
        searches.append(
            [_Search(piece, borders, weights, newest, summarizes, last, rate) for last in lasts]
        )
        for search in searches[-1]:
            if search.last == count:
                search.saw(count, tokens, limit)
    _search(template, [search for group in searches for search in group], limit)
    return [
        _windows(piece, group, limit) if rule == "window" else _single(group[0], limit)
        for piece, group in zip(pieces, searches, strict=True)
    ]


def _trained_rounds(piece: Piece, borders: list[int]) -> list[int]:
    """Return the rounds in which something is trained, counted from 1."""
    return [
        number
        for number in range(1, len(borders))
        if any(piece.trained[borders[number - 1] : borders[number]])
    ]


def _search(template: Template, searches: list[_Search], limit: int) -> None:
    """Carry on all searches side by side, so that their texts are encoded together."""
    while active := [search for search in searches if search.open]:
        tried: list[tuple[_Search, int, Piece]] = []
        room = _AT_ONCE
        for search in active:
            for rounds in search.guesses(limit):
                tried.append((search, rounds, search.kept(rounds)))
                room -= tried[-1][2].weight
            if room <= 0:
                break
        found = template.encode(
            [piece.dialogue for _, _, piece in tried], [piece.trained for _, _, piece in tried], shared=True
        )
        longest = np.zeros(len(tried), np.int64)
        np.maximum.at(longest, found.dialogues, np.diff(found.sample_ends, prepend=0))
        for number, (search, rounds, _) in enumerate(tried):
            if number in found.failed:
                search.error = found.failed[number]
            else:
                search.saw(rounds, int(longest[number]), limit)


def _single(search: _Search, limit: int) -> list[Piece] | RecordError:
    if search.error is not None:
        return search.error
    if not search.fits:
        which = "last" if search.newest else "first"
        return RecordError(
            "overlong", "", f"at most {limit} tokens", f"more than that in the {which} round alone"
        )
    return [search.kept(search.fits)]


def _windows(piece: Piece, searches: list[_Search], limit: int) -> list[Piece] | RecordError:
    """Return a sample for the rounds that have the same earliest round as context."""
    windows: dict[int, list[int]] = {}
    for search in searches:
        if search.error is not None:
            return search.error
        if not search.fits:
            got = f"more than that in round {search.last} of {len(search.weights)} alone"
            return RecordError("overlong", "", f"at most {limit} tokens", got)
        windows.setdefault(search.last - search.fits, []).append(search.last)
    if not windows:
        return RecordError("nothing-trained", "", "a reply with a token to train", "none")
    borders = searches[0].borders
    found = []
    for start, rounds in windows.items():
        # What another window trains is context in this one. It may lie between two rounds of this one: a
        # format that leaves thoughts out of earlier rounds can make a longer dialogue a shorter text.
        trained = [False] * len(piece.trained)
        for number in rounds:
            here = slice(borders[number - 1], borders[number])
            trained[here] = piece.trained[here]
        last = rounds[-1]
        turn = piece.first + trained.index(True)
        own = replace(piece, trained=trained, turn=turn if piece.turn == WHOLE else piece.turn)
        # No summary in front: another window trains what it tells.
        found.append(own.part(borders[start], borders[last]))
    return found
