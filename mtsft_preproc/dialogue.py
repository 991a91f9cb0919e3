"""The types that travel through the program: records, messages, dialogues, rejections."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from mtsft_preproc.errors import RecordError

__all__ = [
    "REASONS",
    "Dialogue",
    "Message",
    "Outline",
    "Record",
    "Rejection",
    "Role",
    "ToolCall",
    "shorten",
]

#: Why a record was rejected: the code that stands in ``PREFIX.rejected.jsonl``, and what it means.
REASONS: dict[str, str] = {
    "not-json": "the line or array element is not valid JSON",
    "truncated": "the file ends inside the record",
    "damaged-file": "a part of the file can't be read; the line stands for a row, or for all that is lost",
    "too-large": "the record has more bytes than --max-record-mb",
    "too-deep": "objects and lists are nested too deeply",
    "stray-bom": "a byte order mark stands in front of the record, and not of the file alone",
    "invalid-utf8": "the bytes of the record are not UTF-8",
    "lone-surrogate": "a string holds half of a surrogate pair, which no tokenizer can encode",
    "not-an-object": "the record is valid, but not an object with named fields",
    "wrong-columns": "a CSV row has more or fewer fields than the header",
    "missing-field": "a field that the handler needs is absent or null",
    "wrong-type": "a field holds a value of another type than the handler needs",
    "bad-history": "the history is not a list of [question, answer] pairs of text",
    "empty-dialogue": "the record holds no message",
    "no-assistant": "nobody answers: no message is the assistant's",
    "unknown-role": "a message has a role that the handler does not know",
    "role-order": "messages follow each other in an order that is no dialogue",
    "empty-reply": "the assistant says nothing (--empty-reply reject)",
    "empty-text": "a text document holds no text",
    "bad-tool-json": "tools, or the call of one, are not the JSON that they have to be",
    "orphan-tool-result": "a tool's result answers no call",
    "unsupported-message": "the chat format has no place for a message of this kind or order",
    "special-token": "text spells a special token and may not, or can't be told apart from one",
    "template-refused": "the chat template refuses the dialogue, or fails on it",
    "not-rendered": "the chat template leaves out what the assistant says",
    "mask-unproven": "what the model generated can't be told from the rest for certain",
    "parity": "a trained turn is not what the model meets when it serves (--parity require)",
    "overlong": "the sample has more tokens than --seq-length",
    "nothing-trained": "no token of the sample would be trained",
    "duplicate": "the same dialogue stands further up (--dedup exact)",
    "left-out": "the mix has no place for it (--mix, --mix-strategy)",
}


#: Characters that a rejection says at most of what was expected, and of what was there.
_SAID = 600


#: Levels of objects and lists that are shown at most.
_SHOWN_LEVELS = 100


def shorten(value: object, limit: int = 120) -> str:
    """Return ``repr(value)`` cut to ``limit`` characters, with the type of what is not text.

    >>> shorten("a" * 500, 12)
    "'aaaaaaaa..."
    >>> shorten(7)
    '7 (int)'
    """
    # A huge value is cut before repr, which would otherwise build a string several times its size.
    head = value[:limit] if isinstance(value, str | bytes | list) else value
    try:
        # Not left to the recursion limit alone, which one process reaches earlier than another.
        text = "nested too deeply to show" if _is_deep(head) else repr(head)
    except RecursionError:
        text = "nested too deeply to show"
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_SHOWN_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


class Role(IntEnum):
    """Who speaks. The system text that opens a dialogue and the tools belong to it, not to a message."""

    USER = 0
    ASSISTANT = 1
    #: What a tool returned.
    OBSERVATION = 2
    #: A system or developer text inside the dialogue, behind its first message.
    SYSTEM = 3

    @property
    def is_target(self) -> bool:
        """Whether the model writes messages of this role."""
        return self is Role.ASSISTANT


@dataclass(slots=True)
class Record:
    """One row of input.

    Attributes:
        row: 0-based number of the record inside its shard (blank lines don't count).
        value: The parsed record: a mapping of field names to Python values.
        byte_offset: Where the record starts in its file (uncompressed bytes), or -1 where a file format
            has no such thing.
    """

    row: int
    value: Any
    byte_offset: int = -1


@dataclass(slots=True)
class Rejection:
    """A record that did not become a sample, with everything needed to find and mend it.

    Attributes:
        row: As :attr:`Record.row`.
        reason: A key of :data:`REASONS`.
        field: The field at fault, or ``""``.
        expected: What would have been right.
        got: What was there, cut to a readable length.
        byte_offset: As :attr:`Record.byte_offset`.
        turn: Number of the message whose sample is lost of a record that has others; -1: the whole record.
        record: The record, or its bytes as text where they are no JSON; None where it is not asked for.
    """

    row: int
    reason: str
    field: str = ""
    expected: str = ""
    got: str = ""
    byte_offset: int = -1
    turn: int = -1
    record: Any = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, record: Record, error: RecordError, turn: int = -1) -> Rejection:
        """Return the rejection of ``record``, or of its sample for ``turn``, for ``error``."""
        expected, got = (
            text if len(text) <= _SAID else text[: _SAID - 3] + "..."
            for text in (error.expected, error.got)
        )
        return cls(
            record.row, error.reason, error.field, expected, got, record.byte_offset, turn, record.value
        )


@dataclass(slots=True)
class ToolCall:
    """A call that the assistant makes.

    Attributes:
        name: The tool's name.
        arguments: An object of JSON (a dict), or text where the data hold text that is none.
        id: What a result refers to, or None.
    """

    name: str
    arguments: Any
    id: str | None = None


@dataclass(slots=True)
class Message:
    """One turn of a dialogue.

    Attributes:
        role: Who speaks.
        content: The text; may be empty. None where the data have none, as beside tool calls.
        reasoning: The assistant's thoughts in front of the content, or None.
        tool_calls: The assistant's calls, behind the content.
        name: Of an observation: the tool's name, or None.
        call_id: Of an observation: the call that it answers, or None.
        train: Whether the data want the message trained; None leaves it to ``--train-on``.
    """

    role: Role
    content: str | None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    call_id: str | None = None
    train: bool | None = None

    @property
    def is_rich(self) -> bool:
        """Whether it is more than a role and a text, or has no text."""
        return (
            self.content is None
            or bool(self.tool_calls)
            or self.call_id is not None
            or self.name is not None
            or self.reasoning is not None
            or self.train is not None
        )

    @property
    def text(self) -> str:
        """The content; none is as good as an empty one."""
        return self.content or ""


class Outline(NamedTuple):
    """The messages of a dialogue in columns: nearly all of them are a role and a text, and no more.

    Attributes:
        roles: The role of each message, a byte each.
        texts: The text of each message, ``""`` where it has none.
        rich: The messages that are more than that, or have no text, by their numbers, which rise.
    """

    roles: bytes
    texts: list[str]
    rich: dict[int, Message]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Outline:
        """Return the outline of messages."""
        return cls(
            bytes([message.role for message in messages]),
            [message.content or "" for message in messages],
            {number: message for number, message in enumerate(messages) if message.is_rich},
        )

    def messages(self) -> list[Message]:
        """Return the messages; those that are a role and a text are made anew."""
        made = [Message(_ROLES[role], text) for role, text in zip(self.roles, self.texts, strict=True)]
        for number, message in self.rich.items():
            made[number] = message
        return made


#: By their values; an enumeration takes several times as long to look one up.
_ROLES = tuple(Role)


class Dialogue:
    """What a handler makes of a record. Once the handler is done with it, its messages stay as they are.

    Args:
        messages: At least one, as a list or, which is quicker where most are a role and a text, in columns;
            a prompt type needs them to alternate between source (user, observation) and target (assistant).
        system: As :attr:`system`; the others, too.

    Attributes:
        system: The record's own system text; ``""`` takes the chat format's default.
        tools: The tools that the assistant may call, as JSON objects; empty for none. Usually
            ``{"type": "function", "function": {"name", "description", "parameters"}}``.
        notes: Names of harmless oddities (``"empty-prompt"``) that the summary counts.
        summary: What was said earlier, in short, for samples that ``--overlong recent`` cuts; ``""``: none.
        one_turn: Whether the last message alone is of interest, as in preference pairs: reasoning formats
            then leave the thoughts out of the earlier ones.
    """

    __slots__ = ("_messages", "_outline", "notes", "one_turn", "summary", "system", "tools")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        messages: list[Message] | Outline,
        system: str = "",
        tools: list[Any] | None = None,
        notes: list[str] | None = None,
        summary: str = "",
        one_turn: bool = False,
    ) -> None:
        in_columns = type(messages) is Outline
        self._outline: Outline | None = messages if in_columns else None  # type: ignore[assignment]
        self._messages: list[Message] | None = None if in_columns else messages  # type: ignore[assignment]
        self.system = system
        self.tools: list[Any] = [] if tools is None else tools
        self.notes: list[str] = [] if notes is None else notes
        self.summary = summary
        self.one_turn = one_turn

    @property
    def messages(self) -> list[Message]:
        """The messages as a list, made of the columns when it is first asked for."""
        if self._messages is None:
            assert self._outline is not None
            self._messages = self._outline.messages()
            self._outline = None  # Whoever has the list may change it.
        return self._messages

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        self._messages, self._outline = messages, None

    @property
    def outline(self) -> Outline:
        """The messages in columns, made of the list when they are first asked for."""
        found = self._outline
        if found is None:
            found = self._outline = Outline.of(self.messages)
        return found

    def but(self, **changes: Any) -> Dialogue:
        """Return a dialogue with other arguments; all that are not given are this one's."""
        own = {name: getattr(self, name) for name in ("system", "tools", "notes", "summary", "one_turn")}
        messages = self._outline if self._messages is None else self._messages
        return Dialogue(**{"messages": messages, **own, **changes})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dialogue) and self._told() == other._told()

    def __repr__(self) -> str:
        return f"Dialogue{self._told()}"

    def _told(self) -> tuple[Any, ...]:
        return self.messages, self.system, self.tools, self.notes, self.summary, self.one_turn
