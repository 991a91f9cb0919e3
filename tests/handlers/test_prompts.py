"""The handlers for reinforcement learning read what those of their formats read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.handlers.prompts import PPOAlpacaHandler, R1AlpacaHandler, R1SharegptHandler
from mtsft_preproc.handlers.sharegpt import SharegptHandler


@pytest.mark.parametrize(
    ("names", "entry", "objective"),
    [
        (("alpaca-ppo", "PPOAlpacaStyleInstructionHandler"), PPOAlpacaHandler, "ppo"),
        (("alpaca-r1", "R1AlpacaStyleInstructionHandler"), R1AlpacaHandler, "r1"),
        (("sharegpt-r1", "R1SharegptStyleInstructionHandler"), R1SharegptHandler, "r1"),
        (("alpaca", "AlpacaStyleInstructionHandler"), AlpacaHandler, "sft"),
        (("sharegpt", "SharegptStyleInstructionHandler"), SharegptHandler, "sft"),
    ],
)
def test_names_and_objectives(names: tuple[str, str], entry: type, objective: str) -> None:
    for name in names:
        assert handlers.get(name) is entry
        assert handlers.get(name).objective == objective


@pytest.mark.parametrize("kind", [PPOAlpacaHandler, R1AlpacaHandler])
def test_alpaca_rows_are_read_as_ever(shared: Path, kind: type[AlpacaHandler]) -> None:
    records = json.loads((shared / "golden" / "inputs" / "alpaca_hist.json").read_text("utf-8"))
    assert len(records) == 200
    for record in records:
        earlier = [text for pair in record["history"] or [] for text in pair]
        asked = "\n".join(text for text in (record["instruction"], record["input"]) if text)
        found = kind({"history": "history"}).dialogue(record)
        assert [message.content for message in found.messages] == [*earlier, asked, record["output"]]


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": value} for role, value in pairs]}


def test_sharegpt_records_must_end_on_a_reply() -> None:
    handler = R1SharegptHandler()
    rounds = [("human", "q"), ("gpt", "a")]
    assert handler.dialogue(turns(("system", "S"), *rounds)) == Dialogue(
        [Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")], "S"
    )
    record = turns(*rounds, ("human", "q"))
    assert len(SharegptHandler().dialogue(record).messages) == 3
    for form in (record, {"conversations": json.dumps(record["conversations"])}):
        with pytest.raises(RecordError) as caught:
            handler.dialogue(form)
        assert (caught.value.reason, caught.value.field) == ("role-order", "conversations")
        assert "gpt" in caught.value.expected
    with pytest.raises(RecordError) as caught:
        handler.dialogue(turns(("human", "q")))
    assert caught.value.reason == "no-assistant"


@pytest.mark.parametrize("kind", [AlpacaHandler, PPOAlpacaHandler, R1AlpacaHandler])
def test_the_summary_of_a_row_is_read_where_it_is_mapped(kind: type[AlpacaHandler]) -> None:
    record = {"instruction": "q", "input": "", "output": "a", "short": "s"}
    assert kind().dialogue(record).summary == ""
    assert kind({"summary": "short"}).dialogue(record).summary == "s"
    for value in (None, ""):
        assert kind({"summary": "short"}).dialogue({**record, "short": value}).summary == ""
    with pytest.raises(RecordError) as caught:
        kind({"summary": "short"}).dialogue({**record, "short": 7})
    assert (caught.value.reason, caught.value.field) == ("wrong-type", "short")
