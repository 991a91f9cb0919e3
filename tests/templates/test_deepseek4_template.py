"""Our template of DeepSeek-V4's chat format renders what the model's own does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import _compile_jinja_template

import mtsft_preproc

OURS = Path(mtsft_preproc.__file__).parent / "templates" / "builtin" / "deepseek4.jinja"

words = st.one_of(
    st.sampled_from(["", "hi", "你好\n", "<think>", "</think>", "{{ x }}", '"&<>', "<｜User｜>"]),
    st.text(max_size=5),
)
values = st.recursive(
    st.one_of(words, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)
objects = st.dictionaries(words, values, max_size=3)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": words, "arguments": objects}),
        }
    ),
    max_size=3,
)
sources = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "developer", "tool", "system", "other"])},
    optional={"content": st.none() | words},
)
replies = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": st.none() | words,
        "reasoning_content": st.none() | words,
        "tool_calls": st.none() | calls,
    },
)
tools = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["function", "other"]), "function": objects}), max_size=3
)
flags = st.sampled_from([True, False, None])
variables = st.fixed_dictionaries(
    {"messages": st.lists(sources | replies, max_size=8)},
    optional={
        "tools": st.none() | tools,
        "bos_token": st.just("<｜begin▁of▁sentence｜>"),
        "add_generation_prompt": flags,
        "thinking": flags,
        "enable_thinking": flags,
        "drop_thinking": flags,
        "reasoning_effort": st.sampled_from(["high", "max", "low", None]),
    },
)


@pytest.fixture(scope="module")
def ours() -> Any:
    return _compile_jinja_template(OURS.read_text("utf-8"))


@pytest.fixture(scope="module")
def original(shared: Path) -> Any:
    path = shared / "templates" / "llama.cpp" / "deepseek-ai-DeepSeek-V4.jinja"
    return _compile_jinja_template(path.read_text("utf-8"))


@settings(max_examples=1000, deadline=None)
@given(given=variables)
def test_it_renders_what_the_models_own_template_does(
    ours: Any, original: Any, given: dict[str, Any]
) -> None:
    assert ours.render(**given) == original.render(**given)


def test_a_dialogue_with_everything(ours: Any) -> None:
    call = {"function": {"name": "w", "arguments": {"city": "Köln", "days": 2}}}
    rendered = ours.render(
        bos_token="<B>",
        thinking=True,
        tools=[{"type": "function", "function": {"name": "w"}}],
        messages=[
            {"role": "system", "content": "S"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "look", "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "A"},
            {"role": "tool", "content": "B"},
            {"role": "assistant", "content": "done"},
        ],
    )
    assert rendered.startswith("<B>S\n\n## Tools\n\n")
    assert '\n### Available Tool Schemas\n\n{"name": "w"}\n\nYou MUST strictly' in rendered
    assert rendered.partition("<｜User｜>q")[2] == (
        '<｜Assistant｜><think>hm</think>look\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="w">\n'
        '<｜DSML｜parameter name="city" string="true">Köln</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>"
        "<｜User｜><tool_result>A</tool_result>\n\n<tool_result>B</tool_result>"
        "<｜Assistant｜><think></think>done<｜end▁of▁sentence｜>"
    )


def test_arguments_as_text_are_refused(ours: Any) -> None:
    call = {"function": {"name": "w", "arguments": json.dumps({"city": "Köln"})}}
    with pytest.raises(jinja2.TemplateError, match="must be an object"):
        ours.render(messages=[{"role": "assistant", "tool_calls": [call]}])
