"""The chat format that the settings name, and what a probe finds out about it."""

from __future__ import annotations

import datetime
import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import encoder_of

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import MtsftError, SettingsError, TemplateError
from mtsft_preproc.templates import (
    BUILTIN,
    ChatFormat,
    Probe,
    PromptFormat,
    TurnEnd,
    make_format,
    probe_dialogue,
    stop_remedy,
)
from mtsft_preproc.tokenization import Adjustment, ResolvedTokenizer, load_tokenizer

MakeConfig = Callable[..., PreprocessConfig]
DAY = datetime.date(2024, 7, 26)
EOS = 3966


@pytest.fixture(scope="module")
def tokenizer() -> ResolvedTokenizer:
    folder = Path(__file__).parents[2] / "examples" / "tokenizer"
    return load_tokenizer(str(folder))


@pytest.fixture
def make_chat(make_config: MakeConfig) -> MakeConfig:
    """Return settings with a chat template."""

    def make(**changes: Any) -> PreprocessConfig:
        return make_config(**{"prompt_type": None, "chat_template": "tokenizer", **changes})

    return make


def with_templates(tokenizer: ResolvedTokenizer, **templates: str) -> ResolvedTokenizer:
    return replace(tokenizer, spec=replace(tokenizer.spec, chat_templates=tuple(templates.items())))


def test_the_built_in_ones_are_files() -> None:
    assert BUILTIN == ("chatml", "deepseek4")


def test_a_prompt_type_is_a_prompt_type(make_config: MakeConfig) -> None:
    found = make_format(make_config(prompt_type="gemma"))
    assert isinstance(found, PromptFormat)
    assert found.describe()["prompt_type"]["name"] == "gemma"


def test_deepseek4_is_a_chat_template_whose_flags_are_variables(make_config: MakeConfig) -> None:
    found = make_format(make_config(prompt_type="deepseek4"))
    assert isinstance(found, ChatFormat)
    assert json.loads(found.kwargs) == {"thinking": False}
    flags = {"enable_thinking": "true", "drop_thinking": "false", "reasoning_effort": "high"}
    found = make_format(make_config(prompt_type="deepseek4", **flags))
    assert isinstance(found, ChatFormat)
    assert json.loads(found.kwargs) == {
        "thinking": True,
        "drop_thinking": False,
        "reasoning_effort": "high",
    }


def test_a_table_of_the_users_own_goes_before_it(make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "types.json"
    entry = {"name": "deepseek4", "format_user": {"slots": ["{{content}}"]}}
    path.write_text(json.dumps([entry]))
    found = make_format(make_config(prompt_type="deepseek4", prompt_type_path=str(path)))
    assert isinstance(found, PromptFormat)


def test_names_are_sought_where_the_user_would(
    make_chat: MakeConfig, tokenizer: ResolvedTokenizer, tmp_path: Path
) -> None:
    """The tokenizer's own, a file, a built-in one, one of the tokenizer's by name."""
    path = tmp_path / "mine.jinja"
    path.write_text("mine")
    spec = with_templates(tokenizer, default="own", rag="other").spec
    named = {
        "tokenizer": "own", "default": "own", "rag": "other", str(path): "mine",
    }  # fmt: skip
    for name, text in named.items():
        found = make_format(make_chat(chat_template=name)).resolve(spec, DAY)
        assert isinstance(found, ChatFormat)
        assert dict(found.templates)["default"] == text
        assert dict(found.special_tokens)["eos_token"] == "<eos>"
    builtin = make_format(make_chat(chat_template="chatml")).resolve(spec, DAY)
    assert isinstance(builtin, ChatFormat)
    assert "<|im_start|>" in dict(builtin.templates)["default"]


def test_a_chat_template_changes_nothing_about_the_tokenizer(make_chat: MakeConfig) -> None:
    assert make_format(make_chat()).adjustment() == Adjustment()


@pytest.mark.parametrize(
    ("text", "date"), [("{{ strftime_now('%Y') }}", "2024-07-26"), ("{{ messages }}", None)]
)
def test_a_date_is_kept_where_it_is_printed(
    text: str, date: str | None, make_chat: MakeConfig, tokenizer: ResolvedTokenizer
) -> None:
    spec = with_templates(tokenizer, default=text).spec
    told = make_format(make_chat()).resolve(spec, DAY).describe()["chat_template"]
    assert told["date"] == date


def test_what_the_manifest_says_follows_from_the_content_alone(
    make_chat: MakeConfig, tokenizer: ResolvedTokenizer
) -> None:
    spec = with_templates(tokenizer, default="é").spec
    kwargs = '{"b": 1, "a": null}'
    told = make_format(make_chat(chat_template_kwargs=kwargs)).resolve(spec, DAY).describe()
    assert told == {
        "chat_template": {
            "name": "tokenizer",
            "sha256": hashlib.sha256(b'[["default", "\\u00e9"]]').hexdigest(),
            "kwargs": {"a": None, "b": 1},
            "special_tokens": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
            "date": None,
        }
    }
    assert json.loads(json.dumps(told)) == told


def test_a_format_travels(make_chat: MakeConfig, tokenizer: ResolvedTokenizer) -> None:
    found = make_format(make_chat(chat_template="chatml")).resolve(tokenizer.spec, DAY)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    "text", ["{% if %}", "{% endfor %}", "{{ 'a }}", "{% nosuch %}", "{{ x | nosuch }}"]
)
def test_a_template_that_does_not_compile_is_refused_in_one_line(
    text: str, make_chat: MakeConfig, tokenizer: ResolvedTokenizer
) -> None:
    with pytest.raises(TemplateError, match=r"^--chat-template.*compiled") as found:
        make_format(make_chat()).resolve(with_templates(tokenizer, default=text).spec, DAY)
    assert "\n" not in str(found.value)


