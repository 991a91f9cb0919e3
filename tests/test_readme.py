"""What the README shows is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from mtsft_preproc.dialogue import REASONS
from mtsft_preproc.handlers import handlers
from mtsft_preproc.sources import DATASET_INFO

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
    for command in (["preprocess"], ["template"], ["trace"], ["verify"]):
        code = "import sys; from mtsft_preproc.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True
        )
        helps += done.stdout
    assert flags
    assert [flag for flag in flags if flag not in helps] == []


def test_the_handler_in_15_lines_works(tmp_path: Path) -> None:
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "@handler" in block
    )
    assert len(code.splitlines()) <= 17  # two of them blank
    (tmp_path / "tickets.py").write_text(code)
    rows = [{"issue": "why?", "solution": "so."}, {"issue": None, "solution": "so."}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = [
        "--input", "in.jsonl", "--handler-path", "tickets.py", "--handler-name", "tickets",
        "--map-keys", '{"problem":"issue"}',
        "--tokenizer-name-or-path", str(ROOT / "examples" / "tokenizer"),
        "--prompt-type", "chatml", "--max-rejected", "1", "--workers", "2", "--output-prefix", "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "preprocess_data.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))
    assert manifest["records"]["kept"] == 1
    assert manifest["records"]["rejected_by_reason"] == {"missing-field": 1}


def test_every_handler_stands_in_the_table() -> None:
    rows = re.findall(r"^\| (`\w+Handler`[^|]*)\| ([^|]*) \|", README, re.MULTILINE)
    named = {name for row, _ in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*handlers.names(), DATASET_INFO}
    for row, aliases in rows:
        full = re.findall(r"`(\w+)`", row)
        for alias in re.findall(r"`([\w-]+)`", aliases):
            assert alias == "llama-factory" or handlers.canonical(alias) in full


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
