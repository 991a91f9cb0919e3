"""Goes through an output, and through the sides of a split."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.config import usable_cores
from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.inspection.verify.counts import check_records, check_sums
from mtsft_preproc.inspection.verify.datasets import check_datasets
from mtsft_preproc.inspection.verify.files import Hashes, check_files, check_unnamed
from mtsft_preproc.inspection.verify.manifest_file import read_json, read_manifest
from mtsft_preproc.inspection.verify.rejected import read_rejected
from mtsft_preproc.inspection.verify.report import Check, Report
from mtsft_preproc.inspection.verify.samples import Samples
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.sealed import MANIFEST_SEAL, TIMINGS_SEAL, broken_seal

__all__ = ["verify"]


def verify(prefix: str, threads: int | None = None) -> Report:
    """Look whether a finished dataset is whole, and is what its manifest and its ledger say.

    Reads the output alone, a stretch at a time.

    Args:
        prefix: The output prefix.
        threads: How many; default: the cores that this process may use.

    Raises:
        SettingsError: The prefix ends in no name, or there are no threads.
        DatasetError: There is no output under it.
    """
    if prefix.endswith("/") or Path(prefix).name in ("", ".."):
        raise SettingsError(f"{prefix!r} ends in no name; expected an output prefix, FOLDER/NAME")
    if threads is not None and threads < 1:
        raise SettingsError(f"--workers: expected at least 1, got {threads}")
    paths = OutputPaths(Path(prefix))
    report = Report(prefix)
    if _is_unfinished(report, paths):
        return report
    if not paths.manifest.exists():
        _without_manifest(report, paths)
        return report
    count = usable_cores() if threads is None else threads
    with ThreadPoolExecutor(count) as hashing, ThreadPoolExecutor(count) as looking:
        _Verifier(report, Hashes(hashing), looking).output(paths)
    return report


def _is_unfinished(report: Report, paths: OutputPaths) -> bool:
    """Look whether an output, or the run that it is a side of, is being published."""
    name = paths.prefix.name
    runs = {name, name.rpartition("_")[0] or name}
    for run in sorted(runs):
        own = OutputPaths(paths.prefix.with_name(run))
        if not own.commit.exists():
            continue
        if run != name and f"{name}.manifest.json" not in _decided(own.commit):
            continue
        with report.check("output", name) as check:
            check.fail(
                own.commit, "its publication was interrupted; run the same command again to finish it"
            )
        return True
    return False


def _decided(commit: Path) -> list[str]:
    """Return the files that a commit record names."""
    try:
        names: list[str] = json.loads(commit.read_text("utf-8"))["files"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return names


def _without_manifest(report: Report, paths: OutputPaths) -> None:
    """Tell datasets that have lost their manifest, or never had one, from no dataset at all."""
    start = (f"{paths.prefix.name}_", f"{paths.prefix.name}.")
    try:
        names = sorted(os.listdir(paths.folder))
    except OSError as error:
        raise DatasetError(f"{paths.folder}: {error.strerror}") from None
    there = [
        name for name in names if name.startswith(start) and name.endswith((".bin", ".idx", ".parquet"))
    ]
    if not there:
        raise DatasetError(
            f"{paths.prefix}: no dataset there; expected an output prefix with {paths.manifest.name} "
            "beside it"
        )
    with report.check("manifest", paths.prefix.name) as check:
        check.fail(paths.manifest.name, f"no such file, but {there[0]} is there")


@dataclass
class _Verifier:
    """Goes through outputs.

    Attributes:
        report: What comes of it.
        hashes: Hashes files.
        threads: Look at tokens.
    """

    report: Report
    hashes: Hashes
    threads: ThreadPoolExecutor

    def output(
        self, paths: OutputPaths, run: str | None = None
    ) -> tuple[dict[str, Any], Samples | None] | None:
        """Look at an output.

        Args:
            paths: It.
            run: Name of the run whose side it is, and which is looked at, too.

        Returns:
            Its manifest and its samples; None where the manifest is of no use.
        """
        name = paths.prefix.name
        manifest = None
        with self.report.check("manifest", name) as check:
            manifest = read_manifest(check, paths)
        if manifest is None:
            return None
        whole: set[str] = set()
        with self.report.check("files", name) as check:
            whole = check_files(check, paths, manifest["files"], self.hashes)
            check_unnamed(check, paths, manifest["files"])
        with self.report.check("timings", name) as check:
            _check_timings(check, paths, manifest)
        if "splits" in manifest:
            samples = self._sides(paths, manifest)
        else:
            samples = [check_datasets(self.report, paths, manifest, whole, self.threads)]
        if "records" in manifest:
            self._ledger(paths, manifest, samples, whole)
        elif run is None:
            with self.report.check("records", name) as check:
                of = manifest.get("split", {}).get("of")
                why = (
                    f"that stands with the run {of}" if of else "not told where sides of splits were merged"
                )
                check.skip(f"which records were rejected: {why}")
        return manifest, samples[0] if len(samples) == 1 else None

    def _sides(self, paths: OutputPaths, manifest: Mapping[str, Any]) -> list[Samples | None]:
        """Look at the sides of a split; return the samples of each."""
        found = {}
        for side in manifest["splits"]:
            own = self.output(paths.side(side), paths.prefix.name)
            if own is not None:
                found[side] = own
        with self.report.check("split", paths.prefix.name) as check:
            if len(found) < len(manifest["splits"]):
                check.skip("sums over the sides: the manifest of one is of no use")
                return [None]
            check_sums(check, paths.manifest.name, manifest, {side: own[0] for side, own in found.items()})
            check.checked = f"{len(found)} sides sum to the run's counts"
        return [samples for _, samples in found.values()]

    def _ledger(
        self,
        paths: OutputPaths,
        manifest: Mapping[str, Any],
        samples: list[Samples | None],
        whole: set[str],
    ) -> None:
        """Look at the rejections, and whether all records are accounted for."""
        rejected = None
        with self.report.check("rejected", paths.prefix.name) as check:
            rejected = read_rejected(check, paths.rejected, manifest)
        with self.report.check("records", paths.prefix.name) as check:
            known = [own for own in samples if own is not None]
            if rejected is None or len(known) < len(samples):
                check.skip("whether all records are accounted for: a file of the ledger can't be read")
                return
            check_records(check, paths.manifest.name, manifest, known, rejected)


def _check_timings(check: Check, paths: OutputPaths, manifest: Mapping[str, Any]) -> None:
    """Look whether the timings are those of this output."""
    check.file = paths.timings.name
    if "of" in manifest.get("split", {}):
        if paths.timings.exists():
            check.fail(check.file, "of another output: sides of a split have none of their own")
        check.checked = "stand with the run"
        return
    raw = paths.timings.read_bytes()
    if wrong := broken_seal(raw, TIMINGS_SEAL):
        check.fail(check.file, wrong)
    content = read_json(check, raw)
    if content is None:
        return
    for entry in (MANIFEST_SEAL, "fingerprint"):
        says, is_ = content.get(entry), manifest.get(entry)
        if says != is_:
            check.fail(check.file, f"{entry} {says!r:.20}, but {paths.manifest.name} has {is_!r:.20}")
    check.checked = "sealed, of this output"