def test_contradictions_are_refused(make_chat: MakeConfig) -> None:
    with pytest.raises(SettingsError, match="enable_thinking is true, --enable-thinking is false"):
        make_format(make_chat(chat_template_kwargs='{"enable_thinking": true}', enable_thinking="false"))
    with pytest.raises(MtsftError, match="YYYY-MM-DD"):
        make_chat(template_date="26 July")


# The probe


def test_the_dialogue_of_the_probe_is_plain() -> None:
    dialogue = probe_dialogue()
    assert [message.role.is_target for message in dialogue.messages] == [False, True, False, True]
    assert (dialogue.system, dialogue.tools, dialogue.notes) == ("", [], [])


def ended(tokenizer: ResolvedTokenizer, config: PreprocessConfig) -> list[tuple[str, bool, bool, bool]]:
    report = Probe(make_format(config), config)(encoder_of(tokenizer))
    assert report.error is None
    assert report.stop_tokens == ("<eos>",)
    return [(end.text, end.special, end.stops, end.late) for end in report.ends]


def test_the_probe_says_what_ends_a_turn(make_chat: MakeConfig, tokenizer: ResolvedTokenizer) -> None:
    im_end, eos = ("<|im_end|>", True, False, False), ("<eos>", True, True, False)
    assert ended(tokenizer, make_chat(chat_template="chatml")) == [im_end, im_end]
    assert ended(tokenizer, make_chat(chat_template="chatml", append_eod=True)) == [im_end, eos]
    assert ended(tokenizer, make_chat(chat_template=None, prompt_type="trl")) == [
        (".", False, False, False),
        (".", False, False, False),
    ]


def test_white_space_behind_a_stop_does_not_hide_it(
    make_chat: MakeConfig, tokenizer: ResolvedTokenizer
) -> None:
    """As of qwen3, which trains the newline there."""
    found = load_tokenizer(tokenizer.spec.source, Adjustment("<|im_end|>"))
    config = make_chat(chat_template=None, prompt_type="qwen3")
    report = Probe(make_format(config), config)(encoder_of(found))
    assert [(end.text, end.stops) for end in report.ends] == [("<|im_end|>", True)] * 2


@pytest.mark.parametrize(
    ("text", "unproven"),
    [
        ("{{ raise_exception('no\\n\\x1b[31mway') }}", False),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", True),
    ],
    ids=["refused", "unproven"],
)
def test_a_probe_that_fails_says_why(
    text: str, unproven: bool, make_chat: MakeConfig, tokenizer: ResolvedTokenizer
) -> None:
    config = make_chat()
    report = Probe(make_format(config), config)(encoder_of(with_templates(tokenizer, default=text)))
    assert (report.ends, report.unproven) == ((), unproven)
    assert report.error is not None
    assert "\n" not in report.error


STOP, WORD = TurnEnd(EOS, "<eos>", True, True), TurnEnd(5, ".", False, False)


@pytest.mark.parametrize(
    ("ends", "changes", "remedy"),
    [
        ([WORD, WORD], {}, "--append-eod"),
        ([WORD, WORD], {"parity": "split"}, "--append-eod"),
        ([WORD, STOP], {}, "--parity split"),
        # The last turn's is that of --append-eod, which closes samples: parity would not give it one.
        ([WORD, STOP], {"append_eod": True}, "--train-on split"),
        ([WORD, STOP], {"parity": "split"}, "--train-on split"),
        ([WORD, WORD], {"chat_template": None, "prompt_type": "trl"}, "--append-eod"),
        ([WORD, STOP], {"chat_template": None, "prompt_type": "trl"}, "--train-on split"),
        ([WORD, STOP], {"chat_template": None, "prompt_type": "deepseek4"}, "--parity split"),
    ],
    ids=str,
)
def test_the_remedy_is_one_that_the_settings_allow(
    ends: list[TurnEnd], changes: dict[str, Any], remedy: str, make_chat: MakeConfig
) -> None:
    assert stop_remedy(ends, make_chat(**changes)).startswith(remedy)
