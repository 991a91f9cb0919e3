"""``preprocess_data.py`` and ``mtsft preprocess``: the flags, and the summary at the end."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from mtsft_preproc.cli.format_flags import add_format_flags, format_settings
from mtsft_preproc.config import (
    ON_ERROR,
    OVERLONG,
    SPECIAL_TOKENS_IN_TEXT,
    PreprocessConfig,
    usable_cores,
)
from mtsft_preproc.engines import engines
from mtsft_preproc.handlers import handlers
from mtsft_preproc.masking import policies
from mtsft_preproc.pipeline import RunResult, preprocess

NAME = "preprocess"
HELP = "Turn dialogues into masked, memory-mapped token datasets (.bin/.idx)."

logger = logging.getLogger(__name__)

#: Flags of the original that change nothing here, with why.
_WITHOUT_EFFECT = {
    "cache_dir": "nothing is cached",
    "overwrite_cache": "nothing is cached",
    "n_subs": "the work is cut by --shard-bytes",
    "make_vocab_size_divisible_by": "ids don't depend on the padded vocabulary",
    "pad_vocab_size_to": "ids don't depend on the padded vocabulary",
    "streaming": "the input is always streamed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    _add_input(parser.add_argument_group("input"))
    _add_format(parser.add_argument_group("chat format and mask"))
    _add_output(parser.add_argument_group("output"))
    _add_runtime(parser.add_argument_group("how it runs (changes no byte of the output)"))
    _add_compatible(parser.add_argument_group("accepted for scripts written for MindSpeed-LLM"))


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input", nargs="+", required=True, metavar="PATH",
        help="files, folders or globs: parquet, json, jsonl (.gz, .zst), arrow, csv",
    )  # fmt: skip
    group.add_argument(
        "--handler-name", required=True, metavar="NAME",
        help=f"format of the records: {', '.join(handlers.names())}",
    )  # fmt: skip
    group.add_argument(
        "--map-keys", default="{}", metavar="JSON",
        help="columns by key, such as '{\"history\":\"histories\"}'",
    )  # fmt: skip
    group.add_argument("--max-samples", type=int, metavar="N", help="read the first N records only")
    group.add_argument(
        "--tokenizer-name-or-path", required=True, metavar="FOLDER",
        help="folder of the tokenizer, as transformers saves it",
    )  # fmt: skip
    group.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own",
    )  # fmt: skip


def _add_format(group: argparse._ArgumentGroup) -> None:
    add_format_flags(group)
    group.add_argument(
        "--train-on", default="assistant", metavar="POLICY",
        help=f"what is trained: {', '.join(policies.names())} (default: assistant)",
    )  # fmt: skip
    group.add_argument("--seq-length", type=int, metavar="N", help="most tokens of a sample")
    group.add_argument(
        "--overlong", default="drop", metavar="RULE",
        help=f"what becomes of longer samples: {', '.join(OVERLONG)} (default: drop, as a rejection)",
    )  # fmt: skip
    group.add_argument(
        "--ignore-index", type=int, default=-100, metavar="N",
        help="label of what is not trained (default: -100)",
    )  # fmt: skip
    group.add_argument(
        "--special-tokens-in-text", default="plain", metavar="RULE",
        help=f"text that spells a control token: {', '.join(SPECIAL_TOKENS_IN_TEXT)} (default: plain)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=1234, metavar="N", help="seed of everything random (default: 1234)"
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output-prefix", required=True, metavar="PREFIX", help="FOLDER/NAME")
    group.add_argument(
        "--overwrite", action="store_true", help="replace a finished output once the new one is whole"
    )
    group.add_argument("--restart", action="store_true", help="throw away the work of an interrupted run")


def _add_runtime(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers", type=int, default=usable_cores(), metavar="N",
        help="worker processes (default: the cores that this process may use)",
    )  # fmt: skip
    group.add_argument(
        "--engine", default="auto", metavar="NAME",
        help=f"what runs the tasks: auto, {', '.join(engines.names())} (default: auto)",
    )  # fmt: skip
    group.add_argument("--shard-bytes", type=int, metavar="N", help="input bytes per task")
    group.add_argument(
        "--log-interval", type=int, default=1000, metavar="N",
        help="records per progress line where there is no terminal (default: 1000)",
    )  # fmt: skip
    group.add_argument(
        "--on-error", default="skip", metavar="RULE",
        help=f"a bad record: {', '.join(ON_ERROR)} (default: skip, with a line in PREFIX.rejected.jsonl)",
    )  # fmt: skip
    group.add_argument(
        "--max-rejected", type=_share_or_count, default=0.1, metavar="N",
        help="most rejected records before the run stops: a share (0.1) or a count (100); default: 0.1",
    )  # fmt: skip


def _add_compatible(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tokenizer-type", default="PretrainedFromHF", choices=["PretrainedFromHF"])
    group.add_argument("--tokenizer-not-use-fast", action="store_true", help="take the Python tokenizer")
    group.add_argument("--dataset-impl", default="mmap", choices=["mmap"])
    for name in _WITHOUT_EFFECT:
        flag = f"--{name.replace('_', '-')}"
        if name in ("overwrite_cache", "streaming"):
            group.add_argument(flag, action="store_true", help="no effect")
        else:
            group.add_argument(flag, help="no effect")


def _share_or_count(text: str) -> float | int:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a share with a decimal point (0.1) or a whole number, got {text!r}"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for name, why in _WITHOUT_EFFECT.items():
        if getattr(arguments, name):
            logger.warning("--%s has no effect: %s", name.replace("_", "-"), why)
    config = PreprocessConfig(
        input=tuple(arguments.input),
        output_prefix=arguments.output_prefix,
        tokenizer=arguments.tokenizer_name_or_path,
        handler_name=arguments.handler_name,
        map_keys=arguments.map_keys,
        **format_settings(arguments),
        train_on=arguments.train_on,
        seq_length=arguments.seq_length,
        overlong=arguments.overlong,
        ignore_index=arguments.ignore_index,
        special_tokens_in_text=arguments.special_tokens_in_text,
        seed=arguments.seed,
        max_samples=arguments.max_samples,
        trust_remote_code=arguments.trust_remote_code,
        use_fast=not arguments.tokenizer_not_use_fast,
        workers=arguments.workers,
        engine=arguments.engine,
        shard_bytes=arguments.shard_bytes,
        log_interval=arguments.log_interval,
        overwrite=arguments.overwrite,
        restart=arguments.restart,
        on_error=arguments.on_error,
        max_rejected=arguments.max_rejected,
    )
    print(summary(preprocess(config)))
    return 0


def summary(result: RunResult) -> str:
    """Return what a person wants to know at the end of a run."""
    manifest = result.manifest
    records = manifest["records"]
    tokens, trained = manifest["tokens"], manifest["trained_tokens"]
    lines = [
        f"records   {records['read']:,} read, {records['kept']:,} kept, {records['rejected']:,} rejected"
    ]
    lines += [f"            {count:,} {why}" for why, count in records["rejected_by_reason"].items()]
    if records["notes"]:
        notes = ", ".join(f"{count:,} {what}" for what, count in records["notes"].items())
        lines.append(f"noticed   {notes}")
    share = trained / tokens if tokens else 0.0
    lines += [
        f"items     {manifest['items']:,}; longest {manifest['length_quantiles'].get('1.0', 0):,} tokens",
        f"tokens    {tokens:,}, of which {trained:,} ({share:.1%}) trained",
    ]
    lines += _parity_lines(manifest["parity"])
    if new := manifest["tokenizer"]["new_tokens"]:
        lines.append(f"NEW       tokens added to the vocabulary (resize the embedding): {', '.join(new)}")
    reused = f", {result.reused_parts} parts reused" if result.reused_parts else ""
    lines += [
        f"time      {result.seconds:.1f} s{reused}",
        f"output    {result.prefix}_packed_{{{','.join(manifest['fields'])}}}_document.{{bin,idx}}",
        f"          {result.prefix}.manifest.json, .rejected.jsonl, .sources.parquet",
    ]
    return "\n".join(lines)


def _parity_lines(parity: dict[str, Any]) -> list[str]:
    """Return what the summary says on serving parity."""
    turns = dict(parity["turns"])
    extra, added = turns.pop("split-samples", 0), turns.pop("split-tokens", 0)
    if not turns:
        return []
    total, same = sum(turns.values()), turns.get("same", 0)
    parts = [f"{count:,} {kind}" for kind, count in turns.items() if kind != "same"]
    differs = f"; differ: {', '.join(parts)}" if parts else ""
    lines = [f"parity    {same:,} of {total:,} trained turns ({same / total:.1%}) as in serving{differs}"]
    if extra:
        lines.append(f"split     {extra:,} samples more, for turns of their own: {added:,} tokens")
    for item in parity["first"]:
        lines += [
            f"            {item['file']}, row {item['row']}, message {item['message']}: {item['kind']}",
            f"            - serving:  {item['serving'][:90]!r}",
            f"            + training: {item['training'][:90]!r}",
        ]
    return lines
