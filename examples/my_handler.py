"""A data format of one's own: ``{"question", "answer", "earlier": [{"question", "answer"}, ...]}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtsft_preproc.handlers import (
    Dialogue,
    DialogueHandler,
    Message,
    RecordError,
    Role,
    handler,
    text_field,
)


@handler("questions")
class QuestionHandler(DialogueHandler):
    """Questions with their answers, and the questions asked before."""

    keys: ClassVar = {"question": "question", "answer": "answer", "earlier": "earlier"}
    required = (("question",), ("answer",))

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        """Return the earlier rounds and the last one; a record that lacks words is rejected."""
        messages = []
        for part in [*(record.get(self.columns["earlier"]) or []), record]:
            for key, role in (("question", Role.USER), ("answer", Role.ASSISTANT)):
                text = text_field(part, self.columns[key])
                if text is None:
                    raise RecordError("missing-field", self.columns[key], "text", "null")
                messages.append(Message(role, text))
        return Dialogue(messages)
