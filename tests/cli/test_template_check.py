"""``mtsft template check``: its verdicts, its exit codes, and what it says to a person."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import InProcess

from mtsft_preproc.cli import main
from mtsft_preproc.inspection import template_check
from mtsft_preproc.templates import prompt_types

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#: Leaves thoughts out of the history. As the others it has no form for tool calls, and fails on them.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content and loop.last %}<think>"
    "{{ m.reasoning_content }}</think>{% endif %}{{ m.content + '<|im_end|>' }}\n{% endfor %}" + HEADER
)
ENDLESS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + '\n' }}{% else %}"
    "<|user|>{{ m.content }}<|assistant|>{% endif %}{% endfor %}"
)
ENDS_LAST = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ m.content + ('<eos>' if loop.last else '\n') }}{% else %}"
    "<|user|>{{ m.content }}<|assistant|>{% endif %}{% endfor %}"
)

#: Runs the command; returns exit code, standard output, standard error.
Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    monkeypatch.setattr(template_check, "TokenizerLoading", InProcess)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def run(*flags: str, tokenizer: Path = TOKENIZER) -> tuple[int, str, str]:
        try:
            code = main(["template", "check", "--tokenizer-name-or-path", str(tokenizer), *flags])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer folder whose template may be replaced."""
    return Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))


def unsafe(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("UNSAFE: ")]


