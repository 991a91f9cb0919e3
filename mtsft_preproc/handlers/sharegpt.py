"""Messages that take turns, as ShareGPT has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Outline, Role, ToolCall, shorten
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers.base import DialogueHandler, Handler, HandlerOptions, summary_of
from mtsft_preproc.handlers.message_text import message_list, role_of, system_of, train_flag
from mtsft_preproc.handlers.tool_json import json_text, read_calls, read_tools

__all__ = ["BelleChatHandler", "HunyuanHandler", "SharegptHandler", "SharegptRecords"]

#: The tags whose names are roles, by who may speak when: sources and targets take turns.
_SOURCES = ("user_tag", "observation_tag")
_TARGETS = ("assistant_tag", "function_tag")
_ROLES = {
    "user_tag": Role.USER,
    "observation_tag": Role.OBSERVATION,
    "assistant_tag": Role.ASSISTANT,
    "function_tag": Role.ASSISTANT,
}


class SharegptRecords(Handler):
    """Reads the messages of a record in ShareGPT's form; base of all handlers of such records.

    A message is ``{"from", "value"}``. A system message may lead. Then sources (``human``,
    ``observation``) and targets (``gpt``, ``function_call``) take turns, a source first. The value of a
    ``function_call`` is JSON: one call or a list of them. Tags rename all of it; an empty ``role_tag``
    stands for messages without a role, in which the user and the assistant take turns.
    """

    keys: ClassVar[Mapping[str, str | None]] = {"messages": "conversations", "system": None, "tools": None}
    required: ClassVar[Sequence[Sequence[str]]] = (("messages",),)
    usual: ClassVar[Mapping[str, Sequence[str]]] = {"system": ("system",), "tools": ("tools",)}
    tags: ClassVar[Mapping[str, str]] = {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    }

    def __init__(
        self, map_keys: Mapping[str, Any] | None = None, options: HandlerOptions | None = None
    ) -> None:
        super().__init__(map_keys, options)
        #: How many fields hold the role and the text; a flag can only be a further one.
        self._fields = 2 if self.tag["role_tag"] else 1
        #: The tag of each name of a role.
        self._kinds: dict[str, str] = {}
        for tag in (*_SOURCES, *_TARGETS, "system_tag"):
            name = self.tag[tag]
            if name in self._kinds:
                raise SettingsError(
                    f"--map-keys: {self._kinds[name]!r} and {tag!r} are both {name!r}; "
                    'expected another name for one of them, or "" where the data has no such role'
                )
            if name:
                self._kinds[name] = tag
        #: By whose turn it is: the roles of messages that are a role and a text, by their names.
        self._plain = [
            {self.tag[tag]: _ROLES[tag] for tag in ("user_tag", "observation_tag") if self.tag[tag]},
            {self.tag["assistant_tag"]: Role.ASSISTANT} if self.tag["assistant_tag"] else {},
        ]
        field = self.tag["content_tag"]
        if not field or field == self.tag["role_tag"]:
            raise SettingsError(
                f"--map-keys: 'content_tag': expected the field with the text, got {field!r}"
            )

    def read(self, record: Mapping[str, Any]) -> tuple[Dialogue, bool]:
        """Return the dialogue of a record, which may hold no target, and whether it came as JSON text.

        Raises:
            RecordError: The record can't be one.
        """
        columns = self.columns
        column = columns.get("messages", "")
        given, from_text = message_list(record, column)
        roles, texts = bytearray(), list[str]()
        rich: dict[int, Message] = {}
        notes: list[str] = []
        leading = None
        plain, role_tag, content_tag = self._plain, self.tag["role_tag"], self.tag["content_tag"]
        for number, item in enumerate(given):
            # Nearly all messages are a role and a text, and speak when it is their turn.
            if type(item) is dict and len(item) == self._fields and role_tag:
                name, content = item.get(role_tag), item.get(content_tag)
                known = plain[len(texts) % 2]
                if type(content) is str and type(name) is str and name in known:
                    roles.append(known[name])
                    texts.append(content)
                    continue
            place = f"{column}[{number}]"
            kind = self._kind(item, place, len(texts))
            if kind != "system_tag":
                self._check_turn(kind, place, len(texts))
                message = self._message(item, kind, place, notes, from_text)
                if message.is_rich:
                    rich[len(texts)] = message
                roles.append(message.role)
                texts.append(message.text)
                continue
            if number:
                raise RecordError("role-order", place, "a system message in front alone", "another one")
            leading = self._text(item, place)
            if train_flag(item, place):
                notes.append("system-not-trained")
        outline = Outline(bytes(roles), texts, rich)
        dialogue = Dialogue(outline, notes=notes, summary=summary_of(record, columns))
        dialogue.system = system_of(record, columns.get("system"), leading, notes)
        if "tools" in columns:
            dialogue.tools = read_tools(record.get(columns["tools"]), columns["tools"], notes)
        return dialogue, from_text

    def names(self, targets: bool) -> str:
        """Return the names of the roles that may speak as targets, or as sources."""
        return " or ".join(self.tag[tag] for tag in (_TARGETS if targets else _SOURCES) if self.tag[tag])

    def target(self, item: Any, place: str, notes: list[str], from_text: bool) -> Message:
        """Return a message that stands alone and must be a target's.

        Raises:
            RecordError: It is none.
        """
        kind = self._kind(item, place, 1)
        if kind == "system_tag":
            raise RecordError("role-order", place, self.names(targets=True), self.tag[kind])
        self._check_turn(kind, place, 1)
        return self._message(item, kind, place, notes, from_text)

    def _kind(self, item: Any, place: str, turn: int) -> str:
        """Return the tag of a message's role."""
        field = self.tag["role_tag"]
        if field:
            return role_of(item, field, place, self._kinds)
        if not isinstance(item, dict):
            raise RecordError("wrong-type", place, "an object", shorten(item))
        return "assistant_tag" if turn % 2 else "user_tag"

    def _check_turn(self, kind: str, place: str, turn: int) -> None:
        if (kind in _TARGETS) != bool(turn % 2):
            raise RecordError("role-order", place, self.names(targets=bool(turn % 2)), self.tag[kind])

    def _message(self, item: Any, kind: str, place: str, notes: list[str], from_text: bool) -> Message:
        train = train_flag(item, place) if len(item) > self._fields else None
        role = _ROLES[kind]
        if kind == "function_tag":
            return Message(role, None, tool_calls=self._calls(item, place, notes, from_text), train=train)
        field = self.tag["content_tag"]
        value = item.get(field)
        if kind == "observation_tag" and isinstance(value, dict | list):
            return Message(role, json_text(value, f"{place}.{field}"), train=train)
        return Message(role, self._text(item, place), train=train)

    def _text(self, item: Mapping[str, Any], place: str) -> str:
        field = self.tag["content_tag"]
        value = item.get(field)
        if isinstance(value, str):
            return value
        if value is None:
            raise RecordError("missing-field", f"{place}.{field}", "text", "null")
        raise RecordError("wrong-type", f"{place}.{field}", "text", shorten(value))

    def _calls(
        self, item: Mapping[str, Any], place: str, notes: list[str], from_text: bool
    ) -> tuple[ToolCall, ...]:
        field = self.tag["content_tag"]
        place, value = f"{place}.{field}", item.get(field)
        if value is None:
            raise RecordError("missing-field", place, "a call as JSON", "null")
        calls = read_calls(value, place, notes, from_text)
        if not calls:
            raise RecordError("bad-tool-json", place, "at least one call", "an empty list")
        return calls


class SharegptHandler(SharegptRecords, DialogueHandler):
    """ShareGPT records; see :class:`SharegptRecords`."""

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        dialogue, _ = self.read(record)
        # A target stands behind the first source, if there is one.
        if len(dialogue.outline.roles) < 2:
            got = "a single message" if dialogue.outline.roles else "a system message alone"
            column = self.columns.get("messages", "")
            raise RecordError("no-assistant", column, f"a message of {self.names(targets=True)}", got)
        return dialogue


class BelleChatHandler(SharegptHandler):
    """Records of BELLE's chat data: ShareGPT's, in which the assistant is called so."""

    tags: ClassVar[Mapping[str, str]] = {**SharegptRecords.tags, "assistant_tag": "assistant"}


class HunyuanHandler(SharegptHandler):
    """ShareGPT records for Hunyuan, which are rendered with the tokenizer's own chat template."""

    defaults: ClassVar[Mapping[str, Any]] = {"chat_template": "tokenizer"}
