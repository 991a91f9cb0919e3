"""What a tokenizer by itself puts around a text, against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization import Adjustment, load_tokenizer, open_encoder
from mtsft_preproc.tokenization import load as loading

REAL = [
    "qwen2.5", "qwen3", "llama3.1", "llama2", "mistral-v1", "mistral-v3", "mistral-tekken", "internlm2",
    "chatglm3", "glm4", "gpt-oss", "gpt2", "deepseek-llm", "deepseek-coder", "phi3", "falcon", "starcoder",
    "olmo2-dolma2", "olmo-neox", "minimind",
]  # fmt: skip
TEXTS = ["Hello, world!", " 你好，世界 👩‍👩‍👧\n", "", "  two  spaces "]


def with_settings(source: Path, folder: Path, **changes: Any) -> Path:
    """Return a copy of a tokenizer folder with other settings."""
    shutil.copytree(source, folder)
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text("utf-8")), **changes}
    path.write_text(json.dumps({name: value for name, value in settings.items() if value != "gone"}))
    return folder


@pytest.mark.parametrize("name", REAL)
def test_texts_with_what_is_added_are_those_of_transformers(
    shared: Path, tmp_path: Path, name: str
) -> None:
    folder = str(shared / "tokenizers" / name)
    reference = AutoTokenizer.from_pretrained(folder)
    resolved = load_tokenizer(folder)
    flat = open_encoder(resolved.save(tmp_path)).encode(TEXTS)
    spec = resolved.spec
    for number, text in enumerate(TEXTS):
        inner = flat.ids[flat.offsets[number] : flat.offsets[number + 1]].tolist()
        assert [*spec.auto_prefix, *inner, *spec.auto_suffix] == reference(text)["input_ids"]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("qwen2.5", ()), ("llama2", (1,)), ("chatglm3", (64790, 64792)), ("llama3.1", (128000,))],
)
def test_what_real_tokenizers_put_in_front(shared: Path, name: str, prefix: tuple[int, ...]) -> None:
    spec = load_tokenizer(str(shared / "tokenizers" / name)).spec
    assert (spec.auto_prefix, spec.auto_suffix) == (prefix, ())


def test_what_is_put_behind_and_told(tokenizer_folder: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    bos, eos, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<bos>", "<eos>", "<pad>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "<bos> <bos> $A <eos> <pad>", "$A $B", [("<bos>", bos), ("<eos>", eos), ("<pad>", pad)]
    )
    tokenizer.save_pretrained(str(tmp_path / "around"))
    spec = load_tokenizer(str(tmp_path / "around"), Adjustment("<|im_end|>")).spec
    assert (spec.auto_prefix, spec.auto_suffix) == ((bos, bos), (eos, pad))
    told = json.loads(json.dumps(spec.describe()))
    assert (told["auto_prefix"], told["auto_suffix"]) == ([bos, bos], [eos, pad])


@pytest.mark.parametrize(
    ("changes", "prefix", "suffix"),
    [
        ({}, (1,), ()),
        ({"add_bos_token": False}, (), ()),
        ({"add_bos_token": True, "add_eos_token": True}, (1,), (2,)),
        ({"add_bos_token": False, "add_eos_token": True}, (), (2,)),
        ({"add_bos_token": "gone", "add_eos_token": "gone"}, (1,), ()),
    ],
    ids=["as_it_is", "nothing", "both", "eos", "by_default"],
)
def test_a_sentencepiece_folder_says_it_in_its_settings(
    shared: Path, tmp_path: Path, changes: dict[str, Any], prefix: tuple[int, ...], suffix: tuple[int, ...]
) -> None:
    source = shared / "tokenizers" / "chinese-alpaca-2"
    spec = load_tokenizer(str(with_settings(source, tmp_path / "copy", **changes))).spec
    assert spec.backend == "sentencepiece"
    assert (spec.auto_prefix, spec.auto_suffix) == (prefix, suffix)


class Moody:
    """A tokenizer whose additions depend on the text."""

    def __init__(self, *added: tuple[list[int], list[int]], inner: tuple[int, ...] = (5,)) -> None:
        self._added = list(added)
        self._inner = list(inner)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        if not add_special_tokens:
            return {"input_ids": self._inner}
        front, behind = self._added.pop(0)
        return {"input_ids": [*front, *self._inner, *behind]}


def test_a_tokenizer_whose_additions_can_not_be_told_is_refused() -> None:
    assert loading._added_around(Moody(([1], [2]), ([1], [2])), "x") == ((1,), (2,))
    with pytest.raises(TokenizerError, match="around another"):
        loading._added_around(Moody(([1], []), ([], [2])), "x")
    with pytest.raises(TokenizerError, match="can't tell what the tokenizer adds"):
        loading._added_around(Moody(([5], [])), "x")
    with pytest.raises(TokenizerError, match="can't tell what the tokenizer adds"):
        loading._added_around(Moody(([1], []), inner=()), "x")
