"""Compiles the elements of a format: what is constant is encoded once, the rest has a place for text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.templates.prompt_type import Element, Elements, Special, Token
from mtsft_preproc.templates.segments import Kind, SegmentBatch
from mtsft_preproc.tokenization import Encoder, SpecialText

__all__ = [
    "CallSlot",
    "Compiled",
    "ConstantTable",
    "Piece",
    "RoundText",
    "Slot",
    "TextGuard",
    "data",
    "joined",
    "ours",
]

_CONTENT, _ROUND = "{{content}}", "{{idx}}"
_NAME, _ARGUMENTS = "{{name}}", "{{arguments}}"
_CALL_PLACES = re.compile(f"({_NAME}|{_ARGUMENTS})")


class Piece(NamedTuple):
    """A part of a text that is encoded as one.

    Attributes:
        text: The part.
        meant: Special tokens that are meant as tokens where the text spells them; None: all.
        kind: What it is, where it is something else than the text that it is a part of.
        message: Number of its message, counted from the one that the text belongs to.
    """

    text: str
    meant: frozenset[str] | None
    kind: Kind | None = None
    message: int = 0


def ours(text: str) -> Piece:
    """Return a piece that the format writes."""
    return Piece(text, None)


def data(text: str, meant: frozenset[str] = frozenset()) -> Piece:
    """Return a piece that comes from the record."""
    return Piece(text, meant)


def joined(texts: Iterable[Sequence[Piece]], border: Piece) -> list[Piece]:
    """Return texts with ``border`` between them."""
    pieces: list[Piece] = []
    for text in texts:
        pieces += [border, *text]
    return pieces[1:]


@dataclass(frozen=True)
class Slot:
    """A string element with a place for content: ``before + content + after``.

    Attributes:
        before: Text in front; may hold ``{{idx}}`` once.
        after: Text behind; may hold ``{{idx}}`` once where ``before`` doesn't.
        marked: ``before`` and ``after`` with the special tokens in them written as marks.
        has_round: Whether ``{{idx}}`` stands in one of them.
    """

    before: str
    after: str
    marked: tuple[str, str]
    has_round: bool

    def fill(self, content: str, number: int) -> str:
        """Return the element's text; ``{{idx}}`` becomes ``number``. The content is never looked into."""
        if not self.has_round:
            return f"{self.before}{content}{self.after}"
        before, after = _numbered(self.before, self.after, number)
        return f"{before}{content}{after}"

    def fill_marked(self, content: str, number: int) -> str:
        """Return the same with the format's own special tokens written as marks."""
        before, after = _numbered(*self.marked, number)
        return f"{before}{content}{after}"

    def opening(self, number: int, marked: bool) -> str:
        """Return what stands in front of the content, as :meth:`fill` or :meth:`fill_marked` writes it."""
        before, after = self.marked if marked else (self.before, self.after)
        return _numbered(before, after, number)[0]

    def around(self, content: Sequence[Piece], number: int) -> list[Piece]:
        """Return the element's text with ``content`` in its place, in pieces."""
        before, after = _numbered(self.before, self.after, number)
        return [ours(before), *content, ours(after)]


def _numbered(before: str, after: str, number: int) -> tuple[str, str]:
    if _ROUND in before:
        return before.replace(_ROUND, str(number), 1), after
    return before, after.replace(_ROUND, str(number), 1)


@dataclass(frozen=True)
class CallSlot:
    """A string element with places for the name and the arguments of a tool call.

    Attributes:
        parts: The element's text, cut at the places, which are parts of their own.
    """

    parts: tuple[str, ...]

    def fill(self, name: str, arguments: str) -> list[Piece]:
        """Return the element's text in pieces. What the call holds is never looked into."""
        values = {_NAME: name, _ARGUMENTS: arguments}
        return [data(values[part]) if part in values else ours(part) for part in self.parts]

    def text(self, name: str, arguments: str) -> str:
        """Return the element's text."""
        return "".join(
            [name if part == _NAME else arguments if part == _ARGUMENTS else part for part in self.parts]
        )

    @property
    def opens_with_text(self) -> bool:
        """Whether text of the format tells where the call begins."""
        return bool(self.parts[0].strip())


