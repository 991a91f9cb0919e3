"""Mask policies: which messages of a dialogue are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtsft_preproc.dialogue import Message
from mtsft_preproc.registry import Registry

__all__ = ["MaskPolicy", "policies", "train_assistant"]

#: Takes the messages of a dialogue; returns, for each, whether what the model generates in it is trained.
MaskPolicy = Callable[[Sequence[Message]], list[bool]]


def train_assistant(messages: Sequence[Message]) -> list[bool]:
    """Train every message that the model writes (method 3 of the multi-turn literature)."""
    return [message.role.is_target for message in messages]


#: All policies, by the names that ``--train-on`` takes.
policies: Registry[MaskPolicy] = Registry("mask policy", "--train-on")
policies.add("assistant", train_assistant)
