"""A traced rendering as text with positions: whose words stand where."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtsft_preproc.templates.chat.expressions import paths
from mtsft_preproc.templates.chat.rendering import Trace, merged
from mtsft_preproc.templates.chat.tracing import Leaf, Mark, Piece

__all__ = ["Extent", "Words", "Written"]


class Words(NamedTuple):
    """A stretch of text that came from the dialogue: ``text[start:end]``."""

    start: int
    end: int
    leaf: Leaf


class Extent(NamedTuple):
    """Where the words of one message stand.

    Attributes:
        before: End of the words in front that are not the message's.
        start: Start of the message's first word.
        end: End of its last.
        after: Start of the words behind that are not the message's.
        mixed: Whether words of others are one with them.
        quoted: Whether words of the message stand further behind, too.
        last: Which fields of the messages the last of its words are made of.
    """

    before: int
    start: int
    end: int
    after: int
    mixed: bool
    quoted: bool
    last: Any = None


class Written:
    """The pieces of a trace, with their places."""

    def __init__(self, trace: Trace) -> None:
        self.pieces: list[tuple[int, Piece]] = []
        self.words: list[Words] = []
        #: Start and end of each ``{% generation %}`` block.
        self.marked: list[tuple[int, int]] = []
        place = 0
        opened: list[int] = []
        for piece in trace.pieces:
            if isinstance(piece, Mark):
                if piece.opens:
                    opened.append(place)
                else:
                    self.marked.append((opened.pop(), place))
                continue
            self.pieces.append((place, piece))
            length = len(piece.text if isinstance(piece, Leaf) else piece)
            if isinstance(piece, Leaf):
                self.words.append(Words(place, place + length, piece))
            place += length
        self._places = [place for place, _ in self.pieces]
        self.text = "".join(
            piece.text if isinstance(piece, Leaf) else str(piece) for _, piece in self.pieces
        )

    def extent(
        self,
        message: int,
        alone: Written | None = None,
        until: Any = None,
        shown_in: str | None = None,
    ) -> Extent | None:
        """Return where the words of a message stand, up to the first words that aren't its own.

        Later ones are quotations: templates write the name of a call beside its result, for instance.

        Args:
            message: The message.
            alone: The rendering in which the message is the last, so that nothing quotes it: its words
                there are all that it has, in their order.
            until: Fields of the words behind which empty ones don't count.
            shown_in: Text of that rendering, where it isn't traced: words that it doesn't start with, up to
                their end, aren't its own.

        Returns:
            None where the message has no words.
        """
        own = [number for number, words in enumerate(self.words) if message in words.leaf.owners]
        if not own:
            return None
        known = None if alone is None else alone.fields(message)
        run = []
        for number in range(own[0], len(self.words)):
            leaf = self.words[number].leaf
            if leaf.owners != {message}:
                break
            if known is not None:
                fields = _fields(leaf)
                if fields not in known:
                    break
                known = known[known.index(fields) + 1 :]
            run.append(number)
        # What the message still has to say stands behind words of others: it is said in two pieces.
        torn = any(
            self.words[number].leaf.text and _fields(self.words[number].leaf) in (known or ())
            for number in own[len(run) :]
        )
        if shown_in is not None:
            while run and not shown_in.startswith(self.text[: self.words[run[-1]].end]):
                run.pop()
        mixed = torn or not run
        run = run or own[:1]
        if until is not None:
            ends = [
                place for place, number in enumerate(run, 1) if _fields(self.words[number].leaf) == until
            ]
            behind = run[ends[-1] :] if ends else []
            run = (
                run
                if any(self.words[number].leaf.text for number in behind)
                else run[: len(run) - len(behind)]
            )
        # Empty words in front are thoughts that are none; those at the end show where the content ends.
        first = next((number for number in run if self.words[number].leaf.text), run[-1])
        before = [words.end for words in self.words[:first] if message not in words.leaf.owners]
        after = [words.start for words in self.words[run[-1] + 1 :] if words.leaf.text]
        return Extent(
            before[-1] if before else 0,
            self.words[first].start,
            self.words[run[-1]].end,
            after[0] if after else len(self.text),
            mixed,
            any(self.words[number].leaf.text for number in own if number > run[-1]),
            _fields(self.words[run[-1]].leaf),
        )

    def fields(self, message: int) -> list[Any]:
        """Return what the words of a message were made of, in their order."""
        return [_fields(words.leaf) for words in self.words if message in words.leaf.owners]

    def gap(self, message: int) -> tuple[int, int]:
        """Return the stretch between the words of earlier and of later messages."""
        before = [words.end for words in self.words if max(words.leaf.owners) < message]
        after = [words.start for words in self.words if min(words.leaf.owners) > message]
        return max(before, default=0), min(after, default=len(self.text))

    def has_others(self, start: int, end: int, message: int) -> bool:
        """Return whether words of others stand in a stretch."""
        return any(
            words.start < end and words.end > start and words.leaf.owners != {message}
            for words in self.words
        )

    def last_words(self, place: int) -> int:
        """Return where the last words in front of ``place`` end."""
        return max((words.end for words in self.words if words.end <= place), default=0)

    def cut(self, start: int, end: int) -> Sequence[Piece]:
        """Return the pieces of a stretch, words cut in two as they are."""
        found: list[Piece] = []
        first = max(bisect.bisect_left(self._places, start) - 1, 0)
        for place, piece in self.pieces[first : bisect.bisect_right(self._places, end)]:
            text = piece.text if isinstance(piece, Leaf) else str(piece)
            low, high = max(start - place, 0), min(end - place, len(text))
            if low > high or (low == high and (text or not start <= place < end)):
                continue
            if not isinstance(piece, Leaf):
                found.append(text[low:high])
            elif (low, high) == (0, len(text)):
                found.append(piece)
            else:
                bounds = ("const", "slice", (low or None, high if high < len(text) else None, None))
                sliced = ("call", "__getitem__", piece.expression, (bounds,), ())
                found.append(Leaf(sliced, text[low:high], piece.owners))
        return merged(found)


def _fields(leaf: Leaf) -> Any:
    """Return which fields of the messages words are made of; words that are made of none are themselves."""
    return paths(leaf.expression) or leaf.expression
