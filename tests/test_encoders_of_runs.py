"""Whole runs with a fast encoder: the bytes are the reference's, also where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arranged import dialogues, make, manifest_of, published, write
from in_process import InProcess

from mtsft_preproc import plan
from mtsft_preproc.cli import preprocess_main
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.tokenization import (
    CACHE_VARIABLE,
    Difference,
    EncoderDiffers,
    FastEncoder,
    FlatIds,
    choice,
)

Encode = Callable[[FastEncoder, list[str]], FlatIds]


@pytest.fixture(autouse=True, scope="module")
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(60))


def data_of(prefix: Path) -> dict[str, bytes]:
    return {name: raw for name, raw in published(prefix).items() if not name.endswith("manifest.json")}


@pytest.fixture
def wanted(source: Path, tmp_path: Path) -> dict[str, bytes]:
    prefix = make(source, tmp_path / "wanted" / "data", encoder="reference")
    assert manifest_of(prefix)["encoder"] == {"name": "reference"}
    return data_of(prefix)


def test_the_bytes_do_not_depend_on_the_encoder(
    source: Path, tmp_path: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    encode = FastEncoder.encode

    def counted(self: FastEncoder, texts: list[str]) -> FlatIds:
        nonlocal encoded
        encoded += len(texts)
        return encode(self, texts)

    monkeypatch.setattr(FastEncoder, "encode", counted)
    prefix = make(source, tmp_path / "fast" / "data", encoder="fastokens")
    assert data_of(prefix) == wanted
    assert encoded > 100
    entry = manifest_of(prefix)["encoder"]
    assert entry["name"] == "fastokens"
    assert entry["compared_share"] == 1 / 512
    settings = [manifest_of(own)["fingerprint"] for own in (prefix, tmp_path / "wanted" / "data")]
    assert settings[0] == settings[1]


def test_a_small_input_is_for_the_reference(source: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    prefix = make(source, tmp_path / "auto" / "data")
    assert data_of(prefix) == wanted
    assert manifest_of(prefix)["encoder"] == {"name": "reference"}


def test_why_the_fast_one_is_not_taken_is_told(
    source: Path,
    tmp_path: Path,
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A library that gives other ids for a text of the probes: not taken, and said."""

    def wrong(self: FastEncoder, texts: list[str]) -> int:
        raise EncoderDiffers(Difference("fastokens", texts[0], "id 1"))

    monkeypatch.setattr(choice, "_PAYS", 0)
    monkeypatch.setenv(CACHE_VARIABLE, "off")  # where its proof lies
    monkeypatch.setattr(FastEncoder, "compare", wrong)
    with caplog.at_level("INFO", "mtsft_preproc"):
        prefix = make(source, tmp_path / "auto" / "data")
    assert "the reference encodes: fastokens is not taken: " in caplog.text
    assert data_of(prefix) == wanted
    with pytest.raises(SettingsError, match="--encoder fastokens: can't be used for the tokenizer in"):
        make(source, tmp_path / "asked" / "data", encoder="fastokens")


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fast encoder give other ids in the middle of the data, and be found out."""
    encode = FastEncoder.encode

    def wrong(self: FastEncoder, texts: list[str]) -> FlatIds:
        if any("question 30 " in text for text in texts):
            raise EncoderDiffers(Difference("fastokens", "question 30", "id 1"))
        flat = encode(self, texts)
        # What was not compared is wrong, too.
        return FlatIds(flat.ids[::-1].copy(), flat.offsets)

    monkeypatch.setattr(FastEncoder, "encode", wrong)
    monkeypatch.setattr(FastEncoder, "compare", lambda self, texts: 1)


@pytest.mark.usefixtures("differing")
def test_where_they_differ_all_is_the_references(
    source: Path, tmp_path: Path, wanted: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    prefix = make(source, tmp_path / "fast" / "data", encoder="fastokens", shard_bytes=1000)
    assert "fastokens: 'question 30': id 1; the reference encodes everything from here on" in caplog.text
    assert data_of(prefix) == wanted
    assert manifest_of(prefix)["encoder"] == {"name": "reference"}


class Stopped(BaseException):
    """Stands for a death at a certain point."""


@pytest.mark.usefixtures("differing")
def test_a_run_that_is_taken_up_remembers_that_they_differ(
    source: Path, tmp_path: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind the shard in which they differ: what the fast one did before is not kept."""
    run = EncodeShard.__call__

    def until(self: EncodeShard, shard: Any) -> Any:
        summary = run(self, shard)
        if summary.differs.encoder:
            raise Stopped
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(EncodeShard, "__call__", until)
        with pytest.raises(Stopped):
            make(source, tmp_path / "fast" / "data", encoder="fastokens", shard_bytes=1000)
    prefix = make(source, tmp_path / "fast" / "data", encoder="fastokens", shard_bytes=1000)
    assert data_of(prefix) == wanted


def test_an_encoder_that_is_not_there_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="--encoder: there is no encoder 'fast'; expected one of auto"):
        make(source, tmp_path / "data", encoder="fast")
    arguments = ["--input", str(source), "--handler-name", "alpaca", "--prompt-type", "chatml"]
    arguments += ["--tokenizer-name-or-path", str(tmp_path), "--output-prefix", str(tmp_path / "data")]
    assert preprocess_main([*arguments, "--encoder", "fast"]) == 2
    assert capsys.readouterr().err.startswith("error: --encoder: there is no encoder 'fast'")
