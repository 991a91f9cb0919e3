"""Between two messages: what of the template's text is the header that a generation prompt writes?

Also how thoughts look in templates: which text opens one, closes one, or is one without a thought in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.written import Written

__all__ = ["EMPTY_THOUGHT", "THINK_TAG", "common_length", "header_length", "unproven"]

_WORD = "(?:think|THINK|Think|thought|reason)"
_THINK = rf"(?:<[^<>\s]*{_WORD}[^<>]*>|\[/?{_WORD}[^\[\]]*\])"
#: The same where it closes: </think>, <|END_THINKING|>, [/THINK].
_UNTHINK = rf"(?:<[^<>\s]*(?:/|END|end)[^<>\s]*{_WORD}[^<>]*>|\[/{_WORD}[^\[\]]*\])"
#: As Gemma 4 writes it.
_CHANNEL = r"<\|channel>thought\s*(?:<channel\|>)?"
#: A thought without a thought in it, or what is left of it behind a prompt that opens one.
EMPTY_THOUGHT = re.compile(rf"\s*(?:{_CHANNEL}|<channel\|>|(?:{_THINK}\s*)?{_UNTHINK})\s*")
#: What a generation prompt may write beyond the header.
_OPENED = re.compile(rf"(?:\s|{_THINK}|{_CHANNEL})*")
#: A tag of thoughts, in whatever form.
THINK_TAG = re.compile(rf"{_THINK}|channel")
_OPEN_TAG = re.compile(r"[<\[][^<>\[\]]*$")


def header_length(message: int, header: str, prompt: Written, history: Callable[[], Written]) -> int:
    """Return how much of the text between two messages is what a generation prompt writes, too.

    Args:
        message: Number of the message behind the text.
        header: The text.
        prompt: The history with the generation prompt.
        history: Without it.

    Raises:
        RecordError: ``mask-unproven``: none of it is.
    """
    asked = prompt.text[prompt.last_words(len(prompt.text)) :]
    common = common_length(asked, header)
    if common < min(len(asked), len(header)):
        # Not in the midst of a tag: `<` is no common start of `<think>` and `</think>`.
        tag = _OPEN_TAG.search(header, 0, common)
        common = tag.start() if tag else common
    if common == len(header) or _OPENED.fullmatch(asked, common):
        return common
    earlier = history().text
    added = prompt.text[len(earlier) :] if prompt.text.startswith(earlier) else ""
    if added.strip() and added in header:
        return header.rindex(added) + len(added)
    if asked.strip() and asked.split() == header.split():
        return len(header)
    raise unproven(message, f"the generation prompt {asked!r}", f"{header!r}")


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many characters two strings (or pieces two lists) start with in common."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def unproven(message: int, expected: str, got: str) -> RecordError:
    """Return the error that what the model generated in a message is not certain."""
    return RecordError("mask-unproven", f"messages[{message}]", expected, got)
