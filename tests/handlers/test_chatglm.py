"""ChatGLM-6B's rows of prompt, response and history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.dialogue import Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.chatglm import ChatGLMHandler


def row(**fields: Any) -> dict[str, Any]:
    return {"prompt": "q2", "response": "a2", **fields}


@pytest.mark.parametrize(
    ("history", "earlier"),
    [
        ([["q1", "a1"]], ["q1", "a1"]),
        ('[["q1", "a1"]]', ["q1", "a1"]),
        ([{"prompt": "q1", "response": "a1"}], ["q1", "a1"]),
        ([], []),
        (None, []),
    ],
    ids=["pairs", "json", "objects", "empty", "null"],
)
def test_the_history_goes_first(history: Any, earlier: list[str]) -> None:
    dialogue = ChatGLMHandler().dialogue(row(history=history))
    assert [message.content for message in dialogue.messages] == [*earlier, "q2", "a2"]
    roles = [message.role for message in dialogue.messages]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2)
    assert (dialogue.system, dialogue.notes) == ("", [])


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"prompt": None}, "missing-field", "prompt"),
        ({"response": None}, "missing-field", "response"),
        ({"prompt": 1}, "wrong-type", "prompt"),
        ({"response": ["a"]}, "wrong-type", "response"),
        ({"history": ["q1", "a1"]}, "bad-history", "history[0]"),
        ({"history": [["q1", None]]}, "bad-history", "history[0][1]"),
    ],
)
def test_other_rows_are_rejected(change: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(RecordError) as caught:
        ChatGLMHandler().dialogue(row(**change))
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_the_example_of_chatglm(shared: Path) -> None:
    lines = (shared / "datasets/chatglm/ptuning_chat_example.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    dialogues = [ChatGLMHandler().dialogue(item) for item in rows]
    assert [len(dialogue.messages) for dialogue in dialogues] == [2, 4, 6]
    assert dialogues[2].messages[-1].content == rows[2]["response"]
    # Each row goes on where the one before ended.
    assert dialogues[2].messages[:4] == dialogues[1].messages


def test_the_handler_of_chatglm_is_known_under_its_names() -> None:
    assert handlers.get("chatglm") is handlers.get("ChatGLMHandler") is ChatGLMHandler
    assert ChatGLMHandler.text_form == "chatglm_rounds"
    assert ChatGLMHandler.defaults == {"train_on": "split"}
