"""Pairs of replies to the same words, of which one was chosen: Alpaca rows and ShareGPT records.

What the summary counts is noted at the chosen dialogue alone, so that a pair counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.alpaca import AlpacaHandler, asked
from mtsft_preproc.handlers.base import PairHandler, text_field
from mtsft_preproc.handlers.sharegpt import SharegptRecords
from mtsft_preproc.handlers.tool_json import parse_json

__all__ = ["AlpacaPairHandler", "SharegptPairHandler"]

_SIDES = ("chosen", "rejected")
_REPLIES: dict[str, str | None] = {side: side for side in _SIDES}


class AlpacaPairHandler(PairHandler):
    """Alpaca rows with the columns ``chosen`` and ``rejected`` instead of ``output``."""

    keys: ClassVar[Mapping[str, str | None]] = {
        **{key: column for key, column in AlpacaHandler.keys.items() if key != "response"},
        **_REPLIES,
    }
    required = (("prompt", "query"), ("chosen",), ("rejected",))
    usual = AlpacaHandler.usual

    def pair(self, record: Mapping[str, Any]) -> tuple[Dialogue, Dialogue]:
        prompt = asked(record, self.columns)
        chosen, rejected = (self._reply(record, side) for side in _SIDES)
        return _pair(prompt, chosen, rejected)

    def _reply(self, record: Mapping[str, Any], side: str) -> Message:
        column = self.columns.get(side)
        text = text_field(record, column)
        if text is None:
            raise RecordError("missing-field", column or side, "text", "null")
        return Message(Role.ASSISTANT, text)


class SharegptPairHandler(SharegptRecords, PairHandler):
    """ShareGPT records that end on a source, with the replies in ``chosen`` and ``rejected``.

    A reply is a message (``{"from", "value"}``) or its text.
    """

    keys: ClassVar[Mapping[str, str | None]] = {**SharegptRecords.keys, **_REPLIES}
    required = (("messages",), ("chosen",), ("rejected",))

    def pair(self, record: Mapping[str, Any]) -> tuple[Dialogue, Dialogue]:
        prompt, from_text = self.read(record)
        if len(prompt.messages) % 2 == 0:
            column = self.columns.get("messages", "")
            got = self.names(targets=True) if prompt.messages else "a system message alone"
            raise RecordError("role-order", column, f"{self.names(targets=False)} at the end", got)
        chosen, rejected = (self._reply(record, side, prompt.notes, from_text) for side in _SIDES)
        return _pair(prompt, chosen, rejected)

    def _reply(self, record: Mapping[str, Any], side: str, notes: list[str], from_text: bool) -> Message:
        column = self.columns.get(side, "")
        value = record.get(column)
        if value is None:
            raise RecordError("missing-field", column or side, "a message or its text", "null")
        if isinstance(value, str):
            item = self._from_text(value, column) if from_text else None
            if item is None:
                return Message(Role.ASSISTANT, value)
            value = item
        if not isinstance(value, dict):
            raise RecordError("wrong-type", column, "a message or its text", shorten(value))
        return self.target(value, column, notes, from_text)

    def _from_text(self, text: str, column: str) -> dict[str, Any] | None:
        """Return the message that a text is, where the data hold all messages as JSON text."""
        try:
            value = parse_json(text, column)
        except ValueError:
            return None
        fields = {self.tag[tag] for tag in ("role_tag", "content_tag") if self.tag[tag]}
        return value if isinstance(value, dict) and fields <= set(value) else None


def _pair(prompt: Dialogue, chosen: Message, rejected: Message) -> tuple[Dialogue, Dialogue]:
    """Return the prompt with either reply."""
    if (chosen.content, chosen.tool_calls) == (rejected.content, rejected.tool_calls):
        prompt.notes.append("equal-pair")
    return (
        Dialogue([*prompt.messages, chosen], prompt.system, prompt.tools, prompt.notes, prompt.summary),
        Dialogue([*prompt.messages, rejected], prompt.system, prompt.tools, [], prompt.summary),
    )
