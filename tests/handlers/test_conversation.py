"""The generic schema: roles under many names, states, results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import HandlerOptions, handlers
from mtsft_preproc.handlers.conversation import ConversationHandler

PLAIN = ConversationHandler({"tools": "tools"})
RENDERING = ConversationHandler(options=HandlerOptions(render_state=True))
Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
STATE = {"intent": "订票", "slots": {"to": "北京", "on": [1, None]}}
LINE = '{"intent": "订票", "slots": {"to": "北京", "on": [1, null]}}'
CALLING = {"role": "assistant", "tool_call": {"name": "f", "arguments": {"x": 1}}}


def dialogue(*messages: Any, handler: ConversationHandler = PLAIN) -> Dialogue:
    return handler.dialogue({"conversation": list(messages), "metadata": {"unread": 1}})


def refusal(*messages: Any, handler: ConversationHandler = PLAIN) -> tuple[str, str]:
    with pytest.raises(RecordError) as caught:
        dialogue(*messages, handler=handler)
    assert caught.value.reason in REASONS
    assert caught.value.expected
    assert caught.value.got
    return caught.value.reason, caught.value.field


def test_a_dialogue_with_a_call() -> None:
    found = PLAIN.dialogue(
        {
            "conversation": [
                {"role": "system", "content": "S"},
                {"role": "human", "content": "q"},
                {**CALLING, "content": "Wait.", "state": None},
                {"role": "tool", "name": "f", "result": {"城": "北京", "t": None}},
                {"role": "bot", "content": "a"},
            ],
            "tools": '[{"name": "f"}]',
        }
    )
    assert found == Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, "Wait.", tool_calls=(ToolCall("f", {"x": 1}),)),
            Message(Role.OBSERVATION, '{"城": "北京", "t": null}', name="f"),
            Message(Role.ASSISTANT, "a"),
        ],
        "S",
        [{"name": "f"}],
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("user", Role.USER),
        ("human", Role.USER),
        ("assistant", Role.ASSISTANT),
        ("gpt", Role.ASSISTANT),
        ("bot", Role.ASSISTANT),
        ("model", Role.ASSISTANT),
        ("system", Role.SYSTEM),
        ("tool", Role.OBSERVATION),
        ("observation", Role.OBSERVATION),
        ("function", Role.OBSERVATION),
    ],
)
def test_the_names_of_the_roles(name: str, role: Role) -> None:
    assert dialogue(CALLING, {"role": name, "content": "x"}).messages[1] == Message(role, "x")


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"tool_call": [{"name": "f", "arguments": {"x": 1}}]},
        {"tool_call": '{"name": "f", "arguments": {"x": 1}}'},
        {"tool_call": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
    ],
)
def test_all_forms_of_a_call_give_the_same(calls: dict[str, Any]) -> None:
    expected = Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", {"x": 1}),))
    assert dialogue(Q, {"role": "assistant", **calls}).messages[1] == expected


@pytest.mark.parametrize(
    ("result", "text"),
    [("r", "r"), ([], "[]"), ({"b": 1, "a": "é"}, '{"b": 1, "a": "é"}'), (7, "7"), (True, "true")],
)
def test_a_result_that_is_no_text_becomes_its_json(result: Any, text: str) -> None:
    for content in ({}, {"content": None}, {"content": ""}):
        found = dialogue(Q, CALLING, {"role": "tool", "result": result, **content}, A)
        assert found.messages[2].content == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"content": "a"}, f"{LINE}\na"),
        ({"content": ""}, LINE),
        ({"tool_call": {"name": "f", "arguments": {}}}, LINE),
        ({"content": "a\nb"}, f"{LINE}\na\nb"),
    ],
)
@pytest.mark.parametrize("state", [STATE, LINE, json.dumps(STATE, indent=2)])
def test_a_state_is_a_line_in_front_of_the_reply(reply: dict[str, Any], text: str, state: Any) -> None:
    found = dialogue(Q, {"role": "assistant", "state": state, **reply}, handler=RENDERING)
    assert found.messages[1].content == text
    assert found.notes == []


def test_a_state_that_is_not_rendered_is_noted_once() -> None:
    states = [{**Q, "state": STATE}, {**A, "state": STATE}]
    found = dialogue(*states, *states)
    assert [message.content for message in found.messages] == ["q", "a"] * 2
    assert found.notes == ["state-not-rendered"]
    # A user's state is no part of a reply.
    found = dialogue(*states, handler=RENDERING)
    assert [message.content for message in found.messages] == ["q", f"{LINE}\na"]
    assert found.notes == ["state-not-rendered"]
    assert dialogue(Q, {**A, "state": None}).notes == []


def test_nulls_that_parquet_put_into_a_state_are_left_out() -> None:
    padded = {"intent": "x", "slots": {"a": None, "b": 1}}
    found = dialogue(Q, {**A, "state": padded}, handler=RENDERING)
    assert found.messages[1].content == '{"intent": "x", "slots": {"b": 1}}\na'
    assert found.notes == ["nulls-left-out"]
    text = json.dumps(padded)
    found = dialogue(Q, {**A, "state": text}, handler=RENDERING)
    assert found.messages[1].content == f"{text}\na"
    assert found.notes == []


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], ("empty-dialogue", "conversation")),
        ([Q], ("no-assistant", "conversation")),
        ([{"role": "narrator", "content": "x"}, A], ("unknown-role", "conversation[0].role")),
        ([Q, {"role": "assistant", "state": STATE}], ("missing-field", "conversation[1].content")),
        ([Q, {**A, "result": "r"}], ("wrong-type", "conversation[1].result")),
        ([Q, CALLING, {"role": "tool"}, A], ("missing-field", "conversation[2].content")),
        (
            [Q, CALLING, {"role": "tool", "content": "r", "result": "s"}, A],
            ("wrong-type", "conversation[2].result"),
        ),
        (
            [Q, CALLING, {"role": "tool", "result": {"x": b"y"}}, A],
            ("wrong-type", "conversation[2].result"),
        ),
        ([Q, {"role": "tool", "result": "r"}, A], ("orphan-tool-result", "conversation[1]")),
        (
            [Q, {"role": "assistant", "tool_call": {"name": "f"}}],
            ("bad-tool-json", "conversation[1].tool_call.arguments"),
        ),
        (
            [Q, {**CALLING, "tool_calls": [CALLING["tool_call"]]}],
            ("bad-tool-json", "conversation[1].tool_calls"),
        ),
        ([{**Q, "tool_call": CALLING["tool_call"]}, A], ("wrong-type", "conversation[0].tool_call")),
    ],
)
def test_what_is_no_conversation_is_refused(messages: list[Any], expected: tuple[str, str]) -> None:
    assert refusal(*messages) == expected


@pytest.mark.parametrize("state", ["x", "[1]", ["x"], 7, True, {"x": b"y"}, {"x": float("nan")}])
def test_a_state_that_is_no_object_is_refused_where_it_is_rendered(state: Any) -> None:
    message = {**A, "state": state}
    assert refusal(Q, message, handler=RENDERING) == ("wrong-type", "conversation[1].state")
    assert dialogue(Q, message).notes == ["state-not-rendered"]


def test_columns() -> None:
    record = {"conversation": json.dumps([Q, A]), "tools": "not json", "system": 1, "summary": "s"}
    assert ConversationHandler().dialogue(record) == Dialogue(
        [Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")]
    )
    assert ConversationHandler({"summary": "summary"}).dialogue(record).summary == "s"
    assert set(ConversationHandler.usual) == {"tools", "system"}
    assert ConversationHandler({"conversation": "c"}).dialogue({"c": [Q, A]}).messages[0].content == "q"


@pytest.mark.parametrize("name", ["conversation", "ConversationHandler"])
def test_the_handler_is_known_under_its_names(name: str) -> None:
    assert handlers.get(name) is ConversationHandler
