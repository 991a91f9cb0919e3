"""The fast encoder: the reference's ids and spans, or none."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from mtsft_preproc.tokenization import AddedToken as SpecToken
from mtsft_preproc.tokenization import (
    EncoderDiffers,
    FastEncoder,
    FlatIds,
    SpannedIds,
    TokenizerSpec,
    load_tokenizer,
    open_encoder,
)
from mtsft_preproc.tokenization.encoders import RustEncoder
from mtsft_preproc.tokenization.encoders.fast import CHECKED_FIRST, CHECKED_SHARE
from mtsft_preproc.tokenization.encoders.libraries import LIBRARIES, Fastokens

pytest.importorskip("fastokens")

#: One of each kind: bytes, bytes after NFC, with white space as added tokens, pieces, pieces that strip.
REAL = ["gpt2", "minimind", "qwen3", "olmo-neox", "deepseek-coder", "llama2", "mistral-v3", "phi3"]
PARTS = [
    *"abcXYZ 019\n\t\r'.,-_{}<>|é你好世龘각ァاन์ßİıǅ▁ĠĊſ\x00\x1b\x85",
    *"\u0301\u0323\u0344\u1100\u1161\u11a8\u0958\u212b\u180e", "\u200d", "\ufeff", "\u00a0", "\u3000", "👩",
    "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "e\u0301", "q\u0307\u0323", "\r\n", "  ", "   ", "'s", "'LL", "'ſ",
    "the ", " def", "user", "<0x0A>", "<unk>", "<s>",
    "</s>", "<|im_start|>", "<|user|>", "<|end|>", "<|endoftext|>", "[INST]", "\ufdd0",
]  # fmt: skip


def same(found: SpannedIds | FlatIds, right: SpannedIds | FlatIds) -> None:
    assert [array.dtype for array in found] == [array.dtype for array in right]
    for own, other in zip(found, right, strict=True):
        assert own.tolist() == other.tolist()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], FastEncoder]:
    """Return the fast encoder of a tokenizer's folder."""
    opened: dict[Path, FastEncoder] = {}

    def get(folder: Path) -> FastEncoder:
        if folder not in opened:
            spec = load_tokenizer(str(folder)).save(tmp_path_factory.mktemp(folder.name))
            encoder = open_encoder(spec, "fastokens")
            assert isinstance(encoder, FastEncoder)
            opened[folder] = encoder
        return opened[folder]

    return get


@pytest.fixture(scope="module")
def bundled(real: Callable[[Path], FastEncoder], tokenizer_folder: Path) -> FastEncoder:
    return real(tokenizer_folder)


texts_of_parts = st.lists(
    st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=12).map("".join), max_size=6
)


@given(texts=texts_of_parts)
@settings(deadline=None, max_examples=150)
def test_ids_and_spans_are_the_references(bundled: FastEncoder, texts: list[str]) -> None:
    same(bundled.encode(texts), bundled.reference.encode(texts))
    same(bundled.encode_spans(texts), bundled.reference.encode_spans(texts))


def counted(encoder: FastEncoder, texts: list[list[str]]) -> tuple[list[int], list[int], list[int]]:
    """Count the tokens of pieces one by one, by the reference's spans."""
    ids: list[int] = []
    started: list[int] = []
    ended: list[int] = []
    for pieces in texts:
        found = encoder.reference.encode_spans(["".join(pieces)])
        spans = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
        for number in range(1, len(pieces) + 1):
            end = len("".join(pieces[:number]))
            is_last = number == len(pieces)
            started.append(len(ids) + sum(is_last or start < end for start, _ in spans))
            ended.append(len(ids) + sum(is_last or max(start, stop - 1) < end for start, stop in spans))
        ids += found.ids.tolist()
    return ids, started, ended


def check_pieces(encoder: FastEncoder, texts: list[list[str]]) -> None:
    found = encoder.encode_pieces(texts)
    assert (found.ids.tolist(), found.started.tolist(), found.ended.tolist()) == counted(encoder, texts)
    assert (
        found.offsets.tolist()
        == encoder.reference.encode(["".join(text) for text in texts]).offsets.tolist()
    )


texts_in_pieces = st.lists(
    st.lists(
        st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=3).map("".join),
        min_size=1,
        max_size=5,
    ),
    max_size=5,
)


