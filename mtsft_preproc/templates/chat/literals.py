"""Special tokens in a template's own text, which is the same few strings again and again."""

from __future__ import annotations

import re

from mtsft_preproc.tokenization import SpecialText, TokenizerSpec

__all__ = ["LiteralTokens"]

#: Texts that are kept, and characters of one.
_KEPT, _LENGTH = 4096, 400


class LiteralTokens(SpecialText):
    """Finds special tokens, and keeps what it found in short texts."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        self._found: dict[str, list[re.Match[str]]] = {}

    def tokens(self, text: str) -> list[re.Match[str]]:
        """Return where ``text`` spells special tokens; as of :class:`SpecialText`, not to be changed."""
        if len(text) > _LENGTH:
            return super().tokens(text)
        found = self._found.get(text)
        if found is None:
            if len(self._found) >= _KEPT:
                self._found.clear()
            found = self._found[text] = super().tokens(text)
        return found
