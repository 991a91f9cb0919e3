"""The command line: what it says when something is wrong, and what it leaves behind then."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mtsft_preproc import cli
from mtsft_preproc.cli import main, preprocess_main
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.inspection import show_item

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data" / "alpaca_history.parquet"
GOOD = [
    "--input", str(DATA), "--tokenizer-name-or-path", str(ROOT / "examples" / "tokenizer"),
    "--workers", "1", "--log-interval", "1000", "--tokenizer-type", "PretrainedFromHF",
    "--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "gemma",
    "--map-keys", '{"history":"histories"}',
]  # fmt: skip

#: Flags that replace the good ones, and what the one line must name: what is wrong, what would be right.
WRONG = [
    (["--handler-name", "AlpacaStyleHandler"], ["'AlpacaStyleHandler'", "AlpacaStyleInstructionHandler"]),
    (["--prompt-type", "gema"], ["'gema'", "did you mean 'gemma'?"]),
    (["--map-keys", '{"histori":"histories"}'], ["'histori'", "did you mean 'history'?"]),
    (["--map-keys", '{"history":"historie"}'], ["'historie'", "did you mean 'histories'?", "instruction"]),
    (["--map-keys", '{"response":"reply"}'], ["'reply'", "available:", "output"]),
    (["--map-keys", "{history}"], ["JSON object", "{history}"]),
    (["--map-keys", '{"history":3}'], ["'history'", "3 (int)"]),
    (["--tokenizer-name-or-path", "./nowhere"], ["./nowhere does not exist", "tokenizer.json"]),
    (
        ["--tokenizer-name-or-path", str(ROOT / "examples" / "data")],
        ["holds no tokenizer", "tokenizer.json"],
    ),
    (["--tokenizer-name-or-path", str(DATA)], ["is a file", "expected a folder"]),
    (["--input", "examples/data/nothing.json"], ["examples/data/nothing.json", "alpaca_history.json"]),
    (["--input", "examples/*.parquett"], ["'examples/*.parquett'"]),
    (
        ["--input", str(ROOT / "examples" / "tokenizer")],
        ["examples/tokenizer: no data files there", ".parquet"],
    ),
    (
        ["--input", str(ROOT / "examples" / "tokenizer" / "tokenizer.json")],
        ["tokenizer.json", "neither a list of records nor one record a line"],
    ),
    (["--train-on", "asistant"], ["'asistant'", "did you mean 'assistant'?"]),
    (["--engine", "poool"], ["'poool'", "did you mean 'pool'?"]),
    (["--overlong", "cut"], ["'cut'", "drop"]),
    (["--seq-length", "0"], ["--seq-length", "at least 1"]),
    (["--seq-length", "many"], ["--seq-length", "many"]),
    (["--workers", "0"], ["--workers", "at least 1"]),
    (["--ignore-index", "0"], ["--ignore-index", "-100"]),
    (["--max-rejected", "1.5"], ["--max-rejected", "1.5"]),
    (["--max-rejected", "ten"], ["--max-rejected", "'ten'"]),
    (["--special-tokens-in-text", "plane"], ["did you mean 'plain'?"]),
    (["--enable-thinking", "yes"], ["'yes'", "true"]),
    (["--prompt-type-path", "types.json"], ["types.json", "No such file"]),
    (["--prompt-type", "deepseek-v4"], ["'deepseek-v4'", "'deepseek4'"]),
    (["--chat-template", "tokenizer"], ["--prompt-type and --chat-template", "got both"]),
    (["--chat-template-kwargs", "{"], ["JSON object", "'{'"]),
    (["--chat-template-kwargs", '{"a": 1}'], ["--chat-template-kwargs", "--chat-template"]),
    (["--template-date", "tomorrow"], ["YYYY-MM-DD", "'tomorrow'"]),
    (["--parity", "strict"], ["'strict'", "report", "require", "split", "off"]),
    (["--drop-thinking"], ["--drop-thinking", "--prompt-type deepseek4"]),
    (["--prompt-type", "deepseek4", "--reasoning-effort", "low"], ["'low'", "high", "max"]),
    (["--sequence-length", "5"], ["'--sequence-length'", "did you mean '--seq-length'?"]),
    (["--tokenizer-type", "GPT2BPETokenizer"], ["GPT2BPETokenizer", "PretrainedFromHF"]),
]


@pytest.mark.parametrize(("flags", "named"), WRONG, ids=lambda value: "-".join(value)[:40])
def test_an_error_is_one_line_that_helps(
    flags: list[str],
    named: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        code = preprocess_main([*GOOD, "--output-prefix", str(tmp_path / "out" / "data"), *flags])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for name in named:
        assert name in err
    assert os.listdir(tmp_path) == []


def test_errors_about_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert preprocess_main([*GOOD, "--output-prefix", str(tmp_path / "file" / "data")]) == 2
    assert f"can't create the folder {tmp_path / 'file'}" in capsys.readouterr().err
    assert preprocess_main([*GOOD, "--output-prefix", str(tmp_path) + "/data/"]) == 2
    assert "ends in no name" in capsys.readouterr().err
    assert preprocess_main([*GOOD, "--output-prefix", f"{tmp_path}/two\nlines"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "control characters" in line
    assert preprocess_main([*GOOD, "--output-prefix", "/proc/self/data"]) == 2
    assert "/proc/self" in capsys.readouterr().err
    done = str(tmp_path / "done" / "data")
    assert preprocess_main([*GOOD, "--output-prefix", done]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()}
    capsys.readouterr()
    assert preprocess_main([*GOOD, "--output-prefix", done]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["done", "file"]


@pytest.mark.parametrize("missing", ["--input", "--output-prefix", "--handler-name", "--prompt-type"])
def test_a_missing_flag_is_named(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*GOOD, "--output-prefix", str(tmp_path / "data")]
    at = flags.index(missing)
    del flags[at : at + 2]
    try:
        code = preprocess_main(flags)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert missing in capsys.readouterr().err


def test_the_command_as_users_have_it(tmp_path: Path) -> None:
    flags = [*GOOD, "--output-prefix", "./finetune_dataset/alpaca", "--overwrite-cache", "--n-subs", "4"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "preprocess_data.py"), *flags],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "records   60 read, 60 kept, 0 rejected" in done.stdout
    assert "--n-subs has no effect" in done.stderr
    assert len(list((tmp_path / "finetune_dataset").glob("alpaca_packed_*_document.bin"))) == 3
    # What MindSpeed-LLM takes for fields:
    assert len(list((tmp_path / "finetune_dataset").glob("alpaca_packed_*_document*"))) == 6


def test_a_chat_template_as_users_have_it(tmp_path: Path) -> None:
    """In processes of their own, with what is said at the start and at the end."""
    at = GOOD.index("--prompt-type")
    flags = [*GOOD[:at], *GOOD[at + 2 :], "--chat-template", "t.jinja", "--output-prefix", "out/data"]
    flags += ["--map-keys", '{"history":"histories","system":"system"}']
    command = [sys.executable, str(ROOT / "preprocess_data.py"), *flags]
    (tmp_path / "t.jinja").write_text(
        "{{ strftime_now('%Y') }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    done = subprocess.run(
        [*command, "--template-date", "2024-07-26"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in done.stderr.splitlines() if line.startswith(("INFO", "WARNING"))] == [
        "WARNING: trained turns end with '<|im_end|>' (3964); by the tokenizer's folder generation ends "
        "with '<eos>' alone: tell the serving engine to stop there, too"
    ]
    assert "records   60 read, 60 kept, 0 rejected\n" in done.stdout
    assert "trained turns (100.0%) as in serving\n" in done.stdout
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    done = subprocess.run([*command, "--overwrite"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --chat-template: not for training: not-rendered")
    assert done.stderr.count("\n") == 1


def test_help_needs_neither_transformers_nor_torch_nor_pandas() -> None:
    code = (
        "import sys; from mtsft_preproc.cli import main\n"
        "try: main(['preprocess', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('transformers', 'torch', 'pandas', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = str(tmp_path_factory.mktemp("show") / "data")
    assert preprocess_main([*GOOD, "--output-prefix", found]) == 0
    return found


def test_show_has_the_whole_text_of_the_dialogue(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", prefix, "-i", "-1"]) == 0
    shown = capsys.readouterr().out
    last = json.loads(DATA.with_suffix(".json").read_text("utf-8"))[-1]
    folded = "".join(shown.split())
    for text in [last["instruction"], last["output"], *[text for pair in last["history"] for text in pair]]:
        assert "".join(text.split()) in folded
    assert "\x1b" not in shown  # no terminal, no colour


def test_show_colours_what_is_trained(prefix: str) -> None:
    stream = io.StringIO()
    show_item(prefix, 0, Console(file=stream, force_terminal=True, color_system="standard", width=10**6))
    first = json.loads(DATA.with_suffix(".json").read_text("utf-8"))[0]
    green = stream.getvalue().split("\x1b[1;32m")[1:]
    trained = [piece.split("\x1b[0m")[0] for piece in green]
    replies = [*[answer for _, answer in first["history"]], first["output"]]
    for reply in replies:
        assert any(reply.splitlines()[0] in piece for piece in trained)
    assert not any(first["instruction"] in piece for piece in trained)


def test_show_names_what_is_wrong(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", prefix, "-i", "99"]) == 2
    assert "no item 99; there are 60" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="no such file"):
        show_item("nowhere", 0)
    with pytest.raises(SystemExit):
        main(["shwo"])
    assert "invalid choice: 'shwo'" in capsys.readouterr().err


def test_show_takes_no_manifests_word_for_running_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "data"
    assert preprocess_main([*GOOD, "--output-prefix", str(prefix)]) == 0
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tok.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Mine: pass\n")
    config = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["tok.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    path = tmp_path / "data.manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["tokenizer"] |= {"path": str(folder), "trust_remote_code": True}
    path.write_text(json.dumps(manifest), "utf-8")
    capsys.readouterr()
    assert main(["show", str(prefix)]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


MTSFT = [sys.executable, "-c", "import sys; from mtsft_preproc.cli import main; sys.exit(main())"]


def buffered() -> dict[str, str]:
    """Return the environment of a process that writes in blocks: argparse passes over what a line meets."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def behind_a_closed_pipe(*flags: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [*MTSFT, *flags], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, env=buffered()
        )
    finally:
        os.close(writer)


def test_what_nobody_reads_any_more_ends_quietly(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    assert preprocess_main([*GOOD, "--output-prefix", str(prefix)]) == 0
    for flags in (["verify", str(prefix)], ["verify", str(prefix), "--json"], ["--help"], ["trace", "-h"]):
        done = behind_a_closed_pipe(*flags)
        assert (done.returncode, done.stderr) == (141, b"")
    done = behind_a_closed_pipe("trace", str(prefix), "0")  # rich has a say in that
    assert done.returncode in (1, 141)
    assert done.stderr == b""
    assert behind_a_closed_pipe("verify", str(prefix), "--workers", "0").returncode == 2


def test_a_pipe_that_is_not_standard_output_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli.show, "run", run)
    assert main(["show", "data"]) == 2
    assert capsys.readouterr().err == "error: [Errno 32] Broken pipe\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_finds_no_place_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*MTSFT, "--help"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, env=buffered()
        )
    assert (done.returncode, done.stderr) == (2, b"error: standard output: No space left on device\n")


def test_without_standard_output_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python starts where descriptor 1 is closed."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["verify", "nowhere/data"]) == 2
