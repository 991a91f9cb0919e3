"""``mtsft template check``."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtsft_preproc.cli.format_flags import add_format_flags, format_settings
from mtsft_preproc.config import DEEPSEEK4, PreprocessConfig
from mtsft_preproc.errors import TemplateError
from mtsft_preproc.inspection import check_formats, print_check
from mtsft_preproc.templates import make_format, prompt_types, read_prompt_types

NAME = "template"
HELP = "Look at a chat format before there are any data: what is trained, where turns end."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("action", choices=["check"], help="exit code 1 if something is unsafe")
    parser.add_argument(
        "--tokenizer-name-or-path", required=True, metavar="FOLDER", help="folder of the tokenizer"
    )
    parser.add_argument(
        "--all-prompt-types", action="store_true", help="a line for each prompt type, instead of one format"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="let the tokenizer folder run Python code of its own",
    )  # fmt: skip
    add_format_flags(parser.add_argument_group("chat format; default: the tokenizer's own template"))


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    console = Console(highlight=False, soft_wrap=True)
    names = [arguments.prompt_type]
    if arguments.all_prompt_types:
        path = arguments.prompt_type_path
        names = read_prompt_types(path).names() if path else [*prompt_types.names(), DEEPSEEK4]
    elif arguments.prompt_type is arguments.prompt_type_path is arguments.chat_template is None:
        arguments.chat_template = "tokenizer"
    configs = [_config(arguments, name) for name in names]
    named = [
        (config.prompt_type or config.chat_template or "", make_format(config), config)
        for config in configs
    ]
    unsafe = False
    for check in check_formats(named):
        if check.unusable and not arguments.all_prompt_types:
            raise TemplateError(check.unusable)
        print_check(check, console, brief=arguments.all_prompt_types)
        unsafe |= bool(check.unsafe)
    return int(unsafe)


def _config(arguments: argparse.Namespace, prompt_type: str | None) -> PreprocessConfig:
    """Return the settings of a run that is never made."""
    settings = format_settings(arguments)
    if arguments.all_prompt_types:
        settings |= {"prompt_type": prompt_type, "chat_template": None}
    return PreprocessConfig(
        input=("none",),
        output_prefix="none",
        tokenizer=arguments.tokenizer_name_or_path,
        handler_name=f"{NAME} check",
        trust_remote_code=arguments.trust_remote_code,
        **settings,
    )
