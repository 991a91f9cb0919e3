"""Dialogue -> segments: chat formats as data, and what renders them."""

from mtsft_preproc.templates.prompt_template import PromptTemplate
from mtsft_preproc.templates.prompt_type import PromptType, Token
from mtsft_preproc.templates.prompt_type_file import read_prompt_types
from mtsft_preproc.templates.prompt_types import prompt_types
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import Template, TokenBatch

__all__ = [
    "Kind",
    "PromptTemplate",
    "PromptType",
    "Template",
    "Token",
    "TokenBatch",
    "prompt_types",
    "read_prompt_types",
]
