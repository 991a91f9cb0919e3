"""A file of token streams that appears whole or not at all, and proves that it is whole.

Layout: 12 bytes magic, ``MTSFTPART4`` and two zeros (tokens lie on multiples of 4 bytes); per block the
tokens (int32, little-endian) of each stream, one stream behind the other; the sections, the sizes of the
blocks among them; a JSON footer, its sha256 (32 bytes), its size (u64), and the magic again. The footer
holds the identity of the work, the names of the streams with the CRC-32 of each, and the places of the
sections with one sha256 of them all. (A CRC is there to notice damage; it takes half the time of a sha256,
which every published file has.)
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import DatasetError, naming

__all__ = ["Container", "ContainerWriter", "sync_folder"]

_MAGIC = b"MTSFTPART4\0\0"
#: Bytes that are read at a time: they stay in a processor's cache until they are checked and written.
_COPY = 1 << 18


class ContainerWriter:
    """Writes under a temporary name, and gives the file its name once it is whole and on disk.

    A context manager: an exception leaves nothing behind. A file of that name is replaced.

    Args:
        path: Where the file goes.
        identity: What it is the work of; a reader that expects another refuses it.
        streams: Names of the token streams.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], streams: Sequence[str]) -> None:
        self.path = path
        self.streams = list(streams)
        #: Further entries of the footer, ready for JSON.
        self.footer: dict[str, Any] = {}
        self._identity = dict(identity)
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115
        self._file.write(_MAGIC)
        self._checksums = dict.fromkeys(self.streams, 0)
        self._blocks: dict[str, list[int]] = {name: [] for name in self.streams}
        self._sections: dict[str, tuple[int, int]] = {}
        self._tail = hashlib.sha256()

    def add(self, tokens: Mapping[str, npt.NDArray[np.int32]]) -> None:
        """Append a block: tokens, int32, shape (N_name,), of each stream."""
        for name in self.streams:
            raw: Any = tokens[name].astype("<i4", copy=False).view(np.uint8)
            self._checksums[name] = zlib.crc32(raw, self._checksums[name])
            with naming(self.path):
                self._file.write(raw)
            self._blocks[name].append(len(tokens[name]))

    def section(self, name: str, raw: bytes) -> None:
        """Append a section; no tokens come behind the first one."""
        self._sections[name] = (self._file.tell(), len(raw))
        with naming(self.path):
            self._file.write(raw)
        self._tail.update(raw)

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with naming(self.path):
                try:
                    if kind is None:
                        self._finish()
                finally:
                    self._file.close()  # which may still have to write, and fail
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        for name, sizes in self._blocks.items():
            self.section(f"blocks:{name}", np.asarray(sizes, "<i8").tobytes())
        footer = json.dumps(
            {
                "identity": self._identity,
                **self.footer,
                "streams": self.streams,
                "sections": self._sections,
                "crc32": self._checksums,
                "sha256": self._tail.hexdigest(),
            }
        ).encode("ascii")
        self._file.write(footer)
        self._file.write(hashlib.sha256(footer).digest())
        self._file.write(len(footer).to_bytes(8, "little"))
        self._file.write(_MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._partial, self.path)
        sync_folder(self.path.parent)


