"""The form in which Baichuan's trainer has MOSS dialogues: an id in front of each speaker's words."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue, Role
from mtsft_preproc.errors import TemplateError
from mtsft_preproc.templates.elements import data
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.text_forms.form import TextForm, answered
from mtsft_preproc.templates.text_forms.passages import Constant, Owner, Passage, Rendering, Span
from mtsft_preproc.tokenization import TokenizerSpec

__all__ = ["MossBaichuan"]

#: Ids that Baichuan's vocabulary keeps for the two speakers. The form writes them with any tokenizer.
_USER, _ASSISTANT = 195, 196


class MossBaichuan(TextForm):
    """Each message is a text of its own, with what the tokenizer adds around a text.

    What it adds in front of a reply is trained with the reply, as this form has always had it. The EOS
    behind a reply is the label of the id that stands in front of the next question; so is one at the
    first question. The last reply has an EOS of its own.
    """

    name = "moss_baichuan"
    needs_spans = False
    late_stops = True
    closing = 1

    def __init__(self, spec: TokenizerSpec, first_round: int = 0, source_prefix: str = "") -> None:
        super().__init__(spec, first_round, source_prefix)
        if spec.vocab_size <= _ASSISTANT:
            raise TemplateError(
                f"the text form {self.name} writes the ids {_USER} and {_ASSISTANT}; the tokenizer in "
                f"{spec.source} has {spec.vocab_size} ids alone"
            )

    def render(self, dialogue: Dialogue, trained: Sequence[bool]) -> Rendering:
        """Return a dialogue in this form."""
        messages, notes = answered(dialogue, self.name)
        parts: list[Passage | Constant] = []
        for number, message in enumerate(messages):
            words, context = data(message.text), Owner(Kind.CONTEXT, number)
            if message.role is Role.USER:
                # The label at a question stops the reply before it; at the first one, it goes with the
                # first reply, as there is none before.
                late = trained[number - 1] if number else trained[1]
                parts.append(Constant((_USER,), context, late))
                parts.append(Passage([Span(words, context)], Owner(Kind.PREFIX, number), context))
            else:
                owner = Owner(Kind.GENERATED, number)
                parts.append(Constant((_ASSISTANT,), context))
                parts.append(Passage([Span(words, owner)], owner, owner))
        last = len(messages) - 1
        parts.append(Constant((self.spec.eos_id,), Owner(Kind.GENERATED, last)))
        return Rendering(parts, last, notes)
