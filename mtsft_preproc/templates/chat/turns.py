"""What the model generated in a rendered conversation, derived in two ways that must agree.

The first way looks at one rendering: where do the words of a message stand, and what did the template write
around them? The second looks at what a serving engine does: it renders the history with the generation
prompt, the model goes on from its end, and what ends the turn is what follows the words where the message
is the last one. A turn is proven where the words of the first lie in the stretch of the second, with nobody
else's among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtsft_preproc.templates.chat.expressions import Expression, paths
from mtsft_preproc.templates.chat.headers import (
    EMPTY_THOUGHT,
    THINK_TAG,
    common_length,
    header_length,
    unproven,
)
from mtsft_preproc.templates.chat.tracing import Piece, joined_expression, joined_text
from mtsft_preproc.templates.chat.written import Extent, Written
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Turn", "prove_turn"]

_REASONING = frozenset({"reasoning_content", "thinking"})


@dataclass(slots=True)
class Turn:
    """What the model generated in one message.

    Attributes:
        message: Number of the message.
        start: Where it starts in the rendered text.
        end: Where it ends, the stop token included.
        stop: Text of the special tokens that end it, or ``""`` where none does.
        prompt_same: Whether the text in front is what the model sees when it serves.
        reply_same: Whether the turn reads as it does where it is the last one.
        guards: Questions about the text, with the answers for which this holds.
    """

    message: int
    start: int
    end: int
    stop: str
    prompt_same: bool
    reply_same: bool
    guards: tuple[tuple[Expression, bool], ...] = ()

    @property
    def stable(self) -> bool:
        """Whether it is trained in the text that it is generated in."""
        return self.prompt_same and self.reply_same

    def at(self, start: int, end: int) -> Turn:
        """Return the same turn elsewhere."""
        return Turn(self.message, start, end, self.stop, self.prompt_same, self.reply_same, self.guards)


def prove_turn(
    message: int,
    full: Written,
    prompt: Written,
    reply: Written,
    history: Callable[[], Written],
    special: SpecialText,
) -> Turn:
    """Find what the model generated in a message.

    Args:
        message: Its number in the conversation.
        full: The whole conversation.
        prompt: What stands in front of the message, with the generation prompt.
        reply: The conversation up to the message.
        history: What stands in front of the message, without the generation prompt.
        special: Finds special tokens in text.

    Raises:
        RecordError: ``mask-unproven``: the two ways disagree.
    """
    alone = reply.extent(message)
    extent = full.extent(message, reply)
    if alone is not None and extent is None and alone.start < alone.end:
        # The template forgets the message once the dialogue has gone on.
        place = full.gap(message)[0]
        return Turn(message, place, place, "", False, False)
    if alone and extent and alone.last != extent.last:
        # Empty words that close the message, behind words of others where the dialogue has gone on.
        alone = reply.extent(message, until=extent.last)
    alone = alone or _nothing_said(message, reply, prompt, history)
    extent = extent or _nothing_said(message, full, prompt, history)
    if extent.mixed or alone.mixed or alone.quoted:
        raise unproven(message, "words of its own", "words that the template mixed with others'")
    opened, same, asked = _opening(message, full, prompt, extent, history)
    ends = reply.text[alone.end : alone.after]
    turn = _between(message, full, extent, opened, ends, special)
    turn.prompt_same = turn.prompt_same and same
    if turn.start == turn.end:
        turn.guards = asked
        return turn
    skip = max(turn.start - extent.start, 0)
    # A stop that is the next header doesn't stand there yet where the turn is the last.
    own = turn.end - extent.end if ends.strip() else 0
    said = full.cut(extent.start + skip, extent.end + own)
    turn.reply_same, also = same_text(said, reply.cut(alone.start + skip, alone.end + own))
    if not turn.stop:
        # Where the turn is the last, the template may end it all the same.
        turn.reply_same = turn.reply_same and not _stop(ends, ends, special)[1]
    turn.guards = asked + also
    return turn


def prove_quickly(
    message: int, full: Written, prompt: str, reply: str, content: str, special: SpecialText
) -> Turn | None:
    """Find what the model generated in a message, where prompt and reply are beginnings of the text.

    Says the same as :func:`prove_turn`, of plain renderings; or None where more needs to be known.

    Args:
        message: Its number in the conversation.
        full: The whole conversation.
        prompt: Text in front of the message, with the generation prompt.
        reply: Text of the conversation up to the message.
        content: What the message says.
        special: Finds special tokens in text.
    """
    if not full.text.startswith(prompt) or not reply.startswith(prompt):
        return None
    empty = EMPTY_THOUGHT.match(reply, len(prompt))
    if empty and not full.text.startswith(empty.group(), len(prompt)):
        if THINK_TAG.search(content):
            return None  # It may be the message's own.
        # The template has one where the message is the last: it is no part of the turn.
        reply = prompt + reply[empty.end() :]
    extent = full.extent(message, shown_in=reply)
    if extent is None or extent.mixed:
        return None
    ends = reply[extent.end :]
    if not extent.before <= len(prompt) <= extent.end:
        return None
    if not full.text.startswith(ends, extent.end) or extent.end + len(ends) > extent.after:
        return None
    return _between(message, full, extent, len(prompt), ends, special)


def _between(
    message: int, full: Written, extent: Extent, opened: int, ends: str, special: SpecialText
) -> Turn:
    """Return a turn by the two ways, as if prompt and reply were those of serving.

    Args:
        message: Number of the message.
        full: The whole conversation.
        extent: Where its words stand.
        opened: Where the model goes on from.
        ends: What follows the words where the message is the last one.
        special: Finds special tokens.

    Raises:
        RecordError: ``mask-unproven``: the ways disagree.
    """
    same = True
    if full.marked:
        start, end = _marked(message, full, extent)
        if start == end:
            return Turn(message, start, end, "", same, True)
        closing = full.text[extent.end : end]
        length, stop = _stop(closing, closing, special)
        same = start <= opened
        start = max(start, opened)
    else:
        length, stop = _stop(full.text[extent.end : extent.after], ends, special)
        start = opened
        empty = EMPTY_THOUGHT.match(full.text, start, extent.start)
        if empty and not _reasons(full, extent):
            start, same = empty.end(), False
    end = extent.end + length
    if start > end or full.has_others(start, end, message):
        raise unproven(message, "a turn of its own", repr(full.text[max(0, start - 20) : end + 20]))
    return Turn(message, start, end, stop, same, True)


def _opening(
    message: int, full: Written, prompt: Written, extent: Extent, history: Callable[[], Written]
) -> tuple[int, bool, tuple[tuple[Expression, bool], ...]]:
    """Return where the model goes on from, whether that is the serving engine's text, and its guards."""
    if full.text.startswith(prompt.text):
        start = len(prompt.text)
        if extent.before <= start <= extent.end:
            return start, *same_text(full.cut(0, start), prompt.cut(0, start))
    # The history reads differently in hindsight, or the prompt opens a thought that the text doesn't have.
    header = full.text[extent.before : extent.start]
    place = extent.before + header_length(message, header, prompt, history)
    # Of another conversation it may be the same text by chance: the guard of the comparison tells.
    _, guards = same_text(full.cut(0, place), prompt.cut(0, len(prompt.text)))
    return place, False, guards


