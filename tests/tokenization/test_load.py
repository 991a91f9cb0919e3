"""Loading and adjusting tokenizers, against transformers itself."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Record
from mtsft_preproc.encoding import SampleEncoder
from mtsft_preproc.errors import RecordError, TokenizerError
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.templates import PromptTemplate, prompt_types
from mtsft_preproc.tokenization import (
    Adjustment,
    SpecialText,
    TokenizerLoading,
    load_tokenizer,
    open_encoder,
)
from mtsft_preproc.tokenization.encoders import RustEncoder

REAL = [
    "qwen2.5", "qwen3", "llama3.1", "llama2", "mistral-v1", "mistral-v3", "mistral-tekken", "internlm2",
    "chatglm3", "glm4", "gpt-oss", "gpt2", "deepseek-llm", "deepseek-coder", "phi3", "falcon", "starcoder",
    "olmo2-dolma2", "olmo-neox", "minimind",
]  # fmt: skip
#: Prompt types whose elements hold control tokens of one family or another.
CHECKED = ["chatml", "llama2", "mistral", "gemma", "deepseek3", "cpm", "baichuan2"]
TEXTS = [
    "Hello, world!",
    " 你好，世界 👩‍👩‍👧\n\n\tdef f(x):\n    return x",
    "",
    "  two  spaces ",
    "ＡＢＣ １２３ é e\u0301",
]


@pytest.mark.parametrize("name", REAL)
def test_ids_are_those_of_transformers(shared: Path, tmp_path: Path, name: str) -> None:
    folder = str(shared / "tokenizers" / name)
    reference = AutoTokenizer.from_pretrained(folder)
    resolved = load_tokenizer(folder)
    assert (resolved.spec.bos_id, resolved.spec.eos_id) == (reference.bos_token_id, reference.eos_token_id)
    pad = reference.pad_token_id
    assert resolved.spec.pad_id == (reference.eos_token_id if pad is None else pad)
    assert resolved.spec.vocab_size == len(reference)
    assert resolved.spec.new_tokens == ()
    flat = open_encoder(resolved.save(tmp_path)).encode(TEXTS)
    for number, text in enumerate(TEXTS):
        found = flat.ids[flat.offsets[number] : flat.offsets[number + 1]].tolist()
        assert found == reference.encode(text, add_special_tokens=False)


def test_adjustment(tokenizer_folder: Path, tmp_path: Path) -> None:
    plain = load_tokenizer(str(tokenizer_folder)).spec
    resolved = load_tokenizer(str(tokenizer_folder), Adjustment("<|im_end|>", ("<|stop|>", "<think>")))
    spec = resolved.spec
    assert spec.eos_id == plain.id_of("<|im_end|>")
    assert spec.new_tokens == ("<|stop|>",)
    assert spec.vocab_size == plain.vocab_size + 1
    assert spec.id_of("<|stop|>") == plain.vocab_size
    special = {token.text for token in spec.added if token.special}
    assert {"<|stop|>", "<think>", "<|im_end|>"} <= special
    assert "<think>" not in {token.text for token in plain.added if token.special}
    assert open_encoder(resolved.save(tmp_path)).encode(["<|stop|>"]).ids.tolist() == [
        spec.id_of("<|stop|>")
    ]


def test_without_eos_and_pad(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    spec = load_tokenizer(str(tmp_path)).spec
    assert spec.eos_id == spec.pad_id == spec.id_of("<|endoftext|>")
    assert spec.bos_id is None


def test_the_child_gives_the_same_and_its_errors_come_through(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    here = load_tokenizer(str(tokenizer_folder))
    with TokenizerLoading(str(tokenizer_folder), Adjustment(), True, False) as loading:
        there = loading.result()
    assert there == here
    (tmp_path / "tokenizer.json").write_text("{broken")
    with (
        TokenizerLoading(str(tmp_path), Adjustment(), True, False) as loading,
        pytest.raises(TokenizerError, match="can't load this tokenizer"),
    ):
        loading.result()


def test_a_folder_that_brings_code_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tok.py").write_text("raise SystemExit('ran')")
    config = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["tok.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match="--trust-remote-code"):
        load_tokenizer(str(tmp_path))


def test_a_python_tokenizer_works_through_transformers(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s"]
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic", "eos_token": "[SEP]"}'
    )
    resolved = load_tokenizer(str(folder))
    assert resolved.spec.backend == "transformers"
    encoder = open_encoder(resolved.spec)
    assert encoder.encode(["hello worlds", ""]).ids.tolist() == [5, 6, 7]
    assert encoder.encode(["hello[SEP]"]).ids.tolist() == [5, 3]
    assert pickle.loads(pickle.dumps(resolved.spec)) == resolved.spec


@pytest.mark.parametrize("name", [*REAL, "chinese-alpaca-2"])
def test_marks_stand_for_just_the_tokens(shared: Path, tmp_path: Path, name: str) -> None:
    """A string with its control tokens written as marks has the ids that it has without."""
    opened = {}
    for prompt_type in map(prompt_types.get, CHECKED):
        adjustment = prompt_type.adjustment()
        if adjustment not in opened:
            resolved = load_tokenizer(str(shared / "tokenizers" / name), adjustment)
            opened[adjustment] = open_encoder(resolved.save(tmp_path))
        encoder = opened[adjustment]
        special = SpecialText(encoder.spec)
        for element in (*prompt_type.user, *prompt_type.system, *prompt_type.separator):
            for content in ("", "x", " 你好\n", "\n\n", "a b") if isinstance(element, str) else ():
                text = str(element).replace("{{content}}", content)
                assert encoder.encode_marked(special.mark(text)) == encoder.encode([text]).ids.tolist()


def test_text_that_a_normalizer_turns_into_a_control_token_stays_text(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text("utf-8"))
    content["normalizer"] = {"type": "NFKC"}
    for token in content["added_tokens"]:
        token["normalized"] = token["special"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    shutil.copy(tokenizer_folder / "tokenizer_config.json", tmp_path / "tokenizer_config.json")
    chatml = prompt_types.get("chatml")
    resolved = load_tokenizer(str(tmp_path), chatml.adjustment())
    assert resolved.spec.normalizes_special
    assert not load_tokenizer(str(tokenizer_folder)).spec.normalizes_special
    encoder = open_encoder(resolved.save(tmp_path))
    eos = resolved.spec.id_of("<eos>")
    assert encoder.encode(["＜eos＞"]).ids.tolist() == [eos]  # what has to be kept from happening
    batch = SampleEncoder(
        AlpacaHandler({}), PromptTemplate(chatml, encoder), PreprocessConfig(("in",), "out", "", "alpaca")
    ).encode([Record(0, {"instruction": "＜eos＞", "output": "a"})])
    assert batch.rejections == []
    assert eos not in batch.tokens["packed_input_ids"].tolist()
    assert batch.tokens["packed_input_ids"].tolist().count(resolved.spec.id_of("<|im_end|>")) == 2


def test_what_can_not_be_kept_from_becoming_a_token_is_rejected(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_encoder(load_tokenizer(str(tokenizer_folder)).save(tmp_path))
    assert encoder.encode_marked("a <eos> b")
    bos = encoder.spec.bos_id
    assert bos is not None
    monkeypatch.setattr(RustEncoder, "_add_marks", lambda self: {**dict.fromkeys(range(5000), bos)})
    with pytest.raises(RecordError, match="special-token"):
        open_encoder(encoder.spec).encode_marked("a <eos> b")


def test_code_in_the_current_folder_is_not_run(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with TokenizerLoading(str(tokenizer_folder), Adjustment(), True, False) as loading:
        assert loading.result().spec.backend == "tokenizers"
