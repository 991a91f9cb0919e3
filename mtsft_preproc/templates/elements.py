"""Compiles the elements of a format: what is constant is encoded once, the rest has a place for text."""

from __future__ import annotations

from dataclasses import dataclass

from mtsft_preproc.errors import TemplateError
from mtsft_preproc.templates.prompt_type import Element, Elements, Special, Token
from mtsft_preproc.tokenization import Encoder, SpecialText

__all__ = ["Compiled", "ConstantTable", "RoundText", "Slot"]

_CONTENT, _ROUND = "{{content}}", "{{idx}}"


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
        return self._numbered(self.before, self.after, content, number)

    def fill_marked(self, content: str, number: int) -> str:
        """Return the same with the format's own special tokens written as marks."""
        return self._numbered(*self.marked, content, number)

    @staticmethod
    def _numbered(before: str, after: str, content: str, number: int) -> str:
        if _ROUND in before:
            before = before.replace(_ROUND, str(number), 1)
        else:
            after = after.replace(_ROUND, str(number), 1)
        return f"{before}{content}{after}"


@dataclass(frozen=True)
class RoundText:
    """A string element with ``{{idx}}`` and no content."""

    text: str

    def fill(self, number: int) -> str:
        """Return the element's text."""
        return self.text.replace(_ROUND, str(number), 1)


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
        for placeholder in ("{{name}}", "{{arguments}}"):
            if placeholder in element:
                raise TemplateError(f"{placeholder} belongs to a tool call, not to text: {element!r}")
        return self.add_text(element) if element else None
