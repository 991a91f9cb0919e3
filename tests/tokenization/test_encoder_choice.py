"""Which encoder is taken, and what is proven before."""

from __future__ import annotations

import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.tokenization import (
    FlatIds,
    TokenizerSpec,
    choice,
    choose_encoder,
    load_tokenizer,
    open_encoder,
    proof,
    prove,
    shared_encoder,
)
from mtsft_preproc.tokenization.encoders import RustEncoder, opening
from mtsft_preproc.tokenization.encoders.libraries import LIBRARIES, Fastokens
from mtsft_preproc.tokenization.merges import join_merges
from mtsft_preproc.tokenization.probes import probe_texts

pytest.importorskip("fastokens")

MUCH = 1 << 30


@pytest.fixture(autouse=True)
def _none_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test have the encoder of another."""
    monkeypatch.setattr(opening._shared, "encoders", {})


@pytest.fixture(scope="module")
def spec(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenizerSpec:
    """The bundled tokenizer."""
    return load_tokenizer(str(tokenizer_folder)).save(tmp_path_factory.mktemp("bundled"))


def saved(tokenizer: Tokenizer, folder: Path) -> TokenizerSpec:
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    path = str(folder / "tokenizer.json")
    return TokenizerSpec("tokenizers", str(folder), path, "", size, None, 0, 0, None, ())


class Panicking(Fastokens):
    def encode(self, texts: list[str]) -> FlatIds:
        raise type("PanicException", (BaseException,), {})("overflow")


class Off(Fastokens):
    """Wrong for one kind of text alone."""

    def encode(self, texts: list[str]) -> FlatIds:
        flat = super().encode(texts)
        marked = np.repeat(["\u20ac" in text for text in texts], np.diff(flat.offsets))
        return flat._replace(ids=np.where(marked, 3, flat.ids).astype(np.int32))


def test_the_bundled_tokenizer_is_proven(spec: TokenizerSpec) -> None:
    found = prove(spec)
    assert (found.encoder, found.ok, found.reason) == ("fastokens", True, "")
    assert found.texts > 1500
    assert found.ids > 100_000
    assert pickle.loads(pickle.dumps(found)) == found
    json.dumps(found.describe())


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (Panicking, "the library failed: PanicException: overflow"),
        (Off, r"wrong: .*\\u20ac.*: id \d+ is 3, the reference's \d+"),
    ],
)
def test_what_is_not_proven(
    spec: TokenizerSpec, monkeypatch: pytest.MonkeyPatch, library: type[Fastokens], reason: str
) -> None:
    monkeypatch.setitem(LIBRARIES, "wrong", library)
    monkeypatch.setattr(proof, "version_of", lambda name: "1.0")
    found = prove(spec, "wrong")
    assert not found.ok
    assert re.search(reason, found.reason), found.reason


def test_no_probe_no_proof(tmp_path: Path) -> None:
    """fastokens 0.3.5 gives a vocabulary's entry that no merge makes; the probes hold such."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcde"]
    vocab = {text: number for number, text in enumerate([*letters, "abcde"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    spec = saved(tokenizer, tmp_path)
    found = prove(spec)
    own, right = Fastokens(spec.file), RustEncoder(spec)
    equal = own.encode(["<unk>"]).ids.tolist() == right.encode(["<unk>"]).ids.tolist()
    assert found.ok == (
        equal and own.encode(["abcde"]).ids.tolist() == right.encode(["abcde"]).ids.tolist()
    )


def test_a_tokenizer_that_the_library_refuses(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.WordPiece({text: n for n, text in enumerate(letters)}, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    refused = saved(tokenizer, tmp_path)
    found = prove(refused)
    assert not found.ok
    assert found.reason.startswith("it can't read the tokenizer: ")
    assert choose_encoder(refused, "auto", MUCH).name == "reference"
    with pytest.raises(
        SettingsError, match=r"--encoder fastokens: can't be used .*: it can't read"
    ) as error:
        choose_encoder(refused, "fastokens", MUCH)
    assert str(error.value).endswith("expected one of auto, reference")
    assert "\n" not in str(error.value)


def test_other_back_ends_are_their_own_reference(spec: TokenizerSpec) -> None:
    other = replace(spec, backend="sentencepiece")
    assert not prove(other).ok
    found = choose_encoder(other, "auto", MUCH)
    assert (found.name, found.why) == (
        "reference",
        "fastokens is not taken: it reads a tokenizer.json, and this tokenizer is encoded by sentencepiece",
    )


def test_choices(spec: TokenizerSpec) -> None:
    assert choose_encoder(spec, "reference", MUCH).proof is None
    much = choose_encoder(spec, "auto", MUCH)
    assert (much.name, much.proof is not None and much.proof.ok) == ("fastokens", True)
    assert much == choose_encoder(spec, "fastokens", 0) == pickle.loads(pickle.dumps(much))
    size = Path(spec.file).stat().st_size
    assert choose_encoder(spec, "auto", size).name == "fastokens"
    little = choose_encoder(spec, "auto", size - 1)
    assert (little.name, little.proof) == ("reference", None)
    assert little.why == f"fastokens pays from {size:,} bytes of input on; there are {size - 1:,}"
    with pytest.raises(SettingsError, match="no encoder 'x'; expected one of auto, reference, fastokens"):
        choose_encoder(spec, "x", 0)
    json.dumps([much.describe(), little.describe()])
    assert isinstance(open_encoder(spec), RustEncoder)


def test_without_the_package(spec: TokenizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choice, proof):
        monkeypatch.setattr(module, "version_of", lambda name: None)
    found = choose_encoder(spec, "auto", MUCH)
    assert (found.name, found.why) == (
        "reference",
        "fastokens is not taken: the package fastokens is not installed",
    )
    with pytest.raises(SettingsError, match="--encoder fastokens: not installed: pip install fastokens; "):
        choose_encoder(spec, "fastokens", MUCH)


def test_probes_hold_each_added_token(spec: TokenizerSpec) -> None:
    texts = probe_texts(spec.added, ["ab", "cd"], ["x\u0120"])
    assert texts == probe_texts(spec.added, ["ab", "cd"], ["x\u0120"])
    for token in spec.added:
        assert token.text in texts
        inside = [text for text in texts if f"a{token.text}b" in text and f" {token.text} " in text]
        assert inside, token
    every = "".join(texts)
    for letter in "\u0130\u017f\u1112\u0e33\u0958\ufdfa\U00020000\u2028\u3000\x1c\u200d\U0001f1e9\u0344":
        assert letter in every, ascii(letter)
    for piece in ("'LL", "'S", "\r\n\r\n", "12345678901234567890", "a" * 700, "x\u0120", "abcd"):
        assert piece in every, piece


def test_joined_merges_are_the_same_merges(tokenizer_folder: Path, spec: TokenizerSpec) -> None:
    written = (tokenizer_folder / "tokenizer.json").read_bytes()
    content = json.loads(Path(spec.file).read_text("utf-8"))
    assert all(isinstance(merge, str) for merge in content["model"]["merges"])
    lists = dict(content, model={**content["model"]})
    lists["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    assert json.loads(join_merges(json.dumps(lists).encode())) == content
    again, first = (
        Tokenizer.from_str(text) for text in (Path(spec.file).read_text("utf-8"), written.decode())
    )
    texts = probe_texts(spec.added, [])
    assert [one.ids for one in again.encode_batch(texts)] == [one.ids for one in first.encode_batch(texts)]


@pytest.mark.parametrize("merge", [["a b", "c"], ["#version", "x"], ["", "a", "b"]])
def test_merges_that_can_not_be_joined(merge: list[str]) -> None:
    payload = json.dumps({"model": {"merges": [["a", "b"], merge]}}).encode()
    assert join_merges(payload) == payload


def test_a_thread_has_an_encoder_of_its_own(tokenizer_folder: Path, tmp_path: Path) -> None:
    spec = load_tokenizer(str(tokenizer_folder)).save(tmp_path)
    own = shared_encoder(spec)
    assert shared_encoder(spec) is own
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(shared_encoder, spec).result()
    assert other is not own
    assert shared_encoder(spec) is own
