"""Folders with a SentencePiece model alone give the sentencepiece library's own ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization import Adjustment, load_tokenizer, open_encoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Llama-2's children have it: tokenizer.model and its settings."""
    folder = tmp_path_factory.mktemp("sp")
    corpus = Path(__file__).parents[2] / "examples" / "data" / "alpaca_history.json"
    texts = [row["output"].replace("\n", " ") for row in json.loads(corpus.read_text("utf-8"))]
    (folder / "corpus.txt").write_text("\n".join(texts), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=1200,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        minloglevel=2,
    )
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": {"content": "<unk>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def texts_of(shared: Path) -> list[str]:
    rows = json.loads((shared / "datasets/llama-factory/oaast_sft_zh.json").read_text("utf-8"))
    rows += json.loads((shared / "datasets/disc-finllm/consulting_part.json").read_text("utf-8"))
    return [row[key] for row in rows for key in ("instruction", "output") if row[key]]


def test_real_model_gives_sentencepiece_ids(shared: Path) -> None:
    folder = shared / "tokenizers" / "chinese-alpaca-2"
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    resolved = load_tokenizer(str(folder))
    assert resolved.spec.backend == "sentencepiece"
    texts = texts_of(shared)
    flat = open_encoder(resolved.spec).encode(texts)
    for number, text in enumerate(texts):
        found = flat.ids[flat.offsets[number] : flat.offsets[number + 1]].tolist()
        assert found == model.encode(text), text


def test_llama2_with_tokenizer_json_equals_sentencepiece(shared: Path, tmp_path: Path) -> None:
    folder = shared / "tokenizers" / "llama2"
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    resolved = load_tokenizer(str(folder))
    assert resolved.spec.backend == "tokenizers"
    only = tmp_path / "only"
    only.mkdir()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(folder / name, only / name)
    alone = load_tokenizer(str(only))
    assert alone.spec.backend == "sentencepiece"
    texts = texts_of(shared)[:400]
    both = [open_encoder(item.save(tmp_path)).encode(texts) for item in (resolved, alone)]
    assert both[0].ids.tolist() == both[1].ids.tolist()
    assert both[1].ids.tolist() == [index for text in texts for index in model.encode(text)]
    assert (alone.spec.bos_id, alone.spec.eos_id, alone.spec.pad_id) == (1, 2, 2)


def test_special_tokens(tiny: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(tiny / "tokenizer.model"))
    resolved = load_tokenizer(str(tiny), Adjustment("<|im_end|>", ("<|im_start|>",)))
    spec = resolved.spec
    size = model.get_piece_size()
    assert spec.new_tokens == ("<|im_end|>", "<|im_start|>")
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.pad_id) == (1, size, 0, size)
    assert spec.vocab_size == size + 2
    encoder = open_encoder(spec)
    ids = encoder.encode(["<|im_start|>你好 there<|im_end|>\n"]).ids.tolist()
    assert ids == [size + 1, *model.encode("你好 there"), size, *model.encode("\n")]
    assert encoder.decode(ids).strip() == "<|im_start|>你好 there<|im_end|>"


def test_text_can_not_become_a_control_id(tiny: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(tiny / "tokenizer.model"))
    encoder = open_encoder(load_tokenizer(str(tiny)).spec)
    assert encoder.encode_marked("a </s> b <s>") == model.encode("a </s> b <s>")
    assert not {1, 2} & set(encoder.encode_marked("a </s> b <s>"))


def test_a_contradicting_added_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(tiny, folder)
    (folder / "added_tokens.json").write_text('{"<|x|>": 5}')
    with pytest.raises(TokenizerError, match=r"'<\|x\|>' has id 5"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("content", [b"\n broken", b"\n"])
def test_a_damaged_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_tokenizer(str(tmp_path))


def test_trained_model_matches_hugging_face_on_no_ground_but_its_own(tiny: Path) -> None:
    """The folder is never handed to transformers, which would convert it."""
    found: Any = load_tokenizer(str(tiny))
    assert found.payload is None
    assert found.spec.file == str(tiny / "tokenizer.model")
