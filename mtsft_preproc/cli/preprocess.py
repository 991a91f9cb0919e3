"""``preprocess_data.py`` and ``mtsft preprocess``: the flags, and the summary at the end."""

from __future__ import annotations

import argparse
import logging
import time

from mtsft_preproc.cli import merge
from mtsft_preproc.cli.arrangement_flags import add_arrangement_flags, arrangement_settings
from mtsft_preproc.cli.format_flags import add_format_flags, format_settings
from mtsft_preproc.cli.summary import profile_lines, summary
from mtsft_preproc.config import (
    EMPTY_REPLY,
    ON_ERROR,
    OVERLONG,
    SPECIAL_TOKENS_IN_TEXT,
    PreprocessConfig,
    usable_cores,
)
from mtsft_preproc.engines import engines
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.join import merge_group_keys
from mtsft_preproc.masking import policies
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.sources import AUTO, DATASET_INFO
from mtsft_preproc.tokenization import ENCODERS

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
    group = parser.add_argument_group("packing, mixing, splits")
    group.add_argument(
        "--pack", action="store_true",
        help="put several samples into each item, padded to just --seq-length tokens",
    )  # fmt: skip
    add_arrangement_flags(group)
    _add_output(parser.add_argument_group("output"))
    _add_runtime(parser.add_argument_group("how it runs (changes no byte of the datasets)"))
    _add_compatible(parser.add_argument_group("accepted for scripts written for MindSpeed-LLM"))


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input", nargs="+", default=[], metavar="PATH",
        help="files, folders or globs: parquet, json, jsonl, txt (.gz, .zst), arrow, csv; "
        f"names of --dataset-dir with {DATASET_INFO}",
    )  # fmt: skip
    group.add_argument(
        "--handler-name", metavar="NAME",
        help=f"format of the records: {AUTO} to find it, {', '.join(handlers.names())}, {DATASET_INFO}; "
        f"needed but with --mix, where it is {AUTO}",
    )  # fmt: skip
    group.add_argument(
        "--handler-path", metavar="FILE.py", help="Python file with a handler of your own; see the README"
    )
    group.add_argument(
        "--dataset-dir", metavar="FOLDER", help=f"folder of dataset_info.json, for {DATASET_INFO}"
    )
    group.add_argument(
        "--map-keys", default="{}", metavar="JSON",
        help="columns by key, such as '{\"history\":\"histories\"}'",
    )  # fmt: skip
    group.add_argument(
        "--json-keys", nargs="+", default=["text"], metavar="FIELD",
        help="fields of text documents, each a dataset of its own (default: text)",
    )  # fmt: skip
    group.add_argument(
        "--dataset-additional-keys", nargs="+", default=[], metavar="FIELD",
        help="of R1 prompts: fields that become datasets beside the prompt; labels is the reply",
    )  # fmt: skip
    group.add_argument(
        "--keep-columns", type=_names, default=(), metavar="A,B",
        help="columns, or fields of metadata, that PREFIX.sources.parquet takes over",
    )  # fmt: skip
    group.add_argument(
        "--empty-reply", default="keep", metavar="RULE",
        help=f"a reply without text: {', '.join(EMPTY_REPLY)} (default: keep)",
    )  # fmt: skip
    group.add_argument(
        "--render-state", action="store_true",
        help="put the dialogue state of ConversationHandler's data in front of the reply, as JSON",
    )  # fmt: skip
    group.add_argument(
        "--first-round", type=int, default=0, metavar="N", help="number of ChatGLM's first round: 0 or 1"
    )
    group.add_argument(
        "--source-prefix", default="", metavar="TEXT", help="text in front of ChatGLM's rounds"
    )
    group.add_argument("--max-samples", type=int, metavar="N", help="read the first N records only")
    group.add_argument(
        "--max-record-mb", type=float, default=64, metavar="MB",
        help="reject a record of more megabytes (of 2**20 bytes), without holding it (default: 64)",
    )  # fmt: skip
    group.add_argument(
        "--tokenizer-name-or-path", metavar="FOLDER",
        help="folder of the tokenizer, as transformers saves it (needed)",
    )  # fmt: skip
    group.add_argument(
        "--mix", metavar="SPEC.yaml",
        help="instead of --input: named sources, each with input, handler, map-keys, weight or epochs",
    )  # fmt: skip
    group.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own",
    )  # fmt: skip