def same_text(
    one: Sequence[Piece], other: Sequence[Piece]
) -> tuple[bool, tuple[tuple[Expression, bool], ...]]:
    """Return whether two texts are the same, and the guard of that where they are made differently."""
    if one == other:
        return True, ()
    same = joined_text(one) == joined_text(other)
    if all(isinstance(piece, str) for piece in (*one, *other)):
        return same, ()
    # What both start and end with leaves the question as it is, and is often all but one message.
    start = common_length(one, other)
    one, other = one[start:], other[start:]
    end = common_length(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    question = ("call", "__eq__", joined_expression(one), (joined_expression(other),), ())
    return same, ((question, same),)


def _nothing_said(
    message: int, written: Written, prompt: Written, history: Callable[[], Written]
) -> Extent:
    """Return the place of a message without words: behind its header, and the empty thought there."""
    before, after = written.gap(message)
    if written.text.startswith(prompt.text):
        place = len(prompt.text)
    else:
        place = before + header_length(message, written.text[before:after], prompt, history)
    if not before <= place <= after:
        raise unproven(message, "words of the message", "none in the rendered text")
    empty = EMPTY_THOUGHT.match(written.text, place, after)
    place = empty.end() if empty else place
    return Extent(before, place, place, after, False, False)


def _marked(message: int, full: Written, extent: Extent) -> tuple[int, int]:
    """Return the generation blocks that hold the message's words, or nothing where none touches them."""
    blocks = [
        (start, end) for start, end in full.marked if start <= extent.end and end >= extent.start
        and not full.has_others(start, end, message)
    ]  # fmt: skip
    if not blocks:
        return extent.start, extent.start
    if blocks[0][0] > extent.start or blocks[-1][1] < extent.end:
        raise unproven(message, "words inside of {% generation %}", "words outside of it")
    return blocks[0][0], blocks[-1][1]


def _stop(follows: str, ends: str, special: SpecialText) -> tuple[int, str]:
    """Return how much of the text behind a message's words ends the turn, and the tokens that do.

    Args:
        follows: What follows the words.
        ends: What follows them where the message is the last one.
        special: Finds special tokens.
    """
    if not ends.strip():
        # The template has no stop of its own: what the model says next is the header of whoever speaks.
        found = special.tokens(follows)
        if found and found[0].start() == 0:
            return found[0].end(), found[0].group()
        return 0, ""
    common = common_length(follows, ends)
    tokens = special.tokens(ends)
    found = [match for match in tokens if match.end() <= common]
    if not found:
        for match in (*tokens[:1], *special.tokens(follows)[:1]):
            common = min(common, match.start())
        return len(ends[:common].rstrip()), ""
    # A token that the template's words go on behind (a quote around a value, say) ends nothing yet.
    borders = [*(match.start() for match in tokens[1:]), len(ends)]
    open_ones = {
        match.start()
        for match, border in zip(tokens, borders, strict=True)
        if ends[match.end() : border].strip()
    }
    closing = [match for match in found if match.start() not in open_ones] or found
    stop = closing[0].end()
    last = closing[0].group()
    for match in closing[1:]:
        # Nothing is generated behind what ends generation, though the template goes on.
        if match.start() == stop and last not in special.stops:
            stop, last = match.end(), match.group()
    return stop, ends[closing[0].start() : stop]


def _reasons(written: Written, extent: Extent) -> bool:
    return any(
        words.leaf.text and any(path[1] in _REASONING for path in paths(words.leaf.expression))
        for words in written.words
        if extent.start <= words.start <= words.end <= extent.end
    )
