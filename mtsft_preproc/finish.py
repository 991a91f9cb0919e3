"""From samples that lie anywhere to a published output: arrange, gather, account for, merge, publish.

Encoding dialogues and packing a finished dataset anew end the same way, which is this.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.arrange import Arrangement, arrange
from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.engines import Engine
from mtsft_preproc.gather import (
    GatherItems,
    Range,
    check_part,
    gathered_datasets,
    item_lengths,
    plan_ranges,
    save_order,
)
from mtsft_preproc.hashing import file_sha256
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import Block, sample_schema, write_ledger
from mtsft_preproc.manifest import Facts, build_manifest, files_entry, output_entry, side_manifest
from mtsft_preproc.merge import Merger, merge_parts
from mtsft_preproc.progress import bar
from mtsft_preproc.publish import commit
from mtsft_preproc.sealed import MANIFEST_SEAL, write_sealed
from mtsft_preproc.stages import Profile
from mtsft_preproc.survey import Survey
from mtsft_preproc.timings import Timings
from mtsft_preproc.work import left_over

__all__ = ["Output", "RunResult", "begin_merge", "gather_outputs", "publish_outputs"]

logger = logging.getLogger(__name__)

_IDS, _LABELS, _MASK = "packed_input_ids", "packed_labels", "packed_attention_mask"


@dataclass
class RunResult:
    """What came of a run.

    Attributes:
        prefix: The output prefix.
        manifest: The manifest's content.
        seconds: How long it took.
        reused_parts: Parts that an interrupted run had left.
        texts: Texts that a fast encoder turned into ids.
        checked: How many of them were compared with the reference.
        profile: Where the time went.
    """

    prefix: Path
    manifest: dict[str, Any]
    seconds: float
    reused_parts: int = 0
    texts: int = 0
    checked: int = 0
    profile: Profile = field(default_factory=Profile)


@dataclass
class Output:
    """One output on its way.

    Attributes:
        arrangement: What stands where.
        paths: Where it goes.
        parts: The files that its tokens lie in, in order.
        datasets: What it fills.
        lengths: int32, shape (items,): tokens of each item, by group.
    """

    arrangement: Arrangement
    paths: OutputPaths
    parts: list[Path]
    datasets: tuple[DatasetSpec, ...]
    lengths: dict[str, npt.NDArray[np.int32]]


def gather_outputs(
    facts: Facts, survey: Survey, paths: OutputPaths, parts: Sequence[Path], engine: Engine
) -> list[Output]:
    """Arrange all samples, and gather the tokens of those that don't stay where they are.

    Args:
        facts: What to make.
        survey: The samples.
        paths: Where it goes.
        parts: The files in which the samples lie one behind the other, to be checked before they are copied
            from; empty where samples lie in other ways and somebody else has checked them.
        engine: What runs the tasks.

    Raises:
        MtsftError: A part is damaged, or the samples can't be arranged like that.
    """
    arrangements = arrange(survey, facts.settings)
    for arrangement in arrangements:
        if not arrangement.items:
            which = f"--split: {arrangement.side}" if arrangement.side else f"{paths.prefix}:"
            logger.warning("%s gets no sample; its datasets are empty", which)
    if facts.settings.trivial and parts:
        return [Output(arrangements[0], paths, list(parts), facts.datasets, survey.lengths)]
    work = [(arrangement, plan_ranges(arrangement, survey)) for arrangement in arrangements]
    tasks = [_task(facts, survey, paths, arrangement) for arrangement in arrangements]
    todo = [
        (task, [span for span in ranges if not task.finished(span)])
        for task, (_, ranges) in zip(tasks, work, strict=True)
    ]
    if any(spans for _, spans in todo):
        for _ in engine.run(check_part, [str(path) for path in parts]):
            pass
    outputs = []
    for (arrangement, ranges), (task, spans) in zip(work, todo, strict=True):
        folder = Path(task.order)
        save_order(arrangement, folder)
        _run(engine, task, spans)
        outputs.append(
            Output(
                arrangement,
                paths.side(arrangement.side),
                [task.path(span) for span in ranges],
                gathered_datasets(facts.datasets, arrangement.packing),
                item_lengths(arrangement, survey, folder),
            )
        )
    return outputs


def _task(facts: Facts, survey: Survey, paths: OutputPaths, arrangement: Arrangement) -> GatherItems:
    name = arrangement.side or "all"
    folder = paths.gathered / name
    folder.mkdir(parents=True, exist_ok=True)
    neat = arrangement.packing is not None and arrangement.packing.neat
    return GatherItems(
        facts.fingerprint,
        survey.index,
        str(paths.survey / name),
        str(folder),
        arrangement.packing,
        {_IDS: facts.pad_id, _LABELS: facts.ignore_index},
        (_LABELS,),
        _MASK if neat else None,
    )


def _run(engine: Engine, task: GatherItems, spans: list[Range]) -> None:
    with bar(sum(span.places[1] - span.places[0] for span in spans), "gather", "sample") as progress:
        for span, _ in engine.run(task, spans):
            progress.update(span.places[1] - span.places[0])


@contextmanager
def begin_merge(facts: Facts, paths: OutputPaths) -> Iterator[Merger | None]:
    """Merge parts while they come in: yield what takes them; None where samples move to other places.

    What it writes lies in the staging folder, from which nothing is taken before all of it is whole.
    """
    if not facts.settings.trivial:
        yield None
        return
    _empty(paths.staging)
    with Merger(facts.datasets, _prefixes(facts.datasets, paths, paths.staging)) as merger:
        yield merger


def publish_outputs(
    facts: Facts,
    survey: Survey,
    outputs: list[Output],
    blocks: Iterable[Block],
    paths: OutputPaths,
    keep_columns: Sequence[str],
    timings: Timings,
    merger: Merger | None = None,
) -> dict[str, Any]:
    """Account for all samples, merge the tokens into the work folder, then publish.

    Args:
        facts: What was made.
        survey: The samples.
        outputs: What becomes of them.
        blocks: What the ledger has to say of them.
        paths: Where all goes.
        keep_columns: Columns of the input that the ledger shows.
        timings: How the run went so far.
        merger: Of :func:`begin_merge`, which was given all parts; None where merging is still to do.

    Returns:
        The manifest.

    Raises:
        DatasetError: Something is damaged, or the counts don't add up; nothing was published.
    """
    if merger is None:
        _empty(paths.staging)
    else:
        merger.end(outputs[0].lengths)
    totals = write_ledger(
        blocks,
        [(output.arrangement, paths.staging / output.paths.sources.name) for output in outputs],
        paths.staging / paths.rejected.name,
        sample_schema(keep_columns),
        len(facts.settings.mix.sources),
        survey.duplicates,
        lambda file: facts.inputs[file][1],
    )
    names: list[str] = []
    sha256: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    for output, counts in zip(outputs, totals.outputs, strict=True):
        lengths = survey.lengths[facts.datasets[0].group]
        entry = output_entry(counts, output.arrangement, lengths)
        entries[output.arrangement.side] = entry
        own = _stage(facts, output, entry, paths, merger)
        names += own
        sha256 |= own
    names.append(paths.rejected.name)
    sha256[paths.rejected.name] = file_sha256(paths.staging / paths.rejected.name)
    manifest = build_manifest(facts, totals, entries, files_entry(paths.staging, sha256))
    manifest = write_sealed(paths.staging / paths.manifest.name, manifest, MANIFEST_SEAL)
    timings.write(paths.staging / paths.timings.name, manifest)
    gone = left_over(paths, set(names), [output.paths for output in outputs])
    commit(paths, [*names, paths.timings.name, paths.manifest.name], gone)
    return manifest


def _stage(
    facts: Facts, output: Output, entry: dict[str, Any], paths: OutputPaths, merger: Merger | None
) -> dict[str, str]:
    """Write the datasets of one output, and its manifest where it is a side of several.

    Returns:
        The sha256 of each file, by name, in the order in which they are to appear.
    """
    folder, side = paths.staging, output.arrangement.side
    prefixes = _prefixes(output.datasets, output.paths, folder)
    found = merge_parts(output.parts, output.datasets, output.lengths, prefixes, merger)
    sha256 = dict(sorted(found.items()))  # .bin before .idx, dataset by dataset
    sources = output.paths.sources.name
    sha256[sources] = file_sha256(folder / sources)
    if side:
        manifest = side_manifest(facts, paths.prefix.name, side, entry, files_entry(folder, sha256))
        name = output.paths.manifest.name
        write_sealed(folder / name, manifest, MANIFEST_SEAL)
        sha256[name] = file_sha256(folder / name)
    return sha256


def _prefixes(datasets: Sequence[DatasetSpec], paths: OutputPaths, folder: Path) -> dict[str, Path]:
    return {own.name: folder / paths.dataset(own.name).name for own in datasets}


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