def test_a_safe_template(check: Check) -> None:
    code, out, err = check("--chat-template", "chatml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("legend: trained")
    assert lines[-1] == "safe"
    assert unsafe(out) == []
    assert [line for line in lines if line.startswith("chatml: ")] == [
        "chatml: plain", "chatml: system", "chatml: thinking", "chatml: tools",
    ]  # fmt: skip
    assert "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\nIt is 4.<|im_end|>\n" in out
    assert lines.count("  turns end with '<|im_end|>' (3964)") == 3
    foreign = "  '<|im_end|>' is not among the tokens that end generation by the tokenizer's folder (<eos>)"
    assert lines.count(foreign) == 3
    assert lines.count("  2 of 2 turns stand in the text that serving has") == 3
    refused = next(line for line in lines if line.startswith("  refused: "))
    assert refused.endswith("TemplateError: chatml has no form for tool calls")


def test_without_flags_it_is_the_tokenizers_own(check: Check, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n"
        "{{ m.content + '<end_of_turn>' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": 3969}')
    code, out, _ = check(tokenizer=folder)
    assert code == 0
    assert "tokenizer: plain\n<start_of_turn>user\nWhat is 2 + 2?<end_of_turn>\n" in out
    assert "  turns end with '<end_of_turn>' (3969)\n" in out
    assert "is not among" not in out
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": None}))
    (folder / "chat_template.jinja").unlink()
    code, out, err = check(tokenizer=folder)
    assert (code, out) == (2, "")
    assert f"the tokenizer in {folder} has no chat template" in err


@pytest.mark.parametrize(
    ("template", "flags", "said"),
    [
        (ENDLESS, [], ["turn 1 and 2 of 2: no stop token is trained; --append-eod trains one"]),
        (
            ENDLESS,
            ["--append-eod"],
            ["turn 1 of 2: no stop token is trained; --train-on split trains each turn"],
        ),
        (ENDS_LAST, [], ["turn 1 of 2: no stop token is trained; --parity split trains each turn"]),
        (FORGETFUL, [], ["the reply of message 1 is not serving's: training has ", "see --parity"]),
        ("{{ raise_exception('no') }}", [], ["plain: template-refused", "TemplateError: no"]),
        (
            "{% for m in messages %}{{ (m.content ~ messages[0].content) | upper }}{% endfor %}",
            [],
            ["plain: mask-unproven in 'messages[1]'"],
        ),
        ("<bos>{{ bos_token }}" + FORGETFUL, [], ["BOS stands twice at the start"]),
    ],
    ids=["no-stop", "eod", "last-stop", "history", "refuses", "unproven", "bos"],
)
def test_what_is_unsafe_is_named_with_its_remedy(
    template: str, flags: list[str], said: list[str], check: Check, folder: Path
) -> None:
    (folder / "chat_template.jinja").write_text(template)
    code, out, _ = check(*flags, tokenizer=folder)
    assert code == 1
    assert out.splitlines()[-1] != "safe"
    for text in said:
        assert any(text in line for line in unsafe(out))


def test_the_remedy_for_the_last_turn_alone_is_one(check: Check, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(ENDS_LAST)
    assert check(tokenizer=folder)[0] == 1
    code, out, _ = check("--parity", "split", tokenizer=folder)
    assert (code, unsafe(out)) == (0, [])


def test_parity_off_says_nothing_of_it(check: Check, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(FORGETFUL)
    code, out, _ = check("--parity", "off", tokenizer=folder)
    assert (code, unsafe(out)) == (0, [])
    assert "serving" not in out


def test_parity_require_looks_all_the_same(check: Check, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(FORGETFUL)
    assert check("--parity", "require", tokenizer=folder) == check(tokenizer=folder)


def test_a_prompt_type_is_compared_with_the_tokenizers_own_template(check: Check, folder: Path) -> None:
    code, out, _ = check("--prompt-type", "gemma")
    assert code == 0
    assert "gemma: plain\n<bos><start_of_turn>user\nWhat is 2 + 2?<end_of_turn>\n" in out
    assert (
        "  a server with the tokenizer's own chat template has another prompt for message 1: "
        "'<|im_start|>user\\nWhat is 2 + 2?<|im_end|>\\n<|im_start|>assistant\\n'\n"
    ) in out
    assert (
        "  the prompts are those of the tokenizer's own chat template\n"
        in check("--prompt-type", "chatml")[1]
    )
    (folder / "chat_template.jinja").write_text("{% if %}")
    code, out, _ = check("--prompt-type", "gemma", tokenizer=folder)
    assert code == 0
    assert "  the tokenizer's own chat template can't be used: " in out


def test_all_prompt_types_have_a_line_each(check: Check) -> None:
    code, out, err = check("--all-prompt-types")
    assert (code, err) == (1, "")
    rows = [line.split(None, 2) for line in out.splitlines()]
    assert [row[0] for row in rows] == [*prompt_types.names(), "deepseek4"]
    verdicts = {row[0]: row[1] for row in rows}
    assert {name for name, verdict in verdicts.items() if verdict == "UNSAFE"} == {
        "empty",
        "trl",
        "hunyuan",
    }
    assert set(verdicts.values()) == {"safe", "UNSAFE"}
    said = {row[0]: row[2] for row in rows}
    assert said["trl"].startswith("turn 1 and 2 of 2: no stop token is trained; --append-eod")
    assert "tokens, " in said["gemma"]


def test_all_prompt_types_of_a_file(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "types.json"
    user = {"slots": ["<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"]}
    types = [
        {"name": "[b]mine[/c]", "format_user": user},
        {"name": "other", "format_user": {"slots": ["{{content}}", {"token": "<none>"}]}},
    ]
    path.write_text(json.dumps(types))
    code, out, _ = check("--all-prompt-types", "--prompt-type-path", str(path))
    mine, other = (line.split(None, 2) for line in out.splitlines())
    assert (code, mine[:2], other[:2]) == (0, ["[b]mine[/c]", "safe"], ["other", "unusable"])
    assert "'<none>'" in other[2]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--chat-template", "chatm"], ["'chatm'", "did you mean 'chatml'?", "tokenizer"]),
        (["--prompt-type", "gema"], ["'gema'", "did you mean 'gemma'?"]),
        (["--prompt-type", "deepseek-4"], ["did you mean 'deepseek4'"]),
        (["--prompt-type", "gemma", "--chat-template", "chatml"], ["expected one of them, got both"]),
        (["--chat-template", "none.jinja"], ["none.jinja", "No such file"]),
        (["--prompt-type-path", "types.json"], ["--prompt-type or --chat-template"]),
        (["--parity", "requires"], ["'requires'", "did you mean 'require'?"]),
        (["--chat-templat", "chatml"], ["'--chat-templat'", "did you mean '--chat-template'"]),
        (["--prompt-type", "chatml", "--drop-thinking"], ["--drop-thinking", "deepseek4"]),
    ],
    ids=lambda value: "-".join(value)[:40],
)
def test_an_error_is_one_line_that_helps(flags: list[str], named: list[str], check: Check) -> None:
    code, out, err = check(*flags)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in named:
        assert text in err


def test_what_does_not_compile_is_one_line(check: Check, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    code, out, err = check(tokenizer=folder)
    assert (code, out) == (2, "")
    assert err.startswith("error: --chat-template")
    assert err.count("\n") == 1


def test_another_action_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["template", "chekc", "--tokenizer-name-or-path", str(TOKENIZER)])
    assert stop.value.code == 2
    assert "invalid choice: 'chekc'" in capsys.readouterr().err


def test_a_file_of_a_strange_name_is_named_as_it_is(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "[b]x[" / "c].jinja"
    path.parent.mkdir()
    path.write_text(ENDLESS)
    code, out, _ = check("--chat-template", str(path))
    assert code == 1
    assert f"{path}: plain\n" in out


def test_colours_stay_out_of_a_pipe(check: Check, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "chat_template.jinja").write_text(ENDLESS)
    plain = check(tokenizer=folder)[1]
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31mUNSAFE" in check(tokenizer=folder)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in check(tokenizer=folder)[1]


def test_the_tokenizer_is_loaded_once_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the short cut of the other tests."""
    flags = ["--tokenizer-name-or-path", str(TOKENIZER), "--chat-template", "chatml"]
    assert main(["template", "check", *flags]) == 0
    assert capsys.readouterr().out.endswith("\nsafe\n")
