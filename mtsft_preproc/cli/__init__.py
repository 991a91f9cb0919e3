"""The command line: ``mtsft COMMAND ...``, and ``preprocess_data.py`` for its main command.

To add a command: write one file with ``NAME``, ``HELP``, ``add_arguments`` and ``run``, and list it here.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

from mtsft_preproc._version import __version__
from mtsft_preproc.cli import merge, preprocess, repack, show, template
from mtsft_preproc.cli.parser import OneLineParser
from mtsft_preproc.errors import MtsftError

__all__ = ["main", "preprocess_main"]

_COMMANDS = (preprocess, repack, merge, show, template)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mtsft``; return the exit code."""
    parser = OneLineParser(prog="mtsft", description="Preprocessing for multi-turn SFT.")
    parser.add_argument("--version", action="version", version=f"mtsft_preproc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return _guarded(parser, argv)


def preprocess_main(argv: Sequence[str] | None = None) -> int:
    """Run ``preprocess_data.py``; return the exit code."""
    parser = OneLineParser(prog="preprocess_data.py", description=preprocess.HELP)
    parser.add_argument("--version", action="version", version=f"mtsft_preproc {__version__}")
    preprocess.add_arguments(parser)
    parser.set_defaults(run=preprocess.run)
    return _guarded(parser, argv)


def _guarded(parser: OneLineParser, argv: Sequence[str] | None) -> int:
    """Run a command so that an error of the user's is one line, and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal is no reason to stop
    arguments = parser.parse(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("mtsft_preproc").setLevel(logging.INFO)
    try:
        code: int = arguments.run(arguments)
        return code
    except MtsftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"error: not enough memory: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # A full disk, a vanished file: nothing that a traceback would make clearer.
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the work so far is kept: run the same command again to go on",
            file=sys.stderr,
        )
        return 130
