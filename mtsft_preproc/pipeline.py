"""Plan -> encode -> arrange -> gather -> merge -> publish."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from mtsft_preproc.arrange import ArrangementSettings
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoded import part_blocks, survey_parts
from mtsft_preproc.engines import Engine, make_engine
from mtsft_preproc.errors import InputError, WorkerError
from mtsft_preproc.finish import RunResult, gather_outputs, publish_outputs
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.manifest import Facts
from mtsft_preproc.plan import Plan, make_plan
from mtsft_preproc.progress import Progress
from mtsft_preproc.readers import InputFile
from mtsft_preproc.sources import origin
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.templates import ChatFormat, stop_remedy
from mtsft_preproc.tokenization import REFERENCE
from mtsft_preproc.watch import RejectionWatch
from mtsft_preproc.work import finish_interrupted, make_folder, open_work, refuse_finished

__all__ = ["RunResult", "preprocess"]

logger = logging.getLogger(__name__)


def preprocess(config: PreprocessConfig) -> RunResult:
    """Make a dataset.

    Nothing is written before the settings, the inputs' columns and the tokenizer have been checked. A run
    that was interrupted is taken up where it stopped.

    Raises:
        MtsftError: The run can't be done, or was stopped; the message says why. No output appears.
    """
    started = time.monotonic()
    paths = OutputPaths(config.prefix)
    engine = make_engine(config.engine, config.workers)
    finished = None
    if finish_interrupted(paths):
        finished = json.loads(paths.manifest.read_text("utf-8"))
    else:
        refuse_finished([paths], [], config.overwrite)
    plan = make_plan(config, finished)
    if finished is not None and finished["fingerprint"] == plan.fingerprint:
        return RunResult(paths.prefix, finished, time.monotonic() - started)
    make_folder(paths)
    facts = _facts(plan, ArrangementSettings.of(plan.config, plan.mix))
    sides = [paths.side(side) for side in facts.settings.sides]
    with ExitStack() as locks:
        for own in {paths.prefix: paths, **{side.prefix: side for side in sides}}.values():
            locks.enter_context(OutputLock(own.prefix))
        # Again, now that nobody else can: another run may have published while this one planned.
        names = [dataset.name for dataset in plan.datasets]
        refuse_finished([paths, *sides], names, config.overwrite)
        _say_what_is_trained(plan)
        if plan.encoder.proof is not None and not plan.encoder.proof.ok:
            logger.info("the %s encodes: %s", plan.encoder.name, plan.encoder.why)
        task = _open_work(plan, paths)
        task, done = _encode(plan, task, engine)
        _refuse_changed(plan.files)
        if task.encoder != plan.encoder.name:
            facts = replace(facts, encoder={"name": task.encoder})
        manifest = _publish(plan, facts, task, paths, engine, done.read)
    seconds = time.monotonic() - started
    return RunResult(paths.prefix, manifest, seconds, done.reused, done.texts, done.checked)


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


def _open_work(plan: Plan, paths: OutputPaths) -> EncodeShard:
    """Open or take up the work folder."""
    open_work(paths, plan.fingerprint, plan.identity, plan.config.restart)
    tokenizer = plan.tokenizer.save(paths.work)
    return EncodeShard(
        plan.config,
        plan.choices,
        tokenizer,
        plan.format,
        plan.fingerprint,
        str(paths.parts),
        plan.encoder.name,
    )


@dataclass
class _Done:
    """What the encoding of all shards came to: parts that were there, records, texts, texts compared."""

    reused: int = 0
    read: int = 0
    texts: int = 0
    checked: int = 0


def _encode(plan: Plan, task: EncodeShard, engine: Engine) -> tuple[EncodeShard, _Done]:
    """Make the parts that are missing; return the task that made them all, and what came of it.

    Where a fast encoder is found to give other ids than the reference, nothing that it made is kept.
    """
    done, differs = _make_parts(plan, task, engine)
    if not differs:
        return task, done
    logger.warning(
        "%s; the reference encodes everything from here on, what %s has done included",
        differs,
        task.encoder,
    )
    task = replace(task, encoder=REFERENCE)
    return task, _make_parts(plan, task, engine)[0]


def _make_parts(plan: Plan, task: EncodeShard, engine: Engine) -> tuple[_Done, str]:
    """Make the parts that are missing, until the encoder is found to differ; return where."""
    watch = RejectionWatch(plan)
    done = _Done()
    todo = []
    for shard in plan.shards:
        summary = task.finished(shard)
        if summary is None:
            todo.append(shard)
            continue
        if summary.encoder_differs and task.encoder != REFERENCE:
            return done, summary.encoder_differs
        watch.add(shard, summary)
        done.reused += 1
    sizes = Counter(shard.file for shard in plan.shards)
    progress = Progress(
        sum(shard.source.size / sizes[shard.file] for shard in todo), plan.config.log_interval
    )
    results = engine.run(task, todo)
    try:
        for shard, summary in results:
            if summary.encoder_differs:
                return done, summary.encoder_differs
            progress.add(shard.source.size / sizes[shard.file], summary)
            watch.add(shard, summary)
            done.texts += summary.texts
            done.checked += summary.checked
    finally:
        progress.close()
        if isinstance(results, Generator):
            results.close()  # else tasks that are under way go on beside those that follow
    watch.finish()
    if watch.taken != len(plan.shards):
        raise WorkerError(f"the engine ran {watch.taken} of {len(plan.shards)} shards: a bug")
    if watch.read == 0:
        raise InputError(f"{origin(plan.config)}: no records")
    done.read = watch.read
    return done, ""


def _facts(plan: Plan, settings: ArrangementSettings) -> Facts:
    return Facts(
        identity=plan.identity,
        fingerprint=plan.fingerprint,
        objective=plan.objective,
        datasets=plan.datasets,
        settings=settings,
        pad_id=plan.tokenizer.spec.pad_id,
        ignore_index=plan.config.ignore_index,
        encoder=plan.encoder.describe(),
        turn_ends=[asdict(end) for end in plan.probe.ends] if plan.probe else [],
        inputs=[(owner, file.path) for owner, file in zip(plan.owners, plan.files, strict=True)],
    )


def _publish(
    plan: Plan, facts: Facts, task: EncodeShard, paths: OutputPaths, engine: Engine, read: int
) -> dict[str, Any]:
    """Arrange the samples of the parts, merge them into the work folder, then publish."""
    settings = facts.settings
    survey = survey_parts(plan, task, paths.survey, settings.questions(), read, not settings.trivial)
    parts = [task.path(shard) for shard in plan.shards]
    outputs = gather_outputs(facts, survey, paths, parts, engine)
    blocks = part_blocks(plan, task)
    return publish_outputs(facts, survey, outputs, blocks, paths, plan.config.keep_columns)
