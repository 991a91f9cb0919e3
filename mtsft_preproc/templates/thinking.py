"""The rules of reasoning formats: thoughts are kept, removed, or stand empty.

As ``ReasoningTemplate`` of the original has them; see ``docs/prompt-types.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mtsft_preproc.dialogue import Message, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.elements import Piece, data, ours
from mtsft_preproc.templates.segments import Kind

__all__ = ["Reply", "Thinking"]

#: A reply as it is trained: its text; thoughts that the record has apart from the text; where an empty
#: thought goes: to the prompt, to the reply, or nowhere.
Reply = tuple[str, str, Kind | None]


@dataclass(frozen=True)
class Thinking:
    """What becomes of the thoughts in a reply.

    Attributes:
        words: What stands before and behind a thought; None: the format knows no thoughts.
        enabled: ``--enable-thinking``: ``"true"``, ``"false"`` or ``"none"``.
        tokens: The special tokens in the words, which a reply that thinks means as tokens.
    """

    words: tuple[str, str] | None
    enabled: str
    tokens: frozenset[str] = frozenset()

    def reply(self, target: Message, place: int) -> Reply:
        """Return a reply as it is trained; ``place`` is the number of its message.

        Raises:
            RecordError: ``unsupported-message``: it has thoughts for which there is no place.
        """
        content, thoughts = target.text, ""
        if target.reasoning and self.enabled != "false":
            thoughts = self._given(target, f"messages[{place}].reasoning")
        if self.words is None:
            return content, "", None
        if self.enabled == "false":
            content = self._without(content)
        if thoughts or any(word in content for word in self.words):
            return content, thoughts, None
        # Written by the model, or ready in its prompt.
        return content, "", Kind.GENERATED if self.enabled == "true" else Kind.CONTEXT

    def past(self, target: Message) -> Reply:
        """Return a reply that is history: without thoughts, as a model meets it."""
        return self._without(target.text), "", None

    def said(self, reply: Reply) -> list[Piece]:
        """Return a reply's thoughts and content in pieces."""
        content, thoughts, _ = reply
        if self.words is None or not thoughts:
            return [data(content, self.tokens)] if content else []
        return [ours(self.words[0]), data(thoughts), ours(self.words[1]), data(content)]

    def spoken(self, reply: Reply) -> str:
        """Return a reply's content without thoughts."""
        return reply[0] if reply[1] else self._without(reply[0])

    @property
    def empty(self) -> str:
        """An empty thought."""
        return "".join(self.words or ())

    def _given(self, target: Message, where: str) -> str:
        """Return the thoughts that a message has apart from its content."""
        thoughts = target.reasoning or ""
        if self.words is None:
            expected = (
                "none: the chat format knows no thoughts; --enable-thinking false leaves them out, "
                "--chat-template or a prompt type such as qwen3 writes them"
            )
            raise RecordError("unsupported-message", where, expected, shorten(thoughts))
        if target.text.lstrip().startswith(self.words[0].strip()):
            expected = "thoughts in one place: apart from the content, or in it"
            raise RecordError("unsupported-message", where, expected, shorten(thoughts))
        # The words around a thought bring their line breaks along.
        return thoughts.strip("\n")

    def _without(self, content: str) -> str:
        if self.words is None:
            return content
        before, behind = (re.escape(word) for word in self.words)
        return re.sub(f"{before}(.*?){behind}", "", content, flags=re.DOTALL).lstrip("\n")
