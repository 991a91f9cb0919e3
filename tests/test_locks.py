"""One run at a time: on an output, its sides, and what is there of it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from arranged import dialogues, make, manifest_of, published, write
from interrupted import decided

from mtsft_preproc import lock
from mtsft_preproc.errors import DatasetError, OutputError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.indexed import published as opening
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.work import finish_interrupted, hold

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(30))


@pytest.fixture
def calm(source: Path, tmp_path: Path) -> dict[str, bytes]:
    return published(make(source, tmp_path / "calm" / "data", shard_bytes=1000))


# Locks.


def test_the_file_of_a_lock_that_was_given_back_meanwhile_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder leaves, and removes the file, between our opening it and our locking it."""
    first, second = OutputLock(tmp_path / "data"), OutputLock(tmp_path / "data")
    first.__enter__()
    real = fcntl.flock

    def leave(*arguments: Any) -> None:
        monkeypatch.undo()
        first.__exit__(None, None, None)
        real(*arguments)

    monkeypatch.setattr(lock.fcntl, "flock", leave)
    with second:
        assert second.path.read_text().startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(OutputError, match=f"another run .*held by process {os.getpid()} on "),
            OutputLock(tmp_path / "data"),
        ):
            pass
    assert not second.path.exists()


def test_a_holder_that_has_not_written_its_name_yet(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "data") as held:
        held.path.write_text("")
        with (
            pytest.raises(OutputError, match="held by one that is just starting"),
            OutputLock(tmp_path / "data"),
        ):
            pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    with (
        pytest.raises(OutputError, match=r"can't lock .*data\.mtsft-lock: .*NFS"),
        OutputLock(tmp_path / "data"),
    ):
        pass


def test_a_lock_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "data.mtsft-lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="can't write"), OutputLock(tmp_path / "data"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_disk_without_room_for_the_holders_name_locks_none_the_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "write", full)
        held = OutputLock(tmp_path / "data")
        held.__enter__()
    with pytest.raises(OutputError, match="another run"), OutputLock(tmp_path / "data"):
        pass
    held.__exit__(None, None, None)


def test_runs_whose_sides_overlap_keep_each_other_out_and_none_waits(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path / "data")
    with hold(paths, ["train", "valid"]):
        for name in ("data", "data_train", "data_valid"):
            with pytest.raises(OutputError, match="another run"), hold(OutputPaths(tmp_path / name)):
                pass
        with hold(OutputPaths(tmp_path / "data_test")):
            pass
    with (
        hold(OutputPaths(tmp_path / "data_valid")),
        pytest.raises(OutputError, match=r"another run .*data_valid\.mtsft-lock"),
        hold(paths, ["train", "valid"]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []  # what was locked before the refusal is given back


def test_the_sides_of_an_old_output_are_locked_before_they_are_removed(
    source: Path, tmp_path: Path
) -> None:
    prefix = make(source, tmp_path / "out" / "data", split=(1.0, 1.0))
    with OutputLock(tmp_path / "out" / "data_valid"), pytest.raises(OutputError, match="data_valid"):
        make(source, prefix, overwrite=True)


def test_a_publication_is_finished_by_one_alone(
    source: Path, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    prefix = tmp_path / "out" / "data"
    paths = decided(source, prefix)
    with OutputLock(prefix), pytest.raises(OutputError, match="another run"):
        finish_interrupted(paths)
    assert published(prefix) == {}
    finished = finish_interrupted(paths)
    assert finished is not None
    assert finished.manifest == manifest_of(prefix)
    assert finish_interrupted(paths) is None
    assert published(prefix) == calm


def test_a_side_is_not_replaced_while_its_run_is_half_published(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "out" / "data"
    paths = decided(source, prefix, split=(1.0, 1.0))
    os.replace(
        paths.staging / "data_train_packed_labels_document.bin",
        prefix.parent / "data_train_packed_labels_document.bin",
    )
    with pytest.raises(
        OutputError, match=r"data_train is a side of .*data, whose publication was interrupted"
    ):
        make(source, prefix.with_name("data_train"), overwrite=True)
    assert finish_interrupted(paths) is not None
    make(source, prefix.with_name("data_train"), overwrite=True)


def test_locks_of_dead_runs_go(source: Path, tmp_path: Path) -> None:
    prefix = make(source, tmp_path / "out" / "data")
    for name in ("data", "data_train", "data_other"):
        (prefix.parent / f"{name}.mtsft-lock").write_text("process 1 on nowhere\n")
    with pytest.raises(OutputError, match="exists already"):
        make(source, prefix)
    assert [own.name for own in prefix.parent.glob("*.mtsft-lock")] == ["data_other.mtsft-lock"]


def test_whoever_opens_while_another_publishes_gets_no_mixture(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole publication happens between the looks at two of the datasets."""
    prefix = make(source, tmp_path / "out" / "data")
    real, seen = opening.IndexedDataset, []

    def meanwhile(path: Path) -> Any:
        seen.append(path)
        if len(seen) == 2:
            changed = dialogues(30)
            changed[3]["output"] = changed[3]["output"].replace("answer", "replies", 1)
            make(write(tmp_path / "in.jsonl", changed), prefix, overwrite=True)
        return real(path)

    monkeypatch.setattr(opening, "IndexedDataset", meanwhile)
    with pytest.raises(DatasetError, match=r"replaced while it was opened|lengths are not those"):
        open_published(prefix)
    assert open_published(prefix).manifest == manifest_of(prefix)
