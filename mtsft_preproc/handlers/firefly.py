"""Rounds of a question and an answer, as Firefly's data has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.alpaca import ANSWER_NAMES, QUESTION_NAMES
from mtsft_preproc.handlers.base import DialogueHandler, summary_of
from mtsft_preproc.handlers.message_text import message_list, system_of

__all__ = ["FireflyHandler"]


class FireflyHandler(DialogueHandler):
    """Records with a ``conversation`` of rounds: ``{"human", "assistant"}``, ``{"user", "bot"}``.

    A round has one question and one answer under any of the names that histories of Alpaca rows know;
    what else it holds is not read.
    """

    keys: ClassVar[Mapping[str, str | None]] = {"conversation": "conversation", "system": None}
    required = (("conversation",),)
    usual: ClassVar[Mapping[str, Sequence[str]]] = {"system": ("system",)}

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        column = self.columns.get("conversation", "")
        rounds, _ = message_list(record, column)
        messages: list[Message] = []
        for number, item in enumerate(rounds):
            place = f"{column}[{number}]"
            if not isinstance(item, dict):
                raise RecordError("wrong-type", place, "an object with two texts", shorten(item))
            messages.append(Message(Role.USER, _side(item, QUESTION_NAMES, place)))
            messages.append(Message(Role.ASSISTANT, _side(item, ANSWER_NAMES, place)))
        notes: list[str] = []
        system = system_of(record, self.columns.get("system"), None, notes)
        return Dialogue(messages, system, notes=notes, summary=summary_of(record, self.columns))


def _side(item: Mapping[str, Any], names: Set[str], place: str) -> str:
    """Return the text of one side of a round; its name must be the only one of that side."""
    found = [name for name in item if name.lower() in names]
    if len(found) > 1:
        # In parquet, rounds have the names of all other records, too.
        found = [name for name in found if item[name] is not None] or found[:1]
    if len(found) != 1:
        reason = "wrong-type" if found else "missing-field"
        expected = f"one of {'/'.join(sorted(names))}"
        raise RecordError(reason, place, expected, " and ".join(found) or shorten(dict(item)))
    value = item[found[0]]
    if isinstance(value, str):
        return value
    reason = "missing-field" if value is None else "wrong-type"
    raise RecordError(reason, f"{place}.{found[0]}", "text", shorten(value))
