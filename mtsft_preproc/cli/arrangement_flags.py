"""The flags that say how samples are arranged, for every command that arranges some."""

from __future__ import annotations

import argparse
from typing import Any

from mtsft_preproc.config import DEDUP, MIX_STRATEGIES

__all__ = ["add_arrangement_flags", "arrangement_settings"]


def add_arrangement_flags(group: argparse._ArgumentGroup) -> None:
    """Declare the flags."""
    group.add_argument(
        "--neat-pack", action="store_true",
        help="with --pack: number the samples of an item in the attention mask (1, 2, ...; padding 0)",
    )  # fmt: skip
    group.add_argument(
        "--pack-scope", metavar="SCOPE",
        help="pack all samples together (global), or every N (window:N); default: window:100000000",
    )  # fmt: skip
    group.add_argument(
        "--pad-to-multiple-of", "--align", type=int, default=1, metavar="N",
        help="pad text documents, or each sample inside a pack, to a multiple of N tokens; for context "
        "parallelism twice its size",
    )  # fmt: skip
    group.add_argument(
        "--mix-strategy", default="concat", metavar="HOW",
        help=f"how several sources are mixed: {', '.join(MIX_STRATEGIES)} (default: concat)",
    )  # fmt: skip
    group.add_argument(
        "--interleave-probs", type=_numbers, default=(), metavar="A,B",
        help="share of each --input in the mix (default: equal shares)",
    )  # fmt: skip
    group.add_argument(
        "--split", type=_numbers, default=(), metavar="A,B,C",
        help="shares of train, valid, test, such as 969,30,1: outputs PREFIX_train, ...; by content",
    )  # fmt: skip
    group.add_argument("--shuffle", action="store_true", help="put the items in a random order")
    group.add_argument(
        "--dedup", nargs="?", const="exact", default="none", metavar="RULE",
        help=f"a dialogue that was there before: {', '.join(DEDUP)} (default: none, which keeps it)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=1234, metavar="N",
        help="seed of what is random: split, mix, shuffle (default: 1234)",
    )  # fmt: skip


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between them, got {text!r}"
        ) from None


def arrangement_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, by the names of the settings."""
    names = "neat_pack pack_scope pad_to_multiple_of mix_strategy interleave_probs split shuffle dedup seed"
    return {name: getattr(arguments, name) for name in names.split()}
