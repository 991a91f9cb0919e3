"""Rendering, token for token, against the formats written out by hand and encoded by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Record
from mtsft_preproc.encoding import EncodedBatch, SampleEncoder
from mtsft_preproc.errors import TemplateError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.templates import PromptTemplate, PromptType, Token, prompt_types
from mtsft_preproc.templates.prompt_type import BOS, Style
from mtsft_preproc.tokenization import Encoder, load_tokenizer, open_encoder

KEYS = {"history": "history", "system": "system"}
IGNORE = -100


@pytest.fixture(scope="session")
def reference(tokenizer_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(tokenizer_folder))


CONFIG = PreprocessConfig(("in",), "out", "tokenizer", "alpaca")


class Opened:
    """Sample encoders by prompt type, over one tokenizer."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._encoders: dict[Any, Encoder] = {}

    def __call__(self, prompt_type: str | PromptType, **settings: Any) -> SampleEncoder:
        found = prompt_types.get(prompt_type) if isinstance(prompt_type, str) else prompt_type
        adjustment = found.adjustment()
        if adjustment not in self._encoders:
            resolved = load_tokenizer(str(self._folder), adjustment)
            self._encoders[adjustment] = open_encoder(resolved.save(self._scratch))
        encoder = self._encoders[adjustment]
        template = PromptTemplate(found, encoder, **settings)
        handler = handlers.get("alpaca")(KEYS)
        return SampleEncoder(handler, template, CONFIG)


@pytest.fixture(scope="session")
def opened(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tokenizer_folder, tmp_path_factory.mktemp("tokenizer"))


def record(*turns: str, system: str = "") -> Record:
    """Return an Alpaca record with these turns, question and answer by turns."""
    pairs = [list(pair) for pair in zip(turns[::2], turns[1::2], strict=True)]
    value = {"instruction": turns[-2], "input": "", "output": turns[-1], "system": system}
    return Record(0, {**value, "history": pairs[:-1]})


def expected(reference: Any, pieces: list[tuple[str | int, bool]]) -> tuple[list[int], list[int]]:
    """Encode (text or id, trained) pieces one by one."""
    ids: list[int] = []
    labels: list[int] = []
    for piece, trained in pieces:
        encoded = [piece] if isinstance(piece, int) else reference.encode(piece, add_special_tokens=False)
        ids += encoded
        labels += encoded if trained else [IGNORE] * len(encoded)
    return ids, labels


def check(batch: EncodedBatch, ids: list[int], labels: list[int]) -> None:
    assert batch.rejections == []
    assert batch.tokens["packed_input_ids"].tolist() == ids
    assert batch.tokens["packed_labels"].tolist() == labels
    assert batch.lengths["sample"].tolist() == [len(ids)]
    assert batch.trained.tolist() == [sum(label != IGNORE for label in labels)]


def test_chatml(opened: Opened, reference: Any) -> None:
    batch = opened("chatml").encode([record("q1", "a1", "q2\n", "a2", system="S")])
    end = reference.convert_tokens_to_ids("<|im_end|>")
    pieces: list[tuple[str | int, bool]] = [
        ("<|im_start|>system\nS<|im_end|>\n", False),
        ("<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n", False),
        ("a1", True),
        (end, True),
        ("\n", False),
        ("<|im_start|>user\nq2\n<|im_end|>\n<|im_start|>assistant\n", False),
        ("a2", True),
        (end, True),
    ]
    check(batch, *expected(reference, pieces))


def test_gemma_teaches_the_end_of_a_turn_at_the_next_header(opened: Opened, reference: Any) -> None:
    batch = opened("gemma").encode([record("q1", "a1", "q2", "a2")])
    eos = reference.eos_token_id
    ids, labels = expected(
        reference,
        [
            (reference.bos_token_id, False),
            ("<start_of_turn>user\nq1<end_of_turn>\n<start_of_turn>model\n", False),
            ("a1", True),
        ],
    )
    second, _ = expected(
        reference,
        [
            ("<end_of_turn>\n", False),
            ("<start_of_turn>user\nq2<end_of_turn>\n<start_of_turn>model\n", False),
        ],
    )
    reply = reference.encode("a2", add_special_tokens=False)
    ids += [*second, *reply, eos]
    labels += [eos, *[IGNORE] * (len(second) - 1), *reply, eos]
    check(batch, ids, labels)


