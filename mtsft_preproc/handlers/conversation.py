"""The generic schema: a ``conversation`` of messages that may hold the state of the dialogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.message_text import Said
from mtsft_preproc.handlers.openai import OpenAIHandler
from mtsft_preproc.handlers.tool_json import json_text, parse_json, without_nulls

__all__ = ["ConversationHandler"]

#: Note of a dialogue with a state that doesn't stand in its text.
_NOT_RENDERED = "state-not-rendered"
_STATE = "an object of JSON, or JSON text of one"


class ConversationHandler(OpenAIHandler):
    """Records with a ``conversation`` of ``{"role", "content", "state", "tool_call", "name", "result"}``.

    All but the role and the content may be missing. A result is the content of a tool's message in
    another field. The state (intent, slots) becomes a line of JSON in front of a reply with
    ``--render-state``.
    """

    keys: ClassVar[Mapping[str, str | None]] = {
        "conversation": "conversation",
        "system": None,
        "tools": None,
    }
    required = (("conversation",),)
    usual: ClassVar[Mapping[str, Sequence[str]]] = {"system": ("system",), "tools": ("tools",)}
    roles: ClassVar[Mapping[str, Role]] = {
        **OpenAIHandler.roles,
        "human": Role.USER,
        "gpt": Role.ASSISTANT,
        "bot": Role.ASSISTANT,
        "model": Role.ASSISTANT,
    }
    messages_key = "conversation"
    call_fields = ("tool_call", "tool_calls", "function_call")

    def said(
        self, message: Mapping[str, Any], role: Role, place: str, notes: list[str], from_text: bool
    ) -> Said:
        said = super().said(message, role, place, notes, from_text)
        result, state = message.get("result"), message.get("state")
        if result is not None:
            if role is not Role.OBSERVATION:
                raise RecordError(
                    "wrong-type", f"{place}.result", "null: tools alone return", shorten(result)
                )
            if said.text:
                raise RecordError("wrong-type", f"{place}.result", "content or result", "both")
            said.text = result if isinstance(result, str) else json_text(result, f"{place}.result")
        if state is not None:
            if self.options.render_state and role is Role.ASSISTANT:
                line = _state_text(state, f"{place}.state", notes, from_text)
                said.text = f"{line}\n{said.text}" if said.text else line
            elif _NOT_RENDERED not in notes:
                notes.append(_NOT_RENDERED)
        return said


def _state_text(state: Any, place: str, notes: list[str], from_text: bool) -> str:
    """Return a state as a line of JSON."""
    given = state
    if isinstance(state, str):
        try:
            state, from_text = parse_json(state, place), True
        except ValueError:
            state = None
    if not isinstance(state, dict):
        raise RecordError("wrong-type", place, _STATE, shorten(given))
    text = json_text(state, place)
    return text if from_text else json_text(without_nulls(state, place, notes), place)
