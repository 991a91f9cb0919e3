"""``--handler-name auto``: find the data format from the first records.

To add a format: write one function that takes the columns and returns what it found or None, and list it in
:data:`_FORMATS`. Nothing is guessed: where no format fits, or two do, the user is asked to name one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers.alpaca import ANSWER_NAMES, QUESTION_NAMES
from mtsft_preproc.handlers.base import handlers
from mtsft_preproc.handlers.conversation import ConversationHandler
from mtsft_preproc.handlers.detect_chats import DIALOGUES, Chat, chat_in, tags_of
from mtsft_preproc.handlers.detect_columns import Columns, Detected, UnclearError, found, holds_objects
from mtsft_preproc.handlers.detect_rows import (
    HISTORY,
    TEXTS,
    alpaca,
    asking,
    belle_rounds,
    chatglm,
    named,
    row,
    text,
)
from mtsft_preproc.handlers.moss import MARKS
from mtsft_preproc.handlers.openai import OpenAIHandler

__all__ = ["Detected", "detect"]

#: Records that are looked at.
_PEEK = 100
_SIDES = ("chosen", "rejected")
#: Names that tell the two sides of a round in any column; those of :mod:`.alpaca` do so only in one that is
#: called a dialogue, since {"input", "output"} are test cases, too.
_ASKS = frozenset({"human", "user"})
_ANSWERS = frozenset({"assistant", "bot", "gpt", "model"})


def detect(records: Sequence[Mapping[str, Any]]) -> Detected:
    """Return the format of ``records``, of which the first ones are looked at.

    Raises:
        SettingsError: No format fits them, or more than one.
    """
    columns = Columns(records[:_PEEK], TEXTS)
    if not columns.raw:
        raise SettingsError(f"--handler-name auto: there are no records to look at; {_choice()}")
    for group in _FORMATS:
        fits: list[Detected] = []
        reasons: dict[str, None] = {}
        for find in group:
            try:
                fit = find(columns)
            except UnclearError as error:
                reasons[str(error)] = None
                continue
            if fit is not None:
                fits.append(fit)
        if len(fits) == 1 and not reasons:
            return fits[0]
        if fits or reasons:
            raise _refusal(columns, [*(f"{fit.handler} fits: {fit.why}" for fit in fits), *reasons])
    raise _refusal(columns, ["no data format fits"])


def _refusal(columns: Columns, reasons: Sequence[str]) -> SettingsError:
    return SettingsError(
        f"--handler-name auto: {'; '.join(reasons)}. The records have the fields {columns.describe()}; "
        f"{_choice()}"
    )


def _choice() -> str:
    return f"name one of the handlers: {', '.join(handlers.names())}"


def _chat(columns: Columns) -> Chat | None:
    """Return the column of messages; None where there is none."""
    chats = [chat for name in columns.raw if name not in _SIDES and (chat := chat_in(columns, name))]
    if len(chats) > 1:
        raise UnclearError(f"the columns {' and '.join(repr(chat.column) for chat in chats)} hold messages")
    if chats and chats[0].column in HISTORY and (beside := row(columns)):
        raise UnclearError(
            f"no handler reads {chats[0].column!r} with messages beside {beside['prompt']!r} and "
            f"{beside['response']!r}"
        )
    return chats[0] if chats else None


def _openai(columns: Columns) -> Detected | None:
    chat = _chat(columns)
    if chat is None or not _is_openai(chat):
        return None
    mapped = {"messages": chat.column, **columns.beside("tools", "system")}
    return found(columns, "OpenAIInstructionHandler", chat.shape, mapped)


def _is_openai(chat: Chat) -> bool:
    return chat.has_roles(OpenAIHandler.roles) and "assistant" in chat.names()


def _sharegpt(columns: Columns) -> Detected | None:
    chat = _chat(columns)
    if chat is None or _is_openai(chat):
        return None
    names = chat.names()
    tags, said = tags_of(chat, names)
    mapped = {"messages": chat.column, **columns.beside("tools", "system")}
    why = f"{chat.shape}; {said}"
    if set(names) == {"human", "assistant"} and tags == {"assistant_tag": "assistant"}:
        return found(columns, "BelleChatHandler", why, mapped)
    return found(columns, "SharegptStyleInstructionHandler", why, mapped, tags=tags)


def _conversation(columns: Columns) -> Detected | None:
    chat = chat_in(columns, "conversation") if "conversation" in columns.raw else None
    if chat is None or not chat.has_roles(ConversationHandler.roles):
        return None
    messages = [message for dialogue in chat.dialogues for message in dialogue]
    fields = ("state", "tool_call", "result")
    marks = [field for field in fields if any(message.get(field) is not None for message in messages)]
    if not marks and not columns.raw.get("metadata"):
        return None
    mark = f"with {' and '.join(map(repr, marks))}" if marks else "beside 'metadata'"
    return found(columns, "ConversationHandler", f"{chat.shape}, {mark}", columns.beside("tools", "system"))


def _firefly(columns: Columns) -> Detected | None:
    names = [name for name in columns.raw if _holds_rounds(columns, name)]
    if not names or (names[0] in HISTORY and row(columns)):
        return None  # Such a history is the earlier rounds of a row.
    if len(names) > 1:
        raise UnclearError(f"the columns {' and '.join(map(repr, names))} hold rounds")
    fields = " and ".join(map(repr, columns.lists(names[0])[0][0]))
    why = f"the column {names[0]!r} holds rounds with {fields}"
    return found(columns, "FireflyHandler", why, {"conversation": names[0], **columns.beside("system")})


def _holds_rounds(columns: Columns, name: str) -> bool:
    is_dialogue = name.lower() in DIALOGUES or name in HISTORY
    asks, answers = (QUESTION_NAMES, ANSWER_NAMES) if is_dialogue else (_ASKS, _ANSWERS)
    rounds = 0
    entries = [entry for entries in columns.lists(name) for entry in entries]
    for entry in entries:
        # In parquet, rounds have the names of all other records, too.
        fields = {field.lower() for field, value in entry.items() if value is not None}
        rounds += len(fields & asks) == 1 and len(fields & answers) == 1
    return 2 * rounds > len(entries)


def _moss(columns: Columns) -> Detected | None:
    chats = [value for value in columns.raw.get("chat", []) if isinstance(value, Mapping)]
    turns = [turn for chat in chats for name, turn in chat.items() if name.startswith("turn_")]
    fits = [turn for turn in turns if isinstance(turn, Mapping) and {"Human", "MOSS"} <= set(turn)]
    if not fits or 2 * len(fits) <= sum(turn is not None for turn in turns):
        return None
    marked = sum(str(turn["Human"]).startswith(MARKS["Human"][0]) for turn in fits)
    if 2 * marked <= len(fits):
        raise UnclearError(
            "the column 'chat' holds MOSS's turns without its marks, which MOSSInstructionHandler and "
            "MOSSMultiTurnHandler read, each in a text form of its own"
        )
    return found(columns, "MOSSHandler", "the column 'chat' holds objects of turns with 'Human' and 'MOSS'")


def _pairs(columns: Columns) -> Detected | None:
    if not set(_SIDES) <= set(columns.raw):
        return None
    replies = [value for side in _SIDES for value in columns.values[side]]
    if any(isinstance(reply, list) and holds_objects(reply) for reply in replies):
        raise UnclearError("'chosen' and 'rejected' hold lists of messages, which no handler reads")
    chat = _chat(columns)
    if chat is None:
        mapped = asking(columns)
        if mapped is None:
            raise UnclearError("'chosen' and 'rejected' reply to no column that a handler reads")
        why = f"the column {mapped['prompt']!r} asks and 'chosen' and 'rejected' reply"
        return found(columns, "AlpacaStylePairwiseHandler", why, mapped)
    objects = [reply for reply in replies if isinstance(reply, Mapping)]
    names = chat.names()
    names.update(name for reply in objects if isinstance(name := reply.get(chat.speaker), str))
    # A reply that is text has no role, and such a dialogue may hold no other reply.
    tags, said = tags_of(chat, names, needed=("user_tag", "assistant_tag") if objects else ("user_tag",))
    mapped = {"messages": chat.column, **columns.beside("tools", "system")}
    why = f"there are 'chosen' and 'rejected', and {chat.shape}; {said}"
    return found(columns, "SharegptStylePairwiseHandler", why, mapped, tags=tags)


#: The formats. One of a later group is found only where none of an earlier group fits: two replies make a
#: pair of any dialogue, and marks that one format alone has beat shapes that many have.
_FORMATS: Sequence[Sequence[Callable[[Columns], Detected | None]]] = (
    (_pairs,),
    (
        _conversation,
        _moss,
        belle_rounds,
        named("LeetcodePythonInstructionHandler", "code_with_problem", "code_only", "explanation_only"),
        named("StackOverflowPythonPretrainHandler", "title", "question_body", "answer_body"),
    ),
    (_openai, _sharegpt, _firefly, alpaca, chatglm),
    (text,),
)
