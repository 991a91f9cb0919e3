"""The samples of finished datasets, for the survey and for the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mtsft_preproc.arrange import PackSettings
from mtsft_preproc.errors import RejectedDataError, SettingsError
from mtsft_preproc.indexed import IndexedDataset, bin_path
from mtsft_preproc.join.inputs import JoinInput
from mtsft_preproc.ledger import Block, sample_schema
from mtsft_preproc.repack.inputs import IDS, LABELS, Stretch, kept_columns, stretches
from mtsft_preproc.survey import Questions, Survey, Surveyor

__all__ = ["FinishedSamples"]

Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: Samples whose first labels are read by one map of the labels.
_AT_ONCE = 1 << 12
_STREAMS = (("packed_input_ids", "sample"), ("packed_labels", "sample"))


@dataclass
class _Seen:
    """What there is to know of the samples of a stretch.

    Attributes:
        lengths: int32, shape (n,): tokens of each.
        trained: int32, shape (n,): trained tokens of each, where it is to stand.
        rows: int64, shape (n,): row of the record of each.
        places: int64, shape (n,): byte at which each starts in its datasets.
        overlong: bool, shape (n,): which are too long.
        dropped: bool, shape (n,): which are too long, or have nothing trained.
    """

    lengths: Int32
    trained: Int32
    rows: Int64
    places: Int64
    overlong: Bools
    dropped: Bools


class FinishedSamples:
    """The samples of finished datasets.

    Args:
        inputs: The datasets.
        packing: How the samples are to be packed, or None.
        overlong: What becomes of samples that are too long for that: ``"drop"`` or ``"fail"``.
        ignore_index: Label of what is not trained.
    """

    def __init__(
        self, inputs: Sequence[JoinInput], packing: PackSettings | None, overlong: str, ignore_index: int
    ) -> None:
        self._inputs = inputs
        self._packing = packing
        self._overlong = overlong
        self._ignored = ignore_index
        #: Columns of the data that the sidecars took over.
        self.kept = kept_columns(inputs)
        #: Names of the sources.
        self.sources: list[str] = [own.name for own in inputs] if len(inputs) > 1 else []
        #: Number of the source, and path, of each file of data.
        self.files: list[tuple[int, str]] = []
        for stretch in stretches(inputs):
            if stretch.owner == len(self.sources):
                self.sources.append(stretch.source)
            if stretch.file == len(self.files):
                self.files.append((stretch.owner, stretch.path))

    def survey(self, folder: Path, questions: Questions) -> Survey:
        """Return what is known of all samples.

        Args:
            folder: Where the survey's arrays go.
            questions: What there is to find out.

        Raises:
            DatasetError: A sidecar is damaged.
            RejectedDataError: A sample is too long, and nothing may be dropped.
            SettingsError: What was mixed is to be mixed again.
        """
        samples = sum(own.manifest["samples"] for own in self._inputs if own.manifest)
        surveyor = Surveyor(folder, _STREAMS, ["sample"], len(self.sources), questions, samples)
        order = _BaseOrder()
        for stretch in stretches(self._inputs):
            seen = self._look(stretch)
            own = self._inputs[stretch.dataset].datasets
            surveyor.add(
                source=stretch.owner,
                file=stretch.file,
                paths=tuple(str(bin_path(own[name].prefix)) for name in (IDS, LABELS)),
                lengths={"sample": seen.lengths},
                places=dict.fromkeys(("packed_input_ids", "packed_labels"), seen.places),
                rows=seen.rows,
                digests=_digests(stretch.table),
                trained=seen.trained,
                dropped=seen.dropped,
            )
            before = sum(one.manifest["samples"] for one in self._inputs[: stretch.dataset] if one.manifest)
            order.add(stretch.table["position"].to_numpy() + before)
        survey = surveyor.finish()
        survey.order = order.finish()
        if survey.order is not None and (questions.records or questions.shares):
            flag = "--mix-strategy" if questions.records else "--split"
            raise SettingsError(
                f"{flag}: these samples are a mix already, in which some may stand several times; expected "
                "datasets that were made without one"
            )
        return survey

    def blocks(self) -> Iterator[Block]:
        """Yield what the ledger has to say of the samples."""
        first = 0
        names = sample_schema(self.kept).names
        for stretch in stretches(self._inputs):
            seen = self._look(stretch)
            table = stretch.table.select(names)
            place = names.index("trained")
            table = table.set_column(place, table.schema.field(place), pa.array(seen.trained))
            records = np.cumsum(np.diff(seen.rows, prepend=-1) != 0) - 1
            yield Block(
                first=first,
                source=stretch.owner,
                path=stretch.path,
                table=table,
                tokens=seen.lengths.astype(np.int64),
                records=records,
                read=int(records[-1]) + 1,
                rejections=self._rejections(stretch, seen),
            )
            first += len(records)

    def _look(self, stretch: Stretch) -> _Seen:
        table = stretch.table
        item, offset, lengths, trained, rows = (
            table[name].to_numpy() for name in ("item", "offset", "length", "trained", "row")
        )
        datasets = self._inputs[stretch.dataset].datasets
        places = datasets[IDS].offsets[item] + 4 * offset.astype(np.int64)
        overlong = dropped = np.zeros(len(lengths), np.bool_)
        if self._packing is not None:
            # In a pack, the first label would be predicted from the last token of another sample.
            trained = trained - (_words(datasets[LABELS], places // 4) != self._ignored)
            overlong = lengths > self._packing.capacity
            dropped = overlong | (trained == 0)
            if self._overlong == "fail" and overlong.any():
                at = int(np.flatnonzero(overlong)[0])
                raise RejectedDataError(
                    f"--overlong fail: {stretch.path}, row {rows[at]}: a sample of {lengths[at]} tokens; "
                    f"expected at most {self._packing.capacity}"
                )
        return _Seen(lengths, trained.astype(np.int32), rows, places, overlong, dropped)

    def _rejections(self, stretch: Stretch, seen: _Seen) -> list[dict[str, Any]]:
        """Return the lines of the ledger for what is dropped: records, or samples of records that live."""
        turns = stretch.table["turn"]
        alive = set(seen.rows[~seen.dropped].tolist())
        lines: dict[tuple[int, int], dict[str, Any]] = {}
        for at in np.flatnonzero(seen.dropped).tolist():
            row, turn = int(seen.rows[at]), turns[at].as_py()
            line: dict[str, Any] = {"file": stretch.path, "row": row}
            if row in alive:
                line["turn"] = -1 if turn is None else turn
            if seen.overlong[at]:
                limit = self._packing.capacity if self._packing else 0
                why = ("overlong", f"at most {limit} tokens", f"{seen.lengths[at]} tokens")
            else:
                why = ("nothing-trained", "a reply with a token to train", "none")
            line |= {"reason": why[0], "field": "", "expected": why[1], "got": why[2]}
            lines.setdefault((row, line.get("turn", -1)), line)
        return list(lines.values())


class _BaseOrder:
    """Collects the positions of samples, as long as they say more than the order in which they come."""

    def __init__(self) -> None:
        self._count = 0
        self._differs = False
        self._pieces: list[Int64 | range] = []

    def add(self, positions: Int64) -> None:
        """Take note of the positions of the next samples, int64 (n,)."""
        start = self._count
        self._count += len(positions)
        plain = range(start, self._count)
        same = len(positions) == 0 or bool((positions == np.arange(start, self._count)).all())
        self._differs |= not same
        self._pieces.append(plain if same else positions)

    def finish(self) -> Int64 | None:
        """Return the samples in the order of their positions, or None if they came in it."""
        if not self._differs:
            return None
        order = np.argsort(np.concatenate([np.asarray(piece, np.int64) for piece in self._pieces]))
        return None if (np.diff(order) > 0).all() else order


def _words(dataset: IndexedDataset, places: Int64) -> Int32:
    """Return some tokens of a dataset.

    It is mapped anew for a few at a time: pages stay in memory as long as the map that they were read by.
    """
    found = np.zeros(len(places), np.int32)
    for start in range(0, len(places), _AT_ONCE):
        words = np.asarray(np.memmap(bin_path(dataset.prefix), dataset.dtype, mode="r"))
        found[start : start + _AT_ONCE] = words[places[start : start + _AT_ONCE]]
    return found


def _digests(table: pa.Table) -> npt.NDArray[np.uint64]:
    """Return the digests of samples, uint64 (n, 2)."""
    column = table["digest"].combine_chunks()
    numbers = np.frombuffer(column.buffers()[1], "<u8")
    return numbers[2 * column.offset : 2 * (column.offset + len(column))].reshape(-1, 2)
