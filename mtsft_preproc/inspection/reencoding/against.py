"""``mtsft verify --against``: are the samples of a dataset what its inputs become?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import DatasetError, InputError, SettingsError
from mtsft_preproc.inspection.finished import Finished, open_finished
from mtsft_preproc.inspection.reencoding.comparing import Comparison
from mtsft_preproc.inspection.reencoding.inputs import InputFiles
from mtsft_preproc.inspection.reencoding.recipe import Recipe, recipes_of
from mtsft_preproc.inspection.reencoding.reencoder import EncodedSample, Reencoder
from mtsft_preproc.inspection.reencoding.rows import records_at
from mtsft_preproc.inspection.reencoding.sampling import drawn_rejections, drawn_samples
from mtsft_preproc.join.inputs import has_manifest, read_manifest
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.tokenization import Encoder

__all__ = ["Against", "Kitchen", "check_against", "check_given"]

#: Records that are encoded together.
_AT_ONCE = 64
#: Reasons of rejections that no record can be asked about again, and why.
_NOT_OF_THE_RECORD = {
    "damaged-file": "what stands there can't be read",
    "duplicate": "other records decide that",
    "left-out": "other records decide that",
}


@dataclass
class Against:
    """What a comparison with the inputs came to.

    Attributes:
        findings: A line for each difference: dataset file, item, offset, file and row of input, and what
            differs; the first ``most`` of them.
        differences: How many there are.
        records: Records that were encoded again.
        samples: Samples that were compared.
        rejections: Rejections that were looked at again.
        unchecked: What could not be compared, and why.
    """

    findings: list[str] = field(default_factory=list)
    differences: int = 0
    records: int = 0
    samples: int = 0
    rejections: int = 0
    unchecked: list[str] = field(default_factory=list)
    most: int = 100

    @property
    def ok(self) -> bool:
        """Whether all that was compared is equal."""
        return not self.differences

    def add(self, line: str) -> None:
        """Take note of a difference."""
        self.differences += 1
        if len(self.findings) < self.most:
            self.findings.append(line)


class Kitchen:
    """The recipes of a dataset, its inputs, and what encodes; each is opened when it is needed.

    Args:
        finished: The dataset.
        given: As ``inputs`` of :func:`check_against`.
        trust_remote_code: As there.
        encoder: Of the dataset's tokenizer, if that is open already.
        flag: The flag by which inputs are given, for messages.

    Raises:
        DatasetError: The manifest does not tell how the samples were encoded.
        InputError: What is given does not fit.
    """

    def __init__(
        self,
        finished: Finished,
        given: Sequence[str] | None = None,
        trust_remote_code: bool = False,
        encoder: Encoder | None = None,
        flag: str = "--input",
    ) -> None:
        self._encoders = [] if encoder is None else [(finished.manifest["tokenizer"], encoder)]
        self._prefix = finished.paths.prefix
        self._trust = trust_remote_code
        self._recipes = recipes_of(finished.paths.prefix, finished.manifest)
        self._made = finished.paths.manifest.stat().st_mtime_ns
        entries = [entry for recipe in self._recipes for entry in recipe.inputs]
        self.files = InputFiles(entries, self._made, given, flag)
        self._open: dict[int, Reencoder] = {}

    def find(self, source: str | None, path: str) -> tuple[Recipe, Mapping[str, Any]]:
        """Return how a file of a source was encoded, and its entry.

        Raises:
            DatasetError: No manifest knows it, or two know it differently.
        """
        found = [(recipe, recipe.entry(source, path)) for recipe in self._recipes]
        known = [(recipe, entry) for recipe, entry in found if entry is not None]
        if not known:
            raise DatasetError(f"{self._prefix}.manifest.json: names no input {path} of source {source!r}")
        if len({recipe.encodes_as(entry) for recipe, entry in known}) > 1:
            raise DatasetError(
                f"{self._prefix}: {path} was encoded with several settings, and which of them a sample has "
                "can't be told; look at the datasets that it was made of"
            )
        return known[0]

    def reencoder(self, recipe: Recipe) -> Reencoder:
        """Return what encodes by a recipe."""
        key = id(recipe)
        if key not in self._open:
            described = recipe.manifest["tokenizer"]
            known = next((encoder for own, encoder in self._encoders if own == described), None)
            self._open[key] = Reencoder(recipe, self._trust, known)
            self._encoders.append((described, self._open[key].encoder))
        return self._open[key]


def check_given(prefix: str, inputs: Sequence[str]) -> None:
    """Look whether files can be what a dataset was made of: by their number, names and sizes.

    Args:
        prefix: As of :func:`check_against`.
        inputs: As there.

    Raises:
        DatasetError: There is no manifest, or it is malformed.
        InputError: They are not there, or can't be.
    """
    run = Path(prefix)
    entries = read_manifest(run)["inputs"] if run.name and has_manifest(run) else []
    for own in entries or [None]:
        known = own if isinstance(own, dict) else {}
        if not isinstance(known.get("path"), str) or not isinstance(known.get("bytes"), int):
            raise DatasetError(f"{prefix}.manifest.json: expected path and bytes of each input in it")
    InputFiles(entries, 0, inputs, "--against").check_sizes(entries)


def check_against(
    prefix: str,
    inputs: Sequence[str] | None = None,
    samples: int = 1000,
    seed: int = 1234,
    *,
    trust_remote_code: bool = False,
    most: int = 100,
    report: Against | None = None,
) -> Against:
    """Encode records of a dataset again and compare what comes out with what stands in it.

    The reference encodes, and chat templates render every dialogue, in this process: neither the fast
    encoder, nor composing, nor packing, mixing or merging has a part in it. Compared are ids, labels,
    attention masks, lengths, trained counts and digests; of rejected records, that they are still rejected
    for that reason.

    Args:
        prefix: The output prefix; of a split, that of a side, or of the run for all of them.
        inputs: Paths that take the place of the manifest's, for data that moved; None: the manifest's.
        samples: Samples that are drawn, each with the others of its record; and so many rejections. 0: all.
            (Of all samples, the sidecar is held in memory: some 60 bytes each.)
        seed: Of the draw.
        trust_remote_code: Whether the tokenizer's folder may run its own Python code.
        most: Findings that are kept.
        report: Takes what is found, for those who want that where an error ends the comparison, too.

    Raises:
        MtsftError: Nothing can be compared: there is no manifest, an input, the tokenizer, the chat format
            or the handler is gone or changed, or the dataset is damaged. The message is one line that says
            what.
    """
    if samples < 0:
        raise SettingsError(f"--samples: expected at least 0, got {samples}")
    report = Against(most=most) if report is None else report
    run = Path(prefix)
    manifest = read_manifest(run) if run.name and has_manifest(run) else {}
    sides = [f"{prefix}_{side}" for side in manifest.get("splits", ())] or [prefix]
    for side in sides:
        finished = open_finished(side)
        kitchen = Kitchen(finished, inputs, trust_remote_code, flag="--against")
        _check_samples(finished, kitchen, report, samples, seed)
    _check_rejections(finished, kitchen, report, samples, seed)
    return report


def _check_samples(finished: Finished, kitchen: Kitchen, report: Against, count: int, seed: int) -> None:
    table = drawn_samples(finished, count, seed)
    rows = table.to_pylist()
    comparison = Comparison(finished, report.add)
    report.unchecked += comparison.unchecked
    of_file: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        own = of_file.setdefault((row["source_name"], row["file"]), {})
        own.setdefault(row["row"], []).append(row)
    for (source, path), wanted in of_file.items():
        recipe, entry = kitchen.find(source, path)
        reencoder = kitchen.reencoder(recipe)
        with _unless_changed(kitchen.files, entry, report):
            for records, refused in _batches(kitchen, recipe, entry, sorted(wanted)):
                encoded, rejected = reencoder.encode(entry, records)
                reasons = {row: reason for row, turn, reason in rejected if turn is None} | refused
                made: dict[int, list[EncodedSample]] = {}
                for sample in encoded:
                    made.setdefault(sample.row, []).append(sample)
                for number in (*(record.row for record in records), *refused):
                    report.records += 1
                    report.samples += len(wanted[number])
                    comparison.record(wanted[number], made.get(number, []), reasons.get(number), reencoder)


@contextmanager
def _unless_changed(files: InputFiles, entry: Mapping[str, Any], report: Against) -> Iterator[None]:
    """Take back the differences that are found inside if the input has changed, which then is why.

    Raises:
        InputError: It has.
    """
    before, told = report.differences, len(report.findings)
    yield
    if report.differences > before:
        try:
            files.check(entry)
        except InputError:
            report.differences = before
            del report.findings[told:]
            raise


def _batches(
    kitchen: Kitchen, recipe: Recipe, entry: Mapping[str, Any], rows: Sequence[int]
) -> Iterator[tuple[list[Record], dict[int, str]]]:
    """Yield records of a file, so many at a time, and the reasons of those that can't be read."""
    file, columns = kitchen.files.open(entry), kitchen.reencoder(recipe).columns(entry)
    found = records_at(file, rows, recipe.config.record_bytes, columns)
    while batch := list(itertools.islice(found, _AT_ONCE)):
        records = [own for own in batch if isinstance(own, Record)]
        yield records, {own.row: own.reason for own in batch if isinstance(own, Rejection)}


