"""What every text form offers, and the check that a dialogue fits one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.text_forms.passages import Rendering
from mtsft_preproc.tokenization import TokenizerSpec

__all__ = ["UNANSWERED", "TextForm", "answered"]

#: Note on a dialogue whose last words nobody answers: they are left out.
UNANSWERED = "unanswered-ending"


class TextForm(ABC):
    """The text that a data format defines for its dialogues itself.

    Args:
        spec: The tokenizer.
        first_round: Number of the first round, where a form writes numbers.
        source_prefix: Text in front of each sample, where a form has a place for it; special tokens that it
            spells are meant as tokens.

    Raises:
        TemplateError: The form doesn't go with the tokenizer.
    """

    #: The name that handlers know it by.
    name: ClassVar[str]
    #: Whether text of several owners is encoded as one, so that the tokenizer has to say which characters
    #: each token covers.
    needs_spans: ClassVar[bool] = True
    #: Whether EOS is the label of the position behind a reply, instead of a token of the text.
    late_stops: ClassVar[bool] = False
    #: Tokens that the form puts at the end of each sample, whatever it holds.
    closing: ClassVar[int] = 0
    #: Whether a sample trains its last reply alone.
    one_reply: ClassVar[bool] = False

    def __init__(self, spec: TokenizerSpec, first_round: int = 0, source_prefix: str = "") -> None:
        self.spec = spec
        self.first_round = first_round
        self.source_prefix = source_prefix

    @abstractmethod
    def render(self, dialogue: Dialogue, trained: Sequence[bool]) -> Rendering:
        """Return a dialogue in this form.

        Args:
            dialogue: The dialogue.
            trained: Per message: whether the mask policy trains what it generates.

        Raises:
            RecordError: The dialogue doesn't fit the form.
        """


def answered(dialogue: Dialogue, form: str) -> tuple[list[Message], list[str]]:
    """Return the messages of a dialogue in which user and assistant take turns, and notes on it.

    A question at its end that nobody answers is left out.

    Args:
        dialogue: The dialogue.
        form: Name of the form, for the reader of a rejection.

    Raises:
        RecordError: It is no such dialogue, or holds what the form has no place for.
    """
    if dialogue.system:
        raise _no_place("system", "system text", form, dialogue.system)
    if dialogue.tools:
        raise _no_place("tools", "tools", form, dialogue.tools)
    for number, message in enumerate(dialogue.messages):
        _check_message(message, number, form)
    messages, notes = dialogue.messages, []
    if messages and messages[-1].role is Role.USER:
        messages, notes = messages[:-1], [UNANSWERED]
    if not messages:
        raise RecordError("no-assistant", "", "a reply", "none")
    return messages, notes


def _check_message(message: Message, number: int, form: str) -> None:
    """Refuse a message that the form has no place for, there or at all."""
    place = f"messages[{number}]"
    if message.role not in (Role.USER, Role.ASSISTANT):
        raise _no_place(place, f"message of role {message.role.name.lower()}", form, message.content)
    if message.tool_calls:
        raise _no_place(f"{place}.tool_calls", "tool calls", form, list(message.tool_calls))
    if message.reasoning:
        raise _no_place(f"{place}.reasoning", "thoughts", form, message.reasoning)
    if message.role is not (Role.ASSISTANT if number % 2 else Role.USER):
        expected = "user and assistant in turns, the user first"
        raise RecordError("role-order", place, expected, f"{message.role.name.lower()} there")


def _no_place(field: str, what: str, form: str, got: object) -> RecordError:
    return RecordError(
        "unsupported-message", field, f"no {what}: the text form {form} has no place for it", shorten(got)
    )
