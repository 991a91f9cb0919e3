"""Dialogues that are written by the same fragments, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtsft_preproc.dialogue import Message
from mtsft_preproc.templates.chat.fragments import Fragment, Write
from mtsft_preproc.templates.chat.script import Script
from mtsft_preproc.templates.chat.shape_proofs import Beginning
from mtsft_preproc.templates.chat.speakers import Tools
from mtsft_preproc.templates.chat.tracing import OUTSIDE

__all__ = ["KnownFragment", "Shape"]


@dataclass(frozen=True, slots=True)
class KnownFragment:
    """A fragment that can be written.

    Attributes:
        fragment: The fragment.
        number: Its number; it has that in common with fragments that write more or fewer tools.
        write: What writes the texts of its pieces.
    """

    fragment: Fragment
    number: int
    write: Write


@dataclass(slots=True)
class Shape:
    """A shape of dialogue.

    Attributes:
        script: What is known of its pieces.
        fragments: Per message, and for the end behind them: what writes them.
        path: Per message, what tells the beginning that ends with it.
        proven: Whether its first dialogue was proven whole.
    """

    script: Script
    fragments: list[KnownFragment]
    path: list[Beginning]
    proven: bool = False
    writes: list[Write] = field(init=False)

    def __post_init__(self) -> None:
        self.writes = [known.write for known in self.fragments]

    def owners(self) -> list[frozenset[int]]:
        """Return, per piece with words, the messages whose they are, and ``OUTSIDE`` for the tools."""
        return [
            frozenset(OUTSIDE if owner is None else number + owner for owner in owners)
            for number, known in enumerate(self.fragments)
            for owners in known.fragment.words
        ]

    def texts(self, messages: Sequence[Message], tools: Tools) -> list[str]:
        """Return the texts of the pieces of a dialogue."""
        texts: list[str] = []
        for number, write in enumerate(self.writes):
            texts += write(messages, number, tools)
        return texts