def test_append_eod_adds_one_more_trained_eos(opened: Opened, reference: Any) -> None:
    plain = opened("llama3").encode([record("q", "a")])
    closed = opened("llama3", append_eod=True).encode([record("q", "a")])
    eos = reference.convert_tokens_to_ids("<|eot_id|>")
    assert closed.tokens["packed_input_ids"].tolist() == [*plain.tokens["packed_input_ids"].tolist(), eos]
    assert closed.tokens["packed_labels"].tolist() == [*plain.tokens["packed_labels"].tolist(), eos]


def test_llama2_puts_the_system_text_into_the_user_element(opened: Opened, reference: Any) -> None:
    batch = opened("llama2").encode([record("q1", "a1", "q2", "a2", system="S")])
    pieces: list[tuple[str | int, bool]] = []
    for asked, reply in (("<<SYS>>\nS\n<</SYS>>\n\nq1", "a1"), ("q2", "a2")):
        pieces += [
            (reference.bos_token_id, False),
            (f"[INST] {asked} [/INST]", False),
            (reply, True),
            (reference.eos_token_id, True),
        ]
    check(batch, *expected(reference, pieces))


def test_rounds_are_numbered_and_content_is_never_looked_into(opened: Opened, reference: Any) -> None:
    numbered = PromptType("n", user=("[Round {{idx}}] {{content}} >",), assistant=("{{content}}",))
    batch = opened(numbered).encode([record("{{idx}}", "{{content}}", "{{content}}{{idx}}", "x {{idx}}")])
    pieces: list[tuple[str | int, bool]] = [
        ("[Round 0] {{idx}} >", False),
        ("{{content}}", True),
        ("[Round 1] {{content}}{{idx}} >", False),
        ("x {{idx}}", True),
    ]
    check(batch, *expected(reference, pieces))


@pytest.mark.parametrize(("enabled", "trained"), [("true", True), ("false", False), ("none", False)])
def test_a_reply_without_a_thought_gets_an_empty_one(
    opened: Opened, reference: Any, enabled: str, trained: bool
) -> None:
    batch = opened("qwen3", enable_thinking=enabled).encode([record("q", "a")])
    pieces: list[tuple[str | int, bool]] = [
        ("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", False),
        ("<think>\n\n</think>\n\n", trained),
        ("a<|im_end|>\n", True),
    ]
    check(batch, *expected(reference, pieces))


def test_thinking_false_removes_thoughts(opened: Opened) -> None:
    thinking = record("q", "<think>\nhm\n</think>\n\na")
    removed = opened("qwen3", enable_thinking="false").encode([thinking])
    assert removed.tokens["packed_input_ids"].tolist() == (
        opened("qwen3", enable_thinking="false")
        .encode([record("q", "a")])
        .tokens["packed_input_ids"]
        .tolist()
    )


def test_what_a_format_needs_and_the_tokenizer_lacks_is_an_error(opened: Opened) -> None:
    with pytest.raises(TemplateError, match="<sep>"):
        opened(PromptType("x", user=("{{content}}", Token("<sep>"))))


def test_bos_is_nothing_where_the_tokenizer_has_none(
    opened: Opened, reference: Any, tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = tmp_path / "no_bos"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}'
    )
    batch = Opened(folder, tmp_path)("deepseek2").encode([record("q", "a")])
    pieces: list[tuple[str | int, bool]] = [("User: q\n\nAssistant:", False), ("a<eos>", True)]
    check(batch, *expected(reference, pieces))


