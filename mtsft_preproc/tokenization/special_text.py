"""Control tokens that text spells: found, and kept from becoming tokens.

Text of a user that holds ``<|im_end|>`` must not end the turn. A tokenizer can't tell such text from the
chat format's own control tokens once both stand in one string. So, only for strings in which some text
spells a special token, the format's own tokens are written as *marks* (strings of Unicode
noncharacters, which stand in no text), and the tokenizer is told to take special tokens for plain text.
Everything else about the string stays as it was, so the pieces between the tokens are encoded as ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mtsft_preproc.errors import RecordError
from mtsft_preproc.tokenization.spec import AddedToken, TokenizerSpec

__all__ = ["SpecialText"]

_LEFT, _RIGHT = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"{_LEFT}([0-9]+){_RIGHT}")


class SpecialText:
    """The special tokens of one tokenizer, as text.

    Args:
        spec: The tokenizer.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self._tokens = {token.text: token for token in spec.added if token.special and token.text}
        #: Texts of those that end generation.
        self.stops = frozenset(token.text for token in spec.added if token.id in spec.stop_ids)
        # The longest first: the tokenizers' own matching is leftmost-longest.
        longest = sorted(self._tokens.values(), key=lambda token: len(token.text), reverse=True)
        self._regex = re.compile("|".join([*map(_pattern, longest), _MARK.pattern]))
        #: What each special token starts with; looking for these few first is what makes the check
        #: cheap for text that holds none.
        self._starts = tuple({text[:2] for text in self._tokens} | {_LEFT})

    def find(self, text: str, allowed: Iterable[str] = ()) -> str | None:
        """Return the first special token that ``text`` spells and may not, or None.

        Raises:
            RecordError: ``special-token``: the text holds a mark, which would be taken for ours.
        """
        for start in self._starts:
            if start in text:
                break
        else:
            return None
        found = None
        for match in self._regex.finditer(text):
            if match.group() not in self._tokens:
                raise RecordError(
                    "special-token",
                    "",
                    "text without the noncharacters U+FDD0 and U+FDD1 around a number",
                    ascii(match.group()),
                )
            if found is None and match.group() not in allowed:
                found = match.group()
        return found

    def tokens(self, text: str) -> list[re.Match[str]]:
        """Return where ``text`` spells special tokens; of a format's own text, which holds no mark."""
        return list(self._regex.finditer(text))

    def ids(self, text: str) -> list[int]:
        """Return the ids of the special tokens that a format's own text spells, in their order."""
        return [self._tokens[match.group()].id for match in self.tokens(text)]

    def mark(self, text: str, only: Iterable[str] | None = None) -> str:
        """Return ``text`` with its special tokens (all, or those in ``only``) written as marks.

        Of the format's own text, or of text that went through :meth:`find`: it holds no mark yet.
        """

        def replace(match: re.Match[str]) -> str:
            token = self._tokens[match.group()]
            return mark_of(token.id) if only is None or token.text in only else match.group()

        return self._regex.sub(replace, text)


def mark_of(token_id: int) -> str:
    """Return the string that stands for a token.

    >>> [hex(ord(char)) for char in mark_of(7)]
    ['0xfdd0', '0x37', '0xfdd1']
    """
    return f"{_LEFT}{token_id}{_RIGHT}"


def split_marks(text: str) -> list[tuple[str, int]]:
    """Return (text, id of the token behind it) pairs; the last has the id -1.

    >>> split_marks("a" + mark_of(7) + "b")
    [('a', 7), ('b', -1)]
    """
    pieces = _MARK.split(text)
    ids = [int(index) for index in pieces[1::2]]
    return list(zip(pieces[::2], [*ids, -1], strict=True))


def count_marks(text: str) -> int:
    """Return how many marks ``text`` holds."""
    return len(_MARK.findall(text))


def _pattern(token: AddedToken) -> str:
    text = re.escape(token.text)
    return rf"(?<!\w){text}(?!\w)" if token.single_word else text
