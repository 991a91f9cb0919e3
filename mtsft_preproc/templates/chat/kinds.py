"""Who wrote what the model didn't generate: the system, the dialogue around the turns, a tool.

Words tell it themselves. Of the template's own text, what stands before the dialogue is the system's: its
header and footer, a system text that the template brings along, what it says about tools. The dialogue
starts with the header of its first message. How that looks is learnt from another conversation, in which a
message of the same role stands behind others: what follows the text that ends the one before is its header.
Where that is not found, text counts as a part of the dialogue.
"""

from __future__ import annotations

from typing import NamedTuple

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.expressions import Expression
from mtsft_preproc.templates.chat.headers import common_length
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.tracing import OUTSIDE, Leaf, Piece
from mtsft_preproc.templates.chat.written import Written
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import SpecialText

__all__ = ["Headers", "Kinds"]

#: Owner of text that belongs to no message.
NOBODY = -1


class Headers:
    """What a template writes in front of the words of a message, by role.

    Args:
        renderer: The template.
        special: Finds special tokens.
    """

    def __init__(self, renderer: ChatRenderer, special: SpecialText) -> None:
        self._renderer = renderer
        self._special = special
        self._known: dict[str, list[str]] = {}

    def of(self, role: str) -> list[str]:
        """Return what the header of a role may be, the likeliest first; nothing where it can't be told."""
        if role not in self._known:
            # What closes the assistant's message may be another text at the end of a dialogue.
            histories = [["user"]] if role == "assistant" else [["user", "assistant"], ["user"]]
            found = [header for before in histories for header in self._find(before, role)]
            ranked = sorted(found, key=lambda one: one[0])
            self._known[role] = list(dict.fromkeys(header for _, header in ranked))
        return self._known[role]

    def _find(self, before: list[str], role: str) -> list[tuple[int, str]]:
        """Return headers of a message that stands behind others, each with a rank: 0 is the likeliest."""
        messages = [{"role": name, "content": f"say {place}"} for place, name in enumerate([*before, role])]
        shorter = Conversation.of(messages[:-1], [])
        try:
            earlier = Written(self._renderer.trace(shorter, keep=False))
            both = Written(self._renderer.trace(Conversation.of(messages, []), keep=False))
            prompt = self._renderer.text(shorter, prompt=True)
        except RecordError:
            return []  # The template refuses such a conversation, or does what can't be traced.
        place = len(before)
        ends = [words.end for words in earlier.words]
        left = [words.end for words in both.words if max(words.leaf.owners) < place]
        right = [words.start for words in both.words if place in words.leaf.owners]
        if not ends or not left or not right or left[-1] > right[0]:
            return []
        gap, footer = both.text[left[-1] : right[0]], earlier.text[ends[-1] :]
        found = [(0, gap[len(footer) :])] if gap.startswith(footer) else []
        if prompt.startswith(earlier.text[: ends[-1]]):
            # Some templates close the whole text where no prompt follows.
            common = self._common(footer, prompt[ends[-1] :])
            if common and gap.startswith(common):
                found.append((1, gap[len(common) :]))
        return found

    def _common(self, one: str, other: str) -> str:
        """Return what two texts start with in common, without a part of a special token."""
        length = common_length(one, other)
        for match in [*self._special.tokens(one), *self._special.tokens(other)]:
            if match.start() < length < match.end():
                length = match.start()
        return one[:length]


class _Opening(NamedTuple):
    """Where a dialogue starts in a text.

    Attributes:
        header: Start of the header of its first message.
        behind: End of that header.
        words: Start of the first message's words.
        told: Whether words of the system or of tools stand between header and words.
    """

    header: int
    behind: int
    words: int
    told: bool


class Kinds:
    """What the pieces of one rendered conversation are that the model didn't generate.

    Args:
        full: The text.
        conversation: What was rendered.
        headers: What the template writes in front of messages.
        special: Finds special tokens.
        observes: Whether the words of tool results are told apart.
    """

    def __init__(
        self,
        full: Written,
        conversation: Conversation,
        headers: Headers,
        special: SpecialText,
        observes: bool,
    ) -> None:
        roles = [message["role"] for message in conversation.messages]
        self._system = {number for number, role in enumerate(roles) if role == "system"} | {OUTSIDE}
        self._tools = {number for number, role in enumerate(roles) if role == "tool" and observes}
        first = next((number for number, role in enumerate(roles) if role != "system"), None)
        self._told = [(words.start, words.end) for words in full.words if words.leaf.owners & self._system]
        self._opening = (
            None if first is None else self._find(full, first, headers.of(roles[first]), special)
        )
        #: Where text has to be cut, so that each piece is of one kind.
        self.borders: tuple[int, ...] = self._opening[:3] if self._opening else ()

    def of(self, piece: Piece, start: int) -> tuple[Kind, int]:
        """Return the kind of a piece that starts at ``start``, and its message or ``NOBODY``."""
        if isinstance(piece, Leaf):
            if piece.owners & self._system:
                return Kind.SYSTEM, NOBODY
            [*owners] = piece.owners
            if len(owners) == 1 and owners[0] in self._tools and _is_content(piece.expression):
                return Kind.OBSERVED, owners[0]
            return Kind.CONTEXT, NOBODY
        opening = self._opening
        if opening is None or start >= opening.words:
            return Kind.CONTEXT, NOBODY
        if start < opening.header:
            # Words of the system, or of tools, make the text around them theirs.
            told = any(begin < opening.header for begin, _ in self._told)
            return (Kind.SYSTEM if told else Kind.PREFIX), NOBODY
        return (Kind.SYSTEM if start >= opening.behind and opening.told else Kind.CONTEXT), NOBODY

    def _find(self, full: Written, first: int, headers: list[str], special: SpecialText) -> _Opening | None:
        own = [words.start for words in full.words if first in words.leaf.owners]
        if not own:
            return None
        place = min(own)
        # The header is the template's: it isn't looked for in words.
        text = full.text[:place]
        for words in full.words:
            if words.start < place:
                text = text[: words.start] + "\0" * (words.end - words.start) + text[words.end :]
        text = text[:place]
        tokens = special.tokens(text)
        for header in headers:
            found = text.rfind(header)
            if found >= 0 and not any(match.start() < found < match.end() for match in tokens):
                behind = found + len(header)
                told = any(behind <= begin < place for begin, _ in self._told)
                return _Opening(found, behind, place, told)
        return None


def _is_content(expression: Expression) -> bool:
    """Return whether text is made of a message's content alone, with no word of the template in it."""
    kind = expression[0]
    if kind == "at":
        return bool(expression[1][1] == "content")
    if kind == "cat":
        return all(map(_is_content, expression[1]))
    if kind == "item":
        return _is_content(expression[1])
    if kind == "call":
        return _is_content(expression[2])
    return kind == "filter" and bool(expression[2]) and _is_content(expression[2][0])
