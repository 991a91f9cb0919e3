"""Formats whose records are rows: one column asks, another one replies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mtsft_preproc.handlers.detect_chats import chat_in
from mtsft_preproc.handlers.detect_columns import Columns, Detected, UnclearError, found

__all__ = ["HISTORY", "TEXTS", "alpaca", "asking", "belle_rounds", "chatglm", "named", "row", "text"]

HISTORY = ("history", "histories")
#: What the columns of a row are called, the standard name first.
_PROMPTS = ("instruction", "prompt", "question", "query")
_CONTEXTS = ("input", "context")
_REPLIES = ("output", "response", "answer", "completion", "target")
_SYSTEMS = ("system", "system_prompt")
#: Columns whose text is what somebody says, even where it is JSON.
TEXTS = frozenset({*_PROMPTS, *_CONTEXTS, *_REPLIES, *_SYSTEMS})
_BELLE_ROUNDS = re.compile(r"\s*Human:.*Assistant:\s*", re.DOTALL)


def asking(columns: Columns) -> dict[str, str] | None:
    """Return the mapping of a row, but for its reply; None where the records are no rows.

    Raises:
        UnclearError: Two columns could be the same part of it.
    """
    prompts, contexts = columns.plain(_PROMPTS), columns.plain(_CONTEXTS)
    mapped = {}
    if prompts:
        mapped["prompt"] = _one(prompts, _PROMPTS[0])
    elif contexts[:1] == ["input"]:
        # The question stands where others hold its context; no column may be read twice.
        mapped = {"prompt": contexts.pop(0), "query": ""}
    else:
        return None
    if contexts:
        mapped["query"] = _one(contexts, _CONTEXTS[0])
    history, systems = [name for name in HISTORY if name in columns.raw], columns.plain(_SYSTEMS)
    if history:
        mapped["history"] = _one(history, "")
    if systems:
        mapped["system"] = _one(systems, _SYSTEMS[0])
    return mapped


def row(columns: Columns) -> dict[str, str] | None:
    """Return the mapping of a row with one reply; None where the records are no such rows.

    Raises:
        UnclearError: As :func:`asking`.
    """
    replies = columns.plain(_REPLIES)
    mapped = asking(columns) if replies else None
    return {**mapped, "response": _one(replies, _REPLIES[0])} if mapped else None


def alpaca(columns: Columns) -> Detected | None:
    """Rows as Stanford Alpaca has them, under whatever names."""
    mapped = row(columns)
    if not mapped or _is_chatglm(mapped) or _has_messages(columns, mapped):
        return None
    return found(columns, "AlpacaStyleInstructionHandler", _asks(mapped), mapped)


def chatglm(columns: Columns) -> Detected | None:
    """``prompt``, ``response`` and ``history``."""
    mapped = row(columns)
    if not mapped or not _is_chatglm(mapped) or _has_messages(columns, mapped):
        return None
    return found(columns, "ChatGLMHandler", _asks(mapped), mapped)


def belle_rounds(columns: Columns) -> Detected | None:
    """Alpaca rows whose instruction holds rounds."""
    asked = [text for text in columns.raw.get("instruction", []) if isinstance(text, str)]
    rounds = sum(_BELLE_ROUNDS.fullmatch(text) is not None for text in asked)
    if not rounds or not columns.plain(["output"]):
        return None
    why = f"{rounds} of {len(asked)} texts in 'instruction' hold rounds of 'Human:' and 'Assistant:'"
    return found(columns, "BelleMultiTurnInstructionHandler", why)


def named(handler: str, *names: str) -> Callable[[Columns], Detected | None]:
    """Return the format of records that the names of their columns tell."""

    def find(columns: Columns) -> Detected | None:
        if not set(names) <= set(columns.raw):
            return None
        return found(columns, handler, f"there are the columns {', '.join(map(repr, names))}")

    return find


def text(columns: Columns) -> Detected | None:
    """Documents: one column of text."""
    texts = [name for name in ("text", "content") if columns.is_text(name)]
    if not texts:
        return None
    column = _one(texts, "")
    # Text documents have no map-keys: their columns are named by a flag.
    how = "" if column == "text" else f", for which it takes --json-keys {column}"
    return found(
        columns, "GeneralPretrainHandler", f"the column {column!r} holds text{how}", reads=[column]
    )


def _is_chatglm(mapped: Mapping[str, str]) -> bool:
    # ChatGLM's form has no place for a context; such rows are Alpaca's by other names.
    return (mapped["prompt"], mapped["response"]) == ("prompt", "response") and "query" not in mapped


def _has_messages(columns: Columns, mapped: Mapping[str, str]) -> bool:
    return "history" in mapped and chat_in(columns, mapped["history"]) is not None


def _asks(mapped: Mapping[str, str]) -> str:
    return f"the column {mapped['prompt']!r} asks and {mapped['response']!r} replies"


def _one(names: list[str], standard: str) -> str:
    """Return the standard name if it is there, else the only one."""
    if standard in names:
        return standard
    if len(names) > 1:
        raise UnclearError(f"the columns {' and '.join(map(repr, names))} could be the same part of a row")
    return names[0]
