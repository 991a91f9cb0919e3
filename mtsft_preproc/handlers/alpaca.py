"""Alpaca rows, with earlier rounds in a ``history`` column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import Handler, text_field

__all__ = ["AlpacaHandler"]

#: Names under which the two sides of a round are known where a round is an object.
_QUESTION = frozenset({"prompt", "question", "query", "instruction", "input", "user", "human", "q"})
_ANSWER = frozenset({"response", "answer", "output", "reply", "assistant", "bot", "gpt", "model", "a"})
_ROUNDS = "a list of [question, answer] pairs of text"


class AlpacaHandler(Handler):
    """``instruction`` / ``input`` / ``output`` rows, as Stanford Alpaca has them, with ``history``.

    The user's words are ``prompt`` and ``query`` joined with a newline, empty ones left out. ``history``
    holds the earlier rounds, oldest first: a list of [question, answer] pairs or of objects with one
    question and one answer; also as JSON text, which is how CSV holds it.
    """

    keys: ClassVar[Mapping[str, str | None]] = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": None,
        "system": None,
    }
    required = (("prompt", "query"), ("response",))
    usual: ClassVar[Mapping[str, Sequence[str]]] = {
        "history": ("history", "histories"),
        "system": ("system",),
    }

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        columns = self.columns
        prompt = text_field(record, columns.get("prompt"))
        query = text_field(record, columns.get("query"))
        response = text_field(record, columns.get("response"))
        if prompt is None and query is None:
            both = [name for name in (columns.get("prompt"), columns.get("query")) if name]
            raise RecordError("missing-field", " / ".join(both), "text in one of them", "null")
        if response is None:
            raise RecordError("missing-field", columns.get("response", "response"), "text", "null")
        column = columns.get("history")
        messages = _rounds(record.get(column), column) if column else []
        asked = "\n".join(part for part in (prompt, query) if part)
        messages.append(Message(Role.USER, asked))
        messages.append(Message(Role.ASSISTANT, response))
        dialogue = Dialogue(messages, text_field(record, columns.get("system")) or "")
        if not asked:
            dialogue.notes.append("empty-prompt")
        if any(not message.content for message in messages[1::2]):
            dialogue.notes.append("empty-reply")
        return dialogue


def _rounds(value: Any, column: str) -> list[Message]:
    """Return the messages of a history column."""
    if isinstance(value, str):
        value = _from_text(value, column)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError("bad-history", column, _ROUNDS, shorten(value))
    messages = []
    for number, pair in enumerate(value):
        place = f"{column}[{number}]"
        if isinstance(pair, Mapping):
            pair = _from_object(pair, place)
        elif not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RecordError("bad-history", place, "a [question, answer] pair", shorten(pair))
        question, answer = pair
        for side, text in enumerate((question, answer)):
            if not isinstance(text, str):
                raise RecordError("bad-history", f"{place}[{side}]", "text", shorten(text))
        messages.append(Message(Role.USER, question))
        messages.append(Message(Role.ASSISTANT, answer))
    return messages


def _from_text(text: str, column: str) -> Any:
    """Read a history that is JSON text; an empty cell is no history."""
    if not text.strip():
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RecordError("bad-history", column, _ROUNDS, shorten(text)) from None
    if not isinstance(value, list):
        raise RecordError("bad-history", column, _ROUNDS, shorten(text))
    return value


def _from_object(pair: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    """Return (question, answer) of a round that is an object; the names must tell which is which."""
    questions = [name for name in pair if name.lower() in _QUESTION]
    answers = [name for name in pair if name.lower() in _ANSWER]
    if len(pair) != 2 or len(questions) != 1 or len(answers) != 1:
        names = f"one of {'/'.join(sorted(_QUESTION))} and one of {'/'.join(sorted(_ANSWER))}"
        raise RecordError("bad-history", place, f"two keys: {names}", shorten(dict(pair)))
    return pair[questions[0]], pair[answers[0]]
