"""What the README shows is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role
from mtsft_preproc.errors import RecordError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_reason_stands_in_the_table() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", README, re.MULTILINE))
    assert {reason: rows.get(reason) for reason in REASONS} == REASONS


def test_every_reason_that_the_code_gives_is_documented() -> None:
    given = set()
    for path in (ROOT / "mtsft_preproc").rglob("*.py"):
        text = path.read_text("utf-8")
        given |= set(
            re.findall(r'(?:RecordError|Rejection)\(\s*(?:row(?: \+ at)?,\s*)?"([a-z0-9-]+)"', text)
        )
    assert given == set(REASONS)


def test_every_flag_in_the_table_exists() -> None:
    flags = set(re.findall(r"`(--[a-z-]+)", README))
    helps = ""
    for command in (["preprocess"], ["template"]):
        code = "import sys; from mtsft_preproc.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True
        )
        helps += done.stdout
    assert flags
    assert [flag for flag in flags if flag not in helps] == []


def test_the_handler_in_15_lines_works() -> None:
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "PairHandler" in block
    )
    found: dict[str, Any] = {}
    preamble = (
        "from collections.abc import Mapping\nfrom typing import Any, ClassVar\n"
        "from mtsft_preproc.dialogue import Dialogue, Message, Role\n"
        "from mtsft_preproc.errors import RecordError\n"
        "from mtsft_preproc.handlers.base import Handler, handlers, text_field\n"
        "from mtsft_preproc.registry import Registry\nhandlers = Registry('handler', '--handler-name')\n"
    )
    exec(preamble + code, found)
    handler = found["handlers"].get("pair")({"ask": "q"})
    dialogue = handler.dialogue({"q": "why?", "answer": "so."})
    assert dialogue == Dialogue([Message(Role.USER, "why?"), Message(Role.ASSISTANT, "so.")])
    with pytest.raises(RecordError, match="missing-field"):
        handler.dialogue({"answer": "so."})


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_example_script_runs(tmp_path: Path) -> None:
    prefix = tmp_path / "out" / "alpaca"
    subprocess.run(
        ["bash", str(ROOT / "examples" / "alpaca_history_gemma2.sh")],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "OUTPUT_PREFIX": str(prefix),
            "WORKERS": "2",
        },
        cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    assert prefix.with_name("alpaca.manifest.json").exists()


def test_the_bundled_parquet_has_the_rows_of_the_bundled_json() -> None:
    rows = json.loads((ROOT / "examples" / "data" / "alpaca_history.json").read_text("utf-8"))
    table = pq.read_table(ROOT / "examples" / "data" / "alpaca_history.parquet").to_pylist()
    assert [{"histories": row.pop("history"), **row} for row in rows] == table
