"""Instruction rows in Alpaca's text form: General, BELLE and Leetcode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc.dialogue import REASONS, Dialogue, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import DialogueHandler, handlers
from mtsft_preproc.handlers.instruction import BelleHandler, GeneralHandler, LeetcodeHandler


def said(dialogue: Dialogue) -> list[str]:
    """Return the texts of a dialogue, whose roles must take turns, the user's first."""
    roles = [message.role for message in dialogue.messages]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2)
    return [message.text for message in dialogue.messages]


def outcome(handler: DialogueHandler, record: dict[str, Any]) -> list[str] | tuple[str, str]:
    """Return the texts of a record's dialogue, or the reason and the field of its rejection."""
    try:
        return said(handler.dialogue(record))
    except RecordError as error:
        found = error
    assert found.reason in REASONS
    assert found.expected
    assert found.got
    return found.reason, found.field


@pytest.mark.parametrize(
    ("record", "expected", "notes"),
    [
        ({"instruction": "a", "input": "b", "output": "c"}, ["a\nb", "c"], []),
        ({"instruction": "a", "input": "", "output": "c"}, ["a\n", "c"], []),
        ({"instruction": "a", "input": None, "output": "c"}, ["a\n", "c"], []),
        ({"instruction": "a", "output": " c\n"}, ["a\n", " c\n"], []),
        ({"instruction": "", "input": "b", "output": ""}, ["\nb", ""], []),
        ({"instruction": "", "input": "", "output": "c"}, ["\n", "c"], ["empty-prompt"]),
    ],
)
def test_instruction_and_input_are_always_joined_with_a_newline(
    record: dict[str, Any], expected: list[str], notes: list[str]
) -> None:
    dialogue = GeneralHandler().dialogue(record)
    assert said(dialogue) == expected
    assert dialogue.notes == notes
    assert dialogue.system == ""


@pytest.mark.parametrize("handler", [GeneralHandler(), BelleHandler()], ids=["general", "belle"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"instruction": None}, ("missing-field", "instruction")),
        ({"output": None}, ("missing-field", "output")),
        ({"instruction": 1}, ("wrong-type", "instruction")),
        ({"input": ["b"]}, ("wrong-type", "input")),
        ({"output": {"a": 1}}, ("wrong-type", "output")),
    ],
)
def test_fields_that_are_no_text_are_rejected(
    handler: DialogueHandler, change: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert outcome(handler, {"instruction": "a", "input": "", "output": "c", **change}) == expected


def test_the_odd_rows_of_the_general_golden_files(shared: Path) -> None:
    found = {}
    for name in ("gen_empty_output", "gen_marker", "gen_newline", "gen_null_input"):
        lines = (shared / "golden" / "inputs" / "edge" / f"{name}.jsonl").read_text("utf-8").splitlines()
        found[name] = [outcome(GeneralHandler(), json.loads(line)) for line in lines]
    assert found == {
        "gen_empty_output": [["Say hi.\n", "Hello there."], ["Say hi.\n", ""]],
        "gen_marker": [["x ### Response: y\n", "a ### Response: b"]],
        "gen_newline": [["Say hi.\n", "\nstarts with newline"]],
        "gen_null_input": [["Say hi.\n", "Hello there."]] * 2,
    }


BAD = ("bad-history", "instruction")


def test_the_odd_rows_of_the_belle_golden_file(shared: Path) -> None:
    path = shared / "golden" / "inputs" / "edge" / "belle_bad.jsonl"
    lines = path.read_text("utf-8").splitlines()
    assert [outcome(BelleHandler(), json.loads(line)) for line in lines] == [
        ["q1", "a1", "q2", "a2"], ["q1", "a1"], ["no markers", "a1"], ["q1", "a1"], BAD, BAD
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Human:q1\nAssistant:", ["q1", "out"]),
        ("Human: q1 \nAssistant: a1 \nHuman:\tq2\nAssistant: ", ["q1", "a1", "q2", "out"]),
        ("  \n Human:q1\nAssistant:", ["q1", "out"]),
        ("Human:q1\nAssistant:a1\nHuman:q2", ["q1", "a1", "q2", "out"]),
        (" a question \n", ["a question", "out"]),
        ("human: q1\nassistant:", ["human: q1\nassistant:", "out"]),
        ("Human:q1\nAssistant:\nHuman:q2\nAssistant:", ["q1", "", "q2", "out"]),
        ("Assistant:a1\nHuman:q1\nAssistant:", BAD),
        ("Hello Human:q1\nAssistant:", BAD),
        ("Human:q1\nHuman:q2\nAssistant:", BAD),
        ("Human:q1\nAssistant:a\nAssistant:", BAD),
        ("Human:q1\nAssistant:a1", BAD),
        ("Human:q1\nAssistant:a1\nHuman:q2\nAssistant:a2", BAD),
    ],
)
def test_the_turns_of_a_belle_instruction(instruction: str, expected: Any) -> None:
    assert (
        outcome(BelleHandler(), {"instruction": instruction, "input": "", "output": " out\n"}) == expected
    )