@dataclass(frozen=True)
class RoundText:
    """A string element with ``{{idx}}`` and no content."""

    text: str

    def fill(self, number: int) -> str:
        """Return the element's text."""
        return self.text.replace(_ROUND, str(number), 1)


class TextGuard:
    """Keeps text of records from becoming control tokens, as ``--special-tokens-in-text`` says.

    Args:
        special: The special tokens of the tokenizer.
        in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        always: Whether text may become a control token that it doesn't spell.
    """

    def __init__(self, special: SpecialText, in_text: str, always: bool) -> None:
        self._special = special
        self._in_text = in_text
        self._always = always

    def spells(self, text: str, allowed: frozenset[str] = frozenset()) -> bool:
        """Return whether ``text`` spells a special token that isn't ``allowed``.

        Raises:
            RecordError: It does, and ``--special-tokens-in-text reject`` is set.
        """
        found = self._special.find(text, allowed)
        if found:
            self._check(found)
        return found is not None

    def clears(self, texts: Iterable[str]) -> bool:
        """Return whether all of many texts are such that none spells a special token or is guarded.

        One look at all of them together costs a fraction of as many looks. No is no more than a maybe.
        """
        if self.guards(False):
            return False
        try:
            return self._special.find("\n".join(texts)) is None
        except RecordError:
            return False

    def guards(self, spelled: bool) -> bool:
        """Return whether a text is encoded with the format's own control tokens written as marks."""
        return self._in_text == "plain" and (spelled or self._always)

    def add_clear(self, text: str, kind: Kind, batch: SegmentBatch) -> bool:
        """Append a text if it holds no special token at all; return whether it was appended.

        Raises:
            RecordError: The text can't be encoded.
        """
        if not text.isascii():
            _check_encodable(text)
        if self.guards(False) or self._special.find(text) is not None:
            return False
        if text:
            batch.add_text(text, kind)
        return True

    def add(self, pieces: Sequence[Piece], kind: Kind, batch: SegmentBatch) -> bool:
        """Append one text, given in pieces; return whether data in it spell a special token.

        Raises:
            RecordError: As :meth:`spells`; or the text can't be encoded.
        """
        plain = "".join([piece.text for piece in pieces])
        if not plain:
            return False
        if not plain.isascii():
            _check_encodable(plain)
        found = self._special.find(plain)
        if found is None and not self.guards(False):
            batch.add_text(plain, kind)
            _add_stretches(pieces, [piece.text for piece in pieces], batch)
            return False
        # A token that is not the format's own shows as a difference even where it lies across pieces.
        texts = [self._special.mark(piece.text, piece.meant) for piece in pieces]
        marked = "".join(texts)
        spelled = self._special.mark(plain) != marked
        if spelled:
            self._check(self._found_in(pieces) or found or "")
        if self.guards(spelled):
            batch.add_guarded(marked, kind)
            _add_stretches(pieces, texts, batch)
        else:
            batch.add_text(plain, kind)
            _add_stretches(pieces, [piece.text for piece in pieces], batch)
        return spelled

    def _found_in(self, pieces: Sequence[Piece]) -> str | None:
        """Return the first special token that data spell, alone or together with the format's text."""
        own: set[str] = set()
        for piece in pieces:
            if piece.meant is not None:
                found = self._special.find(piece.text, piece.meant)
                if found:
                    return found
            while token := self._special.find(piece.text, own):
                own.add(token)
        return self._special.find("".join([piece.text for piece in pieces]), own)

    def _check(self, found: str) -> None:
        if self._in_text == "reject":
            raise RecordError("special-token", "", "text without control tokens", repr(found))


