"""A tokenizer as the program opens it, and as transformers does; and what a template makes of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates import TextTemplate, TokenBatch, text_forms
from mtsft_preproc.tokenization import Encoder, load_tokenizer, open_encoder

IGNORE = -100

#: Text that spells no special token: each of them has a bracket, but for one.
harmless = st.text(
    st.one_of(st.sampled_from("ab\n :#é漢😀"), st.characters(codec="utf-8", exclude_characters="<[")),
    max_size=12,
).filter(lambda text: "sop" not in text)


class Both:
    """One tokenizer, opened twice.

    Args:
        folder: Of the tokenizer.
        scratch: Takes what the program writes.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.resolved = load_tokenizer(str(folder))
        self.encoder: Encoder = open_encoder(self.resolved.save(scratch))
        self.reference: Any = AutoTokenizer.from_pretrained(str(folder))

    def ids(self, text: str) -> list[int]:
        """Return transformers' ids of a text alone."""
        found: list[int] = self.reference(text, add_special_tokens=False)["input_ids"]
        return found

    def around(self, text: str) -> list[int]:
        """Return transformers' ids of a text, with what the tokenizer adds."""
        found: list[int] = self.reference(text)["input_ids"]
        return found

    def template(self, form: str, first_round: int = 0, prefix: str = "", **settings: Any) -> TextTemplate:
        """Return a template in a text form."""
        opened = text_forms.get(form)(self.encoder.spec, first_round, prefix)
        return TextTemplate(opened, self.encoder, **settings)


def talk(*texts: str, system: str = "") -> Dialogue:
    """Return a dialogue in which user and assistant take turns."""
    roles = (Role.USER, Role.ASSISTANT)
    return Dialogue([Message(roles[number % 2], text) for number, text in enumerate(texts)], system)


def replies(dialogue: Dialogue) -> list[bool]:
    """Return flags that train every reply."""
    return [message.role is Role.ASSISTANT for message in dialogue.messages]


def labels_of(template: TextTemplate, batch: TokenBatch, context: bool = False) -> list[int]:
    """Return the labels of all samples."""
    labels = np.where(batch.mask(context), batch.ids, IGNORE)
    if template.late_stop_id is not None and not context:
        labels[batch.late_stops] = template.late_stop_id
    return [int(label) for label in labels]


def one(
    template: TextTemplate, dialogue: Dialogue, trained: Sequence[bool] | None = None
) -> tuple[list[int], list[int], list[str]]:
    """Return ids, labels and notes of one dialogue, which must not fail."""
    batch = template.encode([dialogue], [replies(dialogue) if trained is None else trained])
    assert batch.failed == {}
    assert batch.sample_ends.tolist() == [len(batch.ids)]
    return batch.ids.tolist(), labels_of(template, batch), batch.notes[0]


def ignored(ids: Sequence[int]) -> list[int]:
    """Return labels of tokens that are not trained."""
    return [IGNORE] * len(ids)
