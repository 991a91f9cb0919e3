"""The part of a record's dialogue that becomes one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.handlers.tool_json import SharedTools
from mtsft_preproc.templates import WHOLE

__all__ = ["Piece", "round_starts"]


@dataclass(slots=True)  # not frozen, which would make it several times as slow to make
class Piece:
    """A run of messages of a dialogue, rendered as a dialogue of its own. It is never changed.

    Attributes:
        record: Number of the record in the batch.
        dialogue: The messages, and what belongs to all of them.
        trained: Per message: whether it is trained.
        turn: Number, in the record's dialogue, of the message that the sample is for, or ``WHOLE``.
        first: Number, in the record's dialogue, of the first message.
    """

    record: int
    dialogue: Dialogue
    trained: list[bool]
    turn: int = WHOLE
    first: int = 0

    def part(self, start: int, end: int, summarized: bool = False) -> Piece:
        """Return messages ``start`` to ``end``; ``summarized`` tells of those before in the system text."""
        system = self.dialogue.system
        if summarized and self.dialogue.summary:
            system = "\n\n".join(text for text in (system, self.dialogue.summary) if text)
        dialogue = self.dialogue.but(messages=self.dialogue.messages[start:end], system=system)
        return replace(self, dialogue=dialogue, trained=self.trained[start:end], first=self.first + start)

    @property
    def weight(self) -> int:
        """Characters of all that is rendered, by which batches are cut."""
        tools = self.dialogue.tools
        size = len(self.dialogue.system)
        if tools:
            shared = SharedTools.of(tools)
            size += shared.size if shared else sum(len(str(tool)) for tool in tools)
        return sum(sizes(self.dialogue)) + size


def sizes(dialogue: Dialogue) -> list[int]:
    """Return the characters of each message of a dialogue."""
    _, texts, rich = dialogue.outline
    found = list(map(len, texts))
    for number, message in rich.items():
        found[number] += len(message.reasoning or "")
        found[number] += sum(len(str(call.arguments)) + len(call.name) for call in message.tool_calls)
    return found


def round_starts(messages: Sequence[Message]) -> list[int]:
    """Return where the rounds start: with the first message, and with each question of the user.

    So a tool's result is never parted from its call. Messages of the user in a row are one question; one
    that nobody answers is no round of its own.
    """
    answered = max((number for number, message in enumerate(messages) if message.role.is_target), default=0)
    return [
        number
        for number, message in enumerate(messages[: answered + 1])
        if number == 0 or (message.role is Role.USER and messages[number - 1].role is not Role.USER)
    ]
