"""What is in a file, in a few characters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mtsft_preproc.errors import InputError

__all__ = ["CHUNK", "file_sha256", "hashing_threads", "start_hashing"]

#: Bytes that are hashed one after the other: a larger file is hashed chunk by chunk, in several threads.
CHUNK = 1 << 26
_PIECE = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        InputError: It can't be read.
    """
    return _digest(path, 0, None).hex()


@contextmanager
def hashing_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads for :func:`start_hashing`, which leave undone what nobody waits for any more.

    Else an error, or Ctrl-C, would have to wait until all of the inputs are hashed.
    """
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def start_hashing(path: Path, threads: ThreadPoolExecutor) -> Callable[[], dict[str, str]]:
    """Begin to hash a file, in threads: hashing lets go of the interpreter's lock.

    sha256 goes through a file from front to back, at a gigabyte a second or two, which would keep many
    workers waiting for the hash of one large input.

    Returns:
        What waits for the end, and returns ``{"sha256": ...}``, or for a file of several chunks
        ``{"sha256_by_chunk": ...}``: the sha256 of the sha256 digests (32 bytes each) of its chunks of
        :data:`CHUNK` bytes, the last of which may be shorter. It raises an ``InputError`` where the file
        can't be read.
    """
    size = os.path.getsize(path)
    if size <= CHUNK:
        whole = threads.submit(file_sha256, path)
        return lambda: {"sha256": whole.result()}
    chunks = [threads.submit(_digest, path, start, CHUNK) for start in range(0, size, CHUNK)]
    return lambda: {
        "sha256_by_chunk": hashlib.sha256(b"".join(chunk.result() for chunk in chunks)).hexdigest()
    }


def _digest(path: Path, start: int, size: int | None) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            while piece := file.read(_PIECE if size is None else min(_PIECE, size)):
                digest.update(piece)
                size = None if size is None else size - len(piece)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return digest.digest()
