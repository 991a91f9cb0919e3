"""Which characters each token covers, and what else a chat template needs to know of a tokenizer."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import AutoTokenizer

from mtsft_preproc.errors import RecordError, TokenizerError
from mtsft_preproc.tokenization import AddedToken as SpecToken
from mtsft_preproc.tokenization import (
    Adjustment,
    Encoder,
    SpannedIds,
    TokenizerSpec,
    load_tokenizer,
    open_encoder,
)
from mtsft_preproc.tokenization.special_text import mark_of

#: Without anything that NFC changes: what stands in the text is what the tokens spell.
TEXTS = [
    "Hello, world!",
    " 你好，世界 👩‍👩‍👧\n\n\tdef f(x):\n    return x",
    "",
    "  two  spaces ",
    "龘龘 ＡＢＣ é q\u0323 각",
    "你",
    " ",
]
#: Real tokenizers whose tokens are bytes, and those that write a space before text.
BYTES = [
    "qwen3",
    "llama3.1",
    "mistral-tekken",
    "gpt2",
    "falcon",
    "deepseek-llm",
    "olmo-neox",
    "olmo2-dolma2",
]
PREPENDING = ["llama2", "mistral-v3", "chatglm3", "phi3", "chinese-alpaca-2"]
ALPHABET = (
    "ab e\u0301\u0323\u0307\u0344\u0958\u1e9b각\u1100\u1161\u11a8你龘👩\u200d\n ﷺ㎏¨\u00a0ﬁＡ\u3000▁\u0331"
)


def rows(found: SpannedIds, number: int = 0) -> list[tuple[int, int, int]]:
    part = slice(found.offsets[number], found.offsets[number + 1])
    return list(
        zip(found.ids[part].tolist(), found.starts[part].tolist(), found.ends[part].tolist(), strict=True)
    )


def spans(encoder: Encoder, text: str) -> list[tuple[str, int, int]]:
    found = rows(encoder.encode_spans([text]))
    return [(encoder._tokenizer.id_to_token(index), start, end) for index, start, end in found]


def byte_table() -> dict[str, int]:
    """GPT-2's way to write bytes as letters: printable Latin-1 as itself, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = byte_table()


def spelled(encoder: Encoder, index: int) -> bytes:
    """What a token stands for, by its vocabulary entry alone."""
    for token in encoder.spec.added:
        if token.id == index and not token.text.startswith("<0x"):
            return token.text.encode()
    if encoder.spec.backend == "sentencepiece":
        piece = encoder._model.id_to_piece(index)
    else:
        piece = encoder._tokenizer.id_to_token(index)
    if piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    if encoder.spec.source.split("/")[-1] in BYTES:
        return bytes(map(BYTE_OF.__getitem__, piece))
    return str(piece).replace("▁", " ").encode()


def expected_spans(text: str, pieces: Iterable[bytes], prepends: bool) -> list[tuple[int, int]]:
    """Lay the bytes of the tokens side by side under those of the text."""
    character = [number for number, char in enumerate(text) for _ in char.encode()] + [len(text)]
    data = text.encode()
    at, found = 0, []
    for number, piece in enumerate(pieces):
        own = piece[1:] if prepends and number == 0 else piece
        assert data[at : at + len(own)] == own
        end = character[at + len(own) - 1] + 1 if own else character[at]
        found.append((character[at], end))
        at += len(own)
    assert at == len(data)
    return found


@pytest.mark.parametrize("name", [*BYTES, "internlm2", *PREPENDING])
def test_spans_are_where_the_bytes_of_the_tokens_stand(shared: Path, tmp_path: Path, name: str) -> None:
    encoder = open_encoder(load_tokenizer(str(shared / "tokenizers" / name)).save(tmp_path))
    rng = random.Random(name)
    alphabet = [*"".join(TEXTS), *"汉字 the of\t1234"]
    texts = [*TEXTS, *("".join(rng.choices(alphabet, k=12)) for _ in range(300))]
    texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    found = encoder.encode_spans(texts)
    flat = encoder.encode(texts)
    assert found.ids.tolist() == flat.ids.tolist()
    assert found.offsets.tolist() == flat.offsets.tolist()
    assert [array.dtype for array in found] == [np.int32, np.int64, np.int32, np.int32]
    for number, text in enumerate(texts):
        tokens = rows(found, number)
        pieces = [spelled(encoder, index) for index, _, _ in tokens]
        assert [row[1:] for row in tokens] == expected_spans(text, pieces, name in PREPENDING), text


