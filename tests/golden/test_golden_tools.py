"""Tokens of dialogues with tools and other roles against the original program's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates import PromptTemplate, prompt_types
from mtsft_preproc.tokenization import load_tokenizer, open_encoder

ROLES = {
    "human": Role.USER, "user": Role.USER, "gpt": Role.ASSISTANT, "assistant": Role.ASSISTANT,
    "observation": Role.OBSERVATION,
}  # fmt: skip


def dialogue(turns: list[dict[str, str]], tools: str) -> Dialogue:
    """Return the dialogue of a record in ShareGPT's form."""
    messages, system = [], ""
    for turn in turns:
        role, text = turn.get("from", turn.get("role", "")), turn.get("value", turn.get("content", ""))
        if role == "system":
            system = text
        elif role == "function_call":
            call = json.loads(text)
            messages.append(
                Message(Role.ASSISTANT, None, tool_calls=(ToolCall(call["name"], call["arguments"]),))
            )
        else:
            messages.append(Message(ROLES[role], text))
    return Dialogue(messages, system, json.loads(tools))


@pytest.mark.parametrize(
    ("case", "source", "tokenizer", "field"),
    [
        ("sharegpt_tools_qwen", "sharegpt_tools.json", "qwen_base", "conversations"),
        ("sharegpt_role_qwen_fulltags", "sharegpt_role.json", "qwen", "messages"),
    ],
)
@pytest.mark.parametrize("mode", ["plain", "allow"])
def test_tokens_and_labels_are_those_of_the_original(
    shared: Path, tmp_path: Path, case: str, source: str, tokenizer: str, field: str, mode: str
) -> None:
    prompt_type = prompt_types.get("qwen")
    folder = shared / "golden" / "tokenizers" / tokenizer
    encoder = open_encoder(load_tokenizer(str(folder), prompt_type.adjustment()).save(tmp_path))
    template = PromptTemplate(prompt_type, encoder, special_tokens_in_text=mode)
    records: list[Any] = json.loads((shared / "golden" / "inputs" / source).read_text("utf-8"))
    dialogues = [dialogue(record[field], record.get("tools") or "[]") for record in records]
    batch = template.encode(
        dialogues, [[message.role.is_target for message in item.messages] for item in dialogues]
    )
    assert batch.failed == {}
    expected = np.load(shared / "golden" / "expected" / f"{case}.npz")
    lengths = np.diff(np.concatenate([[0], batch.sample_ends]))
    np.testing.assert_array_equal(lengths, expected["packed_input_ids_document.lengths"])
    np.testing.assert_array_equal(batch.ids, expected["packed_input_ids_document.tokens"])
    labels = np.where(batch.mask(), batch.ids, -100)
    np.testing.assert_array_equal(labels, expected["packed_labels_document.tokens"])
