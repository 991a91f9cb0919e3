"""The identity of a dialogue: what ``--split`` goes by, and what ``--dedup`` finds again.

A canonical form tells what is said, a second one how it is trained; two numbers digest them. The form is
JSON, an object's keys in order. What orjson has no exact form for (numbers beyond 64 bits, NaN, half a
surrogate pair, keys that are no text, dates, deep nesting) is spelled in a form of its own. Either form
tells where it ends and what it holds: different dialogues never have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mtsft_preproc.dialogue import Dialogue, Message
from mtsft_preproc.handlers.tool_json import SharedTools

__all__ = ["Digest", "dialogue_digest", "digest_array", "text_digest"]

#: What is said, and what is said and how it is trained: two unsigned 64-bit numbers.
Digest = tuple[int, int]

_halves = Struct("<2Q").unpack
#: Stands behind the values of a list or an object that is being spelled.
_END = object()


def dialogue_digest(*dialogues: Dialogue, beside: Sequence[str] = ()) -> Digest:
    """Return the digest of the dialogues that a record became.

    Args:
        dialogues: One, or the two sides of a pair.
        beside: Further texts that are encoded with it, which count as part of how it is trained.

    Returns:
        content: Of the system text, the tools, and of each message the role, text, thoughts, calls, name
            and call id. No text is as good as an empty one.
        variant: Of all that, and of what else decides what is trained: the flags of the data, whether text
            and thoughts are absent or empty, the summary, whether the last message alone is of interest.
    """
    try:
        form, special = _form(dialogues, _fragment)
        encoded = orjson.dumps(form)
    except TypeError:
        form, special = _form(dialogues, _itself)
        encoded = _encoded(form, structured=True)
    digest = blake2b(encoded, digest_size=16)
    both: Digest = _halves(digest.digest())
    if not (special or beside):
        return both
    digest.update(_encoded([*map(_training, dialogues), *beside]))
    return both[0], _halves(digest.digest())[1]


def _form(dialogues: Sequence[Dialogue], take: Callable[[Any], Any]) -> tuple[list[Any], bool]:
    """Return the form that tells what is said, and whether more than that decides what is trained.

    Args:
        dialogues: The dialogues.
        take: Puts values into the form that come out of the data as they are.
    """
    form: list[Any] = []
    special = False
    for dialogue in dialogues:
        roles, texts, rich = dialogue.outline
        form.append(dialogue.system)
        if dialogue.tools:
            form.append(take(dialogue.tools))
        start = len(form)
        # A role is a number and the system a text: it is plain where a message or a dialogue starts.
        for role, text in zip(roles, texts, strict=True):
            form.append(role)
            form.append(text)
        for number, message in reversed(rich.items()) if rich else ():
            if message.train is not None or message.content is None or message.reasoning == "":
                special = True
            more = _more(message, take)
            if more:
                form.insert(start + 2 * number + 2, more)
        if dialogue.summary or dialogue.one_turn:
            special = True
    return form, special


def _more(message: Message, take: Callable[[Any], Any]) -> list[Any]:
    """Return what a message says beside its text, or an empty list."""
    reasoning, calls = message.reasoning, message.tool_calls
    if not (reasoning or calls or message.name is not None or message.call_id is not None):
        return []
    said = [[call.name, call.arguments, call.id] for call in calls]
    return [reasoning or "", message.name, message.call_id, take(said) if said else said]


def _fragment(value: Any) -> Any:
    """Return a value as JSON that orjson takes over as it is; of tools that are shared, made once.

    Raises:
        TypeError: JSON has no exact form for it. orjson writes some values that it doesn't read back as
            they were, such as NaN, which it takes for null.
    """
    shared = SharedTools.of(value)
    if shared and shared.canonical is not None:
        return orjson.Fragment(shared.canonical)
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if orjson.loads(encoded) != value:
        raise TypeError
    if shared:
        shared.canonical = encoded
    return orjson.Fragment(encoded)


def _itself(value: Any) -> Any:
    return value


def text_digest(texts: Sequence[str]) -> Digest:
    """Return the digest of a text document: of its texts, in the order of their keys."""
    both: Digest = _halves(blake2b(_encoded(list(texts)), digest_size=16).digest())
    return both


def digest_array(digests: Sequence[Digest]) -> npt.NDArray[np.uint64]:
    """Return digests as uint64, shape (N, 2)."""
    return np.asarray(digests, np.uint64).reshape(-1, 2)


def _training(dialogue: Dialogue) -> list[Any]:
    """Return what else than its words decides what is trained of a dialogue."""
    roles, _, rich = dialogue.outline
    messages: list[list[bool | None]] = [[None, False, True]] * len(roles)  # of a role and a text
    for number, message in rich.items():
        messages[number] = [message.train, message.content is None, message.reasoning is None]
    return [dialogue.one_turn, dialogue.summary, messages]


def _encoded(form: list[Any], structured: bool = False) -> bytes:
    """Return the canonical bytes of a list.

    Args:
        form: Of texts, numbers and lists of them.
        structured: Whether it also holds values that came out of the data as they are. Of these orjson
            writes some that it doesn't read back as they were, such as NaN, which it takes for null.
    """
    try:
        encoded = orjson.dumps(form, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson's name for all that it refuses
        return _spelled(form)
    if structured and orjson.loads(encoded) != form:
        return _spelled(form)
    return encoded


def _spelled(form: Any) -> bytes:
    """Return the canonical bytes of what JSON has no exact form for.

    Each value is a line, lists and objects tell how many follow; so no value can look like two others. It
    works without recursion, however deep the nesting.
    """
    lines = ["spelled"]  # no JSON
    waiting = [form]
    around: dict[int, None] = {}  # the lists and objects that the value stands in, innermost last
    while waiting:
        value = waiting.pop()
        if value is _END:
            around.popitem()
        elif not isinstance(value, Mapping | list | tuple):
            lines.append(_scalar(value))
        elif id(value) in around:
            lines.append("itself")  # a user's handler can put a list into itself
        else:
            around[id(value)] = None
            waiting.append(_END)
            if isinstance(value, Mapping):
                lines.append(f"object {len(value)}")
                for key in sorted(value, key=_scalar, reverse=True):
                    waiting += (value[key], key)
            else:
                lines.append(f"list {len(value)}")
                waiting += reversed(value)
    return "\n".join(lines).encode("ascii")


def _scalar(value: Any) -> str:
    """Return one line of ASCII for a value that is no list and no object."""
    if isinstance(value, str):
        # Not repr: which characters that shows as they are depends on the version of Python.
        return ascii(str(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)  # of decimal digits Python writes only so many
    return f"{type(value).__name__!a} {repr(value)!a}"
