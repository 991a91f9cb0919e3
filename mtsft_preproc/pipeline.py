"""Plan -> encode -> arrange -> gather -> merge -> publish."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from typing import Any

from mtsft_preproc.arrange import ArrangementSettings
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoded import part_blocks, survey_parts
from mtsft_preproc.engines import Engine, engine_name, make_engine
from mtsft_preproc.errors import RejectedDataError
from mtsft_preproc.finish import RunResult, begin_merge, gather_outputs, publish_outputs
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.making import Made, make_parts
from mtsft_preproc.manifest import Facts, library_versions
from mtsft_preproc.plan import Plan, make_plan
from mtsft_preproc.publish import clear
from mtsft_preproc.readers import refuse_changed
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.templates import ChatFormat, stop_remedy
from mtsft_preproc.timings import Timings
from mtsft_preproc.work import finish_interrupted, hold, make_folder, open_work, refuse_finished

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
    timings = Timings("preprocess", config.workers)
    paths = OutputPaths(config.prefix)
    finished = finish_interrupted(paths, config.restart)
    done = finished.manifest if finished else None
    if finished is None:
        refuse_finished([paths], [], config.overwrite)
    with make_engine(config.engine, config.workers) as engine:
        timings.engine = engine_name(config.engine, config.workers)
        with timings.profile.phase("plan"):
            plan = make_plan(config, engine, done)
        if done is not None and done["fingerprint"] == plan.fingerprint:
            return RunResult(paths.prefix, done, time.monotonic() - started)
        manifest, made = _run(plan, paths, engine, timings)
    seconds = time.monotonic() - started
    return RunResult(
        paths.prefix, manifest, seconds, made.reused, made.texts, made.checked, timings.profile
    )


def _run(plan: Plan, paths: OutputPaths, engine: Engine, timings: Timings) -> tuple[dict[str, Any], Made]:
    """Do what was planned; return the manifest, and what the encoding came to."""
    make_folder(paths)
    profile = timings.profile
    facts = _facts(plan, ArrangementSettings.of(plan.config, plan.mix))
    sides = [paths.side(side) for side in facts.settings.sides]
    with hold(paths, facts.settings.sides):
        # Again, now that nobody else can: another run may have published while this one planned.
        names = [dataset.name for dataset in plan.datasets]
        refuse_finished([paths, *sides], names, plan.config.overwrite)
        _say_what_is_trained(plan)
        if plan.encoder.proof is not None and not plan.encoder.proof.ok:
            logger.info("the %s encodes: %s", plan.encoder.name, plan.encoder.why)
        task = _open_work(plan, paths)
        with begin_merge(facts, paths) as merger:
            with profile.phase("encode"):
                made = make_parts(plan, task, engine, merger)
            profile.stages = made.stages
            timings.reused_parts, timings.texts, timings.checked = made.reused, made.texts, made.checked
            for file in plan.files:
                refuse_changed(file)
            if made.task.encoder != plan.encoder.name:
                facts = replace(facts, encoder={"name": made.task.encoder})
            facts = replace(facts, composes=made.task.composes)
            with profile.phase("gather"):
                wanted, index = facts.settings.questions(), not facts.settings.trivial
                survey = survey_parts(plan, made.task, paths.survey, wanted, made.read, index)
                parts = [made.task.path(shard) for shard in plan.shards]
                try:
                    outputs = gather_outputs(facts, survey, paths, parts, engine)
                except RejectedDataError:
                    # With these settings there is nothing to take up; others are not to be refused.
                    clear(paths.work)
                    raise
            with profile.phase("publish"):
                blocks = part_blocks(plan, made.task)
                columns = plan.config.keep_columns
                manifest = publish_outputs(facts, survey, outputs, blocks, paths, columns, timings, merger)
    return manifest, made


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
        libraries=library_versions(),
        inputs=[(owner, file.path) for owner, file in zip(plan.owners, plan.files, strict=True)],
    )
