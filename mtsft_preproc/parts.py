"""The part file: what one task publishes, whole or not at all.

Layout: ``MTSFTPART1``; per batch its input ids, then its labels (int32); the tail (block sizes, lengths,
trained, rows, turns, rejections); a JSON footer, its sha256, its size, and the magic again. The footer
holds the identity of the work, the counts, the places of the sections and a sha256 of each stream.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Rejection
from mtsft_preproc.encoding import EncodedBatch
from mtsft_preproc.errors import DatasetError

__all__ = ["FIELDS", "PartReader", "PartSummary", "PartWriter", "sync_folder"]

#: Token streams of a part.
FIELDS = ("input_ids", "labels")

_MAGIC = b"MTSFTPART1"
_COPY = 1 << 22
_COLUMNS = {"blocks": "<i8", "lengths": "<i4", "trained": "<i4", "rows": "<i8", "turns": "<i4"}


@dataclass
class PartSummary:
    """What a task tells the driver of the part that it published.

    Attributes:
        records: Records read.
        samples: Samples written.
        tokens: Tokens written.
        trained: Trained tokens among them.
        rejected: Records rejected, by reason.
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
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.summary = PartSummary()
        self._identity = dict(identity)
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115
        self._file.write(_MAGIC)
        self._hashes = {name: hashlib.sha256() for name in FIELDS}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _COLUMNS}
        self._rejections: list[bytes] = []

    def add(self, batch: EncodedBatch, records: int) -> None:
        """Append a batch that ``records`` records became."""
        for name in FIELDS:
            view = memoryview(getattr(batch, name).astype("<i4", copy=False)).cast("B")
            self._file.write(view)
            self._hashes[name].update(view)
        columns = {"blocks": np.asarray([len(batch.input_ids)]), "lengths": batch.lengths}
        columns |= {"trained": batch.trained, "rows": batch.rows, "turns": batch.turns}
        for name, values in columns.items():
            self._columns[name].append(values)
        batch.rejections.sort(key=lambda rejection: rejection.row)
        for rejection in batch.rejections:
            self._rejections.append(json.dumps(asdict(rejection)).encode("ascii"))
        self._count(batch, records)

    def _count(self, batch: EncodedBatch, records: int) -> None:
        summary = self.summary
        summary.records += records
        summary.samples += len(batch.lengths)
        summary.tokens += len(batch.input_ids)
        summary.trained += int(batch.trained.sum(dtype=np.int64))
        summary.rejected.update(rejection.reason for rejection in batch.rejections)
        summary.notes.update(batch.notes)
        room = 3 - len(summary.first_rejections)
        summary.first_rejections += batch.rejections[:room]
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
        for name, dtype in _COLUMNS.items():
            joined = np.concatenate([np.zeros(0, dtype), *self._columns[name]]).astype(dtype)
            sections[name] = self._section(joined.tobytes(), tail)
        sections["rejections"] = self._section(b"\n".join(self._rejections), tail)
        footer = json.dumps(
            {
                "identity": self._identity,
                "summary": vars(self.summary)
                | {"first_rejections": [asdict(item) for item in self.summary.first_rejections]},
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
        summary = dict(footer["summary"])
        summary["rejected"] = Counter(summary["rejected"])
        summary["notes"] = Counter(summary["notes"])
        summary["parity"] = Counter(summary["parity"])
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
        for name in FIELDS:
            for _ in self.tokens(name):
                pass

    def tail(self) -> tuple[dict[str, npt.NDArray[Any]], list[dict[str, Any]]]:
        """Return the columns by name (``lengths``, ``trained``, ``rows``, ``turns``) and the rejections.

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
        columns = {name: np.frombuffer(raw[name], dtype) for name, dtype in _COLUMNS.items()}
        lines = raw["rejections"].split(b"\n") if raw["rejections"] else []
        return columns, [json.loads(line) for line in lines]

    def tokens(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of stream ``name`` (of :data:`FIELDS`) in pieces.

        Raises:
            DatasetError: They are not those that were written; raised behind the last piece.
        """
        digest = hashlib.sha256()
        start, length = self._sections["blocks"]
        with open(self.path, "rb") as file:
            file.seek(start)
            blocks = np.frombuffer(file.read(length), "<i8").tolist()
            at = len(_MAGIC)
            skip = FIELDS.index(name)
            for block in blocks:
                file.seek(at + 4 * block * skip)
                left = 4 * block
                while left:
                    piece = file.read(min(left, _COPY))
                    if not piece:
                        raise DatasetError(f"{self.path}: became shorter while it was read")
                    digest.update(piece)
                    left -= len(piece)
                    yield memoryview(piece)
                at += 4 * block * len(FIELDS)
        if digest.hexdigest() != self._sha256[name]:
            raise DatasetError(f"{self.path}: damaged {name}")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
