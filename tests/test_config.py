"""Settings, and what the bytes of a dataset follow from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess, plan_of

from mtsft_preproc import plan
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import MtsftError

MakeConfig = Callable[..., PreprocessConfig]
RECORD = {"instruction": "q", "input": "", "output": "a"}

#: Settings of a run with the chat template in the tokenizer's folder; with a prompt type that is one.
CHAT: dict[str, Any] = {"prompt_type": None, "chat_template": "tokenizer"}
DEEPSEEK: dict[str, Any] = {"prompt_type": "deepseek4", "enable_thinking": "true"}
#: Settings with other handlers.
PRETRAIN: dict[str, Any] = {"prompt_type": None, "handler_name": "pretrain"}
CONVERSATION: dict[str, Any] = {
    "handler_name": "conversation",
    "map_keys": '{"conversation": "output"}',
}
CHATGLM: dict[str, Any] = {
    "prompt_type": None,
    "handler_name": "chatglm",
    "map_keys": '{"prompt": "instruction", "response": "output"}',
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "{{ strftime_now('%Y-%m-%d') }}" + TEMPLATE

#: For each setting: another value, and whether it shapes the bytes.
CHANGES: dict[str, tuple[Any, bool]] = {
    "prompt_type": ("gemma", True),
    "map_keys": ('{"query": ""}', True),
    "enable_thinking": ("true", True),
    "seq_length": (99, True),
    "train_on": ("last", True),
    "train_on_tools": (True, True),
    "empty_reply": ("reject", True),
    "keep_columns": (("input",), True),
    "rejected_records": (True, True),
    "append_eod": (True, True),
    "ignore_index": (-1, True),
    "special_tokens_in_text": ("allow", True),
    "seed": (5, True),
    "mix_strategy": ("interleave_over", True),
    "split": ((0.9, 0.1), True),
    "shuffle": (True, True),
    "dedup": ("exact", True),
    "max_samples": (1, True),
    "workers": (3, False),
    "engine": ("pool", False),
    "encoder": ("reference", False),
    "shard_bytes": (7, False),
    "log_interval": (5, False),
    "overwrite": (True, False),
    "restart": (True, False),
    "on_error": ("fail", False),
    "max_record_mb": (8.5, True),
    "max_rejected": (3, False),
}
#: The same for settings that belong to a chat template, with the settings that they are added to.
CHAT_CHANGES: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "chat_template": (CHAT, "chatml", True),
    "chat_template_kwargs": (CHAT, '{"x": 1}', True),
    "parity": (CHAT, "off", True),
    # It prints no date.
    "template_date": (CHAT, "2024-07-26", False),
    "drop_thinking": (DEEPSEEK, "false", True),
    "reasoning_effort": (DEEPSEEK, "max", True),
}
#: For settings that belong to some handlers: what they are added to, another value, and whether it shapes
#: the bytes.
HANDLER_CHANGES: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "json_keys": ({**PRETRAIN, "json_keys": ("output",)}, ("instruction",), True),
    "pad_to_multiple_of": ({**PRETRAIN, "json_keys": ("output",)}, 8, True),
    "dataset_additional_keys": ({"handler_name": "alpaca-r1"}, ("labels",), True),
    "render_state": (CONVERSATION, True, True),
    "first_round": (CHATGLM, 1, True),
    "source_prefix": (CHATGLM, "Talk.", True),
}
#: The same for settings that belong to other settings.
PACK: dict[str, Any] = {"pack": True, "seq_length": 64}
ADDED_CHANGES: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "pack": ({"seq_length": 64}, True, True),
    "neat_pack": (PACK, True, True),
    "pack_scope": (PACK, "global", True),
    "pad_to_multiple_of": (PACK, 8, True),
    "interleave_probs": (
        {"input": ("@/in.jsonl", "@/in.jsonl"), "mix_strategy": "interleave_under"},
        (0.7, 0.3),
        True,
    ),
}
#: Checked elsewhere (``mix``: test_sources.py), or with one value alone today.
ELSEWHERE = {
    "input", "mix", "output_prefix", "tokenizer", "handler_name", "handler_path", "dataset_dir",
    "prompt_type_path", "trust_remote_code", "use_fast", "overlong",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


def test_every_setting_is_looked_at() -> None:
    assert {item.name for item in fields(PreprocessConfig)} == {
        *CHANGES, *CHAT_CHANGES, *HANDLER_CHANGES, *ADDED_CHANGES, *ELSEWHERE,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records, a tokenizer that has a chat template and one that has none, and templates."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "in.jsonl").write_text((json.dumps(RECORD) + "\n") * 3)
    for name in ("with", "without"):
        shutil.copytree(Path(__file__).parents[1] / "examples" / "tokenizer", folder / name)
        settings = folder / name / "tokenizer_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": None}))
    (folder / "with" / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "dated.jinja").write_text(DATED)
    (folder / "broken.jinja").write_text("{% for m in messages %}")
    (folder / "latin.jinja").write_bytes("{{ 'é' }}".encode("latin-1"))
    return folder


@pytest.fixture(scope="module")
def fingerprint(folder: Path) -> Callable[..., str]:
    def of(**changes: Any) -> str:
        settings: dict[str, Any] = {
            "input": (str(folder / "in.jsonl"),),
            "output_prefix": str(folder / "out"),
            "tokenizer": str(folder / "with"),
            "handler_name": "alpaca",
            "prompt_type": "chatml",
            **changes,
        }
        return plan_of(PreprocessConfig(**settings)).fingerprint

    return of


@pytest.fixture(scope="module")
def usual(fingerprint: Callable[..., str]) -> str:
    return fingerprint()


@pytest.fixture(scope="module")
def usual_with(fingerprint: Callable[..., str]) -> dict[str, str]:
    return {str(base): fingerprint(**base) for base in (CHAT, DEEPSEEK)}


@pytest.mark.parametrize(("name", "value", "shapes"), [(name, *change) for name, change in CHANGES.items()])
def test_the_fingerprint_holds_what_shapes_the_bytes(
    name: str, value: Any, shapes: bool, fingerprint: Callable[..., str], usual: str
) -> None:
    assert (fingerprint(**{name: value}) != usual) == shapes


@pytest.mark.parametrize("name", CHAT_CHANGES)
def test_the_fingerprint_holds_what_a_chat_template_is_told(
    name: str, fingerprint: Callable[..., str], usual_with: dict[str, str]
) -> None:
    base, value, shapes = CHAT_CHANGES[name]
    assert (fingerprint(**{**base, name: value}) != usual_with[str(base)]) == shapes


@pytest.mark.parametrize("name", HANDLER_CHANGES)
def test_the_fingerprint_holds_the_settings_of_handlers(name: str, fingerprint: Callable[..., str]) -> None:
    base, value, shapes = HANDLER_CHANGES[name]
    assert (fingerprint(**{**base, name: value}) != fingerprint(**base)) == shapes


@pytest.mark.parametrize("name", ADDED_CHANGES)
def test_the_fingerprint_holds_the_settings_of_packs_and_mixes(
    name: str, folder: Path, fingerprint: Callable[..., str]
) -> None:
    given, value, shapes = ADDED_CHANGES[name]
    base = dict(given)
    if "input" in base:
        base["input"] = tuple(path.replace("@", str(folder)) for path in base["input"])
    assert (fingerprint(**{**base, name: value}) != fingerprint(**base)) == shapes


def test_the_rule_for_what_is_too_long_shapes_the_bytes(fingerprint: Callable[..., str]) -> None:
    found = {fingerprint(seq_length=99, overlong=rule) for rule in ("drop", "recent", "window", "fail")}
    assert len(found) == 4
    assert fingerprint(seq_length=99) in found


def test_pairs_take_no_eos_more(fingerprint: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    """As in the original; and a warning says so."""
    pairs = {
        "handler_name": "alpaca-pairwise",
        "map_keys": '{"chosen": "output", "rejected": "input", "query": ""}',
    }
    assert fingerprint(**pairs, append_eod=True) == fingerprint(**pairs)
    assert "--append-eod has no effect" in caplog.text


@pytest.mark.parametrize("name", [*HANDLER_CHANGES, "train_on_tools"])
def test_a_setting_of_other_handlers_is_refused_or_warned_of(
    name: str, fingerprint: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    base = PRETRAIN | {"json_keys": ("output",)} if name == "train_on_tools" else {}
    value = True if name == "train_on_tools" else HANDLER_CHANGES[name][1]
    flag = "--" + name.replace("_", "-")
    try:
        fingerprint(**base, **{name: value})
    except MtsftError as error:
        assert str(error).startswith(f"{flag}: belongs to")  # noqa: PT017
    else:
        assert f"{flag} has no effect" in caplog.text


def test_thinking_is_a_variable_of_the_chat_template(
    fingerprint: Callable[..., str], usual_with: dict[str, str]
) -> None:
    given = {fingerprint(**CHAT, enable_thinking=value) for value in ("true", "false")}
    assert len({*given, usual_with[str(CHAT)]}) == 3


def test_kwargs_are_their_meaning(fingerprint: Callable[..., str]) -> None:
    texts = ('{"a": 1, "b": [2]}', '{"b":[2],\n"a":1}')
    assert fingerprint(**CHAT, chat_template_kwargs=texts[0]) == fingerprint(
        **CHAT, chat_template_kwargs=texts[1]
    )


def test_the_fingerprint_holds_the_date_that_is_printed(
    folder: Path, fingerprint: Callable[..., str]
) -> None:
    dated = {**CHAT, "chat_template": str(folder / "dated.jinja")}
    days = ("2024-07-26", "2024-07-27")
    first, second, again = (fingerprint(**dated, template_date=day) for day in (*days, days[0]))
    assert first == again != second


def test_the_fingerprint_holds_the_templates_content(
    tmp_path: Path, fingerprint: Callable[..., str]
) -> None:
    path = tmp_path / "mine.jinja"
    found = []
    for text in (TEMPLATE, TEMPLATE + "{# another #}", TEMPLATE):
        path.write_text(text)
        found.append(fingerprint(**{**CHAT, "chat_template": str(path)}))
    assert found[0] == found[2] != found[1]


def test_the_fingerprint_holds_what_the_tokenizers_folder_says_of_chats(
    tmp_path: Path, folder: Path, fingerprint: Callable[..., str], usual_with: dict[str, str]
) -> None:
    """The template, the special tokens that it may print, and the ids that end generation."""
    mine = tmp_path / "tokenizer"
    shutil.copytree(folder / "with", mine)
    before = fingerprint(**CHAT, tokenizer=str(mine))
    (mine / "chat_template.jinja").write_text(TEMPLATE + "{# another #}")
    template = fingerprint(**CHAT, tokenizer=str(mine))
    (mine / "generation_config.json").write_text('{"eos_token_id": [3964]}')
    stops = fingerprint(**CHAT, tokenizer=str(mine))
    settings = json.loads((mine / "tokenizer_config.json").read_text())
    (mine / "tokenizer_config.json").write_text(json.dumps({**settings, "sep_token": "<|user|>"}))
    tokens = fingerprint(**CHAT, tokenizer=str(mine))
    assert len({before, template, stops, tokens}) == 4


def test_the_fingerprint_holds_the_inputs_content(make_config: MakeConfig) -> None:
    before = plan_of(make_config([RECORD])).fingerprint
    assert plan_of(make_config([RECORD])).fingerprint == before
    assert plan_of(make_config([{**RECORD, "output": "b"}])).fingerprint != before


def test_an_alias_is_the_same_handler(fingerprint: Callable[..., str], usual: str) -> None:
    assert fingerprint(handler_name="AlpacaStyleInstructionHandler") == usual


#: Settings that are refused, and what the one line must name: what is wrong, what would be right.
#: ``@`` stands for the folder.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "both": ({"chat_template": "chatml"}, ["--prompt-type and --chat-template", "one of them"]),
    "both-file": (
        {**CHAT, "prompt_type_path": "types.json"},
        ["--prompt-type and --chat-template", "one of them"],
    ),
    "neither": (
        {"prompt_type": None},
        ["--prompt-type or --chat-template", "--chat-template tokenizer", "chatml", "deepseek4"],
    ),
    "parity-alone": ({"parity": "require"}, ["--parity: belongs to --chat-template"]),
    "kwargs-alone": (
        {"chat_template_kwargs": '{"a": 1}'},
        ["--chat-template-kwargs: belongs to --chat-template"],
    ),
    "date-alone": (
        {"template_date": "2024-07-26"},
        ["--template-date: belongs to --chat-template"],
    ),
    "drop-thinking": ({"drop_thinking": "true"}, ["--drop-thinking: belongs to --prompt-type deepseek4"]),
    "effort": ({"reasoning_effort": "max"}, ["--reasoning-effort: belongs to --prompt-type deepseek4"]),
    "drop-thinking-chat": (
        {**CHAT, "drop_thinking": "false"},
        ["--drop-thinking: belongs to --prompt-type deepseek4"],
    ),
    "drop-thinking-value": ({**DEEPSEEK, "drop_thinking": "ture"}, ["'ture'", "did you mean 'true'?"]),
    "effort-value": ({**DEEPSEEK, "reasoning_effort": "hihg"}, ["'hihg'", "did you mean 'high'?"]),
    "kwargs-no-json": ({**CHAT, "chat_template_kwargs": "{x}"}, ["JSON object", "'{x}'"]),
    "kwargs-list": ({**CHAT, "chat_template_kwargs": "[1]"}, ["JSON object", "'[1]'"]),
    "kwargs-null": ({**CHAT, "chat_template_kwargs": "null"}, ["JSON object", "'null'"]),
    "kwargs-taken": (
        {**CHAT, "chat_template_kwargs": '{"messages": []}'},
        ["--chat-template-kwargs: 'messages'", "comes from the data"],
    ),
    "thinking-twice": (
        {**CHAT, "chat_template_kwargs": '{"enable_thinking": false}', "enable_thinking": "true"},
        ["enable_thinking is false", "--enable-thinking is true", "one of them"],
    ),
    "date-no-such-day": ({**CHAT, "template_date": "2024-02-30"}, ["YYYY-MM-DD", "'2024-02-30'"]),
    "date-other-form": ({**CHAT, "template_date": "20240726"}, ["YYYY-MM-DD", "'20240726'"]),
    "date-empty": ({**CHAT, "template_date": ""}, ["YYYY-MM-DD", "''"]),
    "parity-value": ({**CHAT, "parity": "requires"}, ["'requires'", "did you mean 'require'?", "split"]),
    "name": (
        {**CHAT, "chat_template": "chatm"},
        ["'chatm'", "did you mean 'chatml'?", ".jinja", "tokenizer"],
    ),
    "name-without-own": (
        {**CHAT, "chat_template": "chatm", "tokenizer": "@/without"},
        ["'chatm'", "did you mean 'chatml'?", ".jinja"],
    ),
    "prompt-type": ({"prompt_type": "deepsek4"}, ["'deepsek4'", "did you mean 'deepseek4'"]),
    "missing": ({**CHAT, "chat_template": "@/none.jinja"}, ["@/none.jinja", "No such file"]),
    "folder": ({**CHAT, "chat_template": "@/with"}, ["@/with", "directory"]),
    "not-utf-8": ({**CHAT, "chat_template": "@/latin.jinja"}, ["@/latin.jinja", "not UTF-8"]),
    "syntax": ({**CHAT, "chat_template": "@/broken.jinja"}, ["--chat-template", "endfor"]),
    "none": (
        {**CHAT, "tokenizer": "@/without"},
        ["@/without has no chat template", ".jinja", "chatml", "--prompt-type"],
    ),
}


#: Settings of packs, mixes and splits that are refused as soon as they are given.
REFUSED_AT_ONCE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "neat-alone": ({"neat_pack": True}, ["--neat-pack: belongs to --pack"]),
    "scope-alone": ({"pack_scope": "global"}, ["--pack-scope: belongs to --pack"]),
    "scope": ({**PACK, "pack_scope": "window"}, ["--pack-scope: expected global or window:N", "'window'"]),
    "scope-of-nothing": ({**PACK, "pack_scope": "window:0"}, ["expected global or window:N", "'window:0'"]),
    "mix-and-input": ({"mix": "mix.yaml"}, ["--input: got both", "--mix SPEC.yaml"]),
    "no-input": ({"input": ()}, ["--input: nothing given", "--mix SPEC.yaml"]),
    "strategy": ({"mix_strategy": "interleave"}, ["--mix-strategy", "'interleave'", "interleave_under"]),
    "probs-of-concat": ({"interleave_probs": (0.5, 0.5)}, ["--interleave-probs", "interleave_under"]),
    "probs-of-a-mix": (
        {"input": (), "mix": "mix.yaml", "mix_strategy": "interleave_over", "interleave_probs": (1.0,)},
        ["--interleave-probs", "no --mix file, which has weights itself"],
    ),
    "probs-sum": (
        {"mix_strategy": "interleave_over", "interleave_probs": (0.5, 0.4)},
        ["--interleave-probs", "sum to 1", "0.5,0.4"],
    ),
    "probs-of-nothing": (
        {"mix_strategy": "interleave_over", "interleave_probs": (1.0, 0.0)},
        ["--interleave-probs", "above 0", "1.0,0.0"],
    ),
    "split-in-one": ({"split": (1.0,)}, ["--split: expected two or three shares", "969,30,1", "1.0"]),
    "split-in-four": ({"split": (1.0, 1.0, 1.0, 1.0)}, ["--split: expected two or three shares"]),
    "split-without-train": ({"split": (0.0, 1.0)}, ["--split", "the first above 0"]),
    "split-below-0": ({"split": (1.0, -1.0)}, ["--split", "1.0,-1.0"]),
    "split-nan": ({"split": (1.0, float("nan"))}, ["--split", "nan"]),
    "dedup": ({"dedup": "exakt"}, ["--dedup", "'exakt'", "did you mean 'exact'?"]),
}


@pytest.mark.parametrize("case", REFUSED_AT_ONCE)
def test_packs_mixes_and_splits_that_do_not_go_together_are_refused(
    case: str, make_config: MakeConfig
) -> None:
    settings, named = REFUSED_AT_ONCE[case]
    with pytest.raises(MtsftError) as found:
        make_config(**settings)
    line = str(found.value)
    assert "\n" not in line
    for text in named:
        assert text in line


def test_windows_of_packs(make_config: MakeConfig) -> None:
    found = [
        make_config(**PACK, pack_scope=scope).pack_window() for scope in (None, "global", "window:1000")
    ]
    assert found == [100_000_000, None, 1000]


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(
    case: str, folder: Path, fingerprint: Callable[..., str]
) -> None:
    settings, named = REFUSED[case]
    changes = {
        name: value.replace("@", str(folder)) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    with pytest.raises(MtsftError) as found:
        fingerprint(**changes)
    line = str(found.value)
    assert "\n" not in line
    for text in named:
        assert text.replace("@", str(folder)) in line


def test_thinking_given_twice_alike_is_no_contradiction(fingerprint: Callable[..., str]) -> None:
    given = {"chat_template_kwargs": '{"enable_thinking": true}', "enable_thinking": "true"}
    assert fingerprint(**CHAT, **given)
