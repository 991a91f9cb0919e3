"""The table of prompt types, and files in the original's form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.errors import SettingsError, TemplateError
from mtsft_preproc.templates import prompt_types, read_prompt_types


def test_the_table_is_the_originals(shared: Path) -> None:
    original = read_prompt_types(str(shared / "reference" / "prompt_types.json"))
    assert sorted(original.names()) == sorted(prompt_types.names())
    for name in original.names():
        assert prompt_types.get(name) == original.get(name)


def write(tmp_path: Path, entries: Any) -> str:
    path = tmp_path / "types.json"
    path.write_text(json.dumps(entries), "utf-8")
    return str(path)


def test_an_entry_of_ones_own(tmp_path: Path) -> None:
    entry = {
        "name": "mine",
        "format_user": {"slots": [["bos_token"], "Q {{content}}", {"token": "<sep>"}]},
        "format_separator": {"slots": ["\n"]},
        "stop_words": ["<end>"],
        "replace_eos": True,
    }
    mine = read_prompt_types(write(tmp_path, [entry])).get("mine")
    assert mine.adjustment().eos == "<end>"
    assert [getattr(part, "value", getattr(part, "text", part)) for part in mine.user] == [
        "bos_token",
        "Q {{content}}",
        "<sep>",
    ]


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"name": "x"}, "list of prompt types"),
        ([{"format_user": {"slots": []}}], "entry 0"),
        ([{"name": "a"}, {"name": "a"}], "two of this name"),
        ([{"name": "a", "format_usr": {"slots": []}}], "unknown field 'format_usr'"),
        ([{"name": "a", "format_user": ["x"]}], "format_user"),
        ([{"name": "a", "format_user": {"slots": [{"tok": "x"}]}}], "format_user"),
        ([{"name": "a", "format_user": {"slots": [["sep_token"]]}}], "eos_token"),
        ([{"name": "a", "stop_words": "x"}], "stop_words"),
        ([{"name": "a", "efficient_eos": "yes"}], "efficient_eos"),
        ([{"name": "a", "replace_eos": True}], "stop_words"),
        ([{"name": "a", "template_class": "Llama9Template"}], "Llama2Template"),
        ([{"name": "a", "thought_words": ["x"]}], "two strings"),
        ([{"name": "a", "format_user": {"slots": ["U: {content}"]}}], "format_user: expected {{content}}"),
        ([{"name": "a", "format_system": {"slots": ["{{content}} {{content}}"]}}], "found it in 2"),
        ([{"name": "a", "format_tools": "glm4"}], "format_tools"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(tmp_path: Path, entries: Any, named: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(named)) as caught:
        read_prompt_types(write(tmp_path, entries))
    assert "types.json" in str(caught.value)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_prompt_types(str(tmp_path / "nothing.json"))
    (tmp_path / "bad.json").write_text("[{")
    with pytest.raises(TemplateError, match="not valid JSON"):
        read_prompt_types(str(tmp_path / "bad.json"))
