"""Rounds of two texts: Firefly's own, and those of MT-Bench-101."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.firefly import FireflyHandler

HANDLER = FireflyHandler()


def rounds(*pairs: tuple[str, str]) -> Dialogue:
    return Dialogue(
        [
            Message(role, text)
            for pair in pairs
            for role, text in zip((Role.USER, Role.ASSISTANT), pair, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("question", "answer"),
    [("human", "assistant"), ("user", "bot"), ("Human", "Assistant"), ("question", "answer"), ("q", "a")],
)
def test_the_names_tell_who_speaks_whatever_their_order(question: str, answer: str) -> None:
    record = {
        "conversation": [{question: "1", answer: "2"}, {answer: "4", question: "3"}],
        "category": "x",
    }
    assert HANDLER.dialogue(record) == rounds(("1", "2"), ("3", "4"))


def test_what_else_a_round_holds_is_not_read() -> None:
    one = {"human": "1", "assistant": "2", "id": 7, "user": None, "bot": None, "score": None}
    assert HANDLER.dialogue({"conversation": [one]}) == rounds(("1", "2"))


PLACE = "conversation"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (None, ("missing-field", PLACE)),
        ("", ("missing-field", PLACE)),
        ([], ("empty-dialogue", PLACE)),
        ("[]", ("empty-dialogue", PLACE)),
        ("text", ("wrong-type", PLACE)),
        ({"human": "q", "assistant": "a"}, ("wrong-type", PLACE)),
        (["q"], ("wrong-type", f"{PLACE}[0]")),
        ([["q", "a"]], ("wrong-type", f"{PLACE}[0]")),
        ([{}], ("missing-field", f"{PLACE}[0]")),
        ([{"human": "q"}], ("missing-field", f"{PLACE}[0]")),
        ([{"assistant": "a"}], ("missing-field", f"{PLACE}[0]")),
        ([{"human": "q", "assistant": None}], ("missing-field", f"{PLACE}[0].assistant")),
        ([{"human": None, "user": None, "assistant": "a"}], ("missing-field", f"{PLACE}[0].human")),
        ([{"human": 1, "assistant": "a"}], ("wrong-type", f"{PLACE}[0].human")),
        ([{"human": "q", "assistant": "a"}, {"human": "q", "gpt": []}], ("wrong-type", f"{PLACE}[1].gpt")),
        ([{"human": "q", "user": "q", "assistant": "a"}], ("wrong-type", f"{PLACE}[0]")),
        ([{"human": "q", "assistant": "a", "bot": "a"}], ("wrong-type", f"{PLACE}[0]")),
    ],
)
def test_what_is_no_round_is_refused(column: Any, expected: tuple[str, str]) -> None:
    with pytest.raises(RecordError) as caught:
        HANDLER.dialogue({"conversation": column})
    assert (caught.value.reason, caught.value.field) == expected
    assert caught.value.reason in REASONS
    assert caught.value.expected
    assert caught.value.got


def test_system_and_summary_are_read_where_they_are_mapped() -> None:
    record = {"conversation": [{"human": "q", "assistant": "a"}], "system": "S", "summary": "s"}
    assert HANDLER.dialogue(record) == rounds(("q", "a"))
    found = FireflyHandler({"system": "system", "summary": "summary"}).dialogue(record)
    assert (found.system, found.summary) == ("S", "s")
    assert set(FireflyHandler.usual) == {"system"}


def test_a_benchmark_of_dialogues(shared: Path) -> None:
    handler = FireflyHandler({"conversation": "history"})
    lines = (shared / "datasets" / "mtbench101" / "mtbench101.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 1388
    for line in lines:
        record = json.loads(line)
        expected = rounds(*((turn["user"], turn["bot"]) for turn in record["history"]))
        assert handler.dialogue(record) == expected


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4), ensure_ascii=st.booleans())
def test_what_goes_in_comes_out_from_objects_and_from_json_text(
    pairs: list[tuple[str, str]], ensure_ascii: bool
) -> None:
    column = [{"human": question, "assistant": answer} for question, answer in pairs]
    for form in (column, json.dumps(column, ensure_ascii=ensure_ascii)):
        assert HANDLER.dialogue({"conversation": form}) == rounds(*pairs)


@pytest.mark.parametrize("name", ["firefly", "FireflyHandler"])
def test_the_handler_is_known_under_its_names(name: str) -> None:
    assert handlers.get(name) is FireflyHandler
