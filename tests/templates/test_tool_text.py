"""Tools, calls, results and thoughts in prompt types, against the models' own templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import _compile_jinja_template

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.templates import PromptTemplate, PromptType, TokenBatch, prompt_types, read_prompt_types
from mtsft_preproc.tokenization import Adjustment, Encoder, load_tokenizer, open_encoder

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Wetter {{content}} heute",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Stadt", "enum": ["Köln", 5]},
                "days": {"type": "array", "items": {"type": "integer"}},
                "note": {"type": ["string", "null"], "description": None},
            },
            "required": ["city"],
        },
    },
}
BARE = {"name": "now"}
KOELN = ToolCall("weather", {"city": "Köln", "days": [1, 2]})
NOW = ToolCall("now", {})


class Rendered:
    """Renders dialogues with a tokenizer that has most families' control tokens."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._encoders: dict[Adjustment, Encoder] = {}

    def encoder(self, prompt_type: PromptType) -> Encoder:
        adjustment = prompt_type.adjustment()
        if adjustment not in self._encoders:
            resolved = load_tokenizer(str(self._folder), adjustment)
            self._encoders[adjustment] = open_encoder(resolved.save(self._scratch))
        return self._encoders[adjustment]

    def batch(self, name: str | PromptType, dialogue: Dialogue, **settings: Any) -> TokenBatch:
        prompt_type = prompt_types.get(name) if isinstance(name, str) else name
        template = PromptTemplate(prompt_type, self.encoder(prompt_type), **settings)
        return template.encode([dialogue], [[message.role.is_target for message in dialogue.messages]])

    def __call__(self, name: str | PromptType, dialogue: Dialogue, **settings: Any) -> str:
        batch = self.batch(name, dialogue, **settings)
        for error in batch.failed.values():
            raise error
        prompt_type = prompt_types.get(name) if isinstance(name, str) else name
        return self.encoder(prompt_type).decode(batch.ids.tolist())

    def trained(self, name: str, dialogue: Dialogue, **settings: Any) -> str:
        batch = self.batch(name, dialogue, **settings)
        ids = batch.ids[(batch.kinds == 3) & batch.trained[batch.messages]]
        return self.encoder(prompt_types.get(name)).decode(ids.tolist())


