"""A dialogue is the same whether its messages are given as a list or in columns."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Outline, Role, ToolCall
from mtsft_preproc.encoding.digests import dialogue_digest
from mtsft_preproc.encoding.rules import check_dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.masking import policies, trained_flags
from mtsft_preproc.truncation.pieces import Piece, sizes

TEXT = st.sampled_from(["", "hi", "日本", "a b"])
MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(Role),
        st.none() | TEXT,
        st.sampled_from([None, None, "", "hm"]),
        st.sampled_from([(), (), (ToolCall("f", {"x": 1}),), (ToolCall("f", {}, "c1"), ToolCall("g", {}))]),
        st.sampled_from([None, None, "f"]),
        st.sampled_from([None, None, "c1"]),
        st.sampled_from([None, None, True, False]),
    )
    | st.builds(Message, st.sampled_from(Role), TEXT),
    min_size=1,
    max_size=6,
)

FULL = {
    "content": None,
    "reasoning": "",
    "tool_calls": (ToolCall("f", {}),),
    "name": "f",
    "call_id": "c1",
    "train": False,
}


def both(messages: list[Message]) -> tuple[Dialogue, Dialogue]:
    """Return a dialogue of a list, and the same in columns."""
    outline = Outline.of(copy.deepcopy(messages))
    return Dialogue(messages, "s", [{"name": "f"}]), Dialogue(outline, "s", [{"name": "f"}])


def outcome(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except RecordError as error:
        return error.reason, error.field, error.expected, error.got


def test_every_field_but_role_and_text_makes_a_message_rich() -> None:
    assert not Message(Role.USER, "").is_rich
    assert [field.name for field in fields(Message)] == ["role", *FULL]
    for name, value in FULL.items():
        message = replace(Message(Role.ASSISTANT, "hi"), **{name: value})
        assert message.is_rich, name
        assert Outline.of([message]).rich == {0: message}


@given(MESSAGES)
def test_columns_tell_all_that_the_messages_do(messages: list[Message]) -> None:
    roles, texts, rich = Outline.of(messages)
    assert list(roles) == [message.role for message in messages]
    assert texts == [message.content or "" for message in messages]
    assert list(rich) == sorted(rich)
    listed, columns = both(messages)
    assert columns.messages == messages
    assert type(columns.messages[0].role) is Role
    assert columns == listed
    assert repr(columns) == repr(listed)


@given(MESSAGES)
def test_what_is_made_of_a_dialogue_is_the_same(messages: list[Message]) -> None:
    for function in (
        check_dialogue,
        dialogue_digest,
        sizes,
        lambda told: trained_flags(policies.get("last-round"), told, tools=True),
        lambda told: Piece(0, told, []).weight,
        lambda told: told.but(system="t"),
        lambda told: told.but(messages=[]),
        lambda told: pickle.loads(pickle.dumps(told)),
        copy.deepcopy,
    ):
        listed, columns = both(messages)
        assert outcome(function, columns) == outcome(function, listed)


def test_a_message_that_a_handler_changes_counts() -> None:
    _, columns = both([Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")])
    columns.messages[1].content = "c"
    columns.messages.append(Message(Role.USER, "d"))
    assert columns.outline.texts == ["a", "c", "d"]
    assert list(columns.outline.roles) == [0, 1, 0]


def test_messages_that_a_handler_puts_in_their_place_count() -> None:
    for told in both([Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")]):
        assert told.outline.texts == ["a", "b"]
        told.messages = told.messages[:1]
        assert told.outline.texts == ["a"]
        assert told.messages == [Message(Role.USER, "a")]


@pytest.mark.parametrize("first", [0, 1])
def test_two_in_columns_are_equal(first: int) -> None:
    pair = [both([Message(Role.USER, "a")])[1] for _ in range(2)]
    assert pair[first] == pair[1 - first]
    assert pair[0] != both([Message(Role.USER, "b")])[1]


def test_one_of_no_messages_can_be_changed() -> None:
    changed = Dialogue([]).but(one_turn=True)
    assert changed == Dialogue([], one_turn=True)
    assert changed.outline == Outline(b"", [], {})
