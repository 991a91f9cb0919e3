"""Mask policies: which messages of a dialogue are trained, and in how many samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mtsft_preproc.dialogue import Dialogue, Role
from mtsft_preproc.registry import Registry

__all__ = ["MaskPolicy", "policies", "trained_flags"]


@dataclass(frozen=True)
class MaskPolicy:
    """What is trained.

    Attributes:
        first: Takes the roles of a dialogue's messages, a byte each, and returns the number of the message
            from which on what the model writes is trained; what tools return, too, where that is asked for.
        splits: Whether each trained message of the assistant has a sample of its own, in which what was
            said before is context.
        context: Whether everything else but the system text is trained as well.
    """

    first: Callable[[bytes], int]
    splits: bool = False
    context: bool = False


#: Looked up once: an enum's members are slow to get at.
_USER, _ASSISTANT, _OBSERVATION = Role.USER, Role.ASSISTANT, Role.OBSERVATION


def _all(roles: bytes) -> int:
    del roles
    return 0


def _last(roles: bytes) -> int:
    last = roles.rfind(_ASSISTANT)
    return last if last >= 0 else len(roles)


def _last_round(roles: bytes) -> int:
    """Return the last user's message that is answered: all behind it is the last round."""
    return max(0, roles.rfind(_USER, 0, _last(roles)))


def trained_flags(policy: MaskPolicy, dialogue: Dialogue, tools: bool = False) -> list[bool]:
    """Return, for each message, whether what the model generates in it is trained.

    A flag of the message itself beats the policy. It can't make words trained that the model never writes.

    Args:
        policy: The mask policy.
        dialogue: A whole dialogue.
        tools: Whether what tools return is trained as well (``--train-on-tools``).
    """
    roles, _, rich = dialogue.outline
    written = [role == _ASSISTANT or (tools and role == _OBSERVATION) for role in roles]
    first = policy.first(roles)
    flags = written if not first else [False] * first + written[first:]
    for number, message in rich.items():
        if message.train is not None:
            flags[number] = message.train and written[number]
    return flags


#: All policies, by the names that ``--train-on`` takes.
policies: Registry[MaskPolicy] = Registry("mask policy", "--train-on")
policies.add("assistant", MaskPolicy(_all))
policies.add("last", MaskPolicy(_last))
policies.add("last-round", MaskPolicy(_last_round))
policies.add("split", MaskPolicy(_all, splits=True))
policies.add("full", MaskPolicy(_all, context=True))
