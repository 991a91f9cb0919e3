"""Prompts for reinforcement learning, against formats that are written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import Given, config, each_format, opened, rendered, several, words
from test_documents import encoder as document_encoder

from mtsft_preproc.dialogue import Dialogue, Message, Record, Role
from mtsft_preproc.encoding import EncodedBatch
from mtsft_preproc.encoding.prompts import PromptEncoder
from mtsft_preproc.templates import PromptTemplate, Template, prompt_types
from mtsft_preproc.tokenization import Encoder


class GivenPPO(Given):
    objective = "ppo"


class GivenR1(Given):
    objective = "r1"


HANDLERS = {"ppo": GivenPPO, "r1": GivenR1}
IM_START, IM_END = "<|im_start|>", "<|im_end|>"


def encoder_of(template: Template) -> Encoder:
    found: Encoder = template._encoder  # type: ignore[attr-defined]
    return found


def encoded(
    objective: str, template: Template, found: Sequence[Dialogue], fields: Any = None, **changes: Any
) -> EncodedBatch:
    records = [Record(row, {"dialogue": told, **(fields or {})}) for row, told in enumerate(found)]
    return PromptEncoder(HANDLERS[objective](), template, encoder_of(template), config(**changes)).encode(
        records
    )


def lists(batch: EncodedBatch, name: str = "input_ids", group: str = "prompt") -> list[list[int]]:
    """Return the ids of each item of a dataset."""
    ids, found = batch.tokens[f"packed_{name}"].tolist(), []
    for length in batch.lengths[group].tolist():
        found.append(ids[:length])
        ids = ids[length:]
    assert ids == []
    return found


def texts(template: Template, batch: EncodedBatch) -> list[str]:
    return [encoder_of(template).decode(ids) for ids in lists(batch)]


def told(*said: str, system: str = "") -> Dialogue:
    roles = (Role.USER, Role.ASSISTANT)
    return Dialogue([Message(roles[number % 2], text) for number, text in enumerate(said)], system)


def by_hand(name: str, rounds: list[tuple[str, str]], system: str, keeps_replies: bool) -> str:
    """Write a prompt out."""
    found = ""
    for number, (question, reply) in enumerate(rounds):
        said = reply if keeps_replies else None
        first, last = number == 0, number == len(rounds) - 1
        if name == "gemma":
            found += f"<s>{system}" if first else "<end_of_turn>\n"
            found += f"<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n"
            found += said or ""
        else:
            system = system or ("You are a helpful assistant." if name == "qwen" else "")
            found += f"{IM_START}system\n{system}{IM_END}\n" if first and system else ""
            found += "\n" if not first and name == "qwen" else ""
            found += f"{IM_START}user\n{question}{IM_END}\n{IM_START}assistant\n"
            found += f"{said}{IM_END}" if said is not None and not last else ""
            # The line break behind a reply is the template's.
            found += "\n" if name == "chatml.jinja" and not last else ""
        if last and name == "gemma" and said:
            found = found[: -len(said)]
    return found


@each_format
@pytest.mark.parametrize("objective", ["ppo", "r1"])
@several
@given(
    rounds=st.lists(st.tuples(words, words.map("r{}".format)), min_size=1, max_size=4),
    system=st.sampled_from(["", "Be kind."]),
)
def test_a_prompt_is_what_stands_before_the_last_reply(
    name: str, objective: str, rounds: list[tuple[str, str]], system: str
) -> None:
    template = opened(name)
    batch = encoded(objective, template, [told(*(text for pair in rounds for text in pair), system=system)])
    assert batch.rejections == []
    assert texts(template, batch) == [by_hand(name, rounds, system, objective == "r1")]
    assert batch.trained.tolist() == [0]


@pytest.mark.parametrize("objective", ["ppo", "r1"])
def test_nothing_of_an_earlier_reply_is_lost_where_the_last_says_nothing(objective: str) -> None:
    """In a format that writes no stop token, such a reply has no token at all."""
    template = opened("trl")
    batch = encoded(objective, template, [told("a", "b", "c", "")])
    assert texts(template, batch) == ["<s>abc" if objective == "r1" else "<s>ac"]
    assert batch.notes["empty-reply"] == 1


@each_format
@pytest.mark.parametrize("objective", ["ppo", "r1"])
def test_a_prompt_that_is_too_long_is_rejected(name: str, objective: str) -> None:
    """The reply, which is no part of it, may be as long as it likes."""
    template = opened(name)
    found = [told("a", "b" * 90), told("a" * 50, "b")]
    lengths = [len(ids) for ids in lists(encoded(objective, template, found))]
    batch = encoded(objective, template, found, seq_length=lengths[1])
    assert batch.rejections == []
    batch = encoded(objective, template, found, seq_length=lengths[1] - 1)
    (entry,) = batch.rejections
    assert (entry.row, entry.reason, entry.got) == (1, "overlong", f"{lengths[1]} tokens")
    assert [len(ids) for ids in lists(batch)] == lengths[:1]


@pytest.mark.parametrize("objective", ["ppo", "r1"])
def test_a_dialogue_that_ends_with_a_question_is_rejected(objective: str) -> None:
    batch = encoded(objective, opened("qwen"), [told("a", "b", "c"), told("a", "b")])
    assert [(entry.row, entry.reason) for entry in batch.rejections] == [(0, "role-order")]
    assert batch.rows.tolist() == [1]


KEYS = {"dataset_additional_keys": ("labels", "answer")}


def test_additional_keys_become_datasets() -> None:
    template = opened("qwen")
    found = [told("a", "the reply"), told("a", "b", "c", "漢\n")]
    batch = encoded("r1", template, found, {"answer": " 42"}, keep_columns=("answer",), **KEYS)
    own = encoder_of(template)
    for key, expected in (("labels", ["the reply", "漢\n"]), ("answer", [" 42", " 42"])):
        assert [own.decode(ids) for ids in lists(batch, key, key)] == expected
        assert not own.special_ids.intersection(batch.tokens[f"packed_{key}"].tolist())
    assert batch.kept == [[" 42"], [" 42"]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({}, "missing-field"), ({"answer": None}, "missing-field"), ({"answer": 42}, "wrong-type")],
)
def test_a_record_without_the_text_of_a_key_is_rejected(fields: dict[str, Any], reason: str) -> None:
    batch = encoded("r1", opened("qwen"), [told("a", "b")], fields, **KEYS)
    assert [(entry.reason, entry.field) for entry in batch.rejections] == [(reason, "answer")]
    assert lists(batch) == lists(batch, "labels", "labels") == []


@pytest.mark.parametrize("in_text", ["plain", "allow", "reject"])
def test_words_of_additional_keys_forge_no_control_tokens(in_text: str) -> None:
    template = opened("qwen", special_tokens_in_text=in_text)
    answers = [told("a", "b"), told("a", f"x{IM_END}y"), told("a", "c")]
    changes = {**KEYS, "dataset_additional_keys": ("labels",), "special_tokens_in_text": in_text}
    batch = encoded("r1", template, answers, **changes)
    own = encoder_of(template)
    if in_text == "reject":
        assert [(entry.row, entry.reason) for entry in batch.rejections] == [(1, "special-token")]
        assert batch.rows.tolist() == [0, 2]
        return
    assert batch.rejections == []
    assert batch.notes == {"special-token-in-text": 1}
    found = lists(batch, "labels", "labels")
    assert [own.decode(ids) for ids in found] == ["b", f"x{IM_END}y", "c"]
    assert sum(index in own.special_ids for index in found[1]) == (in_text == "allow")


def test_additional_keys_have_nothing_around_them() -> None:
    """Where the tokenizer puts BOS in front of each text that it encodes by itself."""
    own = document_encoder("bos")
    assert own.spec.auto_prefix == (own.spec.bos_id,)
    template = PromptTemplate(prompt_types.get("trl"), own)
    changes = {"dataset_additional_keys": ("labels",)}
    batch = encoded("r1", template, [told("a", "b c"), told("a", "</s>")], **changes)
    found = lists(batch, "labels", "labels")
    assert found[0] == own.encode(["b c"]).ids.tolist()
    assert own.decode(found[1]) == "</s>"
    assert own.spec.bos_id not in found[1]


def test_only_the_last_reply_ends_a_prompt() -> None:
    """Also where words are the same as those of an earlier one."""
    template = opened("qwen")
    found = told("a", "same", "b", "same")
    (ids,) = lists(encoded("r1", template, [found]))
    whole = rendered(template, found, [False, False, False, True])
    assert ids == whole.ids[: next(place for place, label in enumerate(whole.labels) if label != -100)]
    assert encoder_of(template).decode(ids).count("same") == 1
