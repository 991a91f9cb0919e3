"""A handler of the user's own that fails says where, in one line; what it makes is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers import (
    DialogueHandler,
    HandlerChoice,
    handlers,
    make_handler,
    user_file,
    user_file_sha256,
)

ROOT = Path(__file__).parents[2]
HEAD = """from mtsft_preproc.handlers import (
    Dialogue, DialogueHandler, Message, RecordError, Role, ToolCall, handler)

@handler("mine")
class Mine(DialogueHandler):
    keys = {"a": "a"}
    required = (("a",),)
    def dialogue(self, record):
        """
USER = 'Message(Role.USER, "q")'


@pytest.fixture(autouse=True)
def leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out what a file registered, and its module."""
    monkeypatch.setattr(user_file, "_modules", {})
    monkeypatch.setattr(user_file, "_names", {})
    modules = set(sys.modules)
    yield
    if "mine" in handlers.names():
        handlers.discard("mine")
    for module in set(sys.modules) - modules:
        if module.startswith("mtsft_user_handlers_"):
            del sys.modules[module]


def made(body: str, folder: Path) -> DialogueHandler:
    path = folder / "mine.py"
    path.write_text(HEAD + body)
    config = PreprocessConfig(("in",), "out", "tokenizer", "mine", handler_path=str(path))
    found = make_handler(config, HandlerChoice("mine", "{}", user_file_sha256(str(path))))
    assert isinstance(found, DialogueHandler)
    return found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "mine.py, line 9: ZeroDivisionError: division by zero"),
        ("raise SystemExit(4)", "mine.py, line 9: SystemExit: 4"),
        ("return 'x'", "TypeError: what dialogue() returns: expected Dialogue, got 'x'"),
        ("return Dialogue('x')", "messages: expected list, got 'x'"),
        (
            "return Dialogue([Message(Role.USER, 5)])",
            "messages[0].content: expected text or None, got 5 (int)",
        ),
        ("return Dialogue([Message('user', 'q')])", "messages[0].role: expected Role, got 'user'"),
        (f"return Dialogue([{USER}, 7])", "messages[1]: expected Message, got 7 (int)"),
        (
            "return Dialogue([Message(Role.ASSISTANT, 'a', train=0.5)])",
            "messages[0].train: expected True, False or None, got 0.5 (float)",
        ),
        (
            "return Dialogue([Message(Role.ASSISTANT, None, tool_calls=({},))])",
            "messages[0].tool_calls[0]: expected ToolCall, got {} (dict)",
        ),
        (f"return Dialogue([{USER}], system=None)", "system: expected str, got None (NoneType)"),
    ],
    ids=lambda value: value if "return" in value or "raise" in value else "",
)
def test_what_goes_wrong_is_said(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        made(body, tmp_path).dialogue({"a": "the record"})
    line = str(caught.value)
    assert line.startswith(f"--handler-path: {tmp_path}/mine.py")
    assert said in line
    assert "on the record {'a': 'the record'} (dict)" in line
    assert "\n" not in line


def test_a_rejection_is_no_failure(tmp_path: Path) -> None:
    handler = made("raise RecordError('wrong-type', 'a', 'text', '5')", tmp_path)
    with pytest.raises(RecordError, match="wrong-type"):
        handler.dialogue({})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_ends_with_one_line(workers: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + "1 / 0")
    (tmp_path / "in.jsonl").write_text(json.dumps({"a": "b"}))
    arguments = [
        "--input", "in.jsonl", "--handler-path", "mine.py", "--handler-name", "mine", "--workers", workers,
        "--tokenizer-name-or-path", str(ROOT / "examples" / "tokenizer"), "--prompt-type", "chatml",
        "--output-prefix", "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "preprocess_data.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: --handler-path: mine.py, line 9: ZeroDivisionError: division by zero")
    assert "Traceback" not in done.stderr
