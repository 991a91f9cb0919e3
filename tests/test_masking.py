"""Mask policies: what is trained, by the text that the labels spell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import (
    IGNORE,
    JINJA,
    dialogues,
    each_format,
    encoded,
    opened,
    rendered,
    replies_text,
    reply_text,
    samples,
    samples_of,
    several,
    trained_text,
)

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.masking import policies, trained_flags
from mtsft_preproc.templates import Kind
from mtsft_preproc.tokenization import Encoder


@each_format
@several
@given(told=dialogues())
def test_assistant_trains_just_the_replies(name: str, told: Dialogue) -> None:
    template = opened(name)
    (sample,) = samples(template, told)
    assert trained_text(template, sample) == replies_text(name, told.messages)
    assert sample.ids == rendered(template, told).ids


@each_format
@several
@given(told=dialogues())
def test_each_reply_ends_with_a_stop_token_that_is_trained(name: str, told: Dialogue) -> None:
    template = opened(name)
    (sample,) = samples(template, told)
    own: Encoder = template._encoder  # type: ignore[attr-defined]
    stop = "<|im_end|>" if name != "gemma" else "</s>"
    replies = sum(message.role.is_target for message in told.messages)
    # Calls have the EOS of their own format.
    assert [own.decode([label]) for label in sample.labels if label in own.special_ids] == [stop] * replies


@each_format
@several
@given(told=dialogues())
def test_last_trains_the_last_reply(name: str, told: Dialogue) -> None:
    template = opened(name)
    (sample,) = samples(template, told, train_on="last")
    last = [message for message in told.messages if message.role.is_target][-1]
    assert trained_text(template, sample) == reply_text(name, last)


@each_format
@several
@given(told=dialogues())
def test_last_round_trains_all_replies_to_the_last_question(name: str, told: Dialogue) -> None:
    template = opened(name)
    (sample,) = samples(template, told, train_on="last-round")
    messages = list(told.messages)
    if messages[-1].role is Role.USER:
        messages.pop()
    question = max(number for number, message in enumerate(messages) if message.role is Role.USER)
    assert trained_text(template, sample) == replies_text(name, messages[question:])


@each_format
@several
@given(told=dialogues(), summary=st.sampled_from(["", "before"]))
def test_full_trains_all_but_the_system_text_and_bos(name: str, told: Dialogue, summary: str) -> None:
    template = opened(name)
    (sample,) = samples(template, told.but(summary=summary), train_on="full")
    kinds = template.encode([told], [[True] * len(told.messages)]).kinds.tolist()
    never = (Kind.PREFIX, Kind.SYSTEM)
    assert sample.labels == [
        IGNORE if kind in never else token for token, kind in zip(sample.ids, kinds, strict=True)
    ]
    spelled = trained_text(template, sample)
    said = [message for message in told.messages if name in JINJA or message is not told.messages[-1]]
    for message in said:
        assert (reply_text(name, message) if message.role.is_target else message.text) in spelled
    assert not told.system or told.system not in spelled


@each_format
@pytest.mark.parametrize("policy", ["assistant", "last", "last-round"])
@several
@given(told=dialogues(flagged=True))
def test_flags_of_messages_beat_the_policy(name: str, policy: str, told: Dialogue) -> None:
    template = opened(name)
    targets = [number for number, message in enumerate(told.messages) if message.role.is_target]
    answered = told.messages[: targets[-1]]
    users = [number for number, message in enumerate(answered) if message.role is Role.USER]
    first = {"assistant": 0, "last": targets[-1], "last-round": users[-1]}[policy]
    wanted = [
        message.role.is_target and (number >= first if message.train is None else message.train)
        for number, message in enumerate(told.messages)
    ]
    batch = encoded(template, [told], train_on=policy)
    if not any(wanted):
        assert [entry.reason for entry in batch.rejections] == ["nothing-trained"]
        return
    (sample,) = samples_of(batch)
    assert trained_text(template, sample) == replies_text(name, told.messages, wanted)


@each_format
def test_a_reply_that_is_flagged_untrained_stays_so_under_full(name: str) -> None:
    told = Dialogue([Message(Role.USER, "ask"), Message(Role.ASSISTANT, "secret", train=False)])
    (sample,) = samples(opened(name), told, train_on="full")
    assert "ask" in trained_text(opened(name), sample)
    assert "secret" not in trained_text(opened(name), sample)


U, A, R, S = Role.USER, Role.ASSISTANT, Role.OBSERVATION, Role.SYSTEM
SHAPES: list[tuple[str, list[Role], str, str, str]] = [
    # name, roles; trained by last, last-round, and last-round with tools
    ("plain", [U, A, U, A], "0001", "0001", "0001"),
    ("tools", [U, A, R, A, U, A, R, A], "00000001", "00000101", "00000111"),
    ("unanswered", [U, A, U], "010", "010", "010"),
    ("unanswered-twice", [U, A, U, U], "0100", "0100", "0100"),
    ("two-questions", [U, A, U, U, A], "00001", "00001", "00001"),
    ("greeting", [A, U, A], "001", "001", "001"),
    ("nobody-asks", [A, A], "01", "11", "11"),
    ("call-at-the-end", [U, A, R], "010", "010", "011"),
    ("system-inside", [U, A, S, U, A], "00001", "00001", "00001"),
]


@pytest.mark.parametrize(("roles", "last", "last_round", "tools"), [shape[1:] for shape in SHAPES],
                         ids=[shape[0] for shape in SHAPES])  # fmt: skip
def test_which_messages_a_policy_trains(roles: list[Role], last: str, last_round: str, tools: str) -> None:
    told = Dialogue([Message(role, "x") for role in roles])

    def found(policy: str, with_tools: bool = False) -> str:
        return "".join(str(int(flag)) for flag in trained_flags(policies.get(policy), told, with_tools))

    assert found("last") == last
    assert found("last-round") == last_round
    assert found("last-round", with_tools=True) == tools
    for policy in ("assistant", "split", "full"):
        assert found(policy) == "".join(str(int(role is A)) for role in roles)
        assert found(policy, with_tools=True) == "".join(str(int(role in (A, R))) for role in roles)


def test_a_flag_trains_no_words_that_the_model_never_writes() -> None:
    told = Dialogue([Message(role, "x", train=True) for role in (U, A, R, S)])
    assert trained_flags(policies.get("assistant"), told) == [False, True, False, False]
    assert trained_flags(policies.get("assistant"), told, tools=True) == [False, True, True, False]


def test_an_unknown_policy_is_refused_with_the_right_names() -> None:
    with pytest.raises(SettingsError, match=r"'last-turn'.*last-round"):
        policies.get("last-turn")
