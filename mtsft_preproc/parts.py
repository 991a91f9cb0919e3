"""The part file: what one task publishes, whole or not at all.

Layout: ``MTSFTPART2``; per batch the tokens (int32) of each stored dataset, one dataset behind the other;
the tail (sizes of these blocks, lengths by group, trained, rows, turns, kept columns, rejections); a JSON
footer, its sha256, its size, and the magic again. The footer holds the identity of the work, the counts,
the names of the streams and groups, the places of the sections and a sha256 of each stream.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Rejection, shorten
from mtsft_preproc.encoding import DatasetSpec, EncodedBatch
from mtsft_preproc.errors import DatasetError

__all__ = ["PartReader", "PartSummary", "PartWriter", "sync_folder"]

_MAGIC = b"MTSFTPART2"
_COPY = 1 << 22
#: Levels of objects and lists that a rejected record may have to be written along.
_DEEPEST = 200
#: Columns with an entry per sample; those of lengths and blocks, by group and stream, stand beside them.
_COLUMNS = {"trained": "<i4", "rows": "<i8", "turns": "<i4"}


@dataclass
class PartSummary:
    """What a task tells the driver of the part that it published.

    Attributes:
        records: Records read.
        samples: Samples written.
        tokens: Tokens written.
        trained: Trained tokens among them.
        rejected: Records rejected, by reason.
        lost: Samples lost of records that kept others, by reason.
        notes: Records that were odd in a harmless way, by kind.
        first_rejections: The first few rejections, for messages.
        parity: Trained turns by whether training text is serving text.
        first_differences: The first few where it isn't, as of :class:`EncodedBatch`.
    """

    records: int = 0
    samples: int = 0
    tokens: int = 0
    trained: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first_rejections: list[Rejection] = field(default_factory=list)
    parity: Counter[str] = field(default_factory=Counter)
    first_differences: list[dict[str, Any]] = field(default_factory=list)


class PartWriter:
    """Writes a part under a temporary name and gives it its name once it is whole and on disk.

    A context manager: an exception leaves nothing behind. A part of that name is replaced.

    Args:
        path: Where the part goes.
        identity: What the part is the work of; a reader that expects another refuses it.
        datasets: What the samples fill.
        keep_records: Whether the rejected records themselves are written along.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        datasets: Sequence[DatasetSpec],
        keep_records: bool = False,
    ) -> None:
        self.path = path
        self.summary = PartSummary()
        self._identity = dict(identity)
        self._streams = [dataset.name for dataset in datasets if dataset.stored]
        self._groups = list(dict.fromkeys(dataset.group for dataset in datasets))
        self._keep_records = keep_records
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115
        self._file.write(_MAGIC)
        self._hashes = {name: hashlib.sha256() for name in self._streams}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self._dtypes()}
        self._kept: list[bytes] = []
        self._rejections: list[bytes] = []

    def _dtypes(self) -> dict[str, str]:
        return _dtypes(self._streams, self._groups)

    def add(self, batch: EncodedBatch, records: int) -> None:
        """Append a batch that ``records`` records became."""
        columns: dict[str, npt.NDArray[Any]] = {}
        for name in self._streams:
            tokens = batch.tokens[name].astype("<i4", copy=False)
            raw: Any = tokens.view(np.uint8)
            self._file.write(raw)
            self._hashes[name].update(raw)
            columns[f"blocks:{name}"] = np.asarray([len(tokens)])
        columns |= {f"lengths:{group}": batch.lengths[group] for group in self._groups}
        columns |= {"trained": batch.trained, "rows": batch.rows, "turns": batch.turns}
        for name, values in columns.items():
            self._columns[name].append(values)
        self._kept += [json.dumps(values).encode("ascii") for values in batch.kept]
        batch.rejections.sort(key=lambda rejection: (rejection.row, rejection.turn))
        for rejection in batch.rejections:
            if not self._keep_records:
                rejection.record = None
            self._rejections.append(_json(rejection))
        self._count(batch, records)

    def _count(self, batch: EncodedBatch, records: int) -> None:
        summary = self.summary
        summary.records += records
        summary.samples += len(batch.rows)
        summary.tokens += sum(int(batch.lengths[group].sum(dtype=np.int64)) for group in self._groups)
        summary.trained += int(batch.trained.sum(dtype=np.int64))
        whole = [rejection for rejection in batch.rejections if rejection.turn < 0]
        summary.rejected.update(rejection.reason for rejection in whole)
        summary.lost.update(rejection.reason for rejection in batch.rejections if rejection.turn >= 0)
        summary.notes.update(batch.notes)
        room = 3 - len(summary.first_rejections)
        summary.first_rejections += [
            replace(rejection, record=None) for rejection in batch.rejections[:room]
        ]
        summary.parity.update(batch.parity)
        summary.first_differences += batch.differences[: 3 - len(summary.first_differences)]

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        sections: dict[str, tuple[int, int]] = {}
        tail = hashlib.sha256()
        for name, dtype in self._dtypes().items():
            joined = np.concatenate([np.zeros(0, dtype), *self._columns[name]]).astype(dtype)
            sections[name] = self._section(joined.tobytes(), tail)
        sections["kept"] = self._section(b"\n".join(self._kept), tail)
        sections["rejections"] = self._section(b"\n".join(self._rejections), tail)
        footer = json.dumps(
            {
                "identity": self._identity,
                "summary": vars(self.summary)
                | {"first_rejections": [asdict(item) for item in self.summary.first_rejections]},
                "streams": self._streams,
                "groups": self._groups,
                "sections": sections,
                "sha256": {name: digest.hexdigest() for name, digest in self._hashes.items()}
                | {"tail": tail.hexdigest()},
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

    def _section(self, raw: bytes, digest: Any) -> tuple[int, int]:
        start = self._file.tell()
        self._file.write(raw)
        digest.update(raw)
        return start, len(raw)


class PartReader:
    """Reads a part; opening checks its footer and its tail, reading the tokens checks theirs.

    Args:
        path: The part.

    Raises:
        DatasetError: It is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        footer = self._footer()
        #: What the part is the work of.
        self.identity: dict[str, Any] = footer["identity"]
        self._sha256: dict[str, str] = footer["sha256"]
        self._sections: dict[str, list[int]] = footer["sections"]
        #: Names of the stored datasets, in the order in which their blocks lie, and of the groups.
        self.streams: list[str] = footer["streams"]
        self.groups: list[str] = footer["groups"]
        summary = dict(footer["summary"])
        for name in ("rejected", "lost", "notes", "parity"):
            summary[name] = Counter(summary[name])
        summary["first_rejections"] = [Rejection(**item) for item in summary["first_rejections"]]
        #: The counts, as the task told them.
        self.summary = PartSummary(**summary)

    def _footer(self) -> dict[str, Any]:
        fixed = 32 + 8 + len(_MAGIC)
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - fixed))
                end = file.read()
                if size < fixed or not end.endswith(_MAGIC):
                    raise DatasetError(f"{self.path}: not a whole part file")
                length = int.from_bytes(end[32:40], "little")
                if length > size - fixed:
                    raise DatasetError(f"{self.path}: damaged footer")
                file.seek(size - fixed - length)
                raw = file.read(length)
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from None
        if hashlib.sha256(raw).digest() != end[:32]:
            raise DatasetError(f"{self.path}: damaged footer")
        footer: dict[str, Any] = json.loads(raw)
        return footer

    def check(self) -> None:
        """Read everything.

        Raises:
            DatasetError: Something is not what was written.
        """
        self.tail()
        for name in self.streams:
            for _ in self.tokens(name):
                pass

    def tail(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the columns by name and the rejections.

        The columns are ``lengths:GROUP`` for each group, ``trained``, ``rows`` and ``turns``; ``kept`` has
        a list of texts per sample, or nothing at all where no columns are kept.

        Raises:
            DatasetError: The tail is damaged.
        """
        digest = hashlib.sha256()
        raw: dict[str, bytes] = {}
        with open(self.path, "rb") as file:
            for name, (start, length) in self._sections.items():
                file.seek(start)
                raw[name] = file.read(length)
                digest.update(raw[name])
        if digest.hexdigest() != self._sha256["tail"]:
            raise DatasetError(f"{self.path}: damaged tail")
        columns: dict[str, Any] = {
            name: np.frombuffer(raw[name], dtype)
            for name, dtype in _dtypes(self.streams, self.groups).items()
        }
        columns["kept"] = [json.loads(line) for line in raw["kept"].split(b"\n")] if raw["kept"] else []
        lines = raw["rejections"].split(b"\n") if raw["rejections"] else []
        return columns, [json.loads(line) for line in lines]

    def tokens(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of a stored dataset (of :attr:`streams`) in pieces.

        Raises:
            DatasetError: They are not those that were written; raised behind the last piece.
        """
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            sizes = np.stack([self._blocks(file, stream) for stream in self.streams])
            own = self.streams.index(name)
            # The blocks of a batch lie one behind the other, and those of the next batch behind them.
            starts = len(_MAGIC) + np.cumsum(sizes.T.ravel()).reshape(sizes.T.shape)[:, own] - sizes[own]
            for start, block in zip(starts.tolist(), sizes[own].tolist(), strict=True):
                file.seek(start)
                left = block
                while left:
                    piece = file.read(min(left, _COPY))
                    if not piece:
                        raise DatasetError(f"{self.path}: became shorter while it was read")
                    digest.update(piece)
                    left -= len(piece)
                    yield memoryview(piece)
        if digest.hexdigest() != self._sha256[name]:
            raise DatasetError(f"{self.path}: damaged {name}")

    def _blocks(self, file: BinaryIO, stream: str) -> npt.NDArray[np.int64]:
        """Return the bytes of each block of a stream.

        Raises:
            DatasetError: They can't be.
        """
        start, length = self._sections[f"blocks:{stream}"]
        file.seek(start)
        raw = file.read(length)
        if len(raw) != length:
            raise DatasetError(f"{self.path}: became shorter while it was read")
        tokens = np.frombuffer(raw, "<i8")
        if (tokens < 0).any() or (tokens > start).any():
            raise DatasetError(f"{self.path}: damaged tail")
        return 4 * tokens


def _dtypes(streams: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    """Return the columns of a part with their types, in their order."""
    blocks = {f"blocks:{name}": "<i8" for name in streams}
    return blocks | {f"lengths:{group}": "<i4" for group in groups} | _COLUMNS


def _json(rejection: Rejection) -> bytes:
    """Return a rejection as JSON text; not by ``asdict``, which copies records and fails on deep ones."""
    entry = {item.name: getattr(rejection, item.name) for item in fields(rejection)}
    if _is_deep(rejection.record):
        entry["record"] = shorten(rejection.record)
    return json.dumps(entry, default=str).encode("ascii")


def _is_deep(value: Any) -> bool:
    """Return whether a value is nested so deeply that ``json`` may fail on it, here or where it is read."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
