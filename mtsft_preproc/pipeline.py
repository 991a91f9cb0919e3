"""Plan -> encode -> merge -> publish."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.engines import Engine, engines
from mtsft_preproc.errors import InputError, OutputError, WorkerError
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import write_ledger
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.manifest import build_manifest
from mtsft_preproc.merge import merge_parts
from mtsft_preproc.plan import Plan, file_sha256, make_plan
from mtsft_preproc.progress import Progress
from mtsft_preproc.publish import commit, finish_commit, write_synced
from mtsft_preproc.readers import InputFile
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.templates import ChatFormat, stop_remedy
from mtsft_preproc.watch import RejectionWatch

__all__ = ["RunResult", "preprocess"]

logger = logging.getLogger(__name__)


@dataclass
class RunResult:
    """What came of a run.

    Attributes:
        prefix: The output prefix.
        manifest: The manifest's content.
        seconds: How long it took.
        reused_parts: Parts that an interrupted run had left.
    """

    prefix: Path
    manifest: dict[str, Any]
    seconds: float
    reused_parts: int = 0


def preprocess(config: PreprocessConfig) -> RunResult:
    """Make a dataset.

    Nothing is written before the settings, the inputs' columns and the tokenizer have been checked. A run
    that was interrupted is taken up where it stopped.

    Raises:
        MtsftError: The run can't be done, or was stopped; the message says why. No output appears.
    """
    started = time.monotonic()
    paths = OutputPaths(config.prefix)
    engine = _engine(config)
    finished = _finish_interrupted(paths)
    if finished is None:
        _refuse_finished(paths, [], config.overwrite)
    plan = make_plan(config, finished)
    if finished is not None and finished["fingerprint"] == plan.fingerprint:
        return RunResult(paths.prefix, finished, time.monotonic() - started)
    _make_folder(paths.folder)
    with OutputLock(paths.prefix):
        # Again, now that nobody else can: another run may have published while this one planned.
        _refuse_finished(paths, [dataset.name for dataset in plan.datasets], config.overwrite)
        _say_what_is_trained(plan)
        task = _open_work(plan, paths)
        reused = _encode(plan, task, engine)
        _refuse_changed(plan.files)
        manifest = _publish(plan, task, paths)
    return RunResult(paths.prefix, manifest, time.monotonic() - started, reused)


def _say_what_is_trained(plan: Plan) -> None:
    """Say what ends a trained turn, and warn where a model would not learn to stop."""
    probe, chat_format = plan.probe, plan.format
    if probe is None:
        return
    if isinstance(chat_format, ChatFormat) and chat_format.date and plan.config.template_date is None:
        logger.warning(
            "the chat template prints the date: %s it is; to fix it, add --template-date %s",
            chat_format.date, chat_format.date,
        )  # fmt: skip
    if probe.error is not None:
        logger.warning("the chat format refuses a plain dialogue of two rounds: %s", probe.error)
        return
    # Where the last turn alone is trained, its end is the only one.
    first = 3 - len(probe.ends)
    unstopped = [number for number, end in enumerate(probe.ends, first) if not end.special]
    if unstopped:
        turns = " and ".join(map(str, unstopped))
        logger.warning(
            "turn %s of a dialogue of 2: no stop token is trained, so the model may not learn to stop "
            "there; %s", turns, stop_remedy(probe.ends, plan.config),
        )  # fmt: skip
    stops = " or ".join(map(repr, probe.stop_tokens))
    for end in dict.fromkeys(end for end in probe.ends if end.special):
        late = ", taught at the next turn's first position" if end.late else ""
        if end.stops:
            logger.info("trained turns end with %r (%d)%s, which ends generation", end.text, end.id, late)
        else:
            logger.warning(
                "trained turns end with %r (%d)%s; by the tokenizer's folder generation ends with %s "
                "alone: tell the serving engine to stop there, too", end.text, end.id, late, stops,
            )  # fmt: skip


def _engine(config: PreprocessConfig) -> Engine:
    name = config.engine
    if name == "auto":
        name = "serial" if config.workers == 1 else "pool"
    return engines.get(name)(config.workers)


def _finish_interrupted(paths: OutputPaths) -> dict[str, Any] | None:
    """Finish a publication that was decided and interrupted; return its manifest, or None.

    Before anything else: it needs neither the inputs nor the settings that it was made with.
    """
    shutil.rmtree(paths.done, ignore_errors=True)
    if not paths.commit.exists():
        return None
    with OutputLock(paths.prefix):
        finish_commit(paths)
    logger.warning("%s: finished the publication of an interrupted run", paths.prefix)
    manifest: dict[str, Any] = json.loads(paths.manifest.read_text("utf-8"))
    return manifest


def _refuse_changed(files: list[InputFile]) -> None:
    """Refuse to publish what was read from files that changed since they were looked at."""
    for file in files:
        try:
            status = os.stat(file.path)
            same = (status.st_size, status.st_mtime_ns) == (file.size, file.modified)
        except OSError:
            same = False
        if not same:
            raise InputError(f"{file.path}: changed or vanished while it was read; run the command again")


def _refuse_finished(paths: OutputPaths, datasets: list[str], overwrite: bool) -> None:
    existing = [] if overwrite else paths.existing(datasets)
    if existing:
        raise OutputError(
            f"--output-prefix: {existing[0]} exists already; expected a new prefix, or --overwrite to "
            "replace what is there once the new output is whole"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output-prefix: can't create the folder {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"--output-prefix: the folder {folder} is not writable")


def _open_work(plan: Plan, paths: OutputPaths) -> EncodeShard:
    """Open or take up the work folder."""
    if plan.config.restart and paths.work.exists():
        shutil.rmtree(paths.work)
    if paths.plan.exists():
        before = json.loads(paths.plan.read_text("utf-8"))
        if before["fingerprint"] != plan.fingerprint:
            raise OutputError(
                f"{paths.work} holds the work of an interrupted run with other settings "
                f"({'; '.join(_differences(before['identity'], plan.identity))}); expected the same "
                "settings to go on with it, or --restart to start over"
            )
    paths.parts.mkdir(parents=True, exist_ok=True)
    if not paths.plan.exists():
        record = {"fingerprint": plan.fingerprint, "identity": plan.identity}
        write_synced(paths.plan, json.dumps(record, ensure_ascii=False, indent=1))
    tokenizer = plan.tokenizer.save(paths.work)
    return EncodeShard(
        plan.config, plan.choices, tokenizer, plan.format, plan.fingerprint, str(paths.parts)
    )


def _left_over(paths: OutputPaths, names: set[str]) -> list[str]:
    """Return the files of the output that is being replaced which the new one has no like of.

    A trainer would take them for fields of the new one.
    """
    try:
        before = json.loads(paths.manifest.read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return []
    return sorted(set(before) - names)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return in words what differs between two identities."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*before, *now}):
            found += _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        return found
    # What was read back from JSON has lists where the settings have tuples.
    before, now = json.dumps(before), json.dumps(now)
    return [] if before == now else [f"{name}: was {before[:80]}, is {now[:80]}"]


def _encode(plan: Plan, task: EncodeShard, engine: Engine) -> int:
    """Make the parts that are missing; return how many were there."""
    watch = RejectionWatch(plan)
    todo = []
    for shard in plan.shards:
        summary = task.finished(shard)
        if summary is None:
            todo.append(shard)
        else:
            watch.add(shard, summary)
    sizes = Counter(shard.file for shard in plan.shards)
    progress = Progress(
        sum(shard.source.size / sizes[shard.file] for shard in todo), plan.config.log_interval
    )
    try:
        for shard, summary in engine.run(task, todo):
            progress.add(shard.source.size / sizes[shard.file], summary)
            watch.add(shard, summary)
    finally:
        progress.close()
    watch.finish()
    if watch.taken != len(plan.shards):
        raise WorkerError(f"the engine ran {watch.taken} of {len(plan.shards)} shards: a bug")
    if watch.read == 0:
        raise InputError(f"--input: {', '.join(plan.config.input)}: no records")
    return len(plan.shards) - len(todo)


def _publish(plan: Plan, task: EncodeShard, paths: OutputPaths) -> dict[str, Any]:
    """Merge the parts into the work folder, then publish."""
    shutil.rmtree(paths.staging, ignore_errors=True)
    paths.staging.mkdir()
    parts = [task.path(shard) for shard in plan.shards]
    work = ((shard, task.open(shard)) for shard in plan.shards)
    sidecars = (paths.rejected.name, paths.sources.name)
    totals, lengths = write_ledger(work, plan.files, paths.staging, sidecars, plan.config.keep_columns)
    prefixes = {dataset.name: paths.staging / paths.dataset(dataset.name).name for dataset in plan.datasets}
    sha256 = merge_parts(parts, plan.datasets, lengths, prefixes)
    names = sorted(sha256)  # .bin before .idx, dataset by dataset
    sha256 |= {name: file_sha256(paths.staging / name) for name in sidecars}
    manifest = build_manifest(plan, totals, lengths, sha256, paths.staging)
    text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    (paths.staging / paths.manifest.name).write_text(text, "utf-8", newline="\n")
    commit(paths, [*names, *sidecars, paths.manifest.name], _left_over(paths, {*names, *sidecars}))
    return manifest
