"""The errors that a user of this package can meet.

Every error that is the user's to mend descends from :class:`MtsftError`, and the command line prints it as
one line and ends with exit code 2. Errors cross process borders, so each takes exactly one positional
argument (its message): an exception with a longer ``__init__`` can't be unpickled, which hangs a pool.

The tree::

    MtsftError
    |-- SettingsError        a flag, a name or a combination of flags is wrong
    |-- InputError           an input file is missing, unreadable or not what its name says
    |   `-- DamagedFileError a part of it can't be read; --on-error skip does without
    |-- TokenizerError       the tokenizer folder can't be used as it is
    |-- TemplateError        the chat format can't be used with this tokenizer
    |-- OutputError          the output exists, is locked or can't be written
    |-- DatasetError         a finished dataset is damaged or not a dataset
    |-- RejectedDataError    too many records were rejected, or the first one under ``--on-error fail``
    |-- WorkerError          worker processes kept dying
    `-- RecordError          one record is bad; becomes a line of ``PREFIX.rejected.jsonl``
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "DamagedFileError",
    "DatasetError",
    "InputError",
    "MtsftError",
    "OutputError",
    "RecordError",
    "RejectedDataError",
    "SettingsError",
    "TemplateError",
    "TokenizerError",
    "WorkerError",
    "naming",
]


class MtsftError(Exception):
    """Base of all errors that this package raises on purpose; ``str(error)`` is one readable line."""

    exit_code = 2


class SettingsError(MtsftError):
    """A setting is wrong; the message names the setting and the right choices."""


class InputError(MtsftError):
    """An input file is missing, unreadable, or holds something else than its name says."""


class DamagedFileError(InputError):
    """A part of an input file can't be read; the message is ``PATH: what is wrong``.

    What is printed tells, in addition, what can be done about it.
    """

    def __str__(self) -> str:
        return (
            f"{self.args[0]}; expected a file that is whole, or --on-error skip to go on with the rest and "
            "list in PREFIX.rejected.jsonl what is lost"
        )


class TokenizerError(MtsftError):
    """The tokenizer folder can't be loaded or can't be used faithfully."""


class TemplateError(MtsftError):
    """The chat format is malformed, or needs tokens that the tokenizer lacks."""


class OutputError(MtsftError):
    """The output exists already, is locked by another run, or can't be written."""


class DatasetError(MtsftError):
    """A ``.bin``/``.idx`` pair or its manifest is damaged, incomplete or mixed up."""


class RejectedDataError(MtsftError):
    """More records were rejected than the settings allow."""


class WorkerError(MtsftError):
    """Worker processes kept dying on the same shard."""


class RecordError(MtsftError):
    """One record can't become a sample.

    Args:
        reason: A code of :data:`mtsft_preproc.dialogue.REASONS`.
        field: The field at fault, as the data names it (``"history[2][1]"``), or ``""``.
        expected: What would have been right.
        got: What was there; cut to a readable length by whoever reports it.
    """

    def __init__(self, reason: str, field: str = "", expected: str = "", got: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.expected = expected
        self.got = got

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, str, str, str]]:
        return type(self), (self.reason, self.field, self.expected, self.got)

    def __str__(self) -> str:
        where = f" in {self.field!r}" if self.field else ""
        return f"{self.reason}{where}: expected {self.expected}, got {self.got}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the operating system say which file it is about, as that of a write does not.

    Args:
        path: What is written, or made durable, inside.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