def _add_format(group: argparse._ArgumentGroup) -> None:
    add_format_flags(group)
    group.add_argument(
        "--train-on", metavar="POLICY",
        help=f"what is trained: {', '.join(policies.names())} (default: assistant, for most formats)",
    )  # fmt: skip
    group.add_argument(
        "--train-on-tools", action="store_true", help="train what tools return, too, not only the calls"
    )
    group.add_argument("--seq-length", type=int, metavar="N", help="most tokens of a sample")
    group.add_argument(
        "--overlong", metavar="RULE",
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
    group.add_argument(
        "--encoder", default="auto", metavar="NAME",
        help=f"what turns text into ids: {', '.join(ENCODERS)} (default: auto, the fast one where it is "
        "proven to give the reference's ids, and the input is large enough)",
    )  # fmt: skip
    group.add_argument(
        "--profile", action="store_true", help="say at the end where the time went, stage by stage"
    )
    group.add_argument("--shard-bytes", type=int, metavar="N", help="input bytes per task")
    group.add_argument(
        "--log-interval", type=int, default=1000, metavar="N",
        help="records per progress line where there is no terminal (default: 1000)",
    )  # fmt: skip
    group.add_argument(
        "--on-error", metavar="RULE",
        help=f"{' or '.join(ON_ERROR)}: skip goes on past damage to a file, and lists what is lost in "
        "PREFIX.rejected.jsonl; fail stops at the first bad record; by default a bad record is listed, and "
        "damage to a file stops the run",
    )  # fmt: skip
    group.add_argument(
        "--max-rejected", type=_share_or_count, default=0.1, metavar="N",
        help="most rejected records before the run stops: a share (0.1) or a count (100); default: 0.1",
    )  # fmt: skip

    group.add_argument(
        "--rejected-records", action="store_true",
        help="write the rejected records themselves into PREFIX.rejected.jsonl, too",
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
    group.add_argument(
        "--merge-group-keys", nargs="+", default=[], metavar="KEY",
        help="join the datasets in the folder --input whose names hold a KEY, instead of making one; see "
        "mtsft merge",
    )  # fmt: skip


def _share_or_count(text: str) -> float | int:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a share with a decimal point (0.1) or a whole number, got {text!r}"
        ) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for name, why in _WITHOUT_EFFECT.items():
        if getattr(arguments, name):
            logger.warning("--%s has no effect: %s", name.replace("_", "-"), why)
    if arguments.merge_group_keys:
        return _merge(arguments)
    for name in ("tokenizer_name_or_path", *(("handler_name",) if arguments.mix is None else ())):
        if getattr(arguments, name) is None:
            raise SettingsError(f"--{name.replace('_', '-')}: needed, and not given")
    config = PreprocessConfig(
        input=tuple(arguments.input),
        output_prefix=arguments.output_prefix,
        tokenizer=arguments.tokenizer_name_or_path,
        handler_name=arguments.handler_name or AUTO,
        handler_path=arguments.handler_path,
        dataset_dir=arguments.dataset_dir,
        json_keys=tuple(arguments.json_keys),
        dataset_additional_keys=tuple(arguments.dataset_additional_keys),
        keep_columns=arguments.keep_columns,
        empty_reply=arguments.empty_reply,
        render_state=arguments.render_state,
        first_round=arguments.first_round,
        source_prefix=arguments.source_prefix,
        train_on_tools=arguments.train_on_tools,
        **arrangement_settings(arguments),
        pack=arguments.pack,
        mix=arguments.mix,
        rejected_records=arguments.rejected_records,
        map_keys=arguments.map_keys,
        **format_settings(arguments),
        train_on=arguments.train_on,
        seq_length=arguments.seq_length,
        overlong=arguments.overlong,
        ignore_index=arguments.ignore_index,
        special_tokens_in_text=arguments.special_tokens_in_text,
        max_samples=arguments.max_samples,
        max_record_mb=arguments.max_record_mb,
        trust_remote_code=arguments.trust_remote_code,
        use_fast=not arguments.tokenizer_not_use_fast,
        workers=arguments.workers,
        engine=arguments.engine,
        encoder=arguments.encoder,
        shard_bytes=arguments.shard_bytes,
        log_interval=arguments.log_interval,
        overwrite=arguments.overwrite,
        restart=arguments.restart,
        on_error=arguments.on_error,
        max_rejected=arguments.max_rejected,
    )
    result = preprocess(config)
    print(summary(result))
    if arguments.profile:
        print(profile_lines(result.profile))
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    """Join what is there, in the way of the original's command."""
    if len(arguments.input) != 1:
        raise SettingsError(
            f"--merge-group-keys: expected one folder as --input, got {len(arguments.input)}"
        )
    started = time.monotonic()
    result = merge_group_keys(
        arguments.input[0], arguments.merge_group_keys, arguments.output_prefix, arguments.overwrite
    )
    print(merge.summary(result, time.monotonic() - started))
    return 0