@pytest.mark.parametrize("name", ["qwen3", "glm4"])
def test_spans_of_real_text_are_those_of_transformers(shared: Path, tmp_path: Path, name: str) -> None:
    folder = str(shared / "tokenizers" / name)
    records = json.loads((shared / "datasets/llama-factory/oaast_sft_zh.json").read_text("utf-8"))
    encoder = open_encoder(load_tokenizer(folder).save(tmp_path))
    control = encoder.spec.added[0].text
    texts = [f"{control}{row['instruction']}{control}\n{row['output']}" for row in records[:40]]
    # transformers' own spans miss what NFC composes away.
    texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    reference = AutoTokenizer.from_pretrained(folder)(
        texts, add_special_tokens=False, return_offsets_mapping=True
    )
    found = encoder.encode_spans(texts)
    assert np.stack([found.starts, found.ends], 1).tolist() == [
        list(pair) for pairs in reference["offset_mapping"] for pair in pairs
    ]


@pytest.mark.parametrize("name", ["qwen3", "llama2", "phi3", "olmo-neox", "chinese-alpaca-2"])
def test_marks_are_covered_by_their_tokens(shared: Path, tmp_path: Path, name: str) -> None:
    encoder = open_encoder(load_tokenizer(str(shared / "tokenizers" / name)).save(tmp_path))
    special = next(token for token in encoder.spec.added if token.id in encoder.special_ids)
    mark = mark_of(special.id)
    text = f"{mark}你好 {special.text}{mark}{mark}é 👩 x{mark}"
    found = encoder.encode_marked_spans(text)
    assert found.ids.tolist() == encoder.encode_marked(text)
    assert found.offsets.tolist() == [0, len(found.ids)]
    marked = encoder.special_mask[found.ids]
    assert [
        text[start:end] for start, end in zip(found.starts[marked], found.ends[marked], strict=True)
    ] == [mark] * 4
    # Between the marks stands what is encoded without them, at the same distance from its start.
    plain = f"你好 {special.text}"
    alone = rows(encoder.encode_marked_spans(plain))
    inside = rows(found)[1 : 1 + len(alone)]
    assert inside == [(index, start + len(mark), end + len(mark)) for index, start, end in alone]