@pytest.mark.parametrize("given_input", ["", None])
def test_an_input_of_belle_belongs_to_the_last_question(given_input: Any) -> None:
    record = {"instruction": "Human:q1\nAssistant:a1\nHuman:q2\nAssistant:", "output": "a2"}
    assert outcome(BelleHandler(), {**record, "input": given_input}) == ["q1", "a1", "q2", "a2"]
    assert outcome(BelleHandler(), {**record, "input": "more"}) == ["q1", "a1", "q2\nmore", "a2"]


def test_a_belle_row_that_asks_nothing_has_a_note() -> None:
    dialogue = BelleHandler().dialogue({"instruction": "Human:\nAssistant:", "output": "a"})
    assert (said(dialogue), dialogue.notes) == (["", "a"], ["empty-prompt"])


def test_the_examples_of_belle(shared: Path) -> None:
    rows = json.loads((shared / "datasets/belle/belle_10M_readme_examples.json").read_text("utf-8"))
    assert [len(said(BelleHandler().dialogue(row))) for row in rows] == [2, 4, 2, 2]
    third = BelleHandler().dialogue(rows[1]).messages[2].text
    assert third == "请从上文摘取三个句子进行打分。"


word = st.text(st.sampled_from("ab :\n漢"), max_size=6)


@given(rounds=st.lists(st.tuples(word, word), max_size=3), last=word, output=word)
def test_a_belle_dialogue_comes_back(rounds: list[tuple[str, str]], last: str, output: str) -> None:
    text = "".join(f"Human:{question}\nAssistant:{answer}\n" for question, answer in rounds)
    record = {"instruction": f"{text}Human:{last}\nAssistant:", "input": "", "output": output}
    expected = [side.strip() for pair in rounds for side in pair]
    assert outcome(BelleHandler(), record) == [*expected, last.strip(), output.strip()]


def test_leetcode_asks_what_stands_before_the_code() -> None:
    record = {
        "code_with_problem": " # Two Sum\nFind two numbers.\n\n```python\nx\n```\n```y```",
        "code_only": "def f(): pass",
        "explanation_only": "Easy.",
    }
    dialogue = LeetcodeHandler().dialogue(record)
    assert said(dialogue) == ["# Two Sum\nFind two numbers.", "def f(): pass\nEasy."]
    assert dialogue.notes == []
    assert LeetcodeHandler().dialogue({**record, "code_with_problem": "x"}).notes == ["no-code-fence"]
    assert LeetcodeHandler().dialogue({**record, "code_with_problem": "```x"}).notes == ["empty-prompt"]
    for field in record:
        assert outcome(LeetcodeHandler(), {**record, field: None}) == ("missing-field", field)
        assert outcome(LeetcodeHandler(), {**record, field: 3}) == ("wrong-type", field)


def test_columns_and_summary_are_mapped() -> None:
    handler = GeneralHandler({"instruction": "q", "input": "", "output": "a", "summary": "s"})
    dialogue = handler.dialogue({"q": "x", "input": "unread", "a": "y", "s": "z"})
    assert (said(dialogue), dialogue.summary) == (["x\n", "y"], "z")


@pytest.mark.parametrize(
    ("name", "full", "kind"),
    [
        ("general", "GeneralInstructionHandler", GeneralHandler),
        ("belle", "BelleMultiTurnInstructionHandler", BelleHandler),
        ("leetcode", "LeetcodePythonInstructionHandler", LeetcodeHandler),
    ],
)
def test_the_instruction_handlers_are_known_under_their_names(name: str, full: str, kind: type) -> None:
    assert handlers.get(name) is kind
    assert handlers.canonical(name) == full
    assert (kind.text_form, kind.text_form_only) == ("alpaca_text", False)  # type: ignore[attr-defined]
    assert kind.defaults == {"train_on": "last"}  # type: ignore[attr-defined]
