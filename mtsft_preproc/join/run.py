"""Open -> compare -> stage -> publish."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtsft_preproc.config import check_output_prefix
from mtsft_preproc.errors import OutputError, SettingsError
from mtsft_preproc.indexed import bin_path, idx_path
from mtsft_preproc.join.agreement import check_agreement
from mtsft_preproc.join.datasets import join_datasets
from mtsft_preproc.join.inputs import JoinInput, find_inputs, refuse_own_inputs
from mtsft_preproc.join.manifest import fingerprint_of, joined_identity, joined_manifest
from mtsft_preproc.join.sidecars import join_rejected, join_sources
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.publish import clear, commit, make_synced, write_synced
from mtsft_preproc.sealed import MANIFEST_SEAL, write_sealed
from mtsft_preproc.timings import Timings
from mtsft_preproc.work import finish_interrupted, hold, left_over, make_folder, read_plan

__all__ = ["JoinResult", "join", "join_inputs"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JoinResult:
    """What came of a merge.

    Attributes:
        prefix: The output prefix.
        fields: Names of the datasets, as ``input_ids``; ``""`` for a single pair that has just the prefix.
        datasets: Their paths without suffix.
        inputs: How many outputs were joined.
        items: Number of items; where there is no manifest, of the first dataset.
        tokens: Number of tokens of all samples; where there is no manifest, of the first dataset.
        manifest: The manifest's content, or None where the inputs have none.
    """

    prefix: Path
    fields: tuple[str, ...]
    datasets: tuple[Path, ...]
    inputs: int
    items: int
    tokens: int
    manifest: dict[str, Any] | None


def join(prefixes: Sequence[str], output_prefix: str, overwrite: bool = False) -> JoinResult:
    """Join finished datasets into one: the items of the first, then those of the second, and so on.

    Args:
        prefixes: Their output prefixes, at least two; or, for datasets of other programs, also prefixes of
            single ``.bin``/``.idx`` pairs.
        output_prefix: The prefix of the output.
        overwrite: Replace a finished output, once the new one is whole.

    Raises:
        MtsftError: They don't go together, one is damaged, or the output can't be written. Nothing appears.
    """
    if len(prefixes) < 2:
        raise SettingsError(f"expected at least two datasets to merge, got {len(prefixes)}")
    output = Path(output_prefix)
    check_output_prefix(output_prefix)
    return join_inputs(lambda: find_inputs(prefixes, output), output, overwrite)


def join_inputs(find: Callable[[], list[JoinInput]], output: Path, overwrite: bool) -> JoinResult:
    """Join what ``find`` returns, once an interrupted publication of the output has been finished.

    Args:
        find: Opens the inputs.
        output: The prefix of the output.
        overwrite: Replace a finished output.

    Raises:
        MtsftError: As :func:`join`.
    """
    timings = Timings("merge")
    paths = OutputPaths(output)
    finished = finish_interrupted(paths)
    inputs = find()
    check_agreement(inputs)
    whole = all(own.whole for own in inputs)
    if not whole and inputs[0].manifest is not None:
        logger.warning("not all datasets of %s are merged: no manifest is written", inputs[0].name)
    identity = joined_identity(inputs)
    fingerprint = fingerprint_of(identity)
    pairs = {name: output.with_name(output.name + name) for name in sorted(inputs[0].datasets)}
    if finished is not None and finished.fingerprint == fingerprint:
        return _result(inputs, pairs, paths, finished.manifest if whole else None)
    sidecars = [paths.rejected.name] if whole and all(own.has_records for own in inputs) else []
    sidecars += [paths.sources.name] if whole else []
    names = _names(pairs, paths, sidecars)
    _refuse_finished(paths, names, overwrite)
    make_folder(paths)
    with hold(paths):
        # Again, now that nobody else can.
        _refuse_finished(paths, names, overwrite)
        gone = left_over(paths, set(names))
        if paths.manifest.exists() and paths.manifest.name not in names:
            gone += [paths.manifest.name, paths.timings.name]
        refuse_own_inputs(inputs, paths.folder, {*names, *gone})
        _open_work(paths, {"fingerprint": fingerprint, "identity": identity})
        with timings.profile.phase("merge"):
            manifest = _stage(inputs, pairs, paths, sidecars, timings)
        commit(paths, names, gone)
    return _result(inputs, pairs, paths, manifest)


def _names(pairs: dict[str, Path], paths: OutputPaths, sidecars: list[str]) -> list[str]:
    """Return the files of the output in the order in which they appear."""
    names = [path(prefix).name for prefix in pairs.values() for path in (bin_path, idx_path)]
    return [*names, *sidecars, paths.timings.name, paths.manifest.name] if sidecars else names


def _refuse_finished(paths: OutputPaths, names: Sequence[str], overwrite: bool) -> None:
    existing = [path for path in (paths.folder / name for name in names) if path.exists()]
    if not existing and paths.manifest.exists():
        existing = [paths.manifest]
    if existing and not overwrite:
        raise OutputError(
            f"--output-prefix: {existing[0]} exists already; expected a new prefix, or --overwrite to "
            "replace what is there once the new output is whole"
        )


def _open_work(paths: OutputPaths, plan: dict[str, Any]) -> None:
    """Make an empty work folder; what a killed merge left is thrown away.

    Raises:
        OutputError: It holds the work of another command.
    """
    before = read_plan(paths)
    if before is not None:
        ours = before["identity"].get("command") == "merge"
    else:
        ours = not any(path.is_file() and path.parent != paths.work for path in paths.work.rglob("*"))
    if not ours:
        raise OutputError(
            f"{paths.work} holds the work of an interrupted run of another command; expected a new prefix; "
            "or run that command again to finish it, or remove the folder"
        )
    clear(paths.work)
    make_synced(paths.work)
    write_synced(paths.plan, json.dumps(plan, ensure_ascii=False, indent=1))
    paths.staging.mkdir()


def _stage(
    inputs: Sequence[JoinInput],
    pairs: dict[str, Path],
    paths: OutputPaths,
    sidecars: list[str],
    timings: Timings,
) -> dict[str, Any] | None:
    """Write the whole output into the staging folder; return its manifest."""
    sha256 = join_datasets(inputs, {name: paths.staging / prefix.name for name, prefix in pairs.items()})
    if not sidecars:
        return None
    if paths.rejected.name in sidecars:
        sha256[paths.rejected.name] = join_rejected(inputs, paths.staging / paths.rejected.name)
    sources, lengths = join_sources(inputs, paths.staging / paths.sources.name)
    sha256[paths.sources.name] = sources
    manifest = joined_manifest(inputs, lengths, sha256, paths.staging)
    manifest = write_sealed(paths.staging / paths.manifest.name, manifest, MANIFEST_SEAL)
    timings.write(paths.staging / paths.timings.name, manifest)
    return manifest


def _result(
    inputs: Sequence[JoinInput],
    pairs: dict[str, Path],
    paths: OutputPaths,
    manifest: dict[str, Any] | None,
) -> JoinResult:
    fields = tuple(name.strip("_").removeprefix("packed_").removesuffix("_document") for name in pairs)
    if manifest is not None:
        items, tokens = manifest["items"], manifest["tokens"]
    else:
        first = [own.datasets[min(pairs)].lengths for own in inputs]
        items = sum(map(len, first))
        tokens = sum(int(lengths.sum(dtype=np.int64)) for lengths in first)
    return JoinResult(paths.prefix, fields, tuple(pairs.values()), len(inputs), items, tokens, manifest)
