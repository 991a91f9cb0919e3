"""The bytes of a shard, decompressed where they have to be, up to the very byte at which that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.readers.base import Shard

__all__ = ["open_stream"]

#: Compressed bytes that Arrow asks for at a time.
_CHUNK = 1 << 16
#: What Arrow says of a stream that ends too early.
_CUT_SHORT = "Truncated compressed stream"


def open_stream(shard: Shard, block_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a shard in blocks, none of them empty.

    Raises:
        InputError: The file became shorter.
        DamagedFileError: It can't be decompressed; what could be was yielded.
    """
    source = shard.source
    if source.compression:
        yield from _decompressed(shard, block_bytes)
        return
    left = shard.end - shard.start
    with open(source.path, "rb") as file:
        file.seek(shard.start)
        while left and (block := file.read(min(block_bytes, left))):
            left -= len(block)
            yield block
    if left:
        raise InputError(f"{source.path}: became shorter while it was read")


def _decompressed(shard: Shard, block_bytes: int) -> Iterator[bytes]:
    path, compression = shard.source.path, str(shard.source.compression)
    if shard.source.rules.past_damage:
        _refuse_untrusted(path, compression)
    if shard.source.size == 0:  # Arrow takes it for nothing, but not even nothing is compressed to nothing
        raise DamagedFileError(f"{path}: can't be decompressed: it is empty, so it was cut off")
    done = 0
    try:
        for block in _blocks(path, compression, block_bytes):
            done += len(block)
            yield block
        return
    except (OSError, EOFError) as error:
        what = str(error)
    if shard.source.rules.past_damage:
        rest = _salvaged(path, compression, done)
        for start in range(0, len(rest), block_bytes):
            yield rest[start : start + block_bytes]
    raise DamagedFileError(f"{path}: can't be decompressed: {what} ({os.path.getsize(path)} bytes)")


def _blocks(path: str, compression: str, block_bytes: int) -> Iterator[bytes]:
    with pa.input_stream(path, compression=compression) as file:
        while block := bytes(file.read(block_bytes)):
            yield block


def _refuse_untrusted(path: str, compression: str) -> None:
    """Refuse a file that was changed, of which nothing can be trusted; one that was cut short is sound.

    A bit that was flipped shows where it leads to what can't be, or in a checksum: behind text that is
    wrong already.

    Raises:
        DamagedFileError: It was.
    """
    try:
        for _ in _blocks(path, compression, 1 << 20):
            pass
    except (OSError, EOFError) as error:
        if _CUT_SHORT not in str(error):
            raise DamagedFileError(
                f"{path}: can't be decompressed: {error}; where the damage begins can't be told, so all "
                f"of its {os.path.getsize(path)} bytes are lost"
            ) from None


class _Trickle:
    """A file that gives a byte at a time behind a place, so that what fails there fails for it alone."""

    def __init__(self, path: str, place: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close
        self._place = place
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        here = self._file.tell()
        return self._file.read(min(size, _CHUNK) if here < self._place else 1)

    def close(self) -> None:
        self.closed = True
        self._file.close()


def _salvaged(path: str, compression: str, done: int) -> bytes:
    """Return what a file that was cut short gives behind its first ``done`` decompressed bytes: some MB.

    Arrow drops what it has decompressed together with what it can't: so once more, from the beginning, and
    the last chunk byte by byte.
    """
    source = _Trickle(path, max(0, os.path.getsize(path) - _CHUNK))
    kept: list[bytes] = []
    file: Any = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), compression)
    try:
        left = done
        while left and (block := file.read(min(left, 1 << 20))):
            left -= len(block)
        while block := bytes(file.read(1)):
            kept.append(block)
    except (OSError, EOFError):
        pass  # as before
    finally:
        source.close()
    return b"".join(kept)
