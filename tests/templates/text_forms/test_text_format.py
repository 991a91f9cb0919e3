"""Text forms as formats: when they are taken, what the manifest says of them, what a probe finds."""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from in_process import encoder_of
from two_tokenizers import Both

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import SettingsError, TemplateError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.templates import (
    ChatFormat,
    Probe,
    PromptFormat,
    TextFormat,
    TextTemplate,
    make_format,
    text_forms,
)
from mtsft_preproc.tokenization import Adjustment

MakeConfig = Callable[..., PreprocessConfig]
DAY = datetime.date(2024, 7, 26)


def test_a_text_form_is_taken_where_no_format_is_named(make_config: MakeConfig) -> None:
    found = make_format(make_config(prompt_type=None), "alpaca_text")
    assert found == TextFormat("alpaca_text")
    assert found.adjustment() == Adjustment()


def test_a_text_form_that_does_not_exist_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(SettingsError, match="did you mean 'alpaca_text'"):
        make_format(make_config(prompt_type=None), "alpaca_txt")


def test_a_format_that_is_named_goes_first(make_config: MakeConfig) -> None:
    assert isinstance(make_format(make_config(), "alpaca_text"), PromptFormat)
    config = make_config(prompt_type=None, chat_template="chatml")
    assert isinstance(make_format(config, "alpaca_text"), ChatFormat)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"prompt_type": "chatml"}, "--prompt-type"),
        ({"prompt_type": None, "chat_template": "chatml"}, "--chat-template"),
    ],
    ids=["prompt_type", "chat_template"],
)
def test_data_that_fit_no_other_format_refuse_one(
    make_config: MakeConfig, given: dict[str, Any], flag: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{flag}: .*expected no {flag}"):
        make_format(make_config(**given), "moss_text", text_form_only=True)
    own = make_format(make_config(prompt_type=None), "moss_text", text_form_only=True)
    assert own == TextFormat("moss_text")


def test_without_a_text_form_a_format_must_be_named(make_config: MakeConfig) -> None:
    with pytest.raises(SettingsError, match="needs one of them"):
        make_format(make_config(prompt_type=None))
    with pytest.raises(SettingsError, match="needs one of them"):
        make_format(make_config(prompt_type=None, prompt_type_path="x.json"), "alpaca_text")


@pytest.mark.parametrize("settings", [{"first_round": 1}, {"source_prefix": "x"}], ids=["round", "prefix"])
def test_rounds_and_prefix_belong_to_one_form(make_config: MakeConfig, settings: dict[str, Any]) -> None:
    found = make_format(make_config(prompt_type=None, **settings), "chatglm_rounds")
    assert found == TextFormat("chatglm_rounds", **settings)
    for config, form in (
        (make_config(prompt_type=None, **settings), "alpaca_text"),
        (make_config(**settings), "chatglm_rounds"),
        (make_config(**settings), None),
    ):
        with pytest.raises(SettingsError, match="belongs to ChatGLMHandler"):
            make_format(config, form)


@pytest.mark.parametrize("name", ["alpaca_text", "moss_text", "moss_baichuan", "chatglm_rounds"])
def test_a_text_format_travels_and_is_told(bare: Both, make_config: MakeConfig, name: str) -> None:
    named = TextFormat(name, 1, "x")
    found = named.resolve(bare.encoder.spec, DAY)
    assert pickle.loads(pickle.dumps(found)) == found == named
    told = {"text_form": {"name": name, "first_round": 1, "source_prefix": "x"}}
    assert json.loads(json.dumps(found.describe())) == told
    template = found.open(bare.encoder, make_config(prompt_type=None))
    assert isinstance(template, TextTemplate)
    assert (template.form.name, template.form.first_round, template.form.source_prefix) == (name, 1, "x")


def test_a_tokenizer_that_a_form_does_not_go_with_is_refused(bare: Both) -> None:
    small = replace(bare.encoder.spec, vocab_size=100)
    with pytest.raises(TemplateError, match="moss_baichuan"):
        TextFormat("moss_baichuan").resolve(small, DAY)


def test_settings_reach_the_template(bare: Both, make_config: MakeConfig) -> None:
    config = make_config(prompt_type=None, append_eod=True, special_tokens_in_text="reject")
    template = TextFormat("alpaca_text").open(bare.encoder, config)
    dialogue = handlers.get("general")().dialogue(  # type: ignore[attr-defined]
        {"instruction": "a", "output": "b"}
    )
    spelling = handlers.get("general")().dialogue(  # type: ignore[attr-defined]
        {"instruction": "<eos>", "output": "b"}
    )
    batch = template.encode([dialogue, spelling], [[False, True]] * 2)
    assert batch.ids[-1] == bare.encoder.spec.eos_id
    assert batch.failed[1].reason == "special-token"


@pytest.mark.parametrize(
    ("name", "append_eod", "ends"),
    [
        ("alpaca_text", False, [(".", False, False), (".", False, False)]),
        ("alpaca_text", True, [(".", False, False), ("<eos>", True, False)]),
        ("moss_text", False, [("<eom>", True, False), ("<eom>", True, False)]),
        ("moss_baichuan", False, [("<eos>", True, True), ("<eos>", True, False)]),
        ("chatglm_rounds", False, [("<eos>", True, False)]),
    ],
    ids=["alpaca", "alpaca_eod", "moss", "baichuan", "chatglm"],
)
def test_a_probe_finds_how_turns_end(
    bare: Both,
    around: Both,
    make_config: MakeConfig,
    name: str,
    append_eod: bool,
    ends: list[tuple[str, bool, bool]],
) -> None:
    both = around if name == "moss_text" else bare
    config = make_config(prompt_type=None, append_eod=append_eod)
    report = Probe(TextFormat(name), config)(encoder_of(both.resolved))
    assert report.error is None
    assert not report.unproven
    assert [(end.text.strip(), end.special, end.late) for end in report.ends] == ends


def test_the_forms_of_the_handlers_exist() -> None:
    named = {handler.text_form for handler in handlers if handler.text_form is not None}
    assert named == set(text_forms.names())
