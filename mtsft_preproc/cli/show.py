"""``mtsft show``."""

from __future__ import annotations

import argparse

from mtsft_preproc.inspection import show_item

NAME = "show"
HELP = "Show items of a finished dataset as text, with what is trained in colour."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("prefix", help="what --output-prefix was")
    parser.add_argument(
        "-i", "--item", type=int, nargs="+", default=[0], metavar="N",
        help="numbers of the items, counted from 0; negative ones from the end (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for index in arguments.item:
        show_item(arguments.prefix, index, trust_remote_code=arguments.trust_remote_code)
    return 0
