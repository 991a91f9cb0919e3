"""ChatGLM-6B's form: the earlier rounds, numbered, as the prompt of one reply."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.elements import data, ours
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.text_forms.form import TextForm, answered
from mtsft_preproc.templates.text_forms.passages import Constant, Owner, Passage, Rendering, Span

__all__ = ["ChatGLMRounds"]


class ChatGLMRounds(TextForm):
    """All that stands before the last reply is one text, the reply another, and EOS closes it.

    Nothing stops a reply in the middle of the prompt, so only the last one can be trained.
    """

    name = "chatglm_rounds"
    needs_spans = False
    one_reply = True
    closing = 1

    def render(self, dialogue: Dialogue, trained: Sequence[bool]) -> Rendering:
        """Return a dialogue in this form."""
        messages, notes = answered(dialogue, self.name)
        last = len(messages) - 1
        for number in range(1, last, 2):
            if trained[number]:
                raise RecordError(
                    "unsupported-message",
                    f"messages[{number}]",
                    f"one trained reply per sample in the text form {self.name} (--train-on split or last)",
                    "a reply before the last one, to be trained",
                )
        spans = [Span(ours(self.source_prefix), Owner(Kind.CONTEXT, 0))]
        for number, message in enumerate(messages[:-1]):
            if number % 2:
                texts = [data(message.text), ours("\n")]
            else:
                heading = f"[Round {self.first_round + number // 2}]\n问："
                texts = [ours(heading), data(message.text), ours("\n答：")]
            spans += [Span(text, Owner(Kind.CONTEXT, number)) for text in texts]
        owner = Owner(Kind.GENERATED, last)
        prompt = Passage(spans)
        reply = Passage([Span(data(messages[-1].text), owner)])
        return Rendering([prompt, reply, Constant((self.spec.eos_id,), owner)], last, notes)
