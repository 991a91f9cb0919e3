"""Whole runs with a chat template: what was composed is kept only if it is what the template writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from arranged import Stopped, dialogues, make, manifest_of, published, write
from in_process import InProcess
from test_pipeline_chat import CHATML

from mtsft_preproc import plan
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.templates.chat import ChatTemplate, composing, shapes


@pytest.fixture(autouse=True, scope="module")
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    template = tmp_path / "chatml.jinja"
    template.write_text(CHATML, "utf-8")
    return {"prompt_type": None, "chat_template": str(template), "shard_bytes": 1000}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(60))


def data_of(prefix: Path) -> dict[str, bytes]:
    return {name: raw for name, raw in published(prefix).items() if not name.endswith("manifest.json")}


@pytest.fixture
def wanted(
    source: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """What a run makes that renders every dialogue."""
    with monkeypatch.context() as patch:
        patch.setattr(ChatTemplate, "composes", property(lambda self: False, lambda self, value: None))
        return data_of(make(source, tmp_path / "wanted" / "data", **settings))


def test_what_is_composed_is_what_is_rendered(
    source: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    composed = 0
    texts = shapes.Shape.texts

    def counted(self: shapes.Shape, *given: Any) -> list[str]:
        nonlocal composed
        composed += self.proven
        return texts(self, *given)

    monkeypatch.setattr(shapes.Shape, "texts", counted)
    prefix = make(source, tmp_path / "composed" / "data", **settings)
    assert data_of(prefix) == wanted
    assert composed > 30
    assert "composed" not in manifest_of(prefix)


@pytest.fixture
def tricked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all dialogues of proven shapes be composed wrong, and the one with question 30 be found out."""
    texts = shapes.Shape.texts

    def wrong(self: shapes.Shape, *given: Any) -> list[str]:
        found = texts(self, *given)
        return [*found[:-1], found[-1] + "!"] if self.proven else found

    monkeypatch.setattr(shapes.Shape, "texts", wrong)
    drawn = SimpleNamespace(crc32=lambda text: 0 if b"question 30 " in text else 1)
    monkeypatch.setattr(composing, "zlib", drawn)


@pytest.mark.usefixtures("wanted", "tricked")
def test_where_one_differs_all_are_rendered(
    source: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    wanted: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those too that were composed before it was found out."""
    prefix = make(source, tmp_path / "composed" / "data", **settings)
    assert data_of(prefix) == wanted
    assert manifest_of(prefix)["composed"] is False
    [said] = [
        record.getMessage() for record in caplog.records if "renders every dialogue" in record.message
    ]
    assert settings["chat_template"] in said
    assert "user assistant" in said
    assert "!' composed, " in said


@pytest.mark.usefixtures("tricked")
def test_a_run_that_is_taken_up_remembers_that_one_differs(
    source: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped behind the shard in which it was found: what was composed before is not kept."""
    run = EncodeShard.__call__

    def until(self: EncodeShard, shard: Any) -> Any:
        summary = run(self, shard)
        if summary.differs.shape:
            raise Stopped
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(EncodeShard, "__call__", until)
        with pytest.raises(Stopped):
            make(source, tmp_path / "composed" / "data", **settings)
    prefix = make(source, tmp_path / "composed" / "data", **settings)
    assert data_of(prefix) == wanted
    assert manifest_of(prefix)["composed"] is False
