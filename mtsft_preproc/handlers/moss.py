"""MOSS's dialogues: turns of fields, each a text with marks at both of its ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import DialogueHandler, summary_of, text_field

__all__ = ["MARKS", "MossHandler", "MossInstructionHandler", "MossMultiTurnHandler"]

#: How each field of a turn starts and ends.
MARKS: dict[str, tuple[str, str]] = {
    "Human": ("<|Human|>:", "<eoh>"),
    "Inner Thoughts": ("<|Inner Thoughts|>:", "<eot>"),
    "Commands": ("<|Commands|>:", "<eoc>"),
    "Tool Responses": ("<|Results|>:", "<eor>"),
    "MOSS": ("<|MOSS|>:", "<eom>"),
}
#: What MOSS's data say where there is nothing to say.
_NOTHING = "None"
_INNER = ("Inner Thoughts", "Commands", "Tool Responses")


class MossRecords(DialogueHandler):
    """What the handlers of MOSS's data share: ``chat`` is an object of turns, in their order.

    Parquet fills the turns that a record lacks with nulls; those are passed over.
    """

    def turns(self, record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, str]]]:
        """Return the turns of a record with their places; of each the fields that it has.

        Raises:
            RecordError: ``missing-field``, ``wrong-type``, ``bad-history`` or ``empty-dialogue``.
        """
        column = self.columns.get("chat", "chat")
        chat = record.get(column)
        if chat is None:
            raise RecordError("missing-field", column, "an object of turns", "null")
        if not isinstance(chat, Mapping):
            raise RecordError("wrong-type", column, "an object of turns", shorten(chat))
        found = [(f"{column}.{name}", _fields(turn, f"{column}.{name}")) for name, turn in chat.items()]
        turns: list[tuple[str, Mapping[str, str]]] = [(place, turn) for place, turn in found if turn]
        if not turns:
            raise RecordError("empty-dialogue", column, "an object of turns", shorten(dict(chat)))
        return turns

    def notes(self, record: Mapping[str, Any], turns: Sequence[Any]) -> list[str]:
        """Return a note where the record says that it has another number of turns.

        Raises:
            RecordError: ``wrong-type``.
        """
        column = self.columns.get("num_turns", "")
        told = record.get(column) if column else None
        if told is None:
            return []
        if isinstance(told, bool) or not isinstance(told, int | float):
            raise RecordError("wrong-type", column, "a number of turns", shorten(told))
        return [] if told == len(turns) else ["num-turns-differ"]


class MossInstructionHandler(MossRecords):
    """What is asked and what MOSS answers, without marks; what MOSS does in between is left out.

    The note ``inner-steps-left-out`` counts the records in which that is something. The meta instruction is
    left out, too, unless the map-keys name it as ``system``, for which a chat format must have a place.
    """

    keys: ClassVar[Mapping[str, str | None]] = {"chat": "chat", "num_turns": "num_turns", "system": None}
    required: ClassVar[Sequence[Sequence[str]]] = (("chat",),)
    text_form: ClassVar[str | None] = "alpaca_text"
    defaults: ClassVar[Mapping[str, Any]] = {"train_on": "split"}

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        turns = self.turns(record)
        messages = []
        for place, turn in turns:
            for name, role in (("Human", Role.USER), ("MOSS", Role.ASSISTANT)):
                if name not in turn:
                    raise RecordError("missing-field", f"{place}.{name}", "text", "null")
                messages.append(Message(role, _unmarked(turn[name], name)))
        notes = self.notes(record, turns)
        steps = (_unmarked(turn[name], name) for _, turn in turns for name in _INNER if name in turn)
        if any(step not in ("", _NOTHING) for step in steps):
            notes.append("inner-steps-left-out")
        system = text_field(record, self.columns.get("system")) or ""
        return Dialogue(messages, system, notes=notes, summary=summary_of(record, self.columns))


class MossMultiTurnHandler(MossInstructionHandler):
    """The same, as Baichuan's trainer writes it."""

    text_form: ClassVar[str | None] = "moss_baichuan"
    defaults: ClassVar[Mapping[str, Any]] = {}


class MossHandler(MossRecords):
    """All that MOSS's data hold, marks included, in MOSS's own text form.

    A turn becomes up to four messages: what is asked; thoughts and commands; what the tools return; the
    answer. Fields that a turn lacks are left out.
    """

    keys: ClassVar[Mapping[str, str | None]] = {
        "chat": "chat",
        "meta_instruction": "meta_instruction",
        "num_turns": "num_turns",
    }
    required: ClassVar[Sequence[Sequence[str]]] = (("chat",),)
    text_form: ClassVar[str | None] = "moss_text"
    text_form_only: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"overlong": "head", "seq_length": 2048}

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        turns = self.turns(record)
        messages = [message for place, turn in turns for message in _messages(turn, place)]
        system = text_field(record, self.columns.get("meta_instruction")) or ""
        notes = self.notes(record, turns)
        return Dialogue(messages, system, notes=notes, summary=summary_of(record, self.columns))


def _fields(turn: Any, place: str) -> dict[str, str]:
    """Return the fields of a turn that are not null."""
    if turn is None:
        return {}
    if not isinstance(turn, Mapping):
        raise RecordError("bad-history", place, "an object of fields", shorten(turn))
    found = {}
    for name in MARKS:
        text = turn.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise RecordError("bad-history", f"{place}.{name}", "text", shorten(text))
        found[name] = text
    unknown = [name for name, value in turn.items() if name not in MARKS and value is not None]
    if unknown:
        raise RecordError(
            "bad-history", f"{place}.{unknown[0]}", f"no field but {', '.join(MARKS)}", shorten(unknown[0])
        )
    return found


def _unmarked(text: str, name: str) -> str:
    """Return a field without its marks, where it has them, and without space at its ends."""
    opening, closing = MARKS[name]
    return text.strip().removeprefix(opening).removesuffix(closing).strip()


def _messages(turn: Mapping[str, str], place: str) -> Iterator[Message]:
    """Yield the messages of a turn, with their marks.

    Raises:
        RecordError: ``bad-history``: a mark is missing.
    """
    for name, text in turn.items():
        opening, closing = MARKS[name]
        inside = text.removeprefix(opening)
        if inside == text or not inside.rstrip().endswith(closing):
            expected = f"text that starts with {opening} and ends with {closing}"
            raise RecordError("bad-history", f"{place}.{name}", expected, shorten(text))
    if "Human" in turn:
        yield Message(Role.USER, turn["Human"])
    if "Inner Thoughts" in turn or "Commands" in turn:
        yield Message(Role.ASSISTANT, turn.get("Commands"), reasoning=turn.get("Inner Thoughts"))
    if "Tool Responses" in turn:
        yield Message(Role.OBSERVATION, turn["Tool Responses"])
    if "MOSS" in turn:
        yield Message(Role.ASSISTANT, turn["MOSS"])
