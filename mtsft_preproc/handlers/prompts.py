"""Data for reinforcement learning: the formats of Alpaca and ShareGPT, of which prompts are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.handlers.sharegpt import SharegptHandler

__all__ = ["PPOAlpacaHandler", "R1AlpacaHandler", "R1SharegptHandler"]


class PPOAlpacaHandler(AlpacaHandler):
    """Alpaca rows whose prompts alone are kept."""

    objective = "ppo"


class R1AlpacaHandler(AlpacaHandler):
    """Alpaca rows whose prompts are kept, and the replies or other fields beside them."""

    objective = "r1"


class R1SharegptHandler(SharegptHandler):
    """ShareGPT records whose last reply, or other fields, are kept beside the words in front of it."""

    objective = "r1"

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        dialogue = super().dialogue(record)
        if not dialogue.messages[-1].role.is_target:
            column = self.columns.get("messages", "")
            expected, got = f"{self.names(targets=True)} at the end", self.names(targets=False)
            raise RecordError("role-order", column, expected, got)
        return dialogue
