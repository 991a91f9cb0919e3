"""Chat templates, tokens by name and stop ids of a folder, against what transformers reads from it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import AutoTokenizer

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization import Adjustment, load_tokenizer

TOKENS: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False},
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "image_token": "<image>",
}
SEVERAL = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": "{{ one }}"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world, the cat sat on a mat"] * 20),
        model_prefix=str(path),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return path.with_suffix(".model")


def write(folder: Path, config: dict[str, Any], files: dict[str, str]) -> None:
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**TOKENS, "tokenizer_class": "PreTrainedTokenizerFast", **config})
    )
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("backend", ["tokenizers", "sentencepiece"])
@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({}, {}),
        ({"chat_template": "{{ one }}\n"}, {}),
        ({"chat_template": SEVERAL}, {}),
        ({"chat_template": SEVERAL}, {"chat_template.jinja": "{{ file }}\r\n"}),
        ({}, {"chat_template.jinja": "{{ file }}", "additional_chat_templates/rag.jinja": "{{ rag }}"}),
        (
            {"chat_template": "{{ one }}", "pad_token": "<pad>", "extra_special_tokens": {"boi": "<boi>"}},
            {"additional_chat_templates/rag.jinja": "{{ 你好 }}"},
        ),
    ],
    ids=["none", "one", "several", "file", "files", "only-additional"],
)
def test_folder_says_what_transformers_reads(
    tokenizer_folder: Path,
    model: Path,
    tmp_path: Path,
    config: dict[str, Any],
    files: dict[str, str],
    backend: str,
) -> None:
    reference_folder, folder = tmp_path / "reference", tmp_path / "folder"
    for made in (reference_folder, folder):
        made.mkdir()
        write(made, config, files)
    shutil.copy(tokenizer_folder / "tokenizer.json", reference_folder)
    shutil.copy(
        *((model, folder) if backend == "sentencepiece" else (tokenizer_folder / "tokenizer.json", folder))
    )
    reference = AutoTokenizer.from_pretrained(str(reference_folder))
    spec = load_tokenizer(str(folder)).spec
    assert spec.backend == backend
    expected = reference.chat_template
    assert dict(spec.chat_templates) == (
        expected if isinstance(expected, dict) else {"default": expected} if expected else {}
    )
    # Padding falls back to the end of the sequence, as in training.
    reference.pad_token = reference.pad_token or reference.eos_token
    assert dict(spec.special_tokens_map) == reference.special_tokens_map
    assert spec.stop_ids == (spec.eos_id,)
    assert hash(spec) == hash(pickle.loads(pickle.dumps(spec)))


@pytest.mark.parametrize("backend", ["tokenizers", "sentencepiece"])
def test_tokens_are_those_of_the_adjusted_tokenizer(
    tokenizer_folder: Path, model: Path, tmp_path: Path, backend: str
) -> None:
    write(tmp_path, {}, {"generation_config.json": '{"eos_token_id": 3}'})
    shutil.copy(model if backend == "sentencepiece" else tokenizer_folder / "tokenizer.json", tmp_path)
    spec = load_tokenizer(str(tmp_path), Adjustment("<|im_end|>")).spec
    tokens = dict(spec.special_tokens_map)
    assert tokens["eos_token"] == tokens["pad_token"] == "<|im_end|>"
    assert spec.stop_ids == (spec.id_of("<|im_end|>"), 3)


def test_real_folders(shared: Path) -> None:
    for name in ("mistral-v3", "chinese-alpaca-2"):
        spec = load_tokenizer(str(shared / "tokenizers" / name)).spec
        config = json.loads((shared / "tokenizers" / name / "tokenizer_config.json").read_text("utf-8"))
        found = config.get("chat_template", [])
        assert [text for _, text in spec.chat_templates] == (
            [entry["template"] for entry in found] if isinstance(found, list) else [found]
        )
        assert dict(spec.special_tokens_map)["eos_token"] == "</s>"


@pytest.mark.parametrize(
    ("content", "stop_ids"),
    [
        ("{}", []),
        ('{"eos_token_id": null}', []),
        ('{"eos_token_id": 7}', [7]),
        ('{"eos_token_id": [9, 7, 9]}', [9, 7]),
    ],
    ids=["absent", "null", "one", "list"],
)
def test_stop_ids(tokenizer_folder: Path, tmp_path: Path, content: str, stop_ids: list[int]) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder, folder)
    plain = load_tokenizer(str(folder)).spec
    assert plain.stop_ids == (plain.eos_id,)
    (folder / "generation_config.json").write_text(content)
    spec = load_tokenizer(str(folder)).spec
    assert spec.stop_ids == (spec.eos_id, *stop_ids)
    assert spec.describe() == {**plain.describe(), "stop_ids": [spec.eos_id, *stop_ids]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("generation_config.json", "{", "generation_config.json: not valid JSON"),
        ("generation_config.json", "[1]", "generation_config.json: expected a JSON object, found list"),
        ("generation_config.json", '{"eos_token_id": ["</s>"]}', "eos_token_id is an id or a list of ids"),
        (
            "tokenizer_config.json",
            '{"chat_template": [1]}',
            "chat_template in tokenizer_config.json: expected",
        ),
        (
            "tokenizer_config.json",
            '{"chat_template": 1}',
            "chat_template in tokenizer_config.json: expected",
        ),
        (
            "tokenizer_config.json",
            '{"chat_template": [{"name": "default", "template": ["x"]}]}',
            "chat_template in tokenizer_config.json: expected",
        ),
    ],
    ids=["broken", "no-object", "text", "list-template", "number-template", "list-in-list-template"],
)
def test_damaged_files_are_named(
    model: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    shutil.copy(model, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=message.replace("[", r"\[")) as caught:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
