"""The samples of a record as they stand in a dataset, and as they are encoded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed import bin_path
from mtsft_preproc.inspection.finished import Finished
from mtsft_preproc.inspection.reencoding.reencoder import EncodedSample, Reencoder

__all__ = ["Comparison"]

_LABELS, _MASK = "packed_labels", "packed_attention_mask"


class Comparison:
    """Compares samples.

    Args:
        finished: The dataset.
        add: Takes a line for each difference.

    Attributes:
        unchecked: Pairs whose items can't be told, and why.
    """

    def __init__(self, finished: Finished, add: Callable[[str], None]) -> None:
        self._finished = finished
        self._add = add
        manifest = finished.manifest
        self._packed: bool = manifest.get("packing") is not None
        self._neat = bool((manifest.get("packing") or {}).get("neat"))
        self._ignored = int(manifest["ignore_index"])
        self._objective: str = manifest["objective"]
        #: Samples may have been dropped from a record since it was encoded.
        self._partial = bool(manifest.get("repacked"))
        self.unchecked: list[str] = []
        #: Per group: the sidecar's numbers of the items, which rise, or None where they are the items'.
        self._numbers: dict[str, npt.NDArray[np.int64] | None] = {}
        for group in finished.groups:
            try:
                self._numbers[group] = finished.numbers_of_items(group)
            except DatasetError as error:
                self.unchecked.append(str(error))

    def record(
        self,
        rows: Sequence[Mapping[str, Any]],
        encoded: Sequence[EncodedSample],
        refused: str | None,
        reencoder: Reencoder,
    ) -> None:
        """Compare all samples of one record.

        Args:
            rows: Its rows of the sidecar, at least one.
            encoded: Its samples, as they are encoded again.
            refused: Why there are none, or None.
            reencoder: Of them.
        """
        left = list(encoded)
        for row in rows:
            same_turn = [sample for sample in encoded if sample.turn == row["turn"]]
            if not same_turn:
                got = f"is rejected as {refused!r}" if refused else f"has no sample for turn {row['turn']}"
                self._add(f"{self._place(row, self._finished.specs[0])}: encoded again, the record {got}")
                continue
            # Several for one turn are told apart by what they are; a mix may repeat each of them.
            tried = [(self._differences(row, sample, reencoder), sample) for sample in same_turn]
            differences, sample = min(tried, key=lambda one: len(one[0]))
            left = [own for own in left if own is not sample]
            for line in differences:
                self._add(line)
        if not self._partial:
            for sample in left:
                self._add(
                    f"{self._finished.paths.sources}: {rows[0]['file']}, row {rows[0]['row']}: encoded "
                    f"again, it has a sample{_of_turn(sample.turn)} that the dataset has not"
                )

    def _differences(
        self, row: Mapping[str, Any], sample: EncodedSample, reencoder: Reencoder
    ) -> list[str]:
        """Return a line for each pair, and each column of the sidecar, in which a sample differs."""
        found = []
        for spec in self._finished.specs:
            if spec.group not in self._numbers:
                continue
            expected = self._expected(spec, sample)
            stored = self._stored(spec, row, sample.lengths[spec.group])
            difference = self._difference(spec, stored, expected, row, reencoder)
            if difference:
                found.append(f"{self._place(row, spec)}: {difference}")
        trained = sample.trained
        if self._objective == "sft":
            labels = self._expected(
                next(own for own in self._finished.specs if own.name == _LABELS), sample
            )
            assert labels is not None
            trained = int((labels != self._ignored).sum())
        first = self._finished.specs[0]
        for name, then, now in (
            ("length", row["length"], sample.lengths[first.group]),
            ("trained", row["trained"], trained),
            ("digest", row["digest"].hex(), sample.digest.hex()),
        ):
            if then != now:
                where = f"item {row['item']}, offset {row['offset']}{_of_record(row)}"
                found.append(f"{self._finished.paths.sources}: {where}: {name} {then}, encoded again {now}")
        return found

    def _expected(self, spec: DatasetSpec, sample: EncodedSample) -> npt.NDArray[np.int32] | None:
        """Return what ought to stand there; None for what packing alone decides."""
        if not spec.stored:
            return None if self._neat else np.ones(sample.lengths[spec.group], np.int32)
        expected = sample.tokens[spec.name]
        if self._packed and spec.name == _LABELS and len(expected):
            expected = expected.copy()
            expected[0] = self._ignored
        return expected

    def _stored(self, spec: DatasetSpec, row: Mapping[str, Any], length: int) -> npt.NDArray[Any] | None:
        """Return what stands there; None where the item is missing, or its offset lies behind its end."""
        dataset = self._finished.datasets[spec.name]
        numbers, item = self._numbers[spec.group], row["item"]
        if numbers is not None:
            place = int(np.searchsorted(numbers, item))
            if place == len(numbers) or numbers[place] != item:
                return np.zeros(0, np.int32)  # no text, no item
            item = place
        elif spec.skips_empty and not length and not len(dataset):
            return np.zeros(0, np.int32)
        if not 0 <= item < len(dataset):
            return None
        stored: npt.NDArray[Any] = dataset[item]
        if not self._packed:
            return stored
        start = row["offset"]
        # Which number a sample has, those before it say.
        return stored[0 if spec.name == _MASK and self._neat else start : start + row["length"]]

    def _difference(
        self,
        spec: DatasetSpec,
        stored: npt.NDArray[Any] | None,
        expected: npt.NDArray[np.int32] | None,
        row: Mapping[str, Any],
        reencoder: Reencoder,
    ) -> str:
        """Return what differs, or nothing."""
        if stored is None:
            return "no such item"
        if expected is None:
            # Samples are numbered one by one; padding between them is 0.
            before = stored[: row["offset"]]
            before = before[before > 0]
            number = 1 + (int(before[-1]) if len(before) else 0)
            stored = stored[row["offset"] :]
            expected = np.full(row["length"], number, np.int32)
        if len(stored) != len(expected):
            return f"{len(stored)} tokens, encoded again {len(expected)}"
        places = np.flatnonzero(stored != expected)
        if not len(places):
            return ""
        place = int(places[0])
        shown = [int(tokens[place]) for tokens in (stored, expected)]
        if spec.name != _MASK:
            texts = [self._shown(index, spec, reencoder) for index in shown]
        else:
            texts = [str(index) for index in shown]
        return (
            f"token {place} of {len(expected)} is {texts[0]}, encoded again {texts[1]} "
            f"({len(places)} differ)"
        )

    def _shown(self, index: int, spec: DatasetSpec, reencoder: Reencoder) -> str:
        if spec.name.endswith("labels") and index == self._ignored:
            return f"{index} (not trained)"
        if not 0 <= index < reencoder.encoder.spec.vocab_size:
            return f"{index} (no token)"
        return f"{index} {reencoder.encoder.decode([index])!r}"

    def _place(self, row: Mapping[str, Any], spec: DatasetSpec) -> str:
        path = bin_path(self._finished.datasets[spec.name].prefix)
        return f"{path}: item {row['item']}, offset {row['offset']}{_of_record(row)}"


def _of_record(row: Mapping[str, Any]) -> str:
    return f" ({row['file']}, row {row['row']}{_of_turn(row['turn'], ', ')})"


def _of_turn(turn: int | None, before: str = " for ") -> str:
    return "" if turn is None else f"{before}turn {turn}"
