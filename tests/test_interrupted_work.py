"""What an interrupted run leaves, whole or damaged: taken up, refused, or thrown away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arranged import Stopped, dialogues, make, manifest_of, published, settings_of, write
from interrupted import decided, stop, stopped

from mtsft_preproc import finish, pipeline, publish
from mtsft_preproc.cli import preprocess_main
from mtsft_preproc.errors import DatasetError, InputError, OutputError, RejectedDataError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.join import join
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.work import left_over

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(30))


@pytest.fixture
def calm(source: Path, tmp_path: Path) -> dict[str, bytes]:
    return published(make(source, tmp_path / "calm" / "data", shard_bytes=1000))


# What stands in records as a name.

ELSEWHERE = [
    "../victim", "sub/data_x.bin", "/victim", "other_x.bin", "data", "..", "", "data_\0", 7, None,
    "data_" + "x" * 251, "data_\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ELSEWHERE, "data_a.mtsft-lock", "data.mtsft-work"])
def test_a_name_that_is_no_files_of_the_output_is_not_its_own(tmp_path: Path, name: Any) -> None:
    assert not OutputPaths(tmp_path / "data").owns(name)


@pytest.mark.parametrize(
    "name", ["data.manifest.json", "data_x.bin", "data_train.manifest.json", "data.bin"]
)
def test_files_of_an_output_and_its_sides_are_its_own(tmp_path: Path, name: str) -> None:
    assert OutputPaths(tmp_path / "data").owns(name)


def test_a_manifest_makes_nobody_touch_what_is_not_the_outputs(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    prefix = make(source, folder / "data")
    victims = [tmp_path / "victim", folder / "other_x.bin", folder / "sub" / "data_x.bin", tmp_path / "far"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("precious")
    (folder / "data_link.bin").symlink_to(tmp_path / "far")
    (folder / "data_folder.bin").mkdir()
    names = [
        *(name for name in ELSEWHERE if isinstance(name, str)),
        str(victims[0]),
        "data_folder.bin",
        "data_link.bin",
    ]
    manifest = manifest_of(prefix)
    manifest["files"] |= {name: {"bytes": 8, "sha256": "0"} for name in names}
    manifest["splits"] = {"../victim": {}, "train": {}}
    Path(f"{prefix}.manifest.json").write_text(json.dumps(manifest))
    make(source, prefix, overwrite=True, seq_length=50)
    assert [victim.read_text() for victim in victims] == ["precious"] * 4
    assert "no file of this output; it stays" in caplog.text
    assert not (folder / "data_link.bin").is_symlink()  # of a link the link goes
    assert (folder / "data_folder.bin").is_dir()


@pytest.mark.parametrize("text", ["[]", "3", '{"files": 1}', '{"files": ["x"], "splits": 5}', "{", ""])
def test_an_old_manifest_that_is_none_is_replaced(source: Path, tmp_path: Path, text: str) -> None:
    prefix = tmp_path / "data"
    Path(f"{prefix}.manifest.json").write_text(text)
    assert left_over(OutputPaths(prefix), set()) == []
    make(source, prefix, overwrite=True)
    assert open_published(prefix).manifest == manifest_of(prefix)


RECORDS: list[Callable[[dict[str, Any]], str]] = [
    lambda record: "",
    lambda record: json.dumps(record)[:-9],
    lambda record: "[]",
    lambda record: json.dumps({"files": record["files"]}),
    lambda record: json.dumps({**record, "left_over": ["../victim"]}),
    lambda record: json.dumps({**record, "files": [*record["files"], "/victim"]}),
    lambda record: json.dumps({**record, "files": [*record["files"], "data_never_staged.bin"]}),
]


@pytest.mark.parametrize("damage", RECORDS)
def test_a_damaged_commit_record_is_an_error_and_restart_gets_out(
    source: Path, tmp_path: Path, calm: dict[str, bytes], damage: Callable[[dict[str, Any]], str]
) -> None:
    prefix = tmp_path / "out" / "data"
    make(write(tmp_path / "old.jsonl", dialogues(5, 90)), prefix)
    old = published(prefix)
    (tmp_path / "victim").write_text("precious")
    paths = decided(source, prefix, overwrite=True)
    paths.commit.write_text(damage(json.loads(paths.commit.read_text())))
    for changes in ({}, {"overwrite": True}):
        with pytest.raises(
            OutputError, match=r"commit\.json: an interrupted publication can't be finished"
        ):
            make(source, prefix, shard_bytes=1000, **changes)
    with pytest.raises(OutputError, match="exists already"):
        make(source, prefix, shard_bytes=1000, restart=True)
    # Nobody can tell what is in place, so readers refuse it until there is a whole one.
    with pytest.raises(DatasetError, match="publication was interrupted"):
        open_published(prefix)
    stopped(source, prefix, (finish, "write_ledger"), restart=True, overwrite=True)
    with pytest.raises(DatasetError, match="publication was interrupted"):
        open_published(prefix)
    assert published(prefix) == old
    make(source, prefix, shard_bytes=1000, restart=True, overwrite=True)
    assert published(prefix) == calm
    assert not paths.work.exists()
    assert (tmp_path / "victim").read_text() == "precious"


def test_merge_names_a_damaged_commit_record(source: Path, tmp_path: Path) -> None:
    prefixes = [str(make(source, tmp_path / name)) for name in ("a", "b")]
    paths = OutputPaths(tmp_path / "out")
    paths.work.mkdir()
    paths.commit.write_text("{")
    with pytest.raises(OutputError, match=r"commit\.json: .* removed and --overwrite is given"):
        join(prefixes, str(tmp_path / "out"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"fingerprint": 1, "identity": {}}', '{"fingerprint": "x"}']
)
def test_with_a_damaged_plan_the_parts_that_are_this_runs_are_used(
    source: Path, tmp_path: Path, calm: dict[str, bytes], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = tmp_path / "out" / "data"
    paths = stopped(source, prefix, (finish, "write_ledger"))
    paths.plan.write_text(text)
    parts = len(list(paths.parts.iterdir()))
    assert preprocess(settings_of(source, prefix, shard_bytes=1000)).reused_parts == parts > 2
    assert "plan.json: damaged" in caplog.text
    assert published(prefix) == calm


def link(paths: OutputPaths) -> None:
    elsewhere = paths.folder.parent / "elsewhere"
    shutil.copytree(paths.work, elsewhere) if paths.work.exists() else elsewhere.mkdir()
    shutil.rmtree(paths.work, ignore_errors=True)
    paths.work.symlink_to(elsewhere)


def plain_file(paths: OutputPaths) -> None:
    shutil.rmtree(paths.work)
    paths.work.write_text("what?")


@pytest.mark.parametrize("state", [link, plain_file])
def test_restart_gets_out_of_what_is_no_work_folder(
    source: Path, tmp_path: Path, calm: dict[str, bytes], state: Callable[[OutputPaths], None]
) -> None:
    prefix = tmp_path / "out" / "data"
    paths = decided(source, prefix)
    state(paths)
    before = {own: own.read_bytes() for own in (tmp_path / "elsewhere").rglob("*") if own.is_file()}
    with pytest.raises(OutputError, match=r"expected a folder, and no link to one; --restart"):
        make(source, prefix, shard_bytes=1000)
    make(source, prefix, shard_bytes=1000, restart=True)
    assert published(prefix) == calm
    assert {own: own.read_bytes() for own in (tmp_path / "elsewhere").rglob("*") if own.is_file()} == before


def test_restart_finishes_what_was_decided(source: Path, tmp_path: Path, calm: dict[str, bytes]) -> None:
    prefix = tmp_path / "out" / "data"
    decided(source, prefix)
    with pytest.raises(OutputError, match="exists already"):
        make(source, prefix, restart=True, seq_length=50)
    assert published(prefix) == calm


def test_a_run_that_died_behind_its_publication_ends_well(
    source: Path, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    prefix = tmp_path / "out" / "data"
    paths = stopped(source, prefix, (publish, "clear"))
    os.replace(paths.work, paths.done)  # which comes next; of what is in it nothing is needed
    shutil.rmtree(paths.done / "parts")
    make(source, prefix, shard_bytes=1000)
    assert published(prefix) == calm
    there = {own.name.removeprefix("data") for own in prefix.parent.iterdir()}
    assert there == {*calm, ".timings.json"}


def test_what_a_dead_process_had_under_way_makes_room(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "out" / "data"
    paths = stopped(source, prefix, (finish, "write_ledger"))
    partial = paths.parts / ".00000001.part.0123456789abcdef.partial"
    partial.write_bytes(b"x" * 1000)
    staged = list(paths.staging.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "begin_merge", stop)
        with pytest.raises(Stopped):
            make(source, prefix, shard_bytes=1000)
    assert staged
    assert not paths.staging.exists()
    assert not partial.exists()


def test_what_can_never_be_arranged_leaves_no_work_that_refuses_others(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [{"instruction": "x", "output": None}])
    full = write(tmp_path / "full.jsonl", dialogues(5))
    given = {"input": (str(full), str(empty)), "mix_strategy": "interleave_under"}
    with pytest.raises(RejectedDataError, match="no sample of it is there"):
        make(full, tmp_path / "out" / "data", **given)
    make(full, tmp_path / "out" / "data")


# Inputs that change.


def test_a_part_of_changed_content_is_never_kept(
    source: Path, tmp_path: Path, calm: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be taken for that of the content that was looked at, when that comes back."""
    prefix, before, status = tmp_path / "out" / "data", source.read_bytes(), source.stat()
    encode = pipeline.EncodeShard.__call__

    def change(task: Any, shard: Any) -> Any:
        if shard.index == 2:
            source.write_bytes(before.replace(b"answer", b"ANSWER"))
        return encode(task, shard)

    monkeypatch.setattr(pipeline.EncodeShard, "__call__", change)
    with pytest.raises(InputError, match=r"in\.jsonl: changed or vanished while it was read"):
        make(source, prefix, shard_bytes=1000)
    monkeypatch.undo()
    assert len(list(OutputPaths(prefix).parts.iterdir())) == 2
    with pytest.raises(OutputError, match=r"other settings \(inputs: was .*--restart"):
        make(source, prefix, shard_bytes=1000)
    source.write_bytes(before)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert preprocess(settings_of(source, prefix, shard_bytes=1000)).reused_parts == 2
    assert published(prefix) == calm


def test_a_file_that_vanishes_is_named_and_parts_of_others_stay(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = write(tmp_path / "second.jsonl", dialogues(9, 100))
    encode = pipeline.EncodeShard.__call__

    def vanish(task: Any, shard: Any) -> Any:
        if shard.file == 1:
            second.unlink(missing_ok=True)
        return encode(task, shard)

    monkeypatch.setattr(pipeline.EncodeShard, "__call__", vanish)
    prefix = tmp_path / "out" / "data"
    code = preprocess_main(
        [
            "--input", str(source), str(second), "--output-prefix", str(prefix), "--handler-name", "alpaca",
            "--tokenizer-name-or-path", str(ROOT / "examples" / "tokenizer"), "--prompt-type", "chatml",
            "--workers", "1", "--shard-bytes", "1000",
        ]
    )  # fmt: skip
    assert code == 2
    assert len(list(OutputPaths(prefix).parts.iterdir())) > 2
    assert not Path(f"{prefix}.manifest.json").exists()
