"""What workers may have to wait for: the stages of a run that are one thread's, against the encoding's CPU.

    python benchmarks/serial.py --input mix.jsonl --tokenizer FOLDER --scratch FOLDER [--workers 2]

Encodes chat messages with prompt type ``qwen``, then merges each dataset by itself.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtsft_preproc import PreprocessConfig
from mtsft_preproc.encoded import survey_parts
from mtsft_preproc.engines import make_engine
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.merge import merge_parts
from mtsft_preproc.plan import Plan, make_plan
from mtsft_preproc.survey import Questions
from mtsft_preproc.tasks import EncodeShard


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[Any, float]:
    """Return what comes of it, and how long it took."""
    started = clock()
    found = work()
    return found, clock() - started


def encode(plan: Plan, task: EncodeShard, engine: Any) -> tuple[float, int, int]:
    """Make all parts; return CPU seconds of the workers' stages, tokens and records."""
    summaries = [summary for _, summary in engine.run(task, plan.shards)]
    seconds = sum(sum(summary.stages.values()) for summary in summaries)
    return (
        seconds,
        sum(summary.tokens for summary in summaries),
        sum(summary.records for summary in summaries),
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--input", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    prefix = given.scratch / "serial" / "data"
    shutil.rmtree(prefix.parent, ignore_errors=True)
    config = PreprocessConfig(
        input=(given.input,), output_prefix=str(prefix), tokenizer=given.tokenizer, handler_name="openai",
        prompt_type="qwen", workers=given.workers,
    )  # fmt: skip
    paths = OutputPaths(prefix)
    paths.parts.mkdir(parents=True)
    with make_engine("pool", given.workers) as engine:
        plan = make_plan(config, engine)
        task = EncodeShard(
            config, plan.choices, plan.tokenizer.save(paths.work), plan.format, plan.fingerprint,
            str(paths.parts), plan.encoder.name,
        )  # fmt: skip
        (stages, tokens, records), driver = timed(lambda: encode(plan, task, engine), time.thread_time)
    survey, surveying = timed(
        lambda: survey_parts(plan, task, paths.survey, Questions(), records, False), time.thread_time
    )
    rows = [("handing out shards and taking results", driver), ("survey", surveying)]
    parts = [task.path(shard) for shard in plan.shards]
    for dataset in plan.datasets:
        alone = {dataset.name: paths.work / dataset.name}
        # Its lengths alone tell how many ones there are, as no other dataset is written beside it.
        own = (dataset,)
        _, seconds = timed(lambda own=own, alone=alone: merge_parts(parts, own, survey.lengths, alone))
        rows.append((f"merging {dataset.name}", seconds))
    shutil.rmtree(prefix.parent)
    size = sum(file.size for file in plan.files) / 1e6
    print(
        f"{size:.0f} MB, {tokens:,} tokens; encoding: {stages:.2f} s of CPU, a 64th: {stages / 64:.3f} s\n"
    )
    print("| one thread's | CPU | of the encoding's CPU |\n| --- | ---: | ---: |")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.3f} s | {seconds / stages:.1%} |")


if __name__ == "__main__":
    main()
