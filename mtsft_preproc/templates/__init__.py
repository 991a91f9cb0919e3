"""Dialogue -> segments: chat formats as data, and what renders them."""

from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate, ShapeDiffers, prompts_of
from mtsft_preproc.templates.formats import (
    BUILTIN,
    ChatFormat,
    Format,
    PromptFormat,
    TextFormat,
    make_format,
)
from mtsft_preproc.templates.probe import (
    Probe,
    ProbeReport,
    TurnEnd,
    probe_dialogue,
    reporting,
    stop_remedy,
    turn_ends,
)
from mtsft_preproc.templates.prompt_template import PromptTemplate
from mtsft_preproc.templates.prompt_type import PromptType, Token
from mtsft_preproc.templates.prompt_type_file import read_prompt_types
from mtsft_preproc.templates.prompt_types import prompt_types
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.text_forms import TextTemplate, encode_documents, text_forms
from mtsft_preproc.templates.token_batch import WHOLE, Template, TokenBatch

__all__ = [
    "BUILTIN",
    "WHOLE",
    "ChatFormat",
    "ChatRenderer",
    "ChatTemplate",
    "Format",
    "Kind",
    "Probe",
    "ProbeReport",
    "PromptFormat",
    "PromptTemplate",
    "PromptType",
    "ShapeDiffers",
    "Template",
    "TextFormat",
    "TextTemplate",
    "Token",
    "TokenBatch",
    "TurnEnd",
    "encode_documents",
    "make_format",
    "probe_dialogue",
    "prompt_types",
    "prompts_of",
    "read_prompt_types",
    "reporting",
    "stop_remedy",
    "text_forms",
    "turn_ends",
]