@pytest.fixture(scope="module")
def rendered(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(shared / "golden" / "tokenizers" / "qwen", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def template(shared: Path) -> Callable[..., str]:
    """Render messages with one of the models' own templates."""

    def render(path: str, dialogue: Dialogue, **variables: Any) -> str:
        compiled = _compile_jinja_template((shared / "templates" / path).read_text("utf-8"))
        return str(compiled.render(messages=as_openai(dialogue), **variables))

    return render


def as_openai(dialogue: Dialogue) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if dialogue.system:
        messages.append({"role": "system", "content": dialogue.system})
    for message in dialogue.messages:
        turn: dict[str, Any] = {
            "role": ["user", "assistant", "tool"][message.role],
            "content": message.text,
        }
        if message.reasoning is not None:
            turn["reasoning_content"] = message.reasoning
        if message.tool_calls:
            turn["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
        messages.append(turn)
    return messages


def user(text: str = "q") -> Message:
    return Message(Role.USER, text)


def says(text: str | None = "a", *calls: ToolCall, reasoning: str | None = None) -> Message:
    return Message(Role.ASSISTANT, text, reasoning, calls)


def result(text: str) -> Message:
    return Message(Role.OBSERVATION, text)


def test_the_default_tools_text(rendered: Rendered) -> None:
    text = rendered("qwen", Dialogue([user(), says()], "S.", [WEATHER, BARE]))
    assert text.startswith(
        "<|im_start|>system\nS.You have access to the following tools:\n"
        "> Tool Name: weather\nTool Description: Wetter {{content}} heute\nTool Args:\n"
        "  - city (string, required): Stadt, should be one of [Köln, 5]\n"
        "  - days (array): , where each item should be integer\n"
        "  - note (['string', 'null']): \n\n"
        "> Tool Name: now\nTool Description: \nTool Args:\n\n"
        "Use the following format if using a tool:\n```\nAction: tool name (one of [weather, now]).\n"
    )


def test_tools_alone_get_the_system_format(rendered: Rendered) -> None:
    dialogue = Dialogue([user(), says()], tools=[BARE])
    assert rendered("chatml", dialogue).startswith("<|im_start|>system\nYou have access")
    assert rendered("qwen3", dialogue).startswith("<|im_start|>system\n# Tools\n\n")
    assert rendered("llama2", dialogue).startswith("[INST] <<SYS>>\nYou have access")
    assert "helpful assistant.You have access" in rendered("qwen", dialogue)


@pytest.mark.parametrize("system", ["", "Sei nett."])
@pytest.mark.parametrize("beside", ["", "Ich schaue nach.", "two\nlines\n"])
def test_qwen3_writes_tools_calls_and_results_as_its_own_template(
    rendered: Rendered, template: Callable[..., str], system: str, beside: str
) -> None:
    # With thoughts in each reply behind the last question the model's template adds no empty ones.
    dialogue = Dialogue(
        [
            user(),
            says(beside, KOELN, NOW, reasoning="hm\n\nja"),
            result("{{content}} 7°C"),
            result("12:00"),
            says(beside or None, NOW, reasoning="oh"),
            result("12:01"),
            says("a", reasoning="so"),
        ],
        system,
        [WEATHER, {"type": "function", "function": BARE}],
    )
    ours = rendered("qwen3", dialogue)
    theirs = template("llama.cpp/Qwen-Qwen3-0.6B.jinja", dialogue, tools=dialogue.tools)
    assert ours == theirs
    text = f"<think>\nso\n</think>\n\n{'a'}<|im_end|>\n"
    assert rendered.trained("qwen3", dialogue).endswith(text)


def test_arguments_in_text_stand_as_they_are(rendered: Rendered, template: Callable[..., str]) -> None:
    call = says("", ToolCall("f", '{"a":1 }'), reasoning="hm")
    dialogue = Dialogue([user(), call, result("r"), says("a", reasoning="x")])
    assert rendered("qwen3", dialogue) == template("llama.cpp/Qwen-Qwen3-0.6B.jinja", dialogue)
    assert '{"name": "f", "arguments": {"a":1 }}' in rendered("qwen3", dialogue)


@pytest.mark.parametrize("system", ["", "Sei nett."])
def test_glm4_writes_tools_as_its_own_template(shared: Path, rendered: Rendered, system: str) -> None:
    config = json.loads((shared / "tokenizers" / "glm4" / "tokenizer_config.json").read_text("utf-8"))
    own = _compile_jinja_template(config["chat_template"])
    tools = [WEATHER, {"type": "function", "function": BARE}]
    messages = [
        {"role": "system", "metadata": "", "tools": tools, "content": system},
        {"role": "user", "metadata": "", "content": "q"},
        {"role": "assistant", "metadata": "weather", "content": '{"city": "Köln", "days": [1, 2]}'},
        {"role": "observation", "metadata": "", "content": "7°C"},
        {"role": "assistant", "metadata": "", "content": "a"},
    ]
    dialogue = Dialogue([user(), says(None, KOELN), result("7°C"), says()], system, tools)
    assert rendered("glm4", dialogue) == own.render(messages=messages) + "<|im_end|>"


def test_glm4_moe_writes_tools_calls_and_results_as_its_own_template(
    rendered: Rendered, template: Callable[..., str]
) -> None:
    dialogue = Dialogue(
        [user(), says("", KOELN, NOW), result("7°C"), result("12:00"), says()],
        "S",
        [WEATHER, {"type": "function", "function": BARE}],
    )
    ours = rendered("glm4_moe", dialogue)
    theirs = template("llama.cpp/GLM-4.6.jinja", dialogue, tools=dialogue.tools)
    head, _, rest = theirs.partition("<|user|>")
    assert ours.startswith(head + "<|user|>")
    calls = rest[rest.index("<tool_call>") : rest.index("<|assistant|>\n<think></think>\na")]
    assert calls.endswith("</tool_call><|observation|>\n<tool_response>\n7°C\n</tool_response>\n"
                          "<tool_response>\n12:00\n</tool_response>")  # fmt: skip
    assert calls in ours
    # Without tools the format's elements hold, as in the original.
    bare = dialogue.but(tools=[], messages=[*dialogue.messages[:3], says()])
    assert '\n</think>\n\nweather\n{"city": "Köln", "days": [1, 2]}now\n{}' in rendered("glm4_moe", bare)


def test_bailing_mini_takes_qwens_forms(rendered: Rendered) -> None:
    dialogue = Dialogue([user(), says(None, NOW), result("A"), result("B"), says()], "S", [BARE])
    text = rendered("bailing_mini", dialogue)
    assert '<role>SYSTEM</role>S\n\n# Tools\n\n' in text  # fmt: skip
    assert '{"type": "function", "function": {"name": "now"}}\n</tools>' in text
    assert '</role><tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|role_end|><role>OBS' in text
    assert "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response><|role_end|>" in text


def test_calls_in_the_action_form(rendered: Rendered) -> None:
    turn = says("Ich schaue.", KOELN, ToolCall("{{arguments}}", "{{name}}"))
    calls = Dialogue([user(), turn, result("r"), says()])
    assert rendered.trained("chatml", calls) == (
        'Ich schaue.\nAction: weather\nAction Input: {"city": "Köln", "days": [1, 2]}<|im_end|>'
        "Action: {{arguments}}\nAction Input: {{name}}<|im_end|>a<|im_end|>"
    )
    # Where EOS is taught at the next header the call has none of its own.
    assert rendered.trained("gemma", calls).startswith("Ich schaue.\nAction: weather\nAction Input: ")
    assert "]}Action: " in rendered.trained("gemma", calls)
    # What closes a reply stands behind the calls alone.
    assert rendered.trained("qwen_lf", calls).startswith("Ich schaue.\nAction: weather")


def test_reasoning(rendered: Rendered) -> None:
    apart = Dialogue([user(), says("a", reasoning="\nhm\n"), user(), says("b", reasoning="")])
    inside = Dialogue([user(), says("<think>\nhm\n</think>\n\na"), user(), says("b")])
    for enabled in ("true", "false", "none"):
        assert rendered("qwen3", apart, enable_thinking=enabled) == (
            rendered("qwen3", inside, enable_thinking=enabled)
        )
    assert "hm" not in rendered("qwen", apart, enable_thinking="false")
    calls = Dialogue([user(), says("<think>\nhm\n</think>\n\n", NOW), result("r"), says()])
    assert "hm\n</think>\n\n<tool_call>" in rendered("qwen3", calls)
    assert "hm\n</think>\n\nnow\n{}" in rendered("glm4_moe", calls)


def inserted(text: str) -> Message:
    return Message(Role.SYSTEM, text)


@pytest.mark.parametrize(
    ("name", "messages", "reason", "field", "expected"),
    [
        ("qwen", [], "empty-dialogue", "messages", "a message"),
        ("qwen", [says()], "role-order", "messages[0]", "a user message or a tool result; --chat-template"),
        ("qwen", [user()], "no-assistant", "messages", "an assistant message"),
        ("qwen", [user(), result("A"), user()], "no-assistant", "messages", "an assistant message"),
        ("qwen", [user(), user(), says()], "role-order", "messages[1]", "an assistant message; --"),
        ("qwen", [user(), says(), says()], "role-order", "messages[2]", "a user message or a tool result"),
        ("qwen3", [result("A"), user(), says()], "role-order", "messages[1]", "an assistant message"),
        ("qwen", [user(), says(), result("A"), result("B"), says()], "role-order", "messages[3]",
         "several tool results in a row; --chat-template"),
        ("glm4_moe", [result("A"), result("B"), says()], "role-order", "messages[1]", "tool results in"),
        ("qwen", [inserted("s"), user(), says()], "unsupported-message", "messages[0]", "--chat-template"),
        ("qwen", [user(), inserted("s"), says()], "unsupported-message", "messages[1]", "no system"),
        ("qwen", [user(), says(), inserted("s")], "unsupported-message", "messages[2]", "no system"),
        ("qwen3", [user(), says(), result("A"), inserted("s"), says()], "unsupported-message",
         "messages[3]", "no system"),
        ("qwen", [user(), says(reasoning="hm")], "unsupported-message", "messages[1].reasoning",
         "--enable-thinking false"),
        ("qwen3", [user(), says("<think>x", reasoning="hm")], "unsupported-message",
         "messages[1].reasoning", "in one place"),
        ("glm4", [user(), says("text", NOW)], "unsupported-message", "messages[1]",
         "no text beside a tool call"),
        ("qwen", [Message(Role.USER, "q", tool_calls=(NOW,)), says()], "unsupported-message", "messages[0]",
         "tool calls in an"),
        ("qwen", [Message(Role.USER, "q", "hm"), says()], "unsupported-message", "messages[0]",
         "reasoning in an"),
    ],
)  # fmt: skip
def test_what_a_format_has_no_place_for(
    rendered: Rendered, name: str, messages: list[Message], reason: str, field: str, expected: str
) -> None:
    [error] = rendered.batch(name, Dialogue(messages)).failed.values()
    assert (error.reason, error.field) == (reason, field)
    assert expected in error.expected


PROPERTIES = "tools[0].parameters.properties"


@pytest.mark.parametrize(
    ("tools", "calls", "reason", "field"),
    [
        (["x"], [], "wrong-type", "tools[0]"),
        ([{"type": "function", "function": None}], [], "wrong-type", "tools[0]"),
        ([{"description": "x"}], [], "missing-field", "tools[0].name"),
        ([{"name": "x", "parameters": []}], [], "wrong-type", "tools[0].parameters"),
        ([{"name": "x", "parameters": {"properties": {"p": 1}}}], [], "wrong-type", PROPERTIES + ".p"),
        ([object()], [], "wrong-type", "tools"),
        ([], [ToolCall("f", {"x": object()})], "wrong-type", "messages[1].tool_calls[0].arguments"),
        ([{"name": "\ud800"}], [], "lone-surrogate", ""),
        ([], [ToolCall("f", {"x": "\udfff"})], "lone-surrogate", ""),
    ],
)  # fmt: skip
def test_broken_tools_and_calls(
    rendered: Rendered, tools: list[Any], calls: list[ToolCall], reason: str, field: str
) -> None:
    [error] = rendered.batch("qwen", Dialogue([user(), says("a", *calls)], tools=tools)).failed.values()
    assert (error.reason, error.field) == (reason, field)


def test_glm4_moe_needs_arguments_by_name(rendered: Rendered) -> None:
    for arguments in ("[1]", "plain", "[" * 100_000):
        broken = Dialogue([user(), says("", ToolCall("f", arguments))], tools=[BARE])
        with pytest.raises(RecordError, match="a JSON object"):
            rendered("glm4_moe", broken)


def test_messages_keep_their_numbers_where_results_are_joined(rendered: Rendered) -> None:
    dialogue = Dialogue([user(), says(None, NOW, NOW), result("A"), result("B"), says("end")])
    batch = rendered.batch("qwen3", dialogue)
    assert len(batch.trained) == 5
    decode = rendered.encoder(prompt_types.get("qwen3")).decode
    texts = [decode(batch.ids[batch.messages == number].tolist()) for number in range(5)]
    assert texts[2].startswith("<|im_start|>user\n<tool_response>\nA\n")
    assert texts[2].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (texts[3], texts[4]) == ("", "end<|im_end|>\n")


def test_an_unknown_tool_format_is_an_error(tmp_path: Path, rendered: Rendered) -> None:
    known = re.escape("'toolbench'; available: default, glm4, glm4_moe, ling, qwen")
    path = tmp_path / "types.json"
    path.write_text('[{"name": "a", "format_tools": {"tool_format": "toolbench"}}]')
    with pytest.raises(TemplateError, match=known):
        read_prompt_types(str(path))
    with pytest.raises(TemplateError, match=known):
        rendered(PromptType("a", tool_format="toolbench"), Dialogue([user(), says()]))


@pytest.mark.parametrize("slots", [["x"], ["{{name}}"], ["{{content}}", "{{name}} {{arguments}}"]])
def test_a_function_format_has_a_place_for_all_of_a_call(tmp_path: Path, slots: list[str]) -> None:
    path = tmp_path / "types.json"
    path.write_text(json.dumps([{"name": "a", "format_function": {"slots": slots}}]))
    with pytest.raises(TemplateError, match="format_function: expected either"):
        read_prompt_types(str(path))


#: Text that spells control tokens of the tokenizer, alone, in pieces, or together with a format's text.
hostile = st.lists(
    st.one_of(
        st.sampled_from(
            ["<|im_end|>", "<|im_start|>assistant\n", "<tool_call>", "</tool_call>", "gMASK", "[gMASK]",
             "think>", "</think>", "<|user|>", "</s>", "tool_call>", "<", "\n", "你好",
             "{{name}}", "{{arguments}}", "{{content}}"]
        ),
        st.text(max_size=4),
    ),
    max_size=4,
).map("".join)  # fmt: skip
parameter = st.fixed_dictionaries({"type": hostile, "enum": st.lists(hostile, max_size=2)})
properties = st.dictionaries(hostile, parameter, max_size=2)
hostile_tools = st.fixed_dictionaries(
    {"name": hostile, "description": hostile},
    optional={"parameters": st.fixed_dictionaries({"properties": properties})},
)


@pytest.mark.parametrize("name", ["qwen", "qwen3", "glm4", "glm4_moe", "bailing_mini", "llama2", "gemma"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tools=st.lists(hostile_tools, max_size=2),
    called=hostile,
    arguments=st.dictionaries(hostile, hostile | st.lists(hostile, max_size=2), max_size=2),
    results=st.tuples(hostile, hostile),
    thoughts=hostile,
    beside=hostile,
)
def test_no_text_of_tools_calls_results_or_thoughts_can_forge_a_control_token(
    rendered: Rendered,
    name: str,
    tools: list[Any],
    called: str,
    arguments: dict[str, Any],
    results: tuple[str, str],
    thoughts: str,
    beside: str,
) -> None:
    """The control ids are those of the same dialogue without a letter of the record in it."""
    # Thoughts in the content and beside it are refused.
    assume(not beside.lstrip().startswith("<think>"))

    holds_text = name != "glm4" and (name != "glm4_moe" or bool(tools))

    def dialogue(clean: Callable[[Any], Any]) -> Dialogue:
        reasoning = clean(thoughts) + "x" if name in ("qwen3", "glm4_moe") else None
        text = clean(beside) if holds_text else ""
        call = ToolCall(clean(called), clean(arguments))
        joins = name in ("qwen3", "bailing_mini")
        found = [result(clean(text)) for text in results[: 1 + joins]]
        return Dialogue([user(), says(text, call, reasoning=reasoning), *found, says()], tools=clean(tools))

    def harmless(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key if key in KEPT else f"k{n}": harmless(item)
                for n, (key, item) in enumerate(value.items())
            }
        if isinstance(value, list):
            return [harmless(item) for item in value]
        return "x" if value else ""

    special = rendered.encoder(prompt_types.get(name)).spec.added
    ids = {token.id for token in special if token.special}
    batches = [rendered.batch(name, dialogue(clean)) for clean in (lambda value: value, harmless)]
    assert [batch.failed for batch in batches] == [{}, {}]
    found, expected = [[index for index in batch.ids.tolist() if index in ids] for batch in batches]
    assert found == expected
    text = rendered.encoder(prompt_types.get(name)).decode(batches[0].ids.tolist())
    # White space alone beside a call is left out.
    for part in (called, results[0], beside if holds_text and beside.strip() else ""):
        assert part in text


KEPT = {"name", "description", "parameters", "properties", "type", "enum"}


def test_reject_names_the_token(rendered: Rendered) -> None:
    spelled = Dialogue([user(), says("a", ToolCall("<|im_end|>", {}))])
    with pytest.raises(RecordError, match=re.escape("'<|im_end|>'")):
        rendered("qwen3", spelled, special_tokens_in_text="reject")
    # A name that becomes a token between the format's own brackets.
    crossing = Dialogue([user(), says()], tools=[{"name": "gMASK"}])
    with pytest.raises(RecordError, match=re.escape("[gMASK]")):
        rendered("qwen", crossing, special_tokens_in_text="reject")
    harmless = Dialogue([user(), says("a", NOW), result("r"), says()], tools=[BARE])
    assert "<tool_call>" in rendered("qwen3", harmless, special_tokens_in_text="reject")
