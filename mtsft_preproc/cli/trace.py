"""``mtsft trace``."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from rich.console import Console

from mtsft_preproc.dealing import TAILS
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.inspection import Tracer, print_item, print_step, print_token, trace_step

NAME = "trace"
HELP = "Tell which file, row and turn the tokens of a finished dataset came from."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("prefix", help="what --output-prefix was")
    parser.add_argument(
        "item", type=int, nargs="?", help="number of the item, from 0; negative: from the end"
    )
    parser.add_argument(
        "token", type=int, nargs="?",
        help="number of the token in it, from 0; negative: from the end. Without one: the item's samples",
    )  # fmt: skip
    parser.add_argument(
        "--field", metavar="NAME",
        help="of pairs: chosen or rejected; of text documents and prompts: a key (default: the first)",
    )  # fmt: skip
    parser.add_argument(
        "--input", nargs="+", metavar="PATH", help="where the input files lie now, if they moved"
    )
    parser.add_argument("--full", action="store_true", help="show the whole record, long texts included")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own",
    )  # fmt: skip
    step = parser.add_argument_group("what a training step was dealt, instead of an item")
    step.add_argument("--step", type=int, metavar="N", help="number of the step, from 1")
    step.add_argument("--global-batch-size", type=int, metavar="B", help="items of a step, over all ranks")
    step.add_argument("--seed", type=int, metavar="S", help="seed of the sampler")
    step.add_argument(
        "--epoch-tail", choices=TAILS, default=TAILS[0],
        help="whether the last items of an epoch that fill no batch are left out (default: drop)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    console = Console(highlight=False, soft_wrap=True)
    if arguments.step is not None:
        _check_step(arguments)
        step = trace_step(
            arguments.prefix,
            arguments.step,
            arguments.global_batch_size,
            arguments.seed,
            arguments.epoch_tail,
        )
        _print_json(step.as_json()) if arguments.json else print_step(step, console)
        return 0
    if arguments.item is None:
        raise SettingsError("trace: expected the number of an ITEM, or --step N")
    tracer = Tracer(arguments.prefix, arguments.field, arguments.input, arguments.trust_remote_code)
    if arguments.token is None:
        item = tracer.item(arguments.item)
        _print_json(item.as_json()) if arguments.json else print_item(item, console)
    else:
        token = tracer.token(arguments.item, arguments.token)
        _print_json(token.as_json()) if arguments.json else print_token(token, console, arguments.full)
    return 0


def _check_step(arguments: argparse.Namespace) -> None:
    for name in ("global_batch_size", "seed"):
        if getattr(arguments, name) is None:
            flag = name.replace("_", "-")
            raise SettingsError(f"--step: expected --{flag} with it, as the training run had it")
    if arguments.item is not None:
        raise SettingsError("--step: expected no ITEM with it")


def _print_json(value: Any) -> None:
    print(json.dumps(_plain(value), ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    """Return a value without numbers that JSON has none for: as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value
