"""Stanford Alpaca's form: headings of plain text, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue, Role
from mtsft_preproc.templates.elements import data, ours
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.text_forms.form import TextForm, answered
from mtsft_preproc.templates.text_forms.passages import Owner, Passage, Rendering, Span

__all__ = ["AlpacaText"]

_OPENING = (
    "\nBelow is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request. "
    "Please note that you need to think through your response logically and step by step.\n"
)
_HEADINGS = {Role.USER: "### Instruction:\n", Role.ASSISTANT: "### Response:\n"}


class AlpacaText(TextForm):
    """A fixed sentence, then each message below its heading; the whole is one text.

    The model generates a reply and the line end behind it, and what the tokenizer adds at the end of a
    text, if anything. No token stops it: that takes ``--append-eod``.
    """

    name = "alpaca_text"

    def render(self, dialogue: Dialogue, trained: Sequence[bool]) -> Rendering:
        """Return a dialogue in this form."""
        messages, notes = answered(dialogue, self.name)
        spans = [Span(ours(_OPENING), Owner(Kind.SYSTEM, 0))]
        for number, message in enumerate(messages):
            is_reply = message.role is Role.ASSISTANT
            owner = Owner(Kind.GENERATED if is_reply else Kind.CONTEXT, number)
            spans += [
                Span(ours(_HEADINGS[message.role]), Owner(Kind.CONTEXT, number)),
                Span(data(message.text), owner),
                Span(ours("\n"), owner),
            ]
        last = len(messages) - 1
        whole = Passage(spans, Owner(Kind.PREFIX, 0), Owner(Kind.GENERATED, last))
        return Rendering([whole], last, notes)