#: Text that spells control tokens, template syntax, anything.
hostile = st.lists(
    st.one_of(
        st.sampled_from(
            ["<|im_end|>", "<|im_start|>assistant\n", "<eos>", "<bos>", "</s>", "{{content}}", "{{idx}}",
             "<think>", "</think>", "[INST]", "<end_of_turn>", "<|eot_id|>", "\n", " ", "你好", "<|", "|>"]
        ),
        st.text(max_size=6),
    ),
    max_size=6,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("name", ["chatml", "gemma", "llama2", "llama3", "glm4", "chatglm2", "default"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(hostile, hostile), min_size=1, max_size=3), system=hostile)
def test_no_text_can_forge_a_control_token(
    opened: Opened, reference: Any, name: str, turns: list[tuple[str, str]], system: str
) -> None:
    """The control ids are those of a harmless dialogue, in the same order, and no text is lost."""
    encoder = opened(name)
    flat = [text for turn in turns for text in turn]
    batch = encoder.encode([record(*flat, system=system)])
    if batch.rejections:
        assert {rejection.reason for rejection in batch.rejections} <= {"nothing-trained"}
        return
    harmless = encoder.encode([record(*["x"] * len(flat), system="x" if system else "")])
    special = np.asarray([i for i, token in reference.added_tokens_decoder.items() if token.special])

    def controls(ids: Any) -> list[int]:
        return [index for index in ids.tolist() if index in special]

    assert controls(batch.tokens["packed_input_ids"]) == controls(harmless.tokens["packed_input_ids"])
    text = reference.decode(batch.tokens["packed_input_ids"].tolist(), skip_special_tokens=False)
    for part in flat:
        assert part in text
    trained = batch.tokens["packed_labels"][
        (batch.tokens["packed_labels"] != IGNORE)
        & (batch.tokens["packed_labels"] == batch.tokens["packed_input_ids"])
    ]
    replies = [index for index in trained.tolist() if index not in special]
    assert reference.decode(replies) == "".join(
        ("\n" if name == "glm4" else "") + reply for reply in flat[1::2]
    )


def test_allow_and_reject(opened: Opened, reference: Any) -> None:
    spelled = record("what is <|im_end|>?", "a token")
    allowed = opened("chatml", special_tokens_in_text="allow").encode([spelled])
    end = reference.convert_tokens_to_ids("<|im_end|>")
    assert allowed.tokens["packed_input_ids"].tolist().count(end) == 3
    assert opened("chatml").encode([spelled]).tokens["packed_input_ids"].tolist().count(end) == 2
    for mode in ("plain", "allow"):
        notes = opened("chatml", special_tokens_in_text=mode).encode([spelled]).notes
        assert notes == {"special-token-in-text": 1}
    refused = opened("chatml", special_tokens_in_text="reject").encode([spelled, record("q", "a")])
    assert [(item.reason, item.got) for item in refused.rejections] == [("special-token", "'<|im_end|>'")]
    assert len(refused.rows) == 1


def test_a_default_system_text_means_its_control_tokens(opened: Opened, reference: Any) -> None:
    for style in (Style.DEFAULT, Style.SYSTEM_IN_USER):
        own = PromptType(
            "own",
            user=(BOS, "U {{content}}"),
            system=("S {{content}}\n",),
            default_system="think in <|im_start|>",
            style=style,
        )
        batch = opened(own).encode([record("spells <|im_end|>", "a")])
        ids = batch.tokens["packed_input_ids"].tolist()
        assert ids.count(reference.convert_tokens_to_ids("<|im_start|>")) == 1
        assert ids.count(reference.convert_tokens_to_ids("<|im_end|>")) == 0


@pytest.mark.parametrize("mode", ["plain", "allow"])
def test_text_that_holds_our_own_marks_is_rejected(opened: Opened, mode: str) -> None:
    encoder = opened("chatml", special_tokens_in_text=mode)
    forged = record("turn \ufdd05\ufdd1 <|im_end|>", "a")
    batch = encoder.encode([forged, record("alone \ufdd0 and \ufdd1", "a")])
    assert [(item.reason, item.got) for item in batch.rejections] == [("special-token", r"'\ufdd05\ufdd1'")]
    assert len(batch.rows) == 1


def test_a_system_format_for_the_users_element_is_one_string(opened: Opened) -> None:
    for system in ((BOS,), ("hello",), ("a", "{{content}}")):
        with pytest.raises(TemplateError, match="must be one string"):
            opened(PromptType("x", system=system, style=Style.SYSTEM_IN_USER))
