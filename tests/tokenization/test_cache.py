"""The cache of tokenizers: what comes out is what transformers would load again, or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.tokenization import (
    CACHE_VARIABLE,
    Adjustment,
    ResolvedTokenizer,
    TokenizerLoading,
    cache,
    child,
    choice,
    choose_encoder,
    load_tokenizer,
)
from mtsft_preproc.tokenization.cache import (
    TokenizerKey,
    cached_json,
    cached_tokenizer,
    keep_json,
    keep_tokenizer,
)
from mtsft_preproc.tokenization.proof import Proof

Ours = Callable[[], list[Path]]


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """A cache of the test's own; returns its entries."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return lambda: sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def folder(tokenizer_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tokenizer_folder, tmp_path / "tokenizer"))


def key_of(folder: Path, adjustment: Adjustment | None = None, use_fast: bool = True) -> TokenizerKey:
    key = TokenizerKey.of(str(folder), adjustment or Adjustment(), use_fast)
    assert key is not None
    return key


def kept(folder: Path, adjustment: Adjustment | None = None) -> tuple[TokenizerKey, ResolvedTokenizer]:
    key, tokenizer = key_of(folder, adjustment), load_tokenizer(str(folder), adjustment)
    keep_tokenizer(key, tokenizer)
    return key, tokenizer


@pytest.mark.parametrize(
    "adjustment", [Adjustment(), Adjustment("<|im_end|>", ("<new>", "<|im_start|>")), Adjustment("<other>")]
)
def test_what_is_kept_comes_back(folder: Path, entries: Ours, adjustment: Adjustment) -> None:
    key, tokenizer = kept(folder, adjustment)
    assert cached_tokenizer(key) == tokenizer
    assert len(entries()) == 1


@pytest.mark.parametrize("name", ["qwen2.5", "llama3.1", "glm4", "gpt-oss", "llama2", "mistral-v3"])
def test_real_tokenizers_come_back(shared: Path, entries: Ours, name: str) -> None:
    path = shared / "tokenizers" / name
    key, tokenizer = kept(path)
    found = cached_tokenizer(key)
    assert found == (tokenizer if tokenizer.payload is not None else None)


def test_it_is_found_for_a_copy_of_the_folder(folder: Path, entries: Ours, tmp_path: Path) -> None:
    kept(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert cached_tokenizer(key_of(copy)) == load_tokenizer(str(copy))


def test_any_change_of_the_folder_or_the_settings_is_another_tokenizer(folder: Path) -> None:
    names = {key_of(folder).name, key_of(folder, Adjustment("<a>")).name, key_of(folder, None, False).name}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            before = path.read_bytes()
            path.write_bytes(before + b"\n")
            names.add(key_of(folder).name)
            path.write_bytes(before)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 1 }}")
    names.add(key_of(folder).name)
    assert len(names) == 4 + sum(path.is_file() for path in folder.iterdir())


def test_other_code_or_packages_are_another_tokenizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(folder).name
    monkeypatch.setattr(cache, "_code", lambda: ["other"])
    assert key_of(folder).name != before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:]])
def test_a_damaged_entry_is_none(
    folder: Path, entries: Ours, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = kept(folder)
    (entry,) = entries()
    entry.write_bytes(damage(entry.read_bytes()))
    assert cached_tokenizer(key) is None
    entry.write_bytes(b"")
    assert cached_tokenizer(key) is None


def test_weights_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(1 << 40)  # a sparse file, which nobody could hash
    before = key_of(folder).name
    os.utime(folder / "model.safetensors", (1, 1))
    assert key_of(folder).name != before


def test_a_folder_of_other_things_has_no_key(folder: Path, tmp_path: Path) -> None:
    for number in range(501):
        (folder / str(number)).touch()
    assert TokenizerKey.of(str(folder), Adjustment(), True) is None


def test_the_last_used_ones_are_kept(entries: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_ENTRIES", 3)
    for number in range(3):
        keep_json(number, "key", number)
        for age, path in enumerate(sorted(entries(), key=lambda path: path.stat().st_mtime)):
            os.utime(path, (age, age))
    assert cached_json("key", 0) == 0  # used now
    keep_json(3, "key", 3)
    assert [cached_json("key", number) for number in range(4)] == [0, None, 2, 3]


def test_files_of_others_stay_in_the_folder(
    tmp_path: Path, entries: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_ENTRIES", 1)
    (tmp_path / "cache").mkdir()
    others = {tmp_path / "cache" / name for name in ("thesis.tex", "0" * 64, "partial-notes")}
    for path in others:
        path.write_text("mine")
        os.utime(path, (1, 1))
    keep_json(1, "a")
    keep_json(2, "b")
    assert others < set(entries())
    assert len(entries()) == len(others) + 1


def test_what_can_not_be_written_leaves_nothing(entries: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", refuse)
    keep_json(1, "a")
    assert entries() == []


@pytest.mark.parametrize("where", ["off", "/dev/null/cache"])
def test_without_a_cache_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, where)
    key, _ = kept(folder)
    assert cached_tokenizer(key) is None


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    keep_json([1], "a")
    assert len(list((tmp_path / "xdg" / "mtsft_preproc").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    keep_json([1], "a")
    assert len(list((tmp_path / "home" / ".cache" / "mtsft_preproc").iterdir())) == 1


def test_the_second_run_starts_no_process(
    folder: Path, entries: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TokenizerLoading(str(folder), Adjustment(), True, False) as loading:
        first = loading.result()
    assert len(entries()) == 1

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(child.tempfile, "TemporaryFile", refuse)
    with TokenizerLoading(str(folder), Adjustment(), True, False) as loading:
        assert loading.result() == first
    with pytest.raises(AssertionError):
        # Code of the folder's own may do anything, and differ the next time.
        TokenizerLoading(str(folder), Adjustment(), True, True)


def test_a_tokenizer_that_changed_while_it_was_loaded_is_not_kept(folder: Path, entries: Ours) -> None:
    settings = folder / "tokenizer_config.json"
    with TokenizerLoading(str(folder), Adjustment(), True, False) as loading:
        settings.write_bytes(settings.read_bytes() + b"\n")
        loading.result()
    assert entries() == []


def test_what_can_not_be_told_apart_has_no_key(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    assert TokenizerKey.of(str(folder), Adjustment(), True) is None
    (folder / "additional_chat_templates").unlink()
    key_of(folder)
    assert TokenizerKey.of(str(folder), Adjustment("\udcff"), True) is None
    (folder / os.fsdecode(b"caf\xe9.txt")).touch()
    assert TokenizerKey.of(str(folder), Adjustment(), True) is None


def test_a_proof_is_kept_and_only_a_success(
    folder: Path, entries: Ours, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("fastokens")
    spec = load_tokenizer(str(folder)).save(tmp_path)
    calls = []

    def proves(good: bool) -> None:
        def prove(spec: object, library: str) -> Proof:
            calls.append(good)
            return Proof(library, "1", good, "" if good else "why", 2, 3)

        monkeypatch.setattr(choice, "prove", prove)

    proves(False)
    assert [choose_encoder(spec, "auto", 1 << 40).name for _ in range(2)] == ["reference"] * 2
    proves(True)
    found = [choose_encoder(spec, "auto", 1 << 40) for _ in range(2)]
    assert calls == [False, False, True]
    assert found[0] == found[1]
    assert found[0].describe()["proven_on"] == {"texts": 2, "ids": 3}
    assert json.loads(entries()[0].read_bytes()[32:])["texts"] == 2
    proves(False)
    assert choose_encoder(replace(spec, backend="sentencepiece"), "auto", 1 << 40).name == "reference"
