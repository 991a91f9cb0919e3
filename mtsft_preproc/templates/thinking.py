"""The rules of reasoning formats: thoughts are kept, removed, or stand empty.

As ``ReasoningTemplate`` of the original has them; see ``docs/prompt-types.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Thinking"]


@dataclass(frozen=True)
class Thinking:
    """What becomes of the thoughts in a reply.

    Attributes:
        words: What stands before and behind a thought.
        enabled: ``--enable-thinking``: ``"true"``, ``"false"`` or ``"none"``.
    """

    words: tuple[str, str]
    enabled: str

    def strip(self, content: str) -> str:
        """Return a reply as it is trained: without its thoughts where thinking is switched off."""
        if self.enabled != "false":
            return content
        before, behind = (re.escape(word) for word in self.words)
        return re.sub(f"{before}(.*?){behind}", "", content, flags=re.DOTALL).lstrip("\n")

    def lacks_thought(self, content: str) -> bool:
        """Return whether a reply holds neither thought word, so that it gets an empty thought."""
        return not any(word in content for word in self.words)

    @property
    def empty(self) -> str:
        """An empty thought."""
        return self.words[0] + self.words[1]

    @property
    def trains_empty(self) -> bool:
        """Whether the empty thought is written by the model, or stands ready in its prompt."""
        return self.enabled == "true"