def _add_stretches(pieces: Sequence[Piece], texts: Sequence[str], batch: SegmentBatch) -> None:
    """Note which parts of the text that was just added are of a kind of their own."""
    place = 0
    pairs = zip(pieces, texts, strict=True)
    for (kind, message), run in itertools.groupby(pairs, lambda pair: (pair[0].kind, pair[0].message)):
        lengths = [len(text) for _, text in run]
        if kind is Kind.SYSTEM:
            # A token that holds a letter of any of them is the system's: they are as good as one.
            lengths = [sum(lengths)]
        for length in lengths:
            if kind is not None:
                batch.add_stretch(len(batch.texts) - 1, place, length, kind, message)
            place += length


def _check_encodable(text: str) -> None:
    """Refuse what an escape in JSON text hid from the readers."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = shorten(text[max(0, error.start - 20) : error.end + 20])
        raise RecordError("lone-surrogate", "", "text that UTF-8 can encode", got) from None


#: What an element becomes: the number of a constant, or text with places in it.
Compiled = tuple[int | Slot | RoundText, ...]


class ConstantTable:
    """Ids of what is the same in every dialogue, each encoded once.

    Args:
        encoder: Encodes the constant texts.
        special: Marks the special tokens of the others.
    """

    def __init__(self, encoder: Encoder, special: SpecialText) -> None:
        self._encoder = encoder
        self._special = special
        #: Ids by number.
        self.ids: list[list[int]] = []
        #: Numbers of the constants that are BOS. An entry of their own even where BOS and EOS are one
        #: token, as BOS is never trained and EOS is.
        self.bos: set[int] = set()

    def add(self, ids: list[int]) -> int:
        """Add a constant and return its number."""
        self.ids.append(ids)
        return len(self.ids) - 1

    def add_text(self, text: str) -> int:
        """Add a constant that is given as text."""
        return self.add(self._encoder.encode([text]).ids.tolist())

    def compile(self, elements: Elements) -> Compiled:
        """Compile a format.

        Raises:
            TemplateError: The tokenizer lacks a token that the format names.
        """
        parts = []
        for element in elements:
            part = self._compile(element)
            if part is not None:
                parts.append(part)
        return tuple(parts)

    def compile_filled(self, elements: Elements, content: str) -> Compiled:
        """Compile a format with content that is the same in every dialogue: constants alone."""
        parts = []
        for part in self.compile(elements):
            if isinstance(part, Slot):
                part = self.add_text(part.fill(content, 0))
            elif isinstance(part, RoundText):
                part = self.add_text(part.fill(0))
            parts.append(part)
        return tuple(parts)

    def compile_call(self, elements: Elements) -> tuple[int | CallSlot, ...]:
        """Compile a format that has places for the name and the arguments of a call.

        Raises:
            TemplateError: As :meth:`compile`.
        """
        parts: list[int | CallSlot] = []
        for element in elements:
            if isinstance(element, str) and _CALL_PLACES.search(element):
                parts.append(CallSlot(tuple(_CALL_PLACES.split(element))))
                continue
            part = self._compile(element)
            if isinstance(part, int):
                parts.append(part)
            elif part is not None:
                raise TemplateError(f"{element!r}: a tool call has a place for name and arguments alone")
        return tuple(parts)

    def _compile(self, element: Element) -> int | Slot | RoundText | None:
        spec = self._encoder.spec
        if isinstance(element, Token):
            return self.add([spec.id_of(element.text)])
        if isinstance(element, Special):
            if element is Special.EOS:
                return self.add([spec.eos_id])
            if spec.bos_id is None:
                return None
            number = self.add([spec.bos_id])
            self.bos.add(number)
            return number
        if _CONTENT in element:
            before, after = element.split(_CONTENT, 1)
            marked = (self._special.mark(before), self._special.mark(after))
            return Slot(before, after, marked, _ROUND in before + after)
        if _ROUND in element:
            return RoundText(element)
        for placeholder in (_NAME, _ARGUMENTS):
            if placeholder in element:
                raise TemplateError(f"{placeholder} belongs to a tool call, not to text: {element!r}")
        return self.add_text(element) if element else None
