"""Pairs: what both replies answer, and which records are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.base import PairHandler
from mtsft_preproc.handlers.preference import AlpacaPairHandler, SharegptPairHandler

ALPACA = AlpacaPairHandler({"history": "history", "system": "system"})
SHAREGPT = SharegptPairHandler({"tools": "tools", "system": "system"})


def outcome(handler: PairHandler, record: Any) -> Any:
    """Return the texts of a pair, or the reason and the field of its rejection."""
    try:
        pair = handler.pair(record)
    except RecordError as error:
        found = error
    else:
        return [[message.content for message in side.messages] for side in pair]
    assert found.reason in REASONS
    assert found.expected
    assert found.got
    return found.reason, found.field


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pw_empty.jsonl", [[["q", "good"], ["q", "bad"]], [["q", ""], ["q", ""]]]),
        ("pw_list.jsonl", [("wrong-type", "chosen")]),
        ("pw_null.jsonl", [[["q", "good"], ["q", "bad"]], ("missing-field", "rejected")]),
    ],
)
def test_the_odd_rows_of_the_golden_files(shared: Path, name: str, expected: list[Any]) -> None:
    lines = (shared / "golden" / "inputs" / "edge" / name).read_text("utf-8").splitlines()
    assert [outcome(AlpacaPairHandler(), json.loads(line)) for line in lines] == expected


def test_rows_of_the_golden_file_are_what_they_say(shared: Path) -> None:
    path = shared / "golden" / "inputs" / "alpaca_pairwise.json"
    for record in json.loads(path.read_text("utf-8")):
        earlier = [text for pair in record["history"] for text in pair]
        asked = "\n".join(text for text in (record["instruction"], record["input"]) if text)
        for side, found in zip(("chosen", "rejected"), ALPACA.pair(record), strict=True):
            assert [message.content for message in found.messages] == [*earlier, asked, record[side]]
            assert found.system == (record["system"] or "")
            assert [message.role for message in found.messages] == [Role.USER, Role.ASSISTANT] * (
                len(found.messages) // 2
            )


ROW = {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"chosen": None}, ("missing-field", "chosen")),
        ({"chosen": 1}, ("wrong-type", "chosen")),
        ({"rejected": {"from": "gpt", "value": "bad"}}, ("wrong-type", "rejected")),
        ({"instruction": None, "input": None}, ("missing-field", "instruction / input")),
        ({"history": ["q"]}, ("bad-history", "history[0]")),
        ({"output": "unread"}, [["q", "good"], ["q", "bad"]]),
        ({"history": '[["x", "y"]]'}, [["x", "y", "q", "good"], ["x", "y", "q", "bad"]]),
        ({"input": "more"}, [["q\nmore", "good"], ["q\nmore", "bad"]]),
    ],
)
def test_what_becomes_of_other_rows(changes: dict[str, Any], expected: Any) -> None:
    assert outcome(ALPACA, {**ROW, **changes}) == expected


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, []),
        ({"rejected": "good"}, ["equal-pair"]),
        ({"chosen": "", "rejected": ""}, ["equal-pair"]),
        ({"instruction": ""}, ["empty-prompt"]),
    ],
)
def test_notes_stand_at_the_chosen_dialogue(changes: dict[str, Any], notes: list[str]) -> None:
    chosen, rejected = ALPACA.pair({**ROW, **changes})
    assert (chosen.notes, rejected.notes) == (notes, [])


def turns(*pairs: tuple[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"from": role, "value": value} for role, value in pairs]
    return {"conversations": messages, "chosen": "good", "rejected": "bad", **fields}


def test_records_of_sharegpt(shared: Path) -> None:
    path = shared / "golden" / "inputs" / "sharegpt_pairwise.json"
    records = json.loads(path.read_text("utf-8"))
    assert len(records) == 100
    for record in records:
        earlier = [turn["value"] for turn in record["conversations"] if turn["from"] != "system"]
        assert outcome(SHAREGPT, record) == [
            [*earlier, record[side]["value"]] for side in ("chosen", "rejected")
        ]


CALL = '{"name": "f", "arguments": {"x": 1}}'


def test_both_sides_share_all_but_the_last_message() -> None:
    record = turns(
        ("system", "S"), ("human", "q"), ("function_call", CALL), ("observation", "r"),
        chosen={"from": "gpt", "value": "good"}, rejected={"from": "function_call", "value": CALL},
        tools='[{"name": "f"}]',
    )  # fmt: skip
    call = (ToolCall("f", {"x": 1}),)
    shared_part = [
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, None, tool_calls=call),
        Message(Role.OBSERVATION, "r"),
    ]
    chosen, rejected = SHAREGPT.pair(record)
    tools = [{"name": "f"}]
    assert chosen == Dialogue([*shared_part, Message(Role.ASSISTANT, "good")], "S", tools)
    assert rejected == Dialogue([*shared_part, Message(Role.ASSISTANT, None, tool_calls=call)], "S", tools)


HUMAN = ("human", "q")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (turns(HUMAN), [["q", "good"], ["q", "bad"]]),
        (turns(HUMAN, chosen=""), [["q", ""], ["q", "bad"]]),
        (turns(HUMAN, chosen=None), ("missing-field", "chosen")),
        (turns(HUMAN, rejected=["bad"]), ("wrong-type", "rejected")),
        (turns(HUMAN, rejected=7), ("wrong-type", "rejected")),
        (turns(HUMAN, rejected={}), ("missing-field", "rejected.from")),
        (turns(HUMAN, rejected={"from": "gpt", "value": None}), ("missing-field", "rejected.value")),
        (turns(HUMAN, rejected={"from": "human", "value": "x"}), ("role-order", "rejected")),
        (turns(HUMAN, rejected={"from": "system", "value": "x"}), ("role-order", "rejected")),
        (turns(HUMAN, rejected={"from": "bing", "value": "x"}), ("unknown-role", "rejected.from")),
        (
            turns(HUMAN, rejected={"from": "function_call", "value": "x"}),
            ("bad-tool-json", "rejected.value"),
        ),
        (turns(), ("empty-dialogue", "conversations")),
        (turns(("system", "S")), ("role-order", "conversations")),
        (turns(HUMAN, ("gpt", "a")), ("role-order", "conversations")),
        (turns(("gpt", "a"), HUMAN), ("role-order", "conversations[0]")),
        (turns(HUMAN, ("gpt", "a"), HUMAN), [["q", "a", "q", "good"], ["q", "a", "q", "bad"]]),
        (turns(HUMAN, tools="x"), ("bad-tool-json", "tools")),
    ],
)
def test_what_becomes_of_other_records(record: Any, expected: Any) -> None:
    assert outcome(SHAREGPT, record) == expected


def test_a_reply_is_json_text_only_where_the_messages_are() -> None:
    """In CSV all columns are text, so that a message there is JSON; elsewhere a text is a text."""
    reply = '{"from": "gpt", "value": "good"}'
    record = turns(HUMAN, chosen=reply)
    assert outcome(SHAREGPT, record) == [["q", reply], ["q", "bad"]]
    record["conversations"] = json.dumps(record["conversations"])
    assert outcome(SHAREGPT, record) == [["q", "good"], ["q", "bad"]]
    for text in ('{"value": "good"}', "{}", "[1]", "7", "{"):
        assert outcome(SHAREGPT, {**record, "chosen": text}) == [["q", text], ["q", "bad"]]


@pytest.mark.parametrize(
    ("chosen", "rejected", "equal"),
    [
        ("x", "x", True),
        ("x", {"from": "gpt", "value": "x"}, True),
        ("x", "x ", False),
        ({"from": "function_call", "value": CALL}, {"from": "function_call", "value": f"[{CALL}]"}, True),
        ({"from": "function_call", "value": CALL}, CALL, False),
    ],
)
def test_equal_replies_are_noted(chosen: Any, rejected: Any, equal: bool) -> None:
    sides = SHAREGPT.pair(turns(HUMAN, chosen=chosen, rejected=rejected))
    assert [side.notes for side in sides] == [["equal-pair"] if equal else [], []]


def test_tags_and_columns_are_those_of_the_mapping() -> None:
    handler = SharegptPairHandler(
        {
            "messages": "m", "chosen": "good", "rejected": "bad",
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "u", "assistant_tag": "b"},
        }
    )  # fmt: skip
    record = {
        "m": [{"role": "u", "content": "q"}],
        "good": {"role": "b", "content": "x"},
        "bad": {"role": "gpt", "content": "y"},
    }
    assert outcome(handler, record) == ("unknown-role", "bad.role")
    record["bad"]["role"] = "b"
    assert outcome(handler, record) == [["q", "x"], ["q", "y"]]


def test_replies_without_a_role() -> None:
    handler = SharegptPairHandler({"tags": {"role_tag": "", "content_tag": "text"}})
    record = {"conversations": [{"text": "q"}], "chosen": {"text": "x"}, "rejected": {"text": "y"}}
    assert outcome(handler, record) == [["q", "x"], ["q", "y"]]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("alpaca-pairwise", AlpacaPairHandler),
        ("AlpacaStylePairwiseHandler", AlpacaPairHandler),
        ("sharegpt-pairwise", SharegptPairHandler),
        ("SharegptStylePairwiseHandler", SharegptPairHandler),
    ],
)
def test_the_handlers_are_known_under_their_names(name: str, entry: type) -> None:
    assert handlers.get(name) is entry
    assert handlers.get(name).objective == "pairwise"


def test_keys() -> None:
    assert AlpacaPairHandler.all_keys() == {
        "prompt": "instruction", "query": "input", "history": None, "system": None,
        "chosen": "chosen", "rejected": "rejected",
    }  # fmt: skip
    assert SharegptPairHandler.all_keys() == {
        "messages": "conversations", "system": None, "tools": None,
        "chosen": "chosen", "rejected": "rejected",
    }  # fmt: skip
    assert set(AlpacaPairHandler.usual) == {"history", "system"}
    assert set(SharegptPairHandler.usual) == {"tools", "system"}
