"""Tokenizers that the tests of text forms share: each with transformers' own beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer
from two_tokenizers import Both


@pytest.fixture(scope="session")
def bare(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The bundled tokenizer, which adds nothing around a text."""
    return Both(tokenizer_folder, tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def around(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The same, but it puts BOS in front of each text and EOS behind it, and knows MOSS's end marks."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    tokenizer.add_tokens(["<eoh>", "<eot>", "<eoc>", "<eor>", "<eom>"], special_tokens=True)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A <eos>", "$A $B", ends)
    folder = tmp_path_factory.mktemp("around")
    tokenizer.save_pretrained(str(folder / "source"))
    return Both(folder / "source", folder)
