"""Hashes of files: those of hashlib."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtsft_preproc import hashing
from mtsft_preproc.errors import InputError
from mtsft_preproc.hashing import file_sha256, hashing_threads, start_hashing


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_large_files_are_hashed_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(hashing, "CHUNK", 100)
    content = bytes(number % 251 for number in range(size))
    path = tmp_path / "file"
    path.write_bytes(content)
    with ThreadPoolExecutor(3) as threads:
        found = start_hashing(path, threads)()
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    if size <= 100:
        assert found == {"sha256": hashlib.sha256(content).hexdigest()}
    else:
        digests = [hashlib.sha256(content[at : at + 100]).digest() for at in range(0, size, 100)]
        assert found == {"sha256_by_chunk": hashlib.sha256(b"".join(digests)).hexdigest()}


def test_pieces_of_a_chunk_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "CHUNK", 100)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)))
    with ThreadPoolExecutor(3) as threads:
        whole = start_hashing(path, threads)()
        monkeypatch.setattr(hashing, "_PIECE", 7)
        assert start_hashing(path, threads)() == whole


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: No such file"):
        file_sha256(tmp_path / "missing")


def test_an_error_does_not_wait_for_what_is_not_begun() -> None:
    begun: list[str] = []
    stopped = threading.Event()

    def fail() -> None:
        with hashing_threads(1) as threads:
            threads.submit(stopped.wait, 30)
            second = threads.submit(begun.append, "second")
            second.add_done_callback(lambda _: stopped.set())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert begun == []
