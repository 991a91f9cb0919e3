"""The parity of each trained turn, against what ``apply_chat_template`` gives a serving engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_reference import Model, conversation, each_template, samples, template_text
from dialogues import flags, seeded

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.token_batch import WHOLE, TokenBatch


def trained_turns(batch: TokenBatch, dialogues: list[Dialogue]) -> list[tuple[int, int, list[int]]]:
    """Return dialogue, message and the ids in front of the first token, of every turn that has tokens."""
    ends = batch.sample_ends.tolist()
    first_message = np.cumsum([0, *(len(item.messages) + bool(item.system) for item in dialogues)])
    found = []
    mask = batch.mask()
    kept = batch.dialogues.tolist()
    shift = dict(zip(kept, np.cumsum([0, *np.diff(first_message)[kept]])[:-1].tolist(), strict=True))
    for number, start, end in zip(kept, [0, *ends], ends, strict=False):
        messages = batch.messages[start:end] - shift[number]
        for message in np.unique(messages[mask[start:end]]).tolist():
            place = int(np.flatnonzero(mask[start:end] & (messages == message))[0])
            found.append((number, int(message), batch.ids[start : start + place].tolist()))
    return found


def served(model: Model, text: str | None, dialogue: Dialogue, message: int) -> Any:
    """Return the ids of what a serving engine has in front of a message, or None where that is refused."""
    messages, tools = conversation(dialogue)
    try:
        return model.ids(text, messages[:message], tools, add_generation_prompt=True)
    except Exception:
        return None


def check(model: Model, text: str, dialogues: list[Dialogue]) -> None:
    """Hold the counts of a batch against the ids, one turn after the other."""
    for dialogue in dialogues:
        batch = model.template(text, special_tokens_in_text="allow").encode([dialogue], flags([dialogue]))
        if batch.failed:
            continue
        messages, _ = conversation(dialogue)
        counted: Counter[str] = Counter()
        silent = sum(message["role"] == "assistant" for message in messages)
        for _, message, before in trained_turns(batch, [dialogue]):
            silent -= 1
            expected = served(model, text, dialogue, message)
            counted["same" if before == expected else "other"] += 1
        # What "reply" counts has the serving engine's prompt, and "border" the same text.
        same = batch.parity["same"]
        assert same <= counted["same"] + silent
        assert counted["same"] <= same + batch.parity["reply"] + batch.parity["border"]
        assert sum(batch.parity.values()) == sum(counted.values()) + silent


@each_template()
def test_same_means_the_same_ids(letters: Model, name: str) -> None:
    check(letters, template_text(name), seeded(f"{name}/parity", 3))


@pytest.mark.parametrize(
    "name",
    [
        "trl/qwen3",
        "trl/llama3_1",
        "chujiezheng/vicuna",
        "trl/gptoss",
        "mistral-common/v3",
        "axolotl/gemma3",
    ],
)
def test_borders_of_tokens_count(shared: Path, qwen3: Model, name: str) -> None:
    """With a tokenizer that joins letters across the border of a prompt."""
    check(qwen3, template_text(name), seeded(f"{name}/border", 12))


def test_a_dialogue_is_split_where_its_history_reads_differently(shared: Path, letters: Model) -> None:
    """Each turn of its own sample stands behind exactly what is served."""
    text = template_text("trl/qwen3")
    dialogues = seeded("split", 30, 0.0)
    batch = letters.template(text, parity="split").encode(dialogues, flags(dialogues))
    ends = batch.sample_ends.tolist()
    mask = batch.mask()
    own = 0
    for number, turn, start, end in zip(
        batch.dialogues.tolist(), batch.turns.tolist(), [0, *ends], ends, strict=False
    ):
        if turn == WHOLE:
            continue
        own += 1
        message = turn + bool(dialogues[number].system)
        messages, tools = conversation(dialogues[number])
        ids = batch.ids[start:end].tolist()
        assert ids == letters.ids(text, messages[: message + 1], tools)
        first = int(np.flatnonzero(mask[start:end])[0])
        assert ids[:first] == letters.ids(text, messages[:message], tools, add_generation_prompt=True)
    assert own == batch.parity["split-samples"] > 0
    assert len(samples(batch)) > 0


def test_no_turn_is_trained_twice_when_split(shared: Path, letters: Model) -> None:
    told = Dialogue([Message(Role.USER, "u"), Message(Role.ASSISTANT, "</think>a", "b")] * 3)
    batch = letters.template(template_text("trl/qwen3"), parity="split").encode([told], flags([told]))
    ends = batch.sample_ends.tolist()
    mask = batch.mask()
    trained = [
        letters.decode(batch.ids[start:end][mask[start:end]]).count("<|im_end|>")
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    assert sum(trained) == 3
