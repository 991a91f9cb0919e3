"""``right``, ``left`` and ``pair``: slices of what is written, and the rule for pairs in plain lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import (
    IGNORE,
    Sample,
    dialogues,
    each_format,
    encoded,
    opened,
    rendered,
    samples_of,
    several,
    words,
)

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.masking import policies, trained_flags

policy_names = st.sampled_from(["assistant", "last", "last-round"])
Pair = tuple[list[int], list[int]]


def cut(name: str, told: Dialogue, rule: str, limit: int, **changes: Any) -> Sample | None:
    """Return the sample of a dialogue, or None where nothing trained is left."""
    batch = encoded(opened(name), [told], overlong=rule, seq_length=limit, **changes)
    if batch.rejections:
        assert [(entry.turn, entry.reason) for entry in batch.rejections] == [(-1, "nothing-trained")]
        assert samples_of(batch) == []
        assert batch.notes == {}
        return None
    (sample,) = samples_of(batch)
    assert batch.notes[f"cut-{rule}"] == 1
    assert len(sample.ids) <= limit
    return sample


@each_format
@pytest.mark.parametrize("rule", ["right", "left"])
@several
@given(told=dialogues(), policy=policy_names, data=st.data())
def test_plain_cuts_are_slices(
    name: str, rule: str, told: Dialogue, policy: str, data: st.DataObject
) -> None:
    flags = trained_flags(policies.get(policy), told)
    whole = rendered(opened(name), told, flags)
    limit = data.draw(st.integers(1, len(whole.ids) - 1))
    own = slice(0, limit) if rule == "right" else slice(len(whole.ids) - limit, None)
    found = cut(name, told, rule, limit, train_on=policy)
    if all(label == IGNORE for label in whole.labels[own]):
        assert found is None
    else:
        assert found is not None
        assert (found.ids, found.labels) == (whole.ids[own], whole.labels[own])


@each_format
@pytest.mark.parametrize("rule", ["right", "left"])
def test_full_is_cut_like_any_other(name: str, rule: str) -> None:
    told = Dialogue([Message(Role.USER, "a" * 30), Message(Role.ASSISTANT, "b" * 30)], "c" * 10)
    (whole,) = samples_of(encoded(opened(name), [told], train_on="full"))
    limit = len(whole.ids) - 35
    found = cut(name, told, rule, limit, train_on="full")
    own = slice(0, limit) if rule == "right" else slice(35, None)
    assert found is not None
    assert (found.ids, found.labels) == (whole.ids[own], whole.labels[own])


# Pairs


class Chatml:
    """``qwen``, by hand: EOS is the token that ends a message, in the text."""

    name = "qwen"
    eos, late = "<|im_end|>", False

    def pieces(self, number: int, system: str, question: str, reply: str) -> tuple[list[str], list[str]]:
        opening = [f"<|im_start|>system\n{system}<|im_end|>\n"] if number == 0 else ["\n"]
        asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return [*opening, asked], [reply, self.eos]


class Gemma:
    """``gemma``, by hand: EOS is the label at the next source, and closes the sample."""

    name = "gemma"
    eos, late = "</s>", True

    def pieces(self, number: int, system: str, question: str, reply: str) -> tuple[list[str], list[str]]:
        opening = ["<s>", *([system] if system else [])] if number == 0 else ["<end_of_turn>\n"]
        return [*opening, f"<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n"], [reply]


HAND = [Chatml(), Gemma()]


def pairs_by_hand(form: Any, rounds: list[tuple[str, str]], system: str) -> tuple[list[Pair], int]:
    """Return the ids of sources and targets, and the id of EOS."""
    own = opened(form.name)._encoder  # type: ignore[attr-defined]

    def ids(texts: list[str]) -> list[int]:
        return [token for text in texts for token in own.encode([text]).ids.tolist()]

    found = []
    for number, (question, reply) in enumerate(rounds):
        source, target = form.pieces(number, system, question, reply)
        found.append((ids(source), ids(target)))
    (eos,) = ids([form.eos])
    return found, eos


def shares(source: int, target: int, left: int) -> tuple[int, int]:
    """Return how much of a source and of a target stays, as ``prompt_types.md`` says it."""
    if source + target <= left:
        return source, target
    if 2 * target < left:
        return left - target, target
    if 2 * source < left:
        return source, left - source
    kept = int(left * (target / (source + target)))
    return left - kept, kept


def pair_by_hand(
    pairs: list[Pair], flags: list[bool], limit: int, late: bool, closing: int, eos: int
) -> Pair:
    """Return ids and labels."""
    ids: list[int] = []
    labels: list[int] = []
    left = limit - max(1, closing)
    for number, (source, target) in enumerate(pairs):
        if left <= 0:
            break
        kept, said = shares(len(source), len(target), left)
        left -= kept + said
        teaches = late and number > 0 and flags[number - 1] and kept > 0
        ids += source[:kept] + target[:said]
        labels += [eos if teaches and place == 0 else IGNORE for place in range(kept)]
        labels += target[:said] if flags[number] else [IGNORE] * said
    return ids, labels


@pytest.mark.parametrize("form", HAND, ids=lambda form: form.name)
@pytest.mark.parametrize("append_eod", [False, True])
@several
@given(
    rounds=st.lists(st.tuples(words, words), min_size=1, max_size=5),
    lengths=st.lists(st.integers(0, 60), min_size=10, max_size=10),
    system=st.sampled_from(["S", "Be kind."]),
    policy=policy_names,
    data=st.data(),
)
def test_pairs_are_cut_as_by_hand(
    form: Any,
    append_eod: bool,
    rounds: list[tuple[str, str]],
    lengths: list[int],
    system: str,
    policy: str,
    data: st.DataObject,
) -> None:
    # Replies that are empty make no pair of their own where nothing ends them; these are not.
    rounds = [
        (question + "q" * lengths[2 * number], "r" + reply + "r" * lengths[2 * number + 1])
        for number, (question, reply) in enumerate(rounds)
    ]
    messages = [
        message
        for question, reply in rounds
        for message in (Message(Role.USER, question), Message(Role.ASSISTANT, reply))
    ]
    told = Dialogue(messages, system)
    flags = trained_flags(policies.get(policy), Dialogue(messages))[1::2]
    pairs, eos = pairs_by_hand(form, rounds, system)
    template = opened(form.name, **({"append_eod": True} if append_eod else {}))
    whole = rendered(template, told)
    closing = form.late + append_eod
    assert whole.ids == [token for pair in pairs for side in pair for token in side] + [eos] * closing
    limit = data.draw(st.integers(1, len(whole.ids) - 1))
    ids, labels = pair_by_hand(pairs, flags, limit, form.late, closing, eos)
    batch = encoded(template, [told], overlong="pair", seq_length=limit, train_on=policy)
    said = [label for label, token in zip(labels, ids, strict=True) if label == token]
    if not said:
        # What closes the sample is no reply.
        assert [entry.reason for entry in batch.rejections] == ["nothing-trained"]
        return
    (sample,) = samples_of(batch)
    assert (sample.ids, sample.labels) == (ids + [eos] * closing, labels + [eos] * closing)
    assert len(sample.ids) <= limit
    assert batch.notes["cut-pair"] == 1


@several
@given(told=dialogues(unanswered=False), data=st.data())
def test_pairs_of_a_chat_template_keep_their_starts(told: Dialogue, data: st.DataObject) -> None:
    """Each source and each target is cut at its end, and what comes behind a cut is lost or cut."""
    template = opened("chatml.jinja")
    whole = rendered(template, told)
    limit = data.draw(st.integers(1, len(whole.ids) - 1))
    found = cut("chatml.jinja", told, "pair", limit)
    if found is None:
        return
    runs: list[Pair] = [([], [])]
    for token, label in zip(whole.ids, whole.labels, strict=True):
        if label == IGNORE and runs[-1][1]:
            runs.append(([], []))
        runs[-1][label != IGNORE].append(token)
    expected = pair_by_hand(runs, [True] * len(runs), limit, False, 0, -1)
    assert (found.ids, found.labels) == expected


@pytest.mark.parametrize("name", ["qwen", "gemma"])
def test_an_end_of_what_was_cut_away_is_not_trained(name: str) -> None:
    told = Dialogue([Message(Role.USER, "a" * 80), Message(Role.ASSISTANT, "b")])
    for limit in (1, 2, 3):
        assert cut(name, told, "pair", limit) is None
    asked = [Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")]
    long = Dialogue([*asked, Message(Role.USER, "c" * 80), Message(Role.ASSISTANT, "d")])
    limit = len(rendered(opened(name), Dialogue(asked)).ids)
    assert cut(name, long, "pair", limit, train_on="last") is None
    assert cut(name, long, "pair", limit, train_on="assistant") is not None


@pytest.mark.parametrize(
    ("source", "target", "room", "kept"),
    [
        # Twice the one or the other is just the room: both give, in proportion.
        (30, 70, 60, (18, 42)),
        (70, 30, 60, (42, 18)),
        # One token more of room, and only the longer one gives.
        (30, 70, 61, (30, 31)),
        (70, 30, 61, (31, 30)),
        (60, 60, 60, (30, 30)),
        (90, 2, 60, (58, 2)),
        # Rounded down for the target, up for the source.
        (50, 45, 61, (33, 28)),
    ],
)
def test_the_shares_of_a_source_and_a_target(
    source: int, target: int, room: int, kept: tuple[int, int]
) -> None:
    (around,), _ = pairs_by_hand(HAND[0], [("", "")], "S")
    own = [len(side) for side in around]
    # Each line break is a token.
    texts = ["\n" * (source - own[0]), "\n" * (target - own[1])]
    told = Dialogue([Message(Role.USER, texts[0]), Message(Role.ASSISTANT, texts[1])], "S")
    whole = rendered(opened("qwen"), told)
    assert (len(whole.ids), sum(label != IGNORE for label in whole.labels)) == (source + target, target)
    found = cut("qwen", told, "pair", room + 1)
    assert found is not None
    assert (found.labels.count(IGNORE), len(found.ids)) == (kept[0], sum(kept))
