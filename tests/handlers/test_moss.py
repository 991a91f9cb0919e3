"""MOSS's turns: with their marks, and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.dialogue import REASONS, Dialogue, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import DialogueHandler, handlers
from mtsft_preproc.handlers.moss import MossHandler, MossInstructionHandler, MossMultiTurnHandler

TURN = {
    "Human": "<|Human|>: q1<eoh>\n",
    "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
    "Commands": "<|Commands|>: None<eoc>\n",
    "Tool Responses": "<|Results|>: None<eor>\n",
    "MOSS": "<|MOSS|>: a1<eom>\n",
}
EMPTY = dict.fromkeys(TURN)
PLAIN = MossInstructionHandler()
ALL = [PLAIN, MossMultiTurnHandler(), MossHandler()]
IDS = ["instruction", "multi_turn", "own"]


def record(*turns: Any, **fields: Any) -> dict[str, Any]:
    return {"chat": {f"turn_{number}": turn for number, turn in enumerate(turns, 1)}, **fields}


def turn(**fields: Any) -> dict[str, Any]:
    names = {"human": "Human", "thoughts": "Inner Thoughts", "commands": "Commands",
             "results": "Tool Responses", "moss": "MOSS"}  # fmt: skip
    return {**TURN, **{names[name]: value for name, value in fields.items()}}


def said(dialogue: Dialogue) -> list[tuple[Role, str | None, str | None]]:
    return [(message.role, message.reasoning, message.content) for message in dialogue.messages]


def words(dialogue: Dialogue) -> list[str]:
    roles = [message.role for message in dialogue.messages]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2)
    return [message.text for message in dialogue.messages]


def outcome(handler: DialogueHandler, value: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(RecordError) as caught:
        handler.dialogue(value)
    assert caught.value.reason in REASONS
    assert caught.value.expected
    assert caught.value.got
    return caught.value.reason, caught.value.field


def test_the_plain_reading_is_question_and_answer() -> None:
    second = turn(human="<|Human|>: \n q2 <eoh>", moss="a2")
    dialogue = PLAIN.dialogue(record(TURN, second, meta_instruction="You are MOSS."))
    assert words(dialogue) == ["q1", "a1", "q2", "a2"]
    assert (dialogue.system, dialogue.notes) == ("", [])


def test_marks_are_taken_off_at_the_ends_alone() -> None:
    value = record(turn(human="<|Human|>: say <eoh> or <|Human|>: <eoh>\n", moss="<|MOSS|>:<eor><eom>"))
    assert words(PLAIN.dialogue(value)) == ["say <eoh> or <|Human|>:", "<eor>"]


@pytest.mark.parametrize("name", ["thoughts", "commands", "results"])
def test_what_the_plain_reading_leaves_out_has_a_note(name: str) -> None:
    mark = {"thoughts": "Inner Thoughts", "commands": "Commands", "results": "Results"}[name]
    end = {"thoughts": "<eot>", "commands": "<eoc>", "results": "<eor>"}[name]
    value = record(TURN, turn(**{name: f"<|{mark}|>:\nSearch(x)\n{end}\n"}))
    dialogue = PLAIN.dialogue(value)
    assert (words(dialogue), dialogue.notes) == (["q1", "a1"] * 2, ["inner-steps-left-out"])
    nothing = record(TURN, turn(**{name: f"<|{mark}|>:\nNone\n{end}\n"}), turn(**{name: None}))
    assert PLAIN.dialogue(nothing).notes == []


def test_the_plain_reading_takes_a_system_text_where_it_is_mapped() -> None:
    handler = MossInstructionHandler({"system": "meta_instruction"})
    assert handler.dialogue(record(TURN, meta_instruction="M")).system == "M"


@pytest.mark.parametrize("field", ["Human", "MOSS"])
def test_the_plain_reading_needs_both_sides(field: str) -> None:
    assert outcome(PLAIN, record(TURN, {**TURN, field: None})) == ("missing-field", f"chat.turn_2.{field}")


def test_moss_s_own_reading_keeps_all_of_it() -> None:
    dialogue = MossHandler().dialogue(record(TURN, meta_instruction="M\n", num_turns=1))
    assert said(dialogue) == [
        (Role.USER, None, "<|Human|>: q1<eoh>\n"),
        (Role.ASSISTANT, "<|Inner Thoughts|>: None<eot>\n", "<|Commands|>: None<eoc>\n"),
        (Role.OBSERVATION, None, "<|Results|>: None<eor>\n"),
        (Role.ASSISTANT, None, "<|MOSS|>: a1<eom>\n"),
    ]
    assert (dialogue.system, dialogue.notes) == ("M\n", [])


def test_fields_that_are_null_are_left_out() -> None:
    value = record(
        turn(thoughts=None), turn(commands=None), turn(thoughts=None, commands=None), turn(results=None),
        meta_instruction=None,
    )  # fmt: skip
    user, answer = (Role.USER, None, "<|Human|>: q1<eoh>\n"), (Role.ASSISTANT, None, "<|MOSS|>: a1<eom>\n")
    results = (Role.OBSERVATION, None, "<|Results|>: None<eor>\n")
    thoughts, commands = "<|Inner Thoughts|>: None<eot>\n", "<|Commands|>: None<eoc>\n"
    dialogue = MossHandler().dialogue(value)
    assert said(dialogue) == [
        user, (Role.ASSISTANT, None, commands), results, answer,
        user, (Role.ASSISTANT, thoughts, None), results, answer,
        user, results, answer,
        user, (Role.ASSISTANT, thoughts, commands), answer,
    ]  # fmt: skip
    assert dialogue.system == ""


@pytest.mark.parametrize(
    ("name", "field", "text"),
    [
        ("human", "Human", "q1<eoh>\n"),
        ("human", "Human", "<|Human|>: q1"),
        ("thoughts", "Inner Thoughts", "None"),
        ("commands", "Commands", "<|Commands|>: None<eot>\n"),
        ("results", "Tool Responses", "<|Results|>: <eor> x"),
        ("moss", "MOSS", "<|MOSS|>:"),
        ("moss", "MOSS", ""),
    ],
)
def test_a_field_without_its_marks_is_rejected(name: str, field: str, text: str) -> None:
    value = record(TURN, turn(**{name: text}))
    assert outcome(MossHandler(), value) == ("bad-history", f"chat.turn_2.{field}")


@pytest.mark.parametrize("handler", ALL, ids=IDS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, ("missing-field", "chat")),
        ({"chat": None}, ("missing-field", "chat")),
        ({"chat": "x"}, ("wrong-type", "chat")),
        ({"chat": [TURN]}, ("wrong-type", "chat")),
        ({"chat": {}}, ("empty-dialogue", "chat")),
        (record(None, EMPTY), ("empty-dialogue", "chat")),
        (record(TURN, "x"), ("bad-history", "chat.turn_2")),
        (record({**TURN, "Human": 3}), ("bad-history", "chat.turn_1.Human")),
        (record({**TURN, "Extra": "x"}), ("bad-history", "chat.turn_1.Extra")),
        (record(TURN, num_turns="1"), ("wrong-type", "num_turns")),
        (record(TURN, num_turns=True), ("wrong-type", "num_turns")),
    ],
    ids=["absent", "null", "text", "list", "empty", "nulls", "turn", "field", "extra", "count", "flag"],
)  # fmt: skip
def test_what_is_no_dialogue_is_rejected(
    handler: DialogueHandler, value: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert outcome(handler, value) == expected


@pytest.mark.parametrize("handler", ALL, ids=IDS)
def test_null_turns_of_parquet_are_passed_over(handler: DialogueHandler) -> None:
    plain = handler.dialogue(record(TURN, TURN, num_turns=2))
    padded = handler.dialogue(record(TURN, TURN, None, EMPTY, num_turns=2))
    assert padded == plain
    assert plain.notes == []


@pytest.mark.parametrize("handler", ALL, ids=IDS)
@pytest.mark.parametrize(("count", "notes"), [(1, []), (1.0, []), (None, []), (2, ["num-turns-differ"])])
def test_another_number_of_turns_has_a_note(handler: DialogueHandler, count: Any, notes: list[str]) -> None:
    assert handler.dialogue(record(TURN, num_turns=count)).notes == notes


@pytest.mark.parametrize("name", ["moss_sample_with_plugins", "moss_sample_without_plugins"])
def test_real_dialogues(shared: Path, name: str) -> None:
    lines = (shared / "datasets" / "moss" / f"{name}.jsonl").read_text("utf-8").splitlines()
    own = MossHandler()
    for value in map(json.loads, lines):
        dialogue = own.dialogue(value)
        fields = [text for fields in value["chat"].values() for text in fields.values()]
        texts = [
            text
            for item in dialogue.messages
            for text in (item.reasoning, item.content)
            if text is not None
        ]
        assert texts == fields
        assert dialogue.system == value["meta_instruction"]
        assert dialogue.notes == []
        plain = words(PLAIN.dialogue(value))
        assert len(plain) == 2 * value["num_turns"]
        assert not any("<eoh>" in text or "<eom>" in text for text in plain)


@pytest.mark.parametrize(
    ("name", "full", "kind", "form", "defaults"),
    [
        ("moss-instruction", "MOSSInstructionHandler", MossInstructionHandler, "alpaca_text",
         {"train_on": "split"}),
        ("moss-multi-turn", "MOSSMultiTurnHandler", MossMultiTurnHandler, "moss_baichuan", {}),
        ("moss", "MOSSHandler", MossHandler, "moss_text", {"overlong": "head", "seq_length": 2048}),
    ],
    ids=IDS,
)  # fmt: skip
def test_the_moss_handlers_are_known_under_their_names(
    name: str, full: str, kind: type[DialogueHandler], form: str, defaults: dict[str, Any]
) -> None:
    assert handlers.get(name) is kind
    assert handlers.canonical(name) == full
    assert (kind.text_form, kind.text_form_only) == (form, name == "moss")
    assert kind.defaults == defaults
