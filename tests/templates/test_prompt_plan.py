"""Plain dialogues are rendered the short way: token for token what they are beside one that is not plain.

Where one text of a batch spells a special token, all of the batch is rendered the long way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.tool_json import read_tools
from mtsft_preproc.templates import PromptTemplate, TokenBatch, prompt_types
from mtsft_preproc.tokenization import load_tokenizer, open_encoder

TOOL = {"name": "sum", "description": "adds", "parameters": {"type": "object", "properties": {}}}
WORDS = st.sampled_from(["", "hi", "a\nb", "\n", "<think>\nhm\n</think>\n\nyes", "日本", " x "])
CALLS = st.sampled_from([(), (ToolCall("sum", {"x": 1}),), (ToolCall("sum", {"é": "ü"}),) * 2])
REPLIES = st.builds(lambda text, calls: Message(Role.ASSISTANT, text, tool_calls=calls), WORDS, CALLS)
SOURCES = st.builds(Message, st.sampled_from([Role.USER, Role.USER, Role.OBSERVATION]), WORDS)
TOOLS = st.sampled_from([[], [TOOL], [TOOL, {**TOOL, "name": "product"}]])


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    rounds = draw(st.lists(st.tuples(SOURCES, REPLIES), min_size=1, max_size=4))
    messages = [message for pair in rounds for message in pair] + draw(st.lists(SOURCES, max_size=1))
    tools = read_tools(draw(TOOLS), "tools", [])
    return Dialogue(messages, draw(st.sampled_from(["", "be brief"])), tools)


class Templates:
    """Templates by prompt type and settings, over one tokenizer."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._found: dict[Any, PromptTemplate] = {}

    def __call__(self, name: str, thinking: str) -> PromptTemplate:
        if (name, thinking) not in self._found:
            prompt_type = prompt_types.get(name)
            resolved = load_tokenizer(str(self._folder), prompt_type.adjustment())
            encoder = open_encoder(resolved.save(self._scratch))
            self._found[name, thinking] = PromptTemplate(prompt_type, encoder, enable_thinking=thinking)
        return self._found[name, thinking]


@pytest.fixture(scope="session")
def templates(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tokenizer_folder, tmp_path_factory.mktemp("plans"))


def flags(dialogue: Dialogue) -> list[bool]:
    return [message.role is Role.ASSISTANT for message in dialogue.messages]


def facts(batch: TokenBatch, number: int) -> dict[str, Any]:
    """Return all that a batch says of one dialogue."""
    if number in batch.failed:
        error: RecordError = batch.failed[number]
        return {"error": (error.reason, error.field, error.expected, error.got)}
    sample = batch.dialogues.tolist().index(number)
    start, end = [0, *batch.sample_ends.tolist()][sample : sample + 2]
    messages = batch.messages[start:end]
    late = batch.late_stops
    return {
        "ids": batch.ids[start:end].tolist(),
        "kinds": batch.kinds[start:end].tolist(),
        "messages": (messages - messages[0]).tolist() if len(messages) else [],
        "trained": batch.mask()[start:end].tolist(),
        "late": (late[(late >= start) & (late < end)] - start).tolist(),
        "notes": batch.notes[number],
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(dialogues(), min_size=1, max_size=4),
    name=st.sampled_from(["qwen", "qwen_lf", "qwen3", "llama3", "llama2", "default", "chatglm2", "glm4"]),
    thinking=st.sampled_from(["none", "true", "false"]),
)
def test_the_short_way_gives_what_the_long_way_gives(
    found: list[Dialogue], name: str, thinking: str, templates: Templates
) -> None:
    template = templates(name, thinking)
    spells = Dialogue(
        [Message(Role.USER, template.prompt_type.name), Message(Role.ASSISTANT, "\ufdd07\ufdd1")]
    )
    short = template.encode(found, [flags(item) for item in found])
    long = template.encode([*found, spells], [flags(item) for item in [*found, spells]])
    assert long.failed[len(found)].reason == "special-token"
    for number in range(len(found)):
        assert facts(short, number) == facts(long, number)


def test_many_dialogues_with_the_same_tools_have_the_same_opening(templates: Templates) -> None:
    template = templates("qwen", "none")
    both = []
    for _ in range(2):
        messages = [Message(Role.USER, "hi"), Message(Role.ASSISTANT, "yes")]
        both.append(Dialogue(messages, "", read_tools([dict(TOOL)], "tools", [])))
    batch = template.encode(both, [flags(item) for item in both])
    first, second = np.split(batch.ids, batch.sample_ends[:-1])
    assert first.tolist() == second.tolist()


def test_a_dialogue_that_changes_its_tools_has_those(templates: Templates) -> None:
    template = templates("qwen", "none")
    made = []
    for more in ([], [{**TOOL, "name": "product"}]):
        messages = [Message(Role.USER, "hi"), Message(Role.ASSISTANT, "yes")]
        made.append(Dialogue(messages, "", [*read_tools([dict(TOOL)], "tools", [])]))
        made[-1].tools += more
        made.append(Dialogue(messages, "", read_tools([dict(TOOL)], "tools", [])))
        made[-1].tools += more
    batch = template.encode(made, [flags(item) for item in made])
    alone, copy, two, changed = (ids.tolist() for ids in np.split(batch.ids, batch.sample_ends[:-1]))
    assert alone == copy != two == changed


def test_shapes_that_are_forgotten_are_made_again(
    templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtsft_preproc.templates.prompt_plan._KEPT", 2)
    template = templates("qwen3", "none")
    one = [Message(Role.USER, "hi"), Message(Role.ASSISTANT, "yes")]
    told = [Dialogue(one * rounds) for rounds in (1, 2, 3, 1, 2, 3)]
    batch = template.encode(told, [flags(item) for item in told])
    assert template._plan is not None
    assert len(template._plan._shapes) <= 2
    for number in range(3):
        assert facts(batch, number) == facts(batch, number + 3)
        alone = template.encode([told[number]], [flags(told[number])])
        assert facts(alone, 0)["ids"] == facts(batch, number)["ids"]
