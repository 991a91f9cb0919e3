"""Mask policies: which messages of a dialogue are trained, and in how many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtsft_preproc.dialogue import Message, Role
from mtsft_preproc.registry import Registry

__all__ = ["MaskPolicy", "policies", "trained_flags"]


@dataclass(frozen=True)
class MaskPolicy:
    """What is trained.

    Attributes:
        first: Number of the first message of a dialogue from which on what the model writes is trained;
            what tools return, too, where that is asked for.
        splits: Whether each trained message of the assistant has a sample of its own, in which what was
            said before is context.
        context: Whether everything else but the system text is trained as well.
    """

    first: Callable[[Sequence[Message]], int]
    splits: bool = False
    context: bool = False


#: Looked up once: an enum's members are slow to get at.
_USER, _ASSISTANT, _OBSERVATION = Role.USER, Role.ASSISTANT, Role.OBSERVATION


def _all(messages: Sequence[Message]) -> int:
    del messages
    return 0


def _last(messages: Sequence[Message]) -> int:
    targets = [number for number, message in enumerate(messages) if message.role is _ASSISTANT]
    return targets[-1] if targets else len(messages)


def _last_round(messages: Sequence[Message]) -> int:
    """Return the last user's message that is answered: all behind it is the last round."""
    upto = _last(messages)
    users = [number for number, message in enumerate(messages[:upto]) if message.role is _USER]
    return users[-1] if users else 0


def trained_flags(policy: MaskPolicy, messages: Sequence[Message], tools: bool = False) -> list[bool]:
    """Return, for each message, whether what the model generates in it is trained.

    A flag of the message itself beats the policy. It can't make words trained that the model never writes.

    Args:
        policy: The mask policy.
        messages: Of a whole dialogue.
        tools: Whether what tools return is trained as well (``--train-on-tools``).
    """
    first = policy.first(messages)
    return [
        (message.role is _ASSISTANT or (tools and message.role is _OBSERVATION))
        and (number >= first if message.train is None else message.train)
        for number, message in enumerate(messages)
    ]


#: All policies, by the names that ``--train-on`` takes.
policies: Registry[MaskPolicy] = Registry("mask policy", "--train-on")
policies.add("assistant", MaskPolicy(_all))
policies.add("last", MaskPolicy(_last))
policies.add("last-round", MaskPolicy(_last_round))
policies.add("split", MaskPolicy(_all, splits=True))
policies.add("full", MaskPolicy(_all, context=True))
