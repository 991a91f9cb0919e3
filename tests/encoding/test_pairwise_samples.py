"""Preference pairs: one prompt, two replies, both or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import (
    FORMATS,
    Sample,
    config,
    dialogues,
    each_format,
    opened,
    rendered,
    reply_text,
    several,
    text_of,
    trained_text,
    words,
)

from mtsft_preproc.dialogue import Dialogue, Message, Record, Role
from mtsft_preproc.encoding import EncodedBatch
from mtsft_preproc.encoding.pairwise import PairEncoder
from mtsft_preproc.handlers import PairHandler
from mtsft_preproc.templates import Template

SIDES = ("chosen", "rejected")


class GivenPair(PairHandler):
    """Hands over the pair that stands in the record."""

    keys: ClassVar[Mapping[str, str | None]] = {}
    required = ()

    def pair(self, record: Mapping[str, Any]) -> tuple[Dialogue, Dialogue]:
        chosen, rejected = record["pair"]
        return chosen, rejected


Both = tuple[Dialogue, Dialogue]


def encoded(template: Template, pairs: Sequence[Both], **changes: Any) -> EncodedBatch:
    records = [Record(row, {"pair": pair, "id": f"p{row}"}) for row, pair in enumerate(pairs)]
    return PairEncoder(GivenPair(), template, config(**changes)).encode(records)


def sides_of(batch: EncodedBatch) -> list[tuple[Sample, Sample]]:
    """Cut a batch into its pairs."""
    found: list[list[Sample]] = []
    for side in SIDES:
        ids, labels = (batch.tokens[f"packed_{side}_{name}"].tolist() for name in ("input_ids", "labels"))
        own, start = [], 0
        for length, row in zip(batch.lengths[side].tolist(), batch.rows.tolist(), strict=True):
            here = slice(start, start + length)
            own.append(Sample(row, -1, ids[here], labels[here]))
            start += length
        assert start == len(ids) == len(labels)
        found.append(own)
    return list(zip(*found, strict=True))


def pair_of(told: Dialogue, chosen: str, rejected: str) -> Both:
    """Return a dialogue with either reply to its last question."""
    asked = told.messages[:-1]
    one, other = (
        Dialogue([*asked, Message(Role.ASSISTANT, text)], told.system) for text in (chosen, rejected)
    )
    return one, other


def told(*texts: str, system: str = "") -> Dialogue:
    roles = (Role.USER, Role.ASSISTANT)
    return Dialogue([Message(roles[number % 2], text) for number, text in enumerate(texts)], system)


@each_format
@several
@given(found=dialogues(unanswered=False), chosen=words, rejected=words)
def test_both_sides_share_the_prompt_and_train_their_reply(
    name: str, found: Dialogue, chosen: str, rejected: str
) -> None:
    template = opened(name)
    pair = pair_of(found, f"C:{chosen}", f"R:{rejected}")
    batch = encoded(template, [pair])
    assert batch.rejections == []
    ((one, other),) = sides_of(batch)
    prompts = []
    for side, sample in zip(pair, (one, other), strict=True):
        flags = [False] * (len(side.messages) - 1) + [True]
        expected = rendered(template, side, flags)
        assert (sample.ids, sample.labels) == (expected.ids, expected.labels)
        assert trained_text(template, sample) == reply_text(name, side.messages[-1])
        first = next(place for place, label in enumerate(sample.labels) if label != -100)
        assert sample.labels[first] == sample.ids[first]
        prompts.append(sample.ids[:first])
    assert prompts[0] == prompts[1]
    assert batch.turns.tolist() == [-1]


@each_format
@pytest.mark.parametrize("side", SIDES)
def test_a_side_that_is_too_long_takes_the_other_with_it(name: str, side: str) -> None:
    template = opened(name)
    short = told("a", "b", "c", "d")
    replies = ("d" * 40, "d") if side == "chosen" else ("d", "d" * 40)
    limit = len(rendered(template, pair_of(short, "d" * 40, "")[0]).ids)
    pairs = [pair_of(short, "x", "y"), pair_of(short, *replies), pair_of(short, "z", "w")]
    assert encoded(template, pairs, seq_length=limit).rejections == []
    batch = encoded(template, pairs, seq_length=limit - 1, keep_columns=("id",))
    (entry,) = batch.rejections
    assert (entry.row, entry.reason, entry.field) == (1, "overlong", side)
    assert (entry.expected, entry.got) == (f"at most {limit - 1} tokens", f"{limit} tokens")
    assert batch.rows.tolist() == [0, 2]
    assert batch.kept == [["p0"], ["p2"]]
    spelled = [[trained_text(template, sample) for sample in pair] for pair in sides_of(batch)]
    assert spelled == [["x", "y"], ["z", "w"]]


@pytest.mark.parametrize("side", SIDES)
def test_a_side_that_can_not_be_written_takes_the_other_with_it(side: str) -> None:
    good = pair_of(told("a", "b"), "x", "y")
    odd = told("a", "b", "c", "d")
    odd.messages[1] = Message(Role.USER, "nobody answered")
    bad = (odd, good[1]) if side == "chosen" else (good[0], odd)
    batch = encoded(opened("qwen"), [good, bad, good])
    assert [(entry.row, entry.reason) for entry in batch.rejections] == [(1, "role-order")]
    assert batch.rows.tolist() == [0, 2]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("empty_reply", ["keep", "reject", "untrained"])
@pytest.mark.parametrize("side", SIDES)
def test_a_reply_that_says_nothing(name: str, empty_reply: str, side: str) -> None:
    pair = pair_of(told("a", "b"), *(("", "y") if side == "chosen" else ("x", "")))
    batch = encoded(opened(name), [pair], empty_reply=empty_reply)
    if empty_reply == "keep":
        assert batch.rejections == []
        assert batch.notes["empty-reply"] == 1
    else:
        reason = "empty-reply" if empty_reply == "reject" else "nothing-trained"
        assert [entry.reason for entry in batch.rejections] == [reason]
        assert sides_of(batch) == []


def test_a_pair_is_noted_once() -> None:
    pair = pair_of(told("a<|im_end|>", "b"), "", "")
    pair[0].notes.append("equal-pair")
    batch = encoded(opened("qwen"), [pair, pair_of(told("a", "b"), "x", "y")])
    assert batch.notes == {"special-token-in-text": 1, "empty-reply": 1, "equal-pair": 1}


THOUGHT = "<think>\nhm\n</think>\n\n"
EMPTY = "<think>\n\n</think>\n\n"


def chatml(*texts: str) -> str:
    """Write ``qwen3`` by hand, control tokens left out."""
    roles = ("user", "assistant")
    return "".join(f"{roles[number % 2]}\n{text}\n" for number, text in enumerate(texts))


@pytest.mark.parametrize(
    ("thinking", "chosen", "written", "trained"),
    [
        ("none", "C", EMPTY + "C", "C\n"),
        ("true", "C", EMPTY + "C", EMPTY + "C\n"),
        ("false", "C", EMPTY + "C", "C\n"),
        ("none", THOUGHT + "C", THOUGHT + "C", THOUGHT + "C\n"),
        ("true", THOUGHT + "C", THOUGHT + "C", THOUGHT + "C\n"),
        ("false", THOUGHT + "C", EMPTY + "C", "C\n"),
    ],
    ids=["none", "true", "false", "none-thoughtful", "true-thoughtful", "false-thoughtful"],
)
def test_thoughts_are_left_out_of_earlier_replies_alone(
    thinking: str, chosen: str, written: str, trained: str
) -> None:
    """And an empty one stands in the last turn alone."""
    template = opened("qwen3", enable_thinking=thinking)
    found = told("q1", f"{THOUGHT}A1", "q2", "A2", "q3", "-")
    ((one, other),) = sides_of(encoded(template, [pair_of(found, chosen, "R")]))
    history = chatml("q1", "A1", "q2", "A2")
    assert text_of(template, one.ids) == history + chatml("q3", written)
    assert text_of(template, other.ids) == history + chatml("q3", EMPTY + "R")
    assert trained_text(template, one) == trained
    assert trained_text(template, other) == (f"{EMPTY}R\n" if thinking == "true" else "R\n")


def test_thoughts_that_stand_apart_are_left_out_of_earlier_replies() -> None:
    template = opened("qwen3")
    found = told("q1", "A1", "q2", "-")
    found.messages[1].reasoning = "hm"
    one, other = pair_of(found, "C", "R")
    one = one.but(messages=[*one.messages[:-1], Message(Role.ASSISTANT, "C", "so")])
    ((chosen, rejected),) = sides_of(encoded(template, [(one, other)]))
    assert text_of(template, chosen.ids) == chatml("q1", "A1", "q2", "<think>\nso\n</think>\n\nC")
    assert text_of(template, rejected.ids) == chatml("q1", "A1", "q2", f"{EMPTY}R")


@several
@given(
    limit=st.integers(1, 60),
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=6),
)
def test_pairs_reconcile(limit: int, lengths: list[tuple[int, int]]) -> None:
    template = opened("gemma")
    pairs = [pair_of(told("a", "b"), "x" * one, "y" * other) for one, other in lengths]
    batch = encoded(template, pairs, seq_length=limit)
    fit = [
        row
        for row, pair in enumerate(pairs)
        if max(len(rendered(template, side).ids) for side in pair) <= limit
    ]
    assert batch.rows.tolist() == fit
    assert sorted([*fit, *(entry.row for entry in batch.rejections)]) == list(range(len(pairs)))
    assert all(max(len(one.ids), len(other.ids)) <= limit for one, other in sides_of(batch))
