"""The part file of a shard: its samples, and what became of the records that have none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Rejection, shorten
from mtsft_preproc.encoding import DatasetSpec, EncodedBatch
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.parts.container import Container, ContainerWriter

__all__ = ["Differs", "PartReader", "PartSummary", "PartWriter"]

#: Levels of objects and lists that a rejected record may have to be written along.
_DEEPEST = 200
#: Columns with an entry per sample; those of lengths stand beside them, by group.
_COLUMNS = {"trained": "<i4", "rows": "<i8", "turns": "<i4", "digests": "<u8"}


class Differs(NamedTuple):
    """What was found to differ from what it stands for, which then did the work; in words, or ``""``.

    Attributes:
        encoder: Where a fast encoder gave other ids than the reference.
        shape: Where a dialogue was composed otherwise than its chat template writes it.
    """

    encoder: str = ""
    shape: str = ""


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
        encoder: What turned the texts into ids.
        texts: Texts that a fast encoder turned into ids.
        checked: How many of them were compared with the reference.
        composes: Whether a chat template's dialogues of known shapes were written without the template.
        differs: What was found to differ.
        stages: CPU seconds by stage; nothing in a part that is read back, whose bytes know no time.
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
    encoder: str = ""
    texts: int = 0
    checked: int = 0
    composes: bool = True
    differs: Differs = field(default_factory=Differs)
    stages: dict[str, float] = field(default_factory=dict)


class PartWriter:
    """Writes the part of a shard; see :class:`ContainerWriter` for what becomes of it on an exception.

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
        self.summary = PartSummary()
        self._groups = list(dict.fromkeys(dataset.group for dataset in datasets))
        self._keep_records = keep_records
        streams = [dataset.name for dataset in datasets if dataset.stored]
        self._container = ContainerWriter(path, identity, streams)
        self._columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _dtypes(self._groups)}
        self._kept: list[bytes] = []
        self._rejections: list[bytes] = []

    def add(self, batch: EncodedBatch, records: int) -> None:
        """Append a batch that ``records`` records became."""
        self._container.add(batch.tokens)
        columns: dict[str, npt.NDArray[Any]] = {
            f"lengths:{group}": batch.lengths[group] for group in self._groups
        }
        columns |= {"trained": batch.trained, "rows": batch.rows, "turns": batch.turns}
        columns |= {"digests": batch.digests.ravel()}
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
        with self._container as container:
            if error is not None:
                raise error
            self._finish(container)

    def _finish(self, container: ContainerWriter) -> None:
        for name, dtype in _dtypes(self._groups).items():
            joined = np.concatenate([np.zeros(0, dtype), *self._columns[name]]).astype(dtype)
            container.section(name, joined.tobytes())
        container.section("kept", b"\n".join(self._kept))
        container.section("rejections", b"\n".join(self._rejections))
        firsts = [asdict(item) for item in self.summary.first_rejections]
        container.footer = {
            "summary": vars(self.summary) | {"first_rejections": firsts},
            "groups": self._groups,
        }


class PartReader(Container):
    """Reads a part; opening checks its footer, reading checks what is read.

    Args:
        path: The part.

    Raises:
        DatasetError: It is not whole.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            #: Names of the groups of lengths.
            self.groups: list[str] = [str(name) for name in self.footer["groups"]]
            #: The counts, as the task told them.
            self.summary = _summary(self.footer["summary"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DatasetError(f"{path}: damaged footer") from None

    def tail(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the columns by name and the rejections.

        The columns are ``lengths:GROUP`` for each group, ``trained``, ``rows``, ``turns`` and ``digests``,
        (S, 2); ``kept`` has a list of texts per sample, or nothing at all where no columns are kept.

        Raises:
            DatasetError: The tail is damaged.
        """
        raw = self.sections()
        columns: dict[str, Any] = self._columns(raw)
        try:
            columns["kept"] = [json.loads(line) for line in raw["kept"].split(b"\n")] if raw["kept"] else []
            lines = raw["rejections"].split(b"\n") if raw["rejections"] else []
            return columns, [json.loads(line) for line in lines]
        except (KeyError, ValueError):
            raise DatasetError(f"{self.path}: damaged tail") from None

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns that are numbers, by name; see :meth:`tail`.

        Raises:
            DatasetError: The tail is damaged.
        """
        return self._columns(self.sections())

    def _columns(self, raw: Mapping[str, bytes]) -> dict[str, npt.NDArray[Any]]:
        try:
            columns: dict[str, npt.NDArray[Any]] = {
                name: np.frombuffer(raw[name], dtype) for name, dtype in _dtypes(self.groups).items()
            }
            columns["digests"] = columns["digests"].reshape(-1, 2)
        except (KeyError, ValueError):
            raise DatasetError(f"{self.path}: damaged tail") from None
        return columns

    def places(self, stream: str, lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Return at which byte of the file the tokens of each sample start, int64 (S,).

        Args:
            stream: A token stream.
            lengths: int32, shape (S,): tokens of each sample in it.
        """
        starts, sizes = self.blocks(stream)
        ends = np.cumsum(lengths, dtype=np.int64) * 4
        before = ends - lengths.astype(np.int64) * 4
        # Samples lie one behind the other, in blocks that have other streams' blocks between them. A sample
        # without a token may count to either of two blocks.
        block_ends = np.cumsum(sizes)
        block = np.minimum(np.searchsorted(block_ends, before, "right"), max(0, len(sizes) - 1))
        gaps = starts - (block_ends - sizes)
        return before + gaps[block] if len(gaps) else before


def _summary(told: Mapping[str, Any]) -> PartSummary:
    summary = dict(told)
    for name in ("rejected", "lost", "notes", "parity"):
        summary[name] = Counter(summary[name])
    summary["differs"] = Differs(*summary["differs"])
    summary["first_rejections"] = [Rejection(**item) for item in summary["first_rejections"]]
    return PartSummary(**summary)


def _dtypes(groups: Sequence[str]) -> dict[str, str]:
    """Return the columns of a part with their types, in their order."""
    return {f"lengths:{group}": "<i4" for group in groups} | _COLUMNS


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
