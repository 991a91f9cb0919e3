"""Alpaca rows: which become which messages, which are rejected, and for what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import REASONS, Dialogue, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.readers import Shard, find_inputs, readers

HANDLER = AlpacaHandler({"history": "history", "system": "system"})
HI = ["Say hi.", "Hello there."]


def said(dialogue: Dialogue) -> list[str]:
    """Return the texts of a dialogue, whose roles must take turns, the user's first."""
    roles = [message.role for message in dialogue.messages]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2)
    return [message.content for message in dialogue.messages]


def outcome(record: dict[str, Any]) -> list[str] | tuple[str, str]:
    """Return the texts of a record's dialogue, or the reason and the field of its rejection."""
    try:
        return said(HANDLER.dialogue(record))
    except RecordError as error:
        found = error
    assert found.reason in REASONS
    assert found.expected
    assert found.got
    return found.reason, found.field


def row(**fields: Any) -> dict[str, Any]:
    return {"instruction": "Say hi.", "input": "", "output": "Hello there.", **fields}


@pytest.fixture
def edge(shared: Path) -> Path:
    return shared / "golden" / "inputs" / "edge"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("history_null.json", [["q1", "a1", *HI], HI, HI]),
        ("history_empty_pair.json", [["", "", *HI], ["q1", "", *HI]]),
        ("history_dict.json", [["q1", "a1", *HI]]),
        ("history_flat.json", [("bad-history", "history[0]")]),
        ("history_odd.json", [["q1", "a1", *HI], ("bad-history", "history[0]")]),
        ("history_triple.json", [("bad-history", "history[0]")]),
        ("history_string.json", [("bad-history", "history"), HI]),
        (
            "history_null_str.json",
            [["q1", "a1", *HI], ("bad-history", "history[0][1]"), ("bad-history", "history[0][0]")],
        ),
        ("empty_instruction.json", [HI, ["", "Hello there."], ["just input", "Hello there."], HI]),
        ("empty_output.json", [HI, ["Say hi.", ""], HI]),
        ("empty_list.json", []),
        ("null_instruction.json", [HI, ["", "Hello there."], ["only input", "Hello there."], HI, HI]),
        ("null_output.json", [HI, ("missing-field", "output"), HI]),
        ("int_output.jsonl", [("wrong-type", "output")]),
        ("list_output.jsonl", [("wrong-type", "output")] * 2),
        ("missing_some_input.jsonl", [HI, ["Say hi.", "Hello."]]),
        ("system_null.json", [HI, HI, HI]),
        ("surrogate.json", ["lone-surrogate"]),
        (
            "whitespace.json",
            [
                ["  lead and trail \n\n\n\t\n", "\n\n  spaced  \n"],
                ["\r\nCRLF\r\n", "a\u200bb\xa0c\ufeff"],
            ],
        ),
    ],
)
def test_the_odd_rows_of_the_golden_files(edge: Path, name: str, expected: list[Any]) -> None:
    (file,) = find_inputs([str(edge / name)])
    reader, found = readers.get(file.kind), {}
    for start, end in reader.cut(file, 1 << 30):
        for batch in reader.read(Shard(0, 0, file, start, end)):
            found.update({entry.row: outcome(entry.value) for entry in batch.records})
            found.update({entry.row: entry.reason for entry in batch.rejections})
    assert [found[at] for at in sorted(found)] == expected
    assert sorted(found) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("name", "systems", "notes"),
    [
        ("system_null.json", ["SYS", "", ""], [[], [], []]),
        ("empty_output.json", ["", "", ""], [[], [], []]),
        ("empty_instruction.json", [""] * 4, [[], ["empty-prompt"], [], []]),
        ("null_instruction.json", [""] * 5, [[], ["empty-prompt"], [], [], []]),
    ],
)
def test_the_system_texts_and_notes_of_the_golden_files(
    edge: Path, name: str, systems: list[str], notes: list[list[str]]
) -> None:
    records = json.loads((edge / name).read_text("utf-8"))
    dialogues = [HANDLER.dialogue(record) for record in records]
    assert [dialogue.system for dialogue in dialogues] == systems
    assert [dialogue.notes for dialogue in dialogues] == notes


@pytest.mark.parametrize(
    ("prompt", "query", "asked"),
    [
        ("a", "b", "a\nb"),
        ("a", "", "a"),
        ("a", None, "a"),
        ("", "b", "b"),
        (None, "b", "b"),
        (" a\n", " b ", " a\n\n b "),
        ("a", "\n", "a\n\n"),
        ("", "", ""),
        (None, "", ""),
        ("", None, ""),
    ],
)
def test_prompt_and_query_are_joined_with_a_newline(
    prompt: str | None, query: str | None, asked: str
) -> None:
    dialogue = HANDLER.dialogue({"instruction": prompt, "input": query, "output": "c"})
    assert said(dialogue) == [asked, "c"]
    assert dialogue.notes == ([] if asked else ["empty-prompt"])