def test_what_can_not_be_kept_from_becoming_a_token_has_no_spans(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("qwen3", "chinese-alpaca-2"):
        encoder = open_encoder(load_tokenizer(str(shared / "tokenizers" / name)).save(tmp_path))
        monkeypatch.setattr(encoder, "special_ids", frozenset(range(encoder.spec.vocab_size)))
        with pytest.raises(RecordError, match="special-token"):
            encoder.encode_marked_spans("a <s> b")


# Tokenizers made here, for what the real ones do not show.

ADDED = [
    AddedToken("<l>", lstrip=True, special=True, normalized=False),
    AddedToken("<r>", rstrip=True, special=True, normalized=False),
    AddedToken("<x>", special=True, normalized=False),
    AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
]
PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
MERGES = [("▁", "a"), ("a", "b")]


def fallback_model() -> models.BPE:
    """Letters, and bytes for all others, as Llama 2 has them."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abe你", "▁a", "ab"]
    return models.BPE(
        vocab={text: number for number, text in enumerate(letters)},
        merges=MERGES,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )


def byte_model() -> models.BPE:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return models.BPE(vocab={text: number for number, text in enumerate(letters)}, merges=[])


def byte_level(normalizer: Any = None, add_prefix_space: bool = False, trim: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(byte_model())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return tokenizer


def metaspace(scheme: str | None, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(fallback_model())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if scheme:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return tokenizer


MADE: dict[str, Callable[[], Tokenizer]] = {
    "bytes": byte_level,
    "bytes-prefix": lambda: byte_level(add_prefix_space=True),
    "bytes-nfc": lambda: byte_level(normalizers.NFC()),
    "bytes-nfkc": lambda: byte_level(normalizers.NFKC()),
    "bytes-nfd": lambda: byte_level(normalizers.NFD()),
    "prepend": lambda: metaspace(None, PREPEND),
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-always": lambda: metaspace("always"),
    "metaspace-nfkc": lambda: metaspace("always", normalizers.NFKC()),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoder]:
    """Return an encoder for a tokenizer of ``MADE``."""
    folder = tmp_path_factory.mktemp("made")
    opened: dict[str, Encoder] = {}

    def get(name: str) -> Encoder:
        if name not in opened:
            tokenizer = MADE[name]()
            tokenizer.add_tokens(ADDED)
            path = folder / f"{name}.json"
            tokenizer.save(str(path))
            added = tuple(
                SpecToken(
                    token.content,
                    index,
                    token.special,
                    token.lstrip,
                    token.rstrip,
                    normalized=token.normalized,
                )
                for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
            )
            size = tokenizer.get_vocab_size()
            spec = TokenizerSpec(
                "tokenizers", str(folder), str(path), "", size, None, size - 1, size - 1, None, added
            )
            opened[name] = open_encoder(spec)
        return opened[name]

    return get


def check_spans(encoder: Encoder, texts: list[str], kept: Callable[[str], bool] = bool) -> None:
    found, flat = encoder.encode_spans(texts), encoder.encode(texts)
    assert found.ids.tolist() == flat.ids.tolist()
    assert found.offsets.tolist() == flat.offsets.tolist()
    for number, text in enumerate(texts):
        tokens = rows(found, number)
        starts, ends = [row[1] for row in tokens], [row[2] for row in tokens]
        assert starts == sorted(starts)
        assert ends == sorted(ends)
        assert all(0 <= start <= end <= len(text) for _, start, end in tokens)
        covered = {at for _, start, end in tokens for at in range(start, end)}
        assert {at for at, char in enumerate(text) if kept(char)} <= covered


parts = st.sampled_from([*ALPHABET, "<l>", "<r>", "<x>", "<both>", "  "]) | st.characters(codec="utf-8")
texts_of_parts = st.lists(st.lists(parts, max_size=9).map("".join), max_size=4)


@pytest.mark.parametrize("name", MADE)
@given(texts=texts_of_parts)
@settings(deadline=None, max_examples=80)
def test_spans_are_monotone_and_leave_nothing_out(
    made: Callable[[str], Encoder], name: str, texts: list[str]
) -> None:
    check_spans(made(name), texts)


@pytest.mark.parametrize("name", MADE)
@given(text=st.lists(parts | st.just(mark_of(10**6)), max_size=9).map("".join))
@settings(deadline=None, max_examples=40)
def test_spans_of_marked_text(made: Callable[[str], Encoder], name: str, text: str) -> None:
    encoder = made(name)
    control = next(token for token in encoder.spec.added if token.text == "<x>")
    mark = mark_of(control.id)
    text = text.replace(mark_of(10**6), mark)
    found = encoder.encode_marked_spans(text)
    assert found.ids.tolist() == encoder.encode_marked(text)
    marked = found.ids == control.id
    where = [text[start:end] for start, end in zip(found.starts[marked], found.ends[marked], strict=True)]
    assert where == [mark] * text.count(mark)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("prepend", "你a", [("▁", 0, 0), ("你", 0, 1), ("a", 1, 2)]),
        ("prepend", "a", [("▁a", 0, 1)]),
        ("prepend", " 你", [("▁", 0, 0), ("▁", 0, 1), ("你", 1, 2)]),
        ("prepend", "  ", [("▁", 0, 0), ("▁", 0, 1), ("▁", 1, 2)]),
        ("prepend", "a<x> a", [("▁a", 0, 1), ("<x>", 1, 4), ("▁", 4, 4), ("▁a", 4, 6)]),
        ("prepend", "<r> \n你", [("<r>", 0, 5), ("▁", 5, 5), ("你", 5, 6)]),
        ("prepend", "a  <l>", [("▁a", 0, 1), ("<l>", 1, 6)]),
        ("prepend", "<r>  <l>", [("<r>", 0, 5), ("<l>", 5, 8)]),
        ("metaspace-first", "你", [("▁", 0, 0), ("你", 0, 1)]),
        ("metaspace-first", " 你", [("▁", 0, 1), ("你", 1, 2)]),
        ("metaspace-first", "<x>你", [("<x>", 0, 3), ("你", 3, 4)]),
        ("metaspace-always", "<x>你", [("<x>", 0, 3), ("▁", 3, 3), ("你", 3, 4)]),
        ("metaspace-first", "a <both> 你", [("▁a", 0, 1), ("<both>", 1, 9), ("你", 9, 10)]),
        ("bytes-prefix", "a b", [("Ġ", 0, 0), ("a", 0, 1), ("Ġ", 1, 2), ("b", 2, 3)]),
        # A post-processor that trims would give the space no character.
        ("bytes", " a", [("Ġ", 0, 1), ("a", 1, 2)]),
        ("bytes", "aé", [("a", 0, 1), ("Ã", 1, 2), ("©", 1, 2)]),
        ("bytes-nfc", "ae\u0301b", [("a", 0, 1), ("Ã", 1, 3), ("©", 1, 3), ("b", 3, 4)]),
        ("bytes-nfc", "e\u0301", [("Ã", 0, 2), ("©", 0, 2)]),
        ("bytes-nfkc", "㎏", [("k", 0, 1), ("g", 0, 1)]),
        ("bytes-nfd", "é", [("e", 0, 1), ("Ì", 0, 1), ("ģ", 0, 1)]),
    ],
)  # fmt: skip
def test_where_the_library_says_more_or_less(
    made: Callable[[str], Encoder], name: str, text: str, expected: list[tuple[str, int, int]]
) -> None:
    encoder = made(name)
    assert spans(encoder, text) == expected
    # In a batch no text touches the next.
    both = encoder.encode_spans([text, "", text])
    assert rows(both, 0) == rows(both, 2) == rows(encoder.encode_spans([text]))


def train_sentencepiece(folder: Path, rule: str) -> TokenizerSpec:
    identity = rule == "identity"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world ab kg é 你好 fi abc", "the cat sat on a mat"] * 40),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        hard_vocab_limit=False,
        model_type="bpe" if identity else "unigram",
        normalization_rule_name=rule,
        remove_extra_whitespaces=not identity,
        byte_fallback=True,
        user_defined_symbols="<both>",
        minloglevel=2,
    )
    config = {"bos_token": "<x>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(str(folder), Adjustment(None, ("<l>", "<r>"))).spec


@pytest.fixture(scope="module", params=["identity", "nmt_nfkc"])
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A SentencePiece folder without and with a normalizer."""
    return open_encoder(train_sentencepiece(tmp_path_factory.mktemp(request.param), request.param))


@given(texts=texts_of_parts)
@settings(deadline=None, max_examples=100)
def test_sentencepiece_spans(pieces: Encoder, texts: list[str]) -> None:
    identity = "identity" in pieces.spec.source
    # The rules of NFKC there drop control characters, and spaces beside spaces.
    check_spans(pieces, texts, bool if identity else str.isalnum)


@given(text=st.lists(st.sampled_from([*"ab 你好k龘é👩\n\u200d", "hello", "<x>", "<l>"])).map("".join))
@settings(deadline=None, max_examples=100)
def test_sentencepiece_surfaces_are_the_pieces(pieces: Encoder, text: str) -> None:
    """What a piece covers is what it spells, but for a prepended space and bytes."""
    model, added = pieces._model, {token.id: token.text for token in pieces.spec.added}
    for index, start, end in rows(pieces.encode_spans([text])):
        if index in added and added[index] in ("<x>", "<l>"):
            assert text[start:end] == added[index]
            continue
        piece = model.id_to_piece(index)
        if model.is_byte(index):
            assert int(piece[3:5], 16) in text[start:end].encode()
            assert end == start + 1
        else:
            spelled_there = " ".join(text[start:end].split()) if "\n" in text else text[start:end]
            assert spelled_there.strip() == piece.replace("▁", " ").strip()


def test_sentencepiece_counts_characters(pieces: Encoder) -> None:
    text = "你👩<x>ab"
    found = rows(pieces.encode_spans([text]))
    assert [row[1:] for row in found if row[0] == pieces.spec.bos_id] == [(2, 5)]
    emoji = [row[1:] for row in found if row[1] == 1]
    assert emoji == [(1, 2)] * 4
    assert found[-1][2] == len(text)


def test_sentencepiece_spans_count_in_the_text_as_typed(tmp_path: Path) -> None:
    encoder = open_encoder(train_sentencepiece(tmp_path, "nmt_nfkc"))
    text = "  ｋｇ　㎏ﬁ e\u0301Ａ"
    found = rows(encoder.encode_spans([text]))
    normal = unicodedata.normalize("NFKC", text)
    assert "".join(encoder._model.id_to_piece(row[0]) for row in found) != text
    for index, start, end in found:
        piece = encoder._model.id_to_piece(index).replace("▁", "").encode()
        if encoder._model.is_byte(index):
            piece = bytes([int(piece[3:5], 16)])
        assert piece in unicodedata.normalize("NFKC", text[start:end]).encode()
    assert normal.strip() == encoder.decode([row[0] for row in found])


def test_python_tokenizers_can_not_say(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic", "eos_token": "[SEP]"}'
    )
    encoder = open_encoder(load_tokenizer(str(tmp_path)).spec)
    for attempt in (lambda: encoder.encode_spans(["hello"]), lambda: encoder.encode_marked_spans("hello")):
        with pytest.raises(TokenizerError, match=r"chat template needs to know .*--prompt-type") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_special_ids_and_mask(tokenizer_folder: Path, tmp_path: Path) -> None:
    resolved = load_tokenizer(str(tokenizer_folder), Adjustment("<|stop|>"))
    encoder = open_encoder(resolved.save(tmp_path))
    reference = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    special = {index for index, token in reference.added_tokens_decoder.items() if token.special}
    expected = (special | {encoder.spec.eos_id}) - {encoder.spec.unk_id}
    assert encoder.special_ids == encoder.spec.special_ids == expected
    assert encoder.special_mask.shape == (encoder.spec.vocab_size,)
    assert set(np.flatnonzero(encoder.special_mask).tolist()) == expected
