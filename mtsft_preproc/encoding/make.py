"""The encoder for a handler, by its objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding.batch import DatasetSpec, RecordEncoder
from mtsft_preproc.encoding.pairwise import PairEncoder
from mtsft_preproc.encoding.prompts import PromptEncoder, prompt_datasets
from mtsft_preproc.encoding.sft import SampleEncoder
from mtsft_preproc.encoding.text import DocumentEncoder, document_datasets
from mtsft_preproc.handlers import DialogueHandler, Handler, PairHandler, TextHandler
from mtsft_preproc.templates import Template
from mtsft_preproc.tokenization import Encoder

__all__ = ["Tools", "datasets_of", "datasets_of_objective", "make_record_encoder"]


@dataclass(frozen=True)
class Tools:
    """What records are encoded with.

    Attributes:
        encoder: Of the tokenizer.
        template: Of the chat format; None for text documents, which have none.
    """

    encoder: Encoder
    template: Template | None


def make_record_encoder(handler: Handler, tools: Tools, config: PreprocessConfig) -> RecordEncoder:
    """Return what turns the records of a handler into samples."""
    if isinstance(handler, TextHandler):
        return DocumentEncoder(handler, tools.encoder, config)
    assert tools.template is not None
    if isinstance(handler, PairHandler):
        return PairEncoder(handler, tools.template, config)
    assert isinstance(handler, DialogueHandler)
    if handler.objective == "sft":
        return SampleEncoder(handler, tools.template, config)
    return PromptEncoder(handler, tools.template, tools.encoder, config)


def datasets_of(handler: Handler, config: PreprocessConfig) -> tuple[DatasetSpec, ...]:
    """Return the datasets that the records of a handler fill."""
    if isinstance(handler, TextHandler):
        return document_datasets(handler.datasets())
    if isinstance(handler, PairHandler):
        return PairEncoder.datasets
    if handler.objective == "sft":
        return SampleEncoder.datasets
    return prompt_datasets(config.dataset_additional_keys)


def datasets_of_objective(objective: str, fields: Sequence[str]) -> tuple[DatasetSpec, ...]:
    """Return the datasets of a finished output, where there is no handler to ask.

    Args:
        objective: As :attr:`Handler.objective`, as the manifest has it.
        fields: The names that the manifest gives them.
    """
    if objective == "text":
        return document_datasets(fields)
    if objective == "pairwise":
        return PairEncoder.datasets
    if objective == "sft":
        return SampleEncoder.datasets
    front = len(prompt_datasets(()))
    return prompt_datasets(tuple(fields[front:]))
