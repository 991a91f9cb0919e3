"""Tries a chat format before there are any data: where do turns end, and is the mask proven?"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtsft_preproc.config import DEEPSEEK4, PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.formats import Format
from mtsft_preproc.templates.text_forms import TextTemplate
from mtsft_preproc.templates.token_batch import Template, TokenBatch
from mtsft_preproc.tokenization import Encoder

__all__ = ["Probe", "ProbeReport", "TurnEnd", "probe_dialogue", "reporting", "stop_remedy", "turn_ends"]

#: Mask policies under which every trained turn is the last one of its sample.
_LAST_ALONE = ("last", "last-round", "split")


@dataclass(frozen=True)
class TurnEnd:
    """How a trained turn ends.

    Attributes:
        id: The last token that is trained in it, or -1 if none is.
        text: Its text.
        special: Whether it is a special token.
        stops: Whether it ends generation, as far as the tokenizer's folder says.
        late: Whether it is taught as the label of the next turn's first position.
    """

    id: int
    text: str
    special: bool
    stops: bool
    late: bool = False


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found.

    Attributes:
        ends: Of the turns of a dialogue of two rounds.
        stop_tokens: Texts of the tokens that end generation, as far as the tokenizer's folder says.
        error: Why the dialogue could not be rendered, or None.
        unproven: Whether that was because the mask can't be proven.
    """

    ends: tuple[TurnEnd, ...]
    stop_tokens: tuple[str, ...]
    error: str | None = None
    unproven: bool = False


def probe_dialogue() -> Dialogue:
    """Return a dialogue of two rounds that no template should have a reason to refuse."""
    return Dialogue(
        [
            Message(Role.USER, "What is the capital of France?"),
            Message(Role.ASSISTANT, "It is Paris."),
            Message(Role.USER, "And of Italy?"),
            Message(Role.ASSISTANT, "That is Rome."),
        ]
    )


@dataclass(frozen=True)
class Probe:
    """Tries a format with the encoder of a tokenizer."""

    format: Format
    config: PreprocessConfig

    def __call__(self, encoder: Encoder) -> ProbeReport:
        """Return what was found.

        Raises:
            TemplateError: The format doesn't go with the tokenizer.
        """
        found = self.format.resolve(encoder.spec, self.config.date() or datetime.date.today())
        template = found.open(encoder, reporting(self.config))
        dialogue = probe_dialogue()
        trained = [message.role.is_target for message in dialogue.messages]
        one_reply = isinstance(template, TextTemplate) and template.form.one_reply
        if one_reply or self.config.train_on in _LAST_ALONE:
            trained[:-1] = [False] * (len(trained) - 1)
        batch = template.encode([dialogue], [trained])
        stops = tuple(encoder.decode([index]) for index in encoder.spec.stop_ids)
        if batch.failed:
            error: RecordError = batch.failed[0]
            line = " ".join(str(error).split())
            return ProbeReport((), stops, line, error.reason in ("mask-unproven", "not-rendered"))
        return ProbeReport(tuple(turn_ends(template, encoder, batch)), stops)


def reporting(config: PreprocessConfig) -> PreprocessConfig:
    """Return the settings for trying a format: a difference to serving is told, and refuses nothing."""
    return replace(config, parity="report") if config.parity == "require" else config


def stop_remedy(ends: Sequence[TurnEnd], config: PreprocessConfig) -> str:
    """Return in words what helps where not every turn ends with a trained stop token."""
    by_template = config.chat_template is not None or config.prompt_type == DEEPSEEK4
    if not config.append_eod and not ends[-1].special:
        return "--append-eod trains one at the end of each sample"
    if not config.append_eod and by_template and config.parity != "split":
        return "--parity split trains each turn as a last one, which has one"
    if ends[-1].special:
        return "--train-on split trains each turn as a last one, which has one"
    return "expected a chat format that ends each turn with one"


def turn_ends(template: Template, encoder: Encoder, batch: TokenBatch) -> list[TurnEnd]:
    """Return how each trained turn of a batch ends, those of all samples in their order."""
    mask = batch.mask()
    mask[batch.late_stops] = False
    taught = set((batch.messages[batch.late_stops] - 1).tolist())
    ends = []
    for message in np.flatnonzero(batch.trained).tolist():
        places = np.flatnonzero(mask & (batch.messages == message))
        if message in taught and template.late_stop_id is not None:
            ends.append(_end(encoder, template.late_stop_id, True))
        else:
            ends.append(_end(encoder, _last(encoder, batch.ids[places].tolist()), False))
    return ends


def _last(encoder: Encoder, ids: list[int]) -> int:
    """Return the last token that is more than white space: some formats train a newline behind the stop."""
    for index in reversed(ids):
        if encoder.decode([index]).strip():
            return index
    return ids[-1] if ids else -1


def _end(encoder: Encoder, index: int, late: bool) -> TurnEnd:
    if index < 0:
        return TurnEnd(-1, "", False, False)
    special = index in encoder.special_ids or index in encoder.spec.stop_ids
    return TurnEnd(index, encoder.decode([index]), special, index in encoder.spec.stop_ids, late)