class Container:
    """Reads such a file; opening checks its footer, reading checks what is read.

    Args:
        path: The file.

    Raises:
        DatasetError: It is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: All that the footer says.
        self.footer = self._footer()
        if not _is_footer(self.footer, path.stat().st_size):
            raise DatasetError(f"{path}: damaged footer")
        #: What the file is the work of.
        self.identity: dict[str, Any] = self.footer["identity"]
        #: Names of the token streams, in the order in which their blocks lie.
        self.streams: list[str] = self.footer["streams"]
        self._checksums: dict[str, int] = self.footer["crc32"]
        self._sha256: str = self.footer["sha256"]
        self._sections: dict[str, list[int]] = self.footer["sections"]
        ends = max((start + length for start, length in self._sections.values()), default=len(_MAGIC))
        if ends != self._body:
            raise DatasetError(f"{path}: damaged: {self._body} bytes before the footer, expected {ends}")

    def _footer(self) -> dict[str, Any]:
        fixed = 32 + 8 + len(_MAGIC)
        try:
            with open(self.path, "rb") as file:
                begins = file.read(len(_MAGIC)) == _MAGIC
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - fixed))
                end = file.read()
                if size < fixed or not begins or not end.endswith(_MAGIC):
                    raise DatasetError(f"{self.path}: not a whole part file")
                length = int.from_bytes(end[32:40], "little")
                if length > size - fixed:
                    raise DatasetError(f"{self.path}: damaged footer")
                self._body = size - fixed - length
                file.seek(self._body)
                raw = file.read(length)
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from None
        if hashlib.sha256(raw).digest() != end[:32]:
            raise DatasetError(f"{self.path}: damaged footer")
        try:
            footer: dict[str, Any] = json.loads(raw)
        except (ValueError, RecursionError):
            raise DatasetError(f"{self.path}: damaged footer") from None
        return footer

    def check(self) -> None:
        """Read everything.

        Raises:
            DatasetError: Something is not what was written.
        """
        self.sections()
        for name in self.streams:
            for _ in self.tokens(name):
                pass

    def sections(self) -> dict[str, bytes]:
        """Return all sections by name.

        Raises:
            DatasetError: They are not those that were written.
        """
        digest = hashlib.sha256()
        raw: dict[str, bytes] = {}
        with open(self.path, "rb") as file:
            for name, (start, length) in self._sections.items():
                file.seek(start)
                raw[name] = file.read(length)
                digest.update(raw[name])
        if digest.hexdigest() != self._sha256:
            raise DatasetError(f"{self.path}: damaged tail")
        return raw

    def tokens(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of a stream in pieces, each of them good until the next one is asked for.

        Raises:
            DatasetError: They are not those that were written; raised behind the last piece.
        """
        checksum, buffer = 0, memoryview(bytearray(_COPY))
        starts, sizes = self.blocks(name)
        # Unbuffered: what is read goes straight to where it is looked at.
        with open(self.path, "rb", buffering=0) as file:
            for start, left in zip(starts.tolist(), sizes.tolist(), strict=True):
                file.seek(start)
                while left:
                    piece = buffer[: min(left, _COPY)]
                    self._fill(file, piece)
                    checksum = zlib.crc32(piece, checksum)
                    left -= len(piece)
                    yield piece
        if checksum != self._checksums[name]:
            raise DatasetError(f"{self.path}: damaged {name}")

    def _fill(self, file: RawIOBase, piece: memoryview) -> None:
        filled = 0
        while filled < len(piece):
            count = file.readinto(piece[filled:])
            if not count:
                raise DatasetError(f"{self.path}: became shorter while it was read")
            filled += count

    def blocks(self, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return where the blocks of a stream start in the file, and their sizes, int64 (B,), in bytes.

        Raises:
            DatasetError: They can't be so large.
        """
        with open(self.path, "rb") as file:
            sizes = np.stack([self._sizes(file, stream) for stream in self.streams])
        own = self.streams.index(name)
        # The blocks that were added together lie one behind the other, and the next ones behind them.
        ends = len(_MAGIC) + np.cumsum(sizes.T.ravel()).reshape(sizes.T.shape)[:, own]
        return ends - sizes[own], sizes[own]

    def _sizes(self, file: BinaryIO, stream: str) -> npt.NDArray[np.int64]:
        start, length = self._sections[f"blocks:{stream}"]
        file.seek(start)
        raw = file.read(length)
        if len(raw) != length:
            raise DatasetError(f"{self.path}: became shorter while it was read")
        tokens = np.frombuffer(raw, "<i8")
        if (tokens < 0).any() or (tokens > start).any():
            raise DatasetError(f"{self.path}: damaged tail")
        return 4 * tokens


def _is_footer(footer: Any, size: int) -> bool:
    """Return whether a footer has all that it must have, and speaks of places in a file of so many bytes.

    It may say anything and be signed all the same.
    """
    try:
        streams, sections, checksums = footer["streams"], footer["sections"], footer["crc32"]
        return (
            isinstance(footer["identity"], dict)
            and isinstance(footer["sha256"], str)
            and isinstance(streams, list)
            and all(type(checksums[name]) is int and f"blocks:{name}" in sections for name in streams)
            and all(
                type(start) is type(length) is int and 0 <= start <= start + length <= size
                for start, length in sections.values()
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(handle)
    finally:
        os.close(handle)
