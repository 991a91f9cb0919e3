"""Alpaca rows, with earlier rounds in a ``history`` column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson

from mtsft_preproc.dialogue import Dialogue, Outline, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import DialogueHandler, summary_of, text_field

__all__ = ["ANSWER_NAMES", "QUESTION_NAMES", "AlpacaHandler", "answered", "asked"]

#: Names under which the two sides of a round are known where a round is an object.
QUESTION_NAMES = frozenset({"prompt", "question", "query", "instruction", "input", "user", "human", "q"})
ANSWER_NAMES = frozenset({"response", "answer", "output", "reply", "assistant", "bot", "gpt", "model", "a"})
#: The roles of a round, a byte each.
_ROUND = bytes([Role.USER, Role.ASSISTANT])
_ROUNDS = "a list of [question, answer] pairs of text"


class AlpacaHandler(DialogueHandler):
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
        texts, system, notes, summary = _asked(record, self.columns)
        column = self.columns.get("response")
        response = text_field(record, column)
        if response is None:
            raise RecordError("missing-field", column or "response", "text", "null")
        texts.append(response)
        outline = Outline(_ROUND * (len(texts) // 2), texts, {})
        return Dialogue(outline, system, None, notes, summary)


def asked(record: Mapping[str, Any], columns: Mapping[str, str]) -> Dialogue:
    """Return the dialogue of a row up to the reply: history, the user's words, system text and summary.

    Args:
        record: The row.
        columns: Columns of ``prompt``, ``query``, ``history``, ``system`` and ``summary``.

    Raises:
        RecordError: The row asks nothing, or holds something else than text.
    """
    texts, system, notes, summary = _asked(record, columns)
    roles = _ROUND * (len(texts) // 2) + _ROUND[:1]
    return Dialogue(Outline(roles, texts, {}), system, None, notes, summary)


def _asked(record: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[list[str], str, list[str], str]:
    """Return the texts up to the reply, which take turns, the system text, notes and the summary."""
    take = columns.get
    prompt = text_field(record, take("prompt"))
    query = text_field(record, take("query"))
    if prompt is None and query is None:
        both = [name for name in (take("prompt"), take("query")) if name]
        raise RecordError("missing-field", " / ".join(both), "text in one of them", "null")
    column = take("history")
    texts = _rounds(record.get(column), column) if column else []
    question = f"{prompt}\n{query}" if prompt and query else prompt or query or ""
    texts.append(question)
    system = text_field(record, take("system")) or "" if "system" in columns else ""
    summary = summary_of(record, columns) if "summary" in columns else ""
    return texts, system, [] if question else ["empty-prompt"], summary


def answered(prompt: Dialogue, reply: str) -> Dialogue:
    """Return the dialogue that :func:`asked` made, with the reply of the assistant."""
    roles, texts, rich = prompt.outline
    outline = Outline(roles + _ROUND[1:], [*texts, reply], rich)
    return Dialogue(outline, prompt.system, prompt.tools, prompt.notes, prompt.summary)


def _rounds(value: Any, column: str) -> list[str]:
    """Return the texts of a history column, which take turns."""
    if isinstance(value, str):
        value = _from_text(value, column)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError("bad-history", column, _ROUNDS, shorten(value))
    texts: list[str] = []
    for number, pair in enumerate(value):
        if type(pair) is list and len(pair) == 2:
            question, answer = pair
        else:
            question, answer = _sides(pair, f"{column}[{number}]")
        if not isinstance(question, str) or not isinstance(answer, str):
            side = int(isinstance(question, str))
            got = shorten(answer if side else question)
            raise RecordError("bad-history", f"{column}[{number}][{side}]", "text", got)
        texts.append(question)
        texts.append(answer)
    return texts


def _sides(pair: Any, place: str) -> tuple[Any, Any]:
    """Return (question, answer) of a round that is no list."""
    if isinstance(pair, Mapping):
        return _from_object(pair, place)
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise RecordError("bad-history", place, "a [question, answer] pair", shorten(pair))
    return pair[0], pair[1]


def _from_text(text: str, column: str) -> Any:
    """Read a history that is JSON text; an empty cell is no history."""
    if not text.strip():
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RecordError("bad-history", column, _ROUNDS, shorten(text)) from None
    if value is not None and not isinstance(value, list):
        raise RecordError("bad-history", column, _ROUNDS, shorten(text))
    return value


def _from_object(pair: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    """Return (question, answer) of a round that is an object; the names must tell which is which."""
    questions = [name for name in pair if name.lower() in QUESTION_NAMES]
    answers = [name for name in pair if name.lower() in ANSWER_NAMES]
    if len(pair) != 2 or len(questions) != 1 or len(answers) != 1:
        names = f"one of {'/'.join(sorted(QUESTION_NAMES))} and one of {'/'.join(sorted(ANSWER_NAMES))}"
        raise RecordError("bad-history", place, f"two keys: {names}", shorten(dict(pair)))
    return pair[questions[0]], pair[answers[0]]