@given(texts=texts_in_pieces)
@settings(deadline=None, max_examples=150)
def test_tokens_of_pieces_are_the_references(bundled: FastEncoder, texts: list[list[str]]) -> None:
    bundled.start()
    check_pieces(bundled, texts)
    check_pieces(bundled, [["a", "b "], ["c"], *texts, ["d"]])


@pytest.mark.parametrize("name", REAL)
def test_tokens_of_pieces_of_real_tokenizers(
    shared: Path, real: Callable[[Path], FastEncoder], name: str
) -> None:
    encoder = real(shared / "tokenizers" / name)
    rng = random.Random(name)
    parts = [*PARTS, *(token.text for token in encoder.spec.added[-12:])]
    check_pieces(
        encoder,
        [
            ["".join(rng.choices(parts, k=rng.randrange(4))) for _ in range(rng.randrange(1, 6))]
            for _ in range(400)
        ],
    )


@pytest.mark.parametrize("name", REAL)
def test_ids_and_spans_of_real_tokenizers(
    shared: Path, real: Callable[[Path], FastEncoder], name: str
) -> None:
    encoder = real(shared / "tokenizers" / name)
    rng = random.Random(name)
    parts = [*PARTS, *(token.text for token in encoder.spec.added[-12:])]
    texts = ["".join(rng.choices(parts, k=rng.randrange(14))) for _ in range(1500)]
    same(encoder.encode(texts), encoder.reference.encode(texts))
    same(encoder.encode_spans(texts), encoder.reference.encode_spans(texts))
    # Most follow from the lengths of tokens; those that do not are seen.
    assert encoder._byte_spans is not None
    known = encoder._byte_spans.find(texts, encoder.encode(texts))[0]
    plain = np.array([text.isascii() and "<" not in text for text in texts])
    assert known[plain].all()
    assert 0.5 < known.mean() < 1 or name in ("gpt2", "minimind", "deepseek-coder")


@given(text=st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
@settings(deadline=None, max_examples=60)
def test_the_rest_is_the_references(bundled: FastEncoder, text: str) -> None:
    assert bundled.encode_marked(text) == bundled.reference.encode_marked(text)
    same(bundled.encode_marked_spans(text), bundled.reference.encode_marked_spans(text))
    ids = bundled.encode([text]).ids.tolist()
    assert bundled.decode(ids) == bundled.reference.decode(ids)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("gpt-oss", ["'Dſ'ſ'Lla\u2029's", "plain", "'llſ'Ta\u02b0\ufeff\n", "\u0301'ſ'MA\xc9\t"]),
        ("deepseek-llm", ["\xad \u180e", "plain", "\x85\xad \u180e_\r\uac00"]),
    ],
)  # fmt: skip
def test_letters_that_the_library_is_known_to_mistake(
    shared: Path, real: Callable[[Path], FastEncoder], name: str, texts: list[str]
) -> None:
    encoder = real(shared / "tokenizers" / name)
    for part in (texts, texts[:1], texts[1:2], [*texts, ""], []):
        same(encoder.encode(part), encoder.reference.encode(part))
        same(encoder.encode_spans(part), encoder.reference.encode_spans(part))


def test_half_a_surrogate_pair(bundled: FastEncoder) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        bundled.reference.encode(["a", "\ud800"])
    with pytest.raises(type(expected.value)):
        bundled.encode(["a", "\ud800"])


# Tokenizers made here, for what the real ones do not show, and spans that are written out.