@pytest.mark.parametrize(
    "record", [{"output": "c"}, {"instruction": None, "output": "c"}, {"input": None, "output": "c"}]
)
def test_a_row_that_asks_nothing_is_rejected(record: dict[str, Any]) -> None:
    reason, field = outcome(record)
    assert reason == "missing-field"
    assert "instruction" in field
    assert "input" in field


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"output": None}, ("missing-field", "output")),
        ({"output": 2}, ("wrong-type", "output")),
        ({"output": 2.5}, ("wrong-type", "output")),
        ({"output": False}, ("wrong-type", "output")),
        ({"output": ["a"]}, ("wrong-type", "output")),
        ({"output": {"a": "b"}}, ("wrong-type", "output")),
        ({"instruction": 1}, ("wrong-type", "instruction")),
        ({"input": ["a"]}, ("wrong-type", "input")),
        ({"system": 0}, ("wrong-type", "system")),
    ],
)
def test_a_field_that_is_no_text_is_rejected(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assert outcome(row(**fields)) == expected


def test_a_row_without_output_is_rejected() -> None:
    assert outcome({"instruction": "a", "input": "b"}) == ("missing-field", "output")


@pytest.mark.parametrize("history", [None, "", "  \n", [], "[]"])
def test_no_history_is_no_history(history: Any) -> None:
    assert outcome(row(history=history)) == HI
    assert outcome(row()) == HI


BAD_HISTORIES = [
    (["q", "a"], "history[0]"),
    ([["q1", "a1"], ["q2", "a2", "x"]], "history[1]"),
    ([["q1", "a1"], ["q2"]], "history[1]"),
    ([["q1", "a1"], []], "history[1]"),
    ([["q1", "a1"], None], "history[1]"),
    ([["q1", "a1"], ["q2", None]], "history[1][1]"),
    ([["q1", "a1"], [None, "a2"]], "history[1][0]"),
    ([["q1", 1]], "history[0][1]"),
    ([[["q1"], "a1"]], "history[0][0]"),
    (["ab"], "history[0]"),
    ([{"prompt": "q"}], "history[0]"),
    ([{"prompt": "q", "response": "a", "id": "1"}], "history[0]"),
    ([{"prompt": "q", "user": "q"}], "history[0]"),
    ([{"response": "a", "bot": "a"}], "history[0]"),
    ([{"foo": "q", "bar": "a"}], "history[0]"),
    ([{}], "history[0]"),
    ({"prompt": "q", "response": "a"}, "history"),
    (7, "history"),
    (True, "history"),
    (0, "history"),
    ({}, "history"),
    (False, "history"),
]


@pytest.mark.parametrize(("history", "field"), BAD_HISTORIES)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_history_of_another_shape_is_rejected(history: Any, field: str, as_text: bool) -> None:
    given_history = json.dumps(history) if as_text else history
    assert outcome(row(history=given_history)) == ("bad-history", field)


@pytest.mark.parametrize("text", ["q1", "[", '[["q", "a"]', "[['q', 'a']]", '"q"', '[["q", "a"]] x'])
def test_a_history_of_text_that_is_no_json_list_is_rejected(text: str) -> None:
    assert outcome(row(history=text)) == ("bad-history", "history")


def test_a_null_in_an_object_of_a_history_is_rejected() -> None:
    reason, field = outcome(row(history=[{"prompt": "q", "response": None}]))
    assert reason == "bad-history"
    assert field.startswith("history[0]")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("prompt", "response"),
        ("user", "bot"),
        ("user", "assistant"),
        ("human", "gpt"),
        ("question", "answer"),
        ("instruction", "output"),
        ("query", "response"),
        ("User", "Bot"),
    ],
)
def test_the_names_of_an_object_tell_who_speaks_whatever_their_order(question: str, answer: str) -> None:
    history = [{question: "q1", answer: "a1"}, {answer: "a2", question: "q2"}]
    assert outcome(row(history=history)) == ["q1", "a1", "q2", "a2", *HI]
    assert outcome(row(history=json.dumps(history))) == ["q1", "a1", "q2", "a2", *HI]


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(texts, texts), max_size=4),
    prompt=texts,
    reply=texts,
    ensure_ascii=st.booleans(),
)
def test_all_forms_of_a_history_give_the_same_messages(
    pairs: list[tuple[str, str]], prompt: str, reply: str, ensure_ascii: bool
) -> None:
    expected = [text for pair in pairs for text in pair] + [prompt, reply]
    lists = [list(pair) for pair in pairs]
    objects = [{"prompt": question, "response": answer} for question, answer in pairs]
    as_json = [json.dumps(form, ensure_ascii=ensure_ascii) for form in (lists, objects)]
    for history in (lists, pairs, objects, *as_json):
        record = {"instruction": prompt, "input": "", "output": reply, "history": history}
        dialogue = HANDLER.dialogue(record)
        assert said(dialogue) == expected
        assert ("empty-prompt" in dialogue.notes) == (prompt == "")


def test_columns_are_read_under_the_names_that_the_mapping_gives() -> None:
    handler = AlpacaHandler(
        {"prompt": "ask", "query": "", "response": "chosen", "history": "past", "system": "role"}
    )
    record = {
        "ask": "q", "input": "unread", "output": "unread", "chosen": "a",
        "past": [["x", "y"]], "history": [["unread", "unread"]], "role": "S", "system": "unread",
    }  # fmt: skip
    dialogue = handler.dialogue(record)
    assert said(dialogue) == ["x", "y", "q", "a"]
    assert dialogue.system == "S"


def test_history_and_system_are_read_only_where_they_are_mapped() -> None:
    dialogue = AlpacaHandler().dialogue(row(history=[["q1", "a1"]], system="S"))
    assert said(dialogue) == HI
    assert dialogue.system == ""


def test_a_record_is_left_as_it_was() -> None:
    record = row(history=[["q1", "a1"]], system="S")
    before = json.dumps(record)
    HANDLER.dialogue(record)
    assert json.dumps(record) == before


@pytest.mark.parametrize("name", ["alpaca", "AlpacaStyleInstructionHandler"])
def test_the_handler_is_known_under_its_names(name: str) -> None:
    assert handlers.get(name) is AlpacaHandler
    assert handlers.canonical(name) == "AlpacaStyleInstructionHandler"
