"""``recent``, ``head`` and ``window`` against a search that tries every number of rounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import (
    FORMATS,
    Sample,
    dialogues,
    each_format,
    encoded,
    opened,
    rendered,
    samples_of,
    several,
    trained_text,
    words,
)

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.masking import policies, trained_flags
from mtsft_preproc.templates import Template
from mtsft_preproc.truncation import ROUND_RULES, round_starts

U, A, R = Role.USER, Role.ASSISTANT, Role.OBSERVATION

#: Where between the shortest round and the whole the limit lies.
limits = st.floats(0, 1)
policy_names = st.sampled_from(["assistant", "last", "last-round"])


def borders(told: Dialogue) -> list[int]:
    """Return where rounds start, and the end; a question at the end that nobody answers is no round."""
    starts = [number for number, message in enumerate(told.messages) if message.role is U]
    if told.messages[-1].role is U:
        starts.pop()
    return [*starts, len(told.messages)]


def part(told: Dialogue, start: int, end: int) -> Dialogue:
    """Return some rounds, as a cut has to write them."""
    places = borders(told)
    system = told.system
    if start and told.summary:
        system = f"{system}\n\n{told.summary}" if system else told.summary
    return told.but(messages=told.messages[places[start] : places[end]], system=system)


def limit_of(template: Template, told: Dialogue, share: float) -> int:
    """Return a limit that the whole is over."""
    count = len(borders(told)) - 1
    shortest = min(len(rendered(template, part(told, at, at + 1)).ids) for at in range(count))
    whole = len(rendered(template, told).ids)
    return max(1, min(whole - 1, shortest - 1 + round(share * (whole - shortest))))


def pair(sample: Sample) -> tuple[list[int], list[int]]:
    return sample.ids, sample.labels


def rejected(batch: Any) -> list[tuple[int, str]]:
    return [(entry.turn, entry.reason) for entry in batch.rejections]


@each_format
@several
@given(told=dialogues(summary=True), share=limits, policy=policy_names)
def test_recent_keeps_the_newest_rounds_that_fit(
    name: str, told: Dialogue, share: float, policy: str
) -> None:
    template = opened(name)
    limit = limit_of(template, told, share)
    flags = trained_flags(policies.get(policy), told)
    batch = encoded(template, [told], train_on=policy, seq_length=limit, overlong="recent")
    places = borders(told)
    count = len(places) - 1
    for start in range(1, count):
        expected = rendered(template, part(told, start, count), flags[places[start] :])
        if len(expected.ids) <= limit:
            assert [pair(sample) for sample in samples_of(batch)] == [pair(expected)]
            assert batch.notes["cut-recent"] == 1
            break
    else:
        assert rejected(batch) == [(-1, "overlong")]


@each_format
@several
@given(told=dialogues(summary=True), share=limits)
def test_head_keeps_the_first_rounds_that_fit(name: str, told: Dialogue, share: float) -> None:
    template = opened(name)
    limit = limit_of(template, told, share)
    batch = encoded(template, [told], seq_length=limit, overlong="head")
    for end in range(len(borders(told)) - 2, 0, -1):
        expected = rendered(template, part(told, 0, end))
        if len(expected.ids) <= limit:
            assert [pair(sample) for sample in samples_of(batch)] == [pair(expected)]
            assert batch.notes["cut-head"] == 1
            break
    else:
        assert rejected(batch) == [(-1, "overlong")]


def windows(template: Template, told: Dialogue, flags: Sequence[bool], limit: int) -> list[Any] | None:
    """Return the samples of ``window`` (turn, ids, labels); None where a round alone is too long."""
    told = told.but(summary="")  # one window trains what a summary in the next would tell
    places = borders(told)
    by_start: dict[int, list[int]] = {}
    for number in range(len(places) - 1):
        if not any(flags[places[number] : places[number + 1]]):
            continue
        for start in range(number + 1):
            if len(rendered(template, part(told, start, number + 1)).ids) <= limit:
                by_start.setdefault(start, []).append(number)
                break
        else:
            return None
    found = []
    for start, rounds in by_start.items():
        own = [False] * len(flags)
        for number in rounds:
            own[places[number] : places[number + 1]] = flags[places[number] : places[number + 1]]
        piece = part(told, start, rounds[-1] + 1)
        expected = rendered(template, piece, own[places[start] : places[rounds[-1] + 1]])
        found.append((own.index(True), *pair(expected)))
    return found


@each_format
@several
@given(told=dialogues(summary=True, flagged=True), share=limits, policy=policy_names)
def test_window_gives_each_round_all_the_context_that_fits(
    name: str, told: Dialogue, share: float, policy: str
) -> None:
    template = opened(name)
    limit = limit_of(template, told, share)
    flags = trained_flags(policies.get(policy), told)
    batch = encoded(template, [told], train_on=policy, seq_length=limit, overlong="window")
    expected = windows(template, told, flags, limit) if any(flags) else []
    if expected:
        found = [(sample.turn, *pair(sample)) for sample in samples_of(batch)]
        assert found == expected
        assert batch.notes["cut-window"] == 1
    else:
        assert rejected(batch) == [(-1, "overlong" if expected is None else "nothing-trained")]


def trained_numbers(template: Template, batch: Any) -> list[int]:
    """Return the numbers that the trained messages start with; see ``test_masking.dialogues``."""
    texts = "".join(f"\n{trained_text(template, sample)}" for sample in samples_of(batch))
    return [int(number) for number in re.findall(r"(\d+):", texts)]


@each_format
@several
@given(told=dialogues(), share=limits)
def test_window_trains_each_reply_once(name: str, told: Dialogue, share: float) -> None:
    template = opened(name)
    limit = limit_of(template, told, share)
    batch = encoded(template, [told], seq_length=limit, overlong="window")
    if not batch.rejections:
        replies = [number for number, message in enumerate(told.messages) if message.role is A]
        assert trained_numbers(template, batch) == replies
        assert batch.lengths["sample"].max() <= limit


@st.composite
def thoughtful(draw: st.DrawFn) -> Dialogue:
    """Draw a dialogue with thoughts that a format may leave out of history."""
    messages = []
    for number in range(0, 2 * draw(st.integers(2, 6)), 2):
        thought = f"<think>{'x' * draw(st.integers(1, 60))}</think>" if draw(st.booleans()) else ""
        messages += [
            Message(U, f"{number}:{draw(words)}"),
            Message(A, f"{thought}{number + 1}:{draw(words)}"),
        ]
    return Dialogue(messages)


@several
@given(told=thoughtful(), share=limits)
def test_window_trains_each_reply_once_where_longer_dialogues_are_shorter_texts(
    told: Dialogue, share: float
) -> None:
    template = opened("forgetful.jinja")
    limit = limit_of(template, told, share)
    batch = encoded(template, [told], seq_length=limit, overlong="window")
    if not batch.rejections:
        assert sorted(trained_numbers(template, batch)) == list(range(1, len(told.messages), 2))
        assert batch.lengths["sample"].max() <= limit


def test_a_round_that_has_another_start_than_its_neighbours_is_trained_once() -> None:
    """Its thought leaves no room for the first round, but in the third round it is not written."""
    template = opened("forgetful.jinja")
    texts = ["0:", "1:", "2:", f"<think>{'x' * 200}</think>3:", "4:", "5:", "6:" + "y" * 190, "7:"]
    told = Dialogue([Message((U, A)[number % 2], text) for number, text in enumerate(texts)])
    limit = len(rendered(template, Dialogue(told.messages[2:4])).ids)
    assert len(rendered(template, Dialogue(told.messages[:4])).ids) > limit
    assert len(rendered(template, Dialogue(told.messages[:6])).ids) <= limit
    batch = encoded(template, [told], seq_length=limit, overlong="window")
    assert batch.rejections == []
    assert batch.turns.tolist() == [1, 3, 7]
    assert [trained_text(template, sample) for sample in samples_of(batch)] == ["1:5:", texts[3], "7:"]


@each_format
@several
@given(told=dialogues(), share=limits, rule=st.sampled_from(ROUND_RULES))
def test_split_samples_are_cut_on_their_own(name: str, told: Dialogue, share: float, rule: str) -> None:
    """As if each were the only sample of its record."""
    template = opened(name)
    limit = limit_of(template, told, share)
    batch = encoded(template, [told], train_on="split", seq_length=limit, overlong=rule)
    found = {sample.turn: pair(sample) for sample in samples_of(batch)}
    lost = {entry.turn: entry.reason for entry in batch.rejections}
    reasons: dict[int, str] = {}
    for target, message in enumerate(told.messages):
        if message.role is not A:
            continue
        alone = told.but(messages=told.messages[: target + 1])
        one = encoded(template, [alone], train_on="last", seq_length=limit, overlong=rule)
        if one.rejections:
            reasons[target] = one.rejections[0].reason
        else:
            (sample,) = samples_of(one)
            assert found.pop(target) == pair(sample)
    assert not found
    if len(reasons) == sum(message.role is A for message in told.messages):
        assert lost.keys() == {-1}
    else:
        assert lost == reasons


@each_format
@pytest.mark.parametrize("rule", [*ROUND_RULES, "right", "left", "pair", "drop", "fail"])
@several
@given(told=dialogues(summary=True))
def test_a_sample_of_just_the_limit_is_kept_as_it_is(name: str, rule: str, told: Dialogue) -> None:
    template = opened(name)
    expected = rendered(template, told)
    batch = encoded(template, [told], seq_length=len(expected.ids), overlong=rule)
    assert [pair(sample) for sample in samples_of(batch)] == [pair(expected)]
    assert not any(note.startswith("cut-") for note in batch.notes)


@each_format
def test_a_result_is_never_parted_from_its_call(name: str) -> None:
    call = Message(A, "", tool_calls=(ToolCall("find", {"city": "x"}),))
    told = Dialogue(
        [
            Message(U, "0"), Message(A, "1"),
            Message(U, "2"), call, Message(R, "4"), call, Message(R, "6"), Message(A, "7"),
            Message(U, "8"), Message(A, "9"),
        ]
    )  # fmt: skip
    template = opened(name)
    allowed = {len(rendered(template, part(told, start, 3)).ids) for start in range(3)}
    assert len(allowed) == 3
    for limit in range(min(allowed), max(allowed) + 1):
        batch = encoded(template, [told], seq_length=limit, overlong="recent")
        assert len(samples_of(batch)[0].ids) == max(length for length in allowed if length <= limit)


@pytest.mark.parametrize(("system", "opening"), [("Be kind.", "Be kind.\n\nBefore."), ("", "Before.")])
def test_the_summary_stands_where_something_was_cut(system: str, opening: str) -> None:
    turns = [Message(U, "0"), Message(A, "1"), Message(U, "2"), Message(A, "3")]
    template = opened("chatml.jinja")
    told = Dialogue(turns, system, summary="Before.")
    plain = rendered(template, Dialogue(turns, system))
    assert pair(rendered(template, told)) == pair(plain)
    cut = Dialogue(turns[2:], opening)
    limit = len(rendered(template, cut).ids)
    long = told.but(messages=[Message(U, "0" * limit), *turns[1:]])
    # Windows train what the summary tells, one of them in front of it.
    for rule, shorter in (("recent", cut), ("window", Dialogue(turns[2:], system))):
        batch = encoded(template, [long], seq_length=limit, overlong=rule, train_on="last")
        assert [pair(sample) for sample in samples_of(batch)] == [pair(rendered(template, shorter))]
    # The first rounds know nothing of what comes behind them.
    long = told.but(messages=[*turns[:3], Message(A, "3" * limit)])
    (sample,) = samples_of(encoded(template, [long], seq_length=limit, overlong="head"))
    assert pair(sample) == pair(rendered(template, Dialogue(turns[:2], system)))


@each_format
def test_a_question_that_nobody_answers_is_no_round(name: str) -> None:
    template = opened(name)
    told = Dialogue(
        [Message(U, "a" * 30), Message(A, "b"), Message(U, "c"), Message(A, "d"), Message(U, "e")]
    )
    last = told.but(messages=told.messages[2:])
    for limit in range(len(rendered(template, last).ids), len(rendered(template, told).ids)):
        (sample,) = samples_of(encoded(template, [told], seq_length=limit, overlong="recent"))
        assert pair(sample) == pair(rendered(template, last))


@pytest.mark.parametrize("rule", ROUND_RULES)
def test_a_round_that_is_too_long_alone_is_said(rule: str) -> None:
    told = Dialogue([Message((U, A)[number % 2], "x" * 40) for number in range(6)])
    for name in FORMATS:
        (entry,) = encoded(opened(name), [told], seq_length=30, overlong=rule).rejections
        assert (entry.reason, entry.expected) == ("overlong", "at most 30 tokens")
        which = {"recent": "the last round", "head": "the first round", "window": "round 1 of 3"}[rule]
        assert entry.got == f"more than that in {which} alone"


def test_a_dialogue_that_is_cut_leaves_its_neighbours_alone() -> None:
    template = opened("qwen")
    short = Dialogue([Message(U, "a"), Message(A, "b")])
    long = Dialogue([Message((U, A)[number % 2], f"{number}:" + "x" * 20) for number in range(8)])
    limit = len(rendered(template, part(long, 1, 4)).ids)
    for rule in ROUND_RULES:
        batch = encoded(template, [short, long, short], seq_length=limit, overlong=rule)
        found = samples_of(batch)
        assert [sample.row for sample in found] == [0, *[1] * (len(found) - 2), 2]
        assert pair(found[0]) == pair(found[-1]) == pair(rendered(template, short))
        assert batch.notes == {f"cut-{rule}": 1}


SHAPES = [
    ([U, A], [0]),
    ([U, A, U, A], [0, 2]),
    ([U, U, A, U, U, A], [0, 3]),
    ([U, A, R, A, U, A, R, R, A], [0, 4]),
    ([A, U, A], [0, 1]),
    ([A, A], [0]),
    ([U, A, U], [0]),
    ([U, A, U, U], [0]),
    ([U, A, Role.SYSTEM, U, A], [0, 3]),
    ([U], [0]),
]


@pytest.mark.parametrize(("roles", "starts"), SHAPES, ids=lambda shape: "".join(str(int(x)) for x in shape))
def test_where_rounds_start(roles: list[Role], starts: list[int]) -> None:
    assert round_starts([Message(role, "x") for role in roles]) == starts