def _check_rejections(finished: Finished, kitchen: Kitchen, report: Against, count: int, seed: int) -> None:
    split = finished.manifest.get("split", {})
    paths = finished.paths
    if split.get("of"):
        paths = OutputPaths(finished.paths.prefix.with_name(split["of"]))
    if finished.manifest.get("repacked"):
        report.unchecked.append(
            f"{paths.rejected}: of a repacked dataset: it tells of samples, not of records"
        )
        return
    if not paths.rejected.exists() and split:
        report.unchecked.append(
            f"{paths.rejected}: no such file; it stands with the run, not with its sides"
        )
        return
    of_file: dict[str, dict[int, list[tuple[int, dict[str, Any]]]]] = {}
    passed: Counter[str] = Counter()
    for line, rejection in drawn_rejections(paths.rejected, count, seed):
        if rejection["reason"] in _NOT_OF_THE_RECORD:
            passed[rejection["reason"]] += 1
            continue
        of_file.setdefault(rejection["file"], {}).setdefault(rejection["row"], []).append((line, rejection))
    report.unchecked += [
        f"{paths.rejected}: {number} lines {reason!r}: {_NOT_OF_THE_RECORD[reason]}"
        for reason, number in sorted(passed.items())
    ]
    for path, wanted in of_file.items():
        recipe, entry = kitchen.find(None, path)
        with _unless_changed(kitchen.files, entry, report):
            for records, refused in _batches(kitchen, recipe, entry, sorted(wanted)):
                _, rejected = kitchen.reencoder(recipe).encode(entry, records)
                reasons = {(row, turn): reason for row, turn, reason in rejected}
                reasons |= {(row, None): reason for row, reason in refused.items()}
                for row in (*(record.row for record in records), *refused):
                    for line, rejection in wanted[row]:
                        report.rejections += 1
                        now = reasons.get((row, rejection.get("turn")))
                        if now != rejection["reason"]:
                            report.add(
                                f"{paths.rejected}: line {line} ({path}, row {row}): rejected as "
                                f"{rejection['reason']!r}, now {'kept' if now is None else repr(now)}"
                            )
