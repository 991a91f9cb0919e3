"""The flags that name a chat format, for every command that takes one."""

from __future__ import annotations

import argparse
from typing import Any

from mtsft_preproc.config import DEEPSEEK4, ENABLE_THINKING, PARITY, REASONING_EFFORT
from mtsft_preproc.templates import BUILTIN, prompt_types

__all__ = ["add_format_flags", "format_settings"]


def add_format_flags(group: argparse._ArgumentGroup) -> None:
    """Declare the flags."""
    group.add_argument(
        "--prompt-type",
        metavar="NAME",
        help=f"chat format: {', '.join(sorted([*prompt_types.names(), DEEPSEEK4]))}",
    )
    group.add_argument(
        "--prompt-type-path", metavar="FILE",
        help="JSON file with chat formats of your own, in MindSpeed-LLM's form",
    )  # fmt: skip
    group.add_argument(
        "--chat-template", metavar="WHICH",
        help="instead: tokenizer (the template in its folder), a .jinja file, or a name: "
        f"one of the tokenizer's, {', '.join(BUILTIN)}",
    )  # fmt: skip
    group.add_argument(
        "--chat-template-kwargs", default="{}", metavar="JSON",
        help="variables for the chat template, such as '{\"enable_thinking\": false}'",
    )  # fmt: skip
    group.add_argument(
        "--template-date", metavar="YYYY-MM-DD",
        help="the date for chat templates that print one (default: today's)",
    )  # fmt: skip
    group.add_argument(
        "--parity", default="report", metavar="RULE",
        help=f"trained turns whose text is not that of serving: {', '.join(PARITY)} (default: report)",
    )  # fmt: skip
    group.add_argument(
        "--enable-thinking", nargs="?", const="true", default="none", metavar="WHETHER",
        help=f"thoughts in replies: {', '.join(ENABLE_THINKING)} (default: none, which keeps them)",
    )  # fmt: skip
    group.add_argument(
        "--drop-thinking", nargs="?", const="true", metavar="WHETHER",
        help="deepseek4: whether thoughts of earlier turns are left out: true (its default), false",
    )  # fmt: skip
    group.add_argument(
        "--reasoning-effort", metavar="HOW",
        help=f"deepseek4, with --enable-thinking: {', '.join(REASONING_EFFORT)}",
    )  # fmt: skip
    group.add_argument("--append-eod", action="store_true", help="one more trained EOS per sample")


def format_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, by the names of the settings."""
    names = (
        "prompt_type prompt_type_path chat_template chat_template_kwargs template_date parity "
        "enable_thinking drop_thinking reasoning_effort append_eod"
    )
    return {name: getattr(arguments, name) for name in names.split()}
