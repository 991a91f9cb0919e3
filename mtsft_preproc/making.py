"""Makes the part of every shard, as far as it isn't there."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field

from mtsft_preproc.engines import Engine
from mtsft_preproc.errors import InputError, WorkerError
from mtsft_preproc.merge import Merger
from mtsft_preproc.parts import Differs
from mtsft_preproc.plan import Plan
from mtsft_preproc.progress import Progress
from mtsft_preproc.sources import origin
from mtsft_preproc.tasks import EncodeShard
from mtsft_preproc.watch import RejectionWatch

__all__ = ["Made", "make_parts"]

logger = logging.getLogger(__name__)


@dataclass
class Made:
    """What the encoding of all shards came to.

    Attributes:
        task: What made all parts.
        reused: Parts that were there.
        read: Records that were read.
        texts: Texts that a fast encoder turned into ids.
        checked: How many of them were compared with the reference.
        stages: CPU seconds by stage.
    """

    task: EncodeShard
    reused: int = 0
    read: int = 0
    texts: int = 0
    checked: int = 0
    stages: Counter[str] = field(default_factory=Counter)


def make_parts(plan: Plan, task: EncodeShard, engine: Engine, merger: Merger | None) -> Made:
    """Make the parts that are missing.

    Where what is fast is found to differ from what it stands for, nothing that it made is kept.

    Args:
        plan: The run.
        task: What makes parts.
        engine: What runs it.
        merger: Gets all parts as they come, if there is one.

    Raises:
        MtsftError: A file is damaged, too much is rejected, or workers kept dying.
    """
    while True:
        made, differs = _make(plan, task, engine, merger)
        if task.without(differs) == task:
            return made
        if differs.encoder:
            logger.warning(
                "%s; the reference encodes everything from here on, what %s has done included",
                differs.encoder, task.encoder,
            )  # fmt: skip
        if differs.shape:
            logger.warning(
                "--chat-template %s: %s; the template renders every dialogue from here on, those that "
                "were composed included", plan.config.chat_template, differs.shape,
            )  # fmt: skip
        task = task.without(differs)
        if merger is not None:
            merger.restart()


def _make(plan: Plan, task: EncodeShard, engine: Engine, merger: Merger | None) -> tuple[Made, Differs]:
    """Make the parts that are missing, until something is found to differ; return what."""
    watch, made = RejectionWatch(plan), Made(task)
    todo = []
    for shard in plan.shards:
        summary = task.finished(shard)
        if summary is None:
            todo.append(shard)
            continue
        if task.without(summary.differs) != task:
            return made, summary.differs
        watch.add(shard, summary)
        if merger is not None:
            merger.add(shard.index, task.path(shard))
        made.reused += 1
    sizes = Counter(shard.file for shard in plan.shards)
    progress = Progress(
        sum(shard.source.size / sizes[shard.file] for shard in todo), plan.config.log_interval
    )
    results = engine.run(task, todo)
    try:
        for shard, summary in results:
            if task.without(summary.differs) != task:
                return made, summary.differs
            progress.add(shard.source.size / sizes[shard.file], summary)
            watch.add(shard, summary)
            if merger is not None:
                merger.add(shard.index, task.path(shard))
            made.texts += summary.texts
            made.checked += summary.checked
            made.stages.update(summary.stages)
    finally:
        progress.close()
        if isinstance(results, Generator):
            results.close()  # else tasks that are under way go on beside those that follow
    watch.finish()
    if watch.taken != len(plan.shards):
        raise WorkerError(f"the engine ran {watch.taken} of {len(plan.shards)} shards: a bug")
    if watch.read == 0:
        raise InputError(f"{origin(plan.config)}: no records")
    made.read = watch.read
    return made, Differs()
