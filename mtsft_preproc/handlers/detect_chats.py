"""Which columns hold messages, under which names, and who is who in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mtsft_preproc.handlers.detect_columns import Columns, UnclearError
from mtsft_preproc.handlers.sharegpt import SharegptRecords

__all__ = ["DIALOGUES", "Chat", "chat_in", "tags_of"]

#: Names of columns that hold a dialogue, where the shape alone doesn't say so.
DIALOGUES = frozenset(
    {"messages", "conversations", "conversation", "dialogue", "dialogues", "dialog", "dialogs", "turns"}
    | {"utterances", "chat", "rounds"}
)
#: Fields of a message that say who speaks, with the field that holds the text beside each.
_SPEAKER_FIELDS = {"role": "content", "from": "value", "speaker": "utterance", "author": "text"}
_TEXT_FIELDS = ("value", "content", "utterance", "text", "message")
#: The names, in lower case, under which data knows a speaker, by tag.
_SPEAKERS = {
    "user_tag": {"human", "user", "usr", "client", "customer"},
    "assistant_tag": {"gpt", "assistant", "bot", "model", "chatgpt", "gpt4", "ai", "chatbot", "agent"},
    "observation_tag": {"observation", "tool", "tool_response", "tool_result", "function"}
    | {"function_response", "ipython"},
    "function_tag": {"function_call", "tool_call"},
    "system_tag": {"system", "developer"},
}


@dataclass(frozen=True)
class Chat:
    """A column of messages.

    Attributes:
        column: Its name.
        speaker: The field that says who speaks, or ``""``.
        text: The field that holds what is said.
        dialogues: What the column holds.
    """

    column: str
    speaker: str
    text: str
    dialogues: list[list[Mapping[str, Any]]]

    @property
    def shape(self) -> str:
        """The chat in words."""
        fields = f"{self.speaker!r} and {self.text!r}" if self.speaker else f"{self.text!r} and no role"
        return f"the column {self.column!r} holds messages with {fields}"

    def names(self) -> Counter[str]:
        """Return the names of the speakers."""
        said = (message.get(self.speaker) for dialogue in self.dialogues for message in dialogue)
        return Counter(name for name in said if isinstance(name, str))

    def has_roles(self, roles: Mapping[str, Any]) -> bool:
        """Return whether the messages are ``{"role", "content"}``, most of them with one of ``roles``."""
        names = self.names()
        known = sum(count for name, count in names.items() if name in roles)
        return (self.speaker, self.text) == ("role", "content") and 2 * known > sum(names.values())


def chat_in(columns: Columns, name: str) -> Chat | None:
    """Return what a column holds if it holds messages."""
    dialogues = columns.lists(name)
    messages = [message for dialogue in dialogues for message in dialogue]
    if not messages:
        return None

    def mostly(field: str, kinds: type | tuple[type, ...]) -> bool:
        return 2 * sum(isinstance(message.get(field), kinds) for message in messages) > len(messages)

    speakers = [field for field in _SPEAKER_FIELDS if mostly(field, str)]
    for speaker in speakers:
        if any(message.get(_SPEAKER_FIELDS[speaker]) is not None for message in messages):
            return Chat(name, speaker, _SPEAKER_FIELDS[speaker], dialogues)
    texts = [field for field in _TEXT_FIELDS if mostly(field, (str, list))]
    if len(texts) != 1:
        return None
    if speakers:
        return Chat(name, speakers[0], texts[0], dialogues)
    # Any list of things has texts: only its name tells that these are messages.
    if name.lower() in DIALOGUES and any(len(dialogue) > 1 for dialogue in dialogues):
        return Chat(name, "", texts[0], dialogues)
    return None


def tags_of(
    chat: Chat, names: Counter[str], needed: Sequence[str] = ("user_tag", "assistant_tag")
) -> tuple[dict[str, str], str]:
    """Return the tags that are not ShareGPT's defaults, and in words who speaks.

    Args:
        chat: The messages.
        names: How often who speaks.
        needed: Tags of those who must be known.

    Raises:
        UnclearError: It can't be told who is the user or the assistant.
    """
    defaults = SharegptRecords.tags
    tags = {"role_tag": chat.speaker, "content_tag": chat.text}
    said = "the user and the assistant take turns"
    if chat.speaker:
        speakers = _speakers(chat, names)
        if not set(needed) <= set(speakers):
            raise UnclearError(
                f"{chat.shape}, by {', '.join(map(repr, names)) or 'nobody'}: who is the user, and who the "
                'assistant? Say it with "user_tag" and "assistant_tag" in the "tags" of --map-keys, and '
                "--handler-name SharegptStyleInstructionHandler"
            )
        tags |= speakers
        answers = f" and {speakers['assistant_tag']!r} answers" if "assistant_tag" in speakers else ""
        said = f"{speakers['user_tag']!r} asks{answers}"
        others = [name for name in names if name not in speakers.values()]
        if others:
            said += f"; unknown speakers: {', '.join(map(repr, others))}"
    return {tag: name for tag, name in tags.items() if name != defaults[tag]}, said


def _speakers(chat: Chat, names: Counter[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag, known in _SPEAKERS.items():
        ranked = Counter({name: count for name, count in names.items() if name.lower() in known})
        (first, most), (second, fewer) = [*ranked.most_common(2), ("", 0), ("", 0)][:2]
        if most and most == fewer:
            raise UnclearError(f"{chat.shape}, by {first!r} as often as by {second!r}")
        if most:
            found[tag] = first
    if "assistant_tag" not in found and _system_answers(chat, found):
        # In data of spoken-dialogue systems; no message of it is a system text.
        found["assistant_tag"] = found.pop("system_tag")
        if found["assistant_tag"] == SharegptRecords.tags["system_tag"]:
            found["system_tag"] = ""
    return found


def _system_answers(chat: Chat, found: Mapping[str, str]) -> bool:
    """Return whether in most dialogues the system speaks right after the user."""
    if not {"user_tag", "system_tag"} <= set(found):
        return False
    turn = (found["user_tag"], found["system_tag"])
    answered = 0
    for dialogue in chat.dialogues:
        answered += turn in pairwise(message.get(chat.speaker) for message in dialogue)
    return 2 * answered > len(chat.dialogues)
