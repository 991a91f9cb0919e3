"""The command line: ``mtsft COMMAND ...``, and ``preprocess_data.py`` for its main command.

To add a command: write one file with ``NAME``, ``HELP``, ``add_arguments`` and ``run``, and list it here.
"""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from mtsft_preproc._version import __version__
from mtsft_preproc.cli import merge, preprocess, repack, show, template, trace, verify
from mtsft_preproc.cli.parser import OneLineParser
from mtsft_preproc.errors import MtsftError

__all__ = ["main", "preprocess_main"]

_KEPT = "the work so far is kept: run the same command again to go on"
#: Seconds that it may take to end on SIGTERM; batch systems kill after 30.
_PATIENCE = 10
#: As shells say that SIGPIPE ended a command: 128 and its number.
_PIPE_CLOSED = 141
_COMMANDS = (preprocess, repack, merge, verify, show, trace, template)


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
    """Run a command; end quietly where nobody reads what it prints any more, as behind ``| head``."""
    try:
        try:
            return _run(parser, argv)
        finally:
            _flush()  # here and not when the interpreter ends, which could only complain
    except OSError as error:
        # What is left in the buffer is not to be tried again.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _PIPE_CLOSED
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        return 2


def _run(parser: OneLineParser, argv: Sequence[str] | None) -> int:
    """Run a command so that an error of the user's is one line, and exit code 2.

    Raises:
        BrokenPipeError: Nobody reads what it prints any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal is no reason to stop
    arguments = parser.parse(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("mtsft_preproc").setLevel(logging.INFO)
    try:
        with _terminable():
            code: int = arguments.run(arguments)
        return code
    except MtsftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"error: not enough memory: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
            raise
        # A full disk, a vanished file: nothing that a traceback would make clearer.
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {_KEPT}", file=sys.stderr)
        return 130
    except _Terminated:
        print(f"terminated; {_KEPT}", file=sys.stderr)
        return 143


def _flush() -> None:
    if sys.stdout is not None:  # as where descriptor 1 is closed
        sys.stdout.flush()


def _has_no_reader(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(-1 if stream is None else stream.fileno(), 0)
    except (OSError, ValueError):  # it has no descriptor, or no open one
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


class _Terminated(BaseException):
    """SIGTERM came, as batch systems send it before they kill."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: workers are stopped, and locks given back."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # not again while things are put away
        # An exception that comes out of nowhere may leave a lock of a library locked, for which a thread
        # would wait for ever.
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(_PATIENCE)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield  # Somebody else has a say in that.
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if threading.active_count() == 1:
            signal.alarm(0)  # Nothing is left to wait for.


def _give_up(*_: object) -> None:
    """End at once, as SIGKILL would, which nothing is lost by."""
    os.write(2, f"terminated; {_KEPT}\n".encode())
    os._exit(143)
