"""Dialogue -> segments: chat formats as data, and what renders them."""

from mtsft_preproc.templates.prompt_template import PromptTemplate
from mtsft_preproc.templates.prompt_type import PromptType, Token
from mtsft_preproc.templates.prompt_type_file import read_prompt_types
from mtsft_preproc.templates.prompt_types import prompt_types
from mtsft_preproc.templates.segments import Kind, SegmentBatch

__all__ = [
    "Kind",
    "PromptTemplate",
    "PromptType",
    "SegmentBatch",
    "Token",
    "prompt_types",
    "read_prompt_types",
]
