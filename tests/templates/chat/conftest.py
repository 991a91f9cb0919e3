"""Tokenizers that the tests of chat templates share."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_reference import Model, control_tokens, save_tokenizer, template_names, template_text

SPECIAL = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>",
    "<|observation|>", "<|eot|>", "<|call|>",
]  # fmt: skip
CORPUS = [
    "system user assistant tool", "Hello! How are you? I am fine, thank you.", "What is the weather?",
    "It is sunny. <think>\nLet me see.\n</think>\n\nYes.", "you are a helpful assistant\n",
    "the answer is 42\n\n",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A byte-level BPE tokenizer of a few hundred tokens, trained here."""
    folder = tmp_path_factory.mktemp("tiny")
    return Model(save_tokenizer(folder / "source", SPECIAL, CORPUS * 4), folder)


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tokenizer of single bytes that knows the control tokens of all real templates."""
    folder = tmp_path_factory.mktemp("letters")
    controls = control_tokens(map(template_text, template_names()))
    return Model(save_tokenizer(folder / "source", [*SPECIAL, *controls]), folder)


@pytest.fixture(scope="session")
def qwen3(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A real tokenizer."""
    return Model(shared / "tokenizers" / "qwen3", tmp_path_factory.mktemp("qwen3"))
