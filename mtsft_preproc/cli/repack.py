"""``mtsft repack``."""

from __future__ import annotations

import argparse

from mtsft_preproc.cli.arrangement_flags import add_arrangement_flags, arrangement_settings
from mtsft_preproc.cli.summary import summary
from mtsft_preproc.config import PreprocessConfig, usable_cores
from mtsft_preproc.engines import engines
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.repack import OVERLONG, check_overlong, repack

NAME = "repack"
HELP = "Pack, mix, split or shuffle finished datasets anew, without a tokenizer."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("prefix", nargs="+", help="what --output-prefix was")
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="FOLDER/NAME")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--seq-length", type=int, metavar="N", help="tokens of a pack")
    size.add_argument("--unpacked", action="store_true", help="one sample per item")
    parser.add_argument(
        "--overlong", default="drop", metavar="RULE",
        help=f"samples with more tokens than that: {', '.join(OVERLONG)} (default: drop, as rejections)",
    )  # fmt: skip
    add_arrangement_flags(parser.add_argument_group("packing, mixing, splits"))
    parser.add_argument(
        "--workers", type=int, default=usable_cores(), metavar="N",
        help="worker processes (default: the cores that this process may use)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", default="auto", metavar="NAME",
        help=f"what runs the tasks: auto, {', '.join(engines.names())} (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished output once the new one is whole"
    )
    parser.add_argument("--restart", action="store_true", help="throw away the work of an interrupted run")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    check_overlong(arguments.overlong)
    for flag in ("neat_pack", "pack_scope"):
        if arguments.unpacked and getattr(arguments, flag):
            raise SettingsError(f"--{flag.replace('_', '-')}: belongs to packs, to --seq-length N")
    config = PreprocessConfig(
        input=tuple(arguments.prefix),
        output_prefix=arguments.output_prefix,
        tokenizer="",
        handler_name=NAME,
        pack=not arguments.unpacked,
        seq_length=arguments.seq_length,
        overlong=arguments.overlong,
        **arrangement_settings(arguments),
        workers=arguments.workers,
        engine=arguments.engine,
        overwrite=arguments.overwrite,
        restart=arguments.restart,
    )
    print(summary(repack(config)))
    return 0
