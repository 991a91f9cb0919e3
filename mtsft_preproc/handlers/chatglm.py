"""ChatGLM-6B's rows: a prompt, its response, and the earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.handlers.alpaca import answered, asked
from mtsft_preproc.handlers.base import DialogueHandler, needed_text

__all__ = ["ChatGLMHandler"]


class ChatGLMHandler(DialogueHandler):
    """``prompt`` / ``response`` / ``history`` rows, in ChatGLM's numbered rounds; one sample per reply."""

    keys: ClassVar[Mapping[str, str | None]] = {
        "prompt": "prompt",
        "response": "response",
        "history": "history",
        "system": None,
    }
    required: ClassVar[Sequence[Sequence[str]]] = (("prompt",), ("response",))
    usual: ClassVar[Mapping[str, Sequence[str]]] = {"system": ("system",)}
    text_form: ClassVar[str | None] = "chatglm_rounds"
    defaults: ClassVar[Mapping[str, Any]] = {"train_on": "split"}

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        prompt = asked(record, self.columns)
        return answered(prompt, needed_text(record, self.columns, "response"))
