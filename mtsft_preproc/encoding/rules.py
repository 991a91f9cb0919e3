"""What holds for the dialogues of every handler, whatever the format of the data."""

from __future__ import annotations

from dataclasses import replace

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError

__all__ = ["check_dialogue"]

#: Looked up once: an enum's members are slow to get at.
_USER, _ASSISTANT, _OBSERVATION = Role.USER, Role.ASSISTANT, Role.OBSERVATION
_UNTRAINED = (Role.USER, Role.SYSTEM)


def check_dialogue(dialogue: Dialogue, empty_reply: str = "keep") -> Dialogue:
    """Return a dialogue that makes sense, with what is odd about it noted.

    Args:
        dialogue: What a handler made of a record.
        empty_reply: ``"keep"``, ``"reject"`` or ``"untrained"``.

    Raises:
        RecordError: ``empty-dialogue``, ``no-assistant``, ``orphan-tool-result`` or ``empty-reply``.
    """
    roles, texts, rich = dialogue.outline
    if _ASSISTANT not in roles:
        return _check_odd(dialogue, empty_reply)
    if not all(texts):
        empty = [number for number, text in enumerate(texts) if not text and number not in rich]
        if any(roles[number] != _OBSERVATION for number in empty):
            return _check_odd(dialogue, empty_reply)
    if rich and any(map(_is_odd, rich.values())):
        return _check_odd(dialogue, empty_reply)
    if _OBSERVATION in roles:
        _check_results(dialogue)
    return dialogue


def _is_odd(message: Message) -> bool:
    """Return whether a message is empty, or has a flag without an effect; a result may be empty."""
    role = message.role
    if role is _ASSISTANT:
        return _says_nothing(message)
    return role is not _OBSERVATION and (not message.content or message.train is True)


def _check_odd(dialogue: Dialogue, empty_reply: str) -> Dialogue:
    """Return a dialogue in which something is empty, missing or flagged, with what that is noted."""
    messages = dialogue.messages
    if not messages:
        raise RecordError("empty-dialogue", "", "at least one message", "none")
    if not any(message.role is _ASSISTANT for message in messages):
        roles = ", ".join(message.role.name.lower() for message in messages[:5])
        raise RecordError("no-assistant", "", "a message of the assistant", f"{len(messages)}: {roles}")
    _check_results(dialogue)
    if any(message.train and message.role in _UNTRAINED for message in messages):
        dialogue = dialogue.but(notes=[*dialogue.notes, "flag-without-effect"])
    asked = [message.content for message in messages if message.role is _USER]
    if not all(asked) and "empty-prompt" not in dialogue.notes:
        dialogue = dialogue.but(notes=[*dialogue.notes, "empty-prompt"])
    empty = [number for number, message in enumerate(messages) if _says_nothing(message)]
    if not empty:
        return dialogue
    if empty_reply == "reject":
        raise RecordError(
            "empty-reply", f"messages[{empty[0]}]", "a reply", shorten(messages[empty[0]].text)
        )
    notes = [*dialogue.notes, "empty-reply"]
    if empty_reply == "untrained":
        messages = [
            replace(message, train=False) if number in empty else message
            for number, message in enumerate(messages)
        ]
    return dialogue.but(messages=messages, notes=notes)


def _says_nothing(message: Message) -> bool:
    return message.role is _ASSISTANT and not (message.content or message.tool_calls or message.reasoning)


def _check_results(dialogue: Dialogue) -> None:
    """Refuse a result that nobody asked for: at the start, behind the user, or of no known call."""
    roles, _, rich = dialogue.outline
    calls: set[str] = set()
    before = -1
    for number, role in enumerate(roles):
        message = rich.get(number)
        if message is not None:
            calls.update(call.id for call in message.tool_calls if call.id is not None)
        if role == _OBSERVATION:
            where = f"messages[{number}]"
            if message is not None and message.call_id is not None and message.call_id not in calls:
                known = ", ".join(sorted(calls)) or "none"
                raise RecordError(
                    "orphan-tool-result",
                    where,
                    f"a call with an id of an earlier one: {known}",
                    repr(message.call_id),
                )
            if before not in (_ASSISTANT, _OBSERVATION):
                got = "nothing" if before < 0 else Role(before).name.lower()
                raise RecordError("orphan-tool-result", where, "a message of the assistant before it", got)
        before = role