ADDED = [
    AddedToken("<l>", lstrip=True, special=True, normalized=False),
    AddedToken("<r>", rstrip=True, special=True, normalized=False),
    AddedToken("<x>", special=True, normalized=False),
]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(normalizer: Any = None, letters: list[str] = LETTERS, prefix: bool = False) -> Tokenizer:
    merged = [("Ã", "©"), ("a", "b"), ("Ã", "©a")]
    vocab = {text: number for number, text in enumerate([*letters, "Ã©", "ab"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merged[:2]))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return tokenizer


def pieces(*steps: Any) -> Tokenizer:
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abe你", "▁a", "ab"]
    vocab = {text: number for number, text in enumerate(letters)}
    merges = [("▁", "a"), ("a", "b")]
    model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(list(steps))
    return tokenizer


MADE: dict[str, Callable[[], Tokenizer]] = {
    "bytes": byte_level,
    "bytes-nfc": lambda: byte_level(normalizers.NFC()),
    "bytes-prefix": lambda: byte_level(prefix=True),
    "prepend": lambda: pieces(normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")),
    "replace": lambda: pieces(normalizers.Replace(" ", "▁")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FastEncoder]:
    """Return an encoder for a tokenizer of ``MADE``."""
    folder = tmp_path_factory.mktemp("made")
    opened: dict[str, FastEncoder] = {}

    def get(name: str) -> FastEncoder:
        if name not in opened:
            tokenizer = MADE[name]()
            tokenizer.add_tokens(ADDED)
            path = folder / f"{name}.json"
            tokenizer.save(str(path))
            added = tuple(
                SpecToken(token.content, index, token.special, token.lstrip, token.rstrip)
                for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
            )
            size = tokenizer.get_vocab_size()
            spec = TokenizerSpec(
                "tokenizers", str(folder), str(path), "", size, None, size - 1, size - 1, None, added
            )
            opened[name] = FastEncoder(spec)
        return opened[name]

    return get


MADE_PARTS = [*"ab e\u0301你龘👩\n▁\u0323\u0307\u212b", "é", "<l>", "<r>", "<x>", "  "]


@pytest.mark.parametrize("name", MADE)
@given(texts=st.lists(st.lists(st.sampled_from(MADE_PARTS), max_size=9).map("".join), max_size=4))
@settings(deadline=None, max_examples=150)
def test_spans_of_made_tokenizers(made: Callable[[str], FastEncoder], name: str, texts: list[str]) -> None:
    encoder = made(name)
    same(encoder.encode_spans(texts), encoder.reference.encode_spans(texts))


@pytest.mark.parametrize(
    ("name", "text", "expected", "known"),
    [
        ("bytes", "ab a", [(0, 2), (2, 3), (3, 4)], True),
        ("bytes", "aéb", [(0, 1), (1, 2), (2, 3)], True),
        ("bytes", "你a", [(0, 1), (0, 1), (0, 1), (1, 2)], True),
        ("bytes", "a <x> b", [(0, 1), (1, 2), (2, 5), (5, 6), (6, 7)], True),
        ("bytes", "a  <l>", [(0, 1), (1, 6)], False),
        ("bytes-nfc", "ae\u0301b", [(0, 1), (1, 3), (3, 4)], False),
        ("bytes-nfc", "aéb", [(0, 1), (1, 2), (2, 3)], True),
        # Two marks change places, and nothing changes its length.
        ("bytes-nfc", "q\u0307\u0323", [(0, 1), (1, 3), (1, 3), (2, 3), (2, 3)], False),
        ("prepend", "你a", [(0, 0), (0, 1), (1, 2)], True),
        ("prepend", "a", [(0, 1)], True),
        ("prepend", " 你", [(0, 0), (0, 1), (1, 2)], True),
        ("prepend", "a<x> a", [(0, 1), (1, 4), (4, 4), (4, 6)], True),
        ("prepend", "<r> \n你", [(0, 5), (5, 5), (5, 6)], False),
        ("prepend", "a▁b", [(0, 1), (1, 2), (2, 3)], False),
        ("replace", "你 a", [(0, 1), (1, 3)], True),
        ("replace", "龘", [(0, 1), (0, 1), (0, 1)], True),
    ],
)
def test_spans_that_are_written_out(
    made: Callable[[str], FastEncoder], name: str, text: str, expected: list[tuple[int, int]], known: bool
) -> None:
    encoder = made(name)
    found = encoder.encode_spans([text, "", text])
    half = len(expected)
    spans = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    if name != "bytes-nfc" or "\u0307" not in text:
        assert spans == expected * 2
    assert found.offsets.tolist() == [0, half, half, 2 * half]
    assert encoder._byte_spans is not None
    assert encoder._byte_spans.find([text], encoder.encode([text]))[0].tolist() == [known]


def test_a_prepended_byte_level_space_is_for_the_reference(made: Callable[[str], FastEncoder]) -> None:
    encoder = made("bytes-prefix")
    assert encoder._byte_spans is None
    encoder.start()
    encoder.encode_spans(["a", "b"])
    assert (encoder.texts, encoder.checked) == (2, 2)


# What is checked while it runs.


SPREAD = 0x9E3779B97F4A7C15


def in_sample(ids: list[int]) -> bool:
    """Return whether a text with these ids is in the sample, reckoned without arrays."""
    found = (len(ids) + 1) * SPREAD
    if ids:
        found += sum(ids[len(ids) * part // 8] * SPREAD ** (part + 1) for part in range(8))
    return (found * SPREAD % 2**64 >> 32) % CHECKED_SHARE == 0


def test_the_sample_depends_on_content_alone(bundled: FastEncoder) -> None:
    texts = [f"text {number * 7919 % 100_000}, é" * (number % 3) for number in range(12_000)]
    flat = bundled.reference.encode(texts)
    chosen = [number for number, ids in enumerate(np.split(flat.ids, flat.offsets[1:-1]))
              if in_sample(ids.tolist())]  # fmt: skip
    assert 8 < len(chosen) < 32  # 8,000 texts that are not empty
    expected = len({*chosen, *range(CHECKED_FIRST)})
    for batch in (1, 7, 12_000):
        bundled.start()
        for at in range(0, len(texts), batch):
            bundled.encode(texts[at : at + batch])
        assert (bundled.texts, bundled.checked) == (12_000, expected)
    bundled.start()
    bundled.encode_spans(texts)
    assert (bundled.texts, bundled.checked) == (12_000, expected)


class Wrong(Fastokens):
    """Gives one id too many for texts that hold ``wrong``, and panics at ``panic``."""

    def encode(self, texts: list[str]) -> FlatIds:
        for text in texts:
            if "panic" in text:
                raise PanicException("index out of bounds")
            if "stop" in text:
                raise KeyboardInterrupt
        flat = super().encode(texts)
        rows = np.split(flat.ids, flat.offsets[1:-1])
        rows = [
            np.append(row, 5).astype(np.int32) if "wrong" in text else row
            for row, text in zip(rows, texts, strict=True)
        ]
        return FlatIds.of([row.tolist() for row in rows])


class PanicException(BaseException):
    """As PyO3 raises it."""


@pytest.fixture
def wrong(bundled: FastEncoder, monkeypatch: pytest.MonkeyPatch) -> FastEncoder:
    monkeypatch.setitem(LIBRARIES, "wrong", Wrong)
    return FastEncoder(bundled.spec, "wrong")


def sampled(encoder: FastEncoder, start: str) -> str:
    """Return a text that is in the sample, by the ids that the library gives."""
    texts = (f"{start} {number}" for number in range(100_000))
    return next(text for text in texts if in_sample(encoder._fast.encode([text]).ids.tolist()))


def test_a_difference_of_spans_is_found(wrong: FastEncoder) -> None:
    wrong.encode(["a"] * CHECKED_FIRST)
    with pytest.raises(EncoderDiffers):
        wrong.encode_spans(["fine", sampled(wrong, "wrong"), "fine"])


def test_a_difference_is_found_and_travels(wrong: FastEncoder) -> None:
    wrong.encode(["a"] * CHECKED_FIRST)
    text = sampled(wrong, "wrong")
    wrong.encode(["fine", text, "fine"])
    with pytest.raises(EncoderDiffers) as caught:
        wrong.settle()
    right = wrong.reference.encode([text]).ids
    difference = caught.value.difference
    assert difference.encoder == "wrong"
    assert difference.text == text
    assert difference.where == (
        f"id {len(right)} is 5, the reference's missing (of {len(right) + 1} and {len(right)})"
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.difference == difference
    assert str(again) == f"wrong: {text!r}: {difference.where}"


def test_the_first_texts_are_checked(wrong: FastEncoder) -> None:
    wrong.encode(["a", "wrong"])
    with pytest.raises(EncoderDiffers):
        wrong.settle()
    wrong.start()
    wrong.encode(["a"] * CHECKED_FIRST)
    assert not in_sample(wrong._fast.encode(["wrong"]).ids.tolist())
    wrong.encode(["wrong"])
    wrong.settle()
    wrong.start()
    wrong.encode(["wrong"])
    with pytest.raises(EncoderDiffers):
        wrong.settle()


def test_texts_of_the_sample_do_not_pile_up(wrong: FastEncoder) -> None:
    text = sampled(wrong, "fine")
    wrong.encode([sampled(wrong, "wrong")])
    with pytest.raises(EncoderDiffers):
        wrong.encode([text] * 100)


def test_what_is_due_is_forgotten_with_a_new_start(wrong: FastEncoder) -> None:
    wrong.encode(["wrong"])
    wrong.start()
    wrong.settle()


def test_a_span_that_is_not_the_references(bundled: FastEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    right = RustEncoder.encode_spans

    def shifted(self: RustEncoder, texts: list[str]) -> SpannedIds:
        found = right(self, texts)
        return found._replace(ends=found.ends + 1)

    monkeypatch.setattr(RustEncoder, "encode_spans", shifted)
    bundled.start()
    with pytest.raises(EncoderDiffers, match="span 0 is 1, the reference's 2"):
        bundled.encode_spans(["a b"])


def test_tokens_of_pieces_that_are_not_the_references(
    bundled: FastEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundled._byte_spans is not None
    right = bundled._byte_spans.count

    def wrong(*given: Any) -> Any:
        known, found = right(*given)
        return known, found._replace(started=found.started - 1)

    monkeypatch.setattr(bundled._byte_spans, "count", wrong)
    bundled.start()
    with pytest.raises(EncoderDiffers, match="border 0 is 0, the reference's 1"):
        bundled.encode_pieces([["a", " b"]])


def test_pieces_have_their_ids_checked(wrong: FastEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ids that the bytes of the text don't show to be wrong: those of the reference are others here.
    text = sampled(wrong, "fine")
    right = RustEncoder.encode
    wrong.start()
    wrong.encode_pieces([["a"]] * CHECKED_FIRST)
    wrong.settle()
    monkeypatch.setattr(
        RustEncoder,
        "encode",
        lambda self, texts: FlatIds((found := right(self, texts)).ids + 1, found.offsets),
    )
    wrong.encode_pieces([["no", "sample"]])
    wrong.settle()
    wrong.encode_pieces([["fine"], [text[:3], text[3:]], ["fine"]])
    with pytest.raises(EncoderDiffers):
        wrong.settle()


def test_pieces_that_do_not_sum_up_are_the_references(wrong: FastEncoder) -> None:
    wrong.encode(["a"] * CHECKED_FIRST)
    with pytest.raises(EncoderDiffers):
        wrong.encode_pieces([["fine"], ["wrong"], ["fine"]])


def test_a_failure_names_its_text(wrong: FastEncoder) -> None:
    with pytest.raises(EncoderDiffers, match="PanicException: index out of bounds") as caught:
        wrong.encode(["fine", "a panic", "fine"])
    assert caught.value.difference.text == "a panic"
    with pytest.raises(KeyboardInterrupt):
        wrong.encode(["stop"])


CHILD = """
import multiprocessing, os, pickle, sys
from mtsft_preproc.tokenization import open_encoder

def work(encoder):
    encoder.encode(["a text of some length, \\u4f60\\u597d"] * 3000)
    return len(os.listdir("/proc/self/task"))

def opened(spec):
    return work(open_encoder(spec, "fastokens"))

def inherited(number):
    return work(ENCODER)

if __name__ == "__main__":
    spec = pickle.load(open(sys.argv[1], "rb"))
    ENCODER = open_encoder(spec, "fastokens")
    counts = [work(ENCODER)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        counts += pool.map(inherited, range(2))
        counts += pool.map(opened, [spec])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        counts += pool.map(opened, [spec])
    print(counts, len(os.sched_getaffinity(0)))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_no_threads_and_no_trouble_with_fork(bundled: FastEncoder, tmp_path: Path) -> None:
    (tmp_path / "spec").write_bytes(pickle.dumps(bundled.spec))
    (tmp_path / "child.py").write_text(CHILD)
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "child.py"), str(tmp_path / "spec")],
        capture_output=True, text=True, timeout=120, check=True,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    # The parent of a pool has its threads; each child has its own alone.
    assert done.stdout.split("]")[0] == "[1, 1, 1, 1, 1"
