"""Loads a tokenizer in a process of its own.

transformers takes a second to import (several where torch is installed) and a hundred MB and more that
are never given back. A child process takes both: it works while the driver looks at the inputs, and ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from mtsft_preproc.errors import MtsftError, TokenizerError
from mtsft_preproc.tokenization.load import load_tokenizer
from mtsft_preproc.tokenization.spec import Adjustment, ResolvedTokenizer

__all__ = ["TokenizerLoading"]

#: Without the current folder on the path: what lies there is data, not code.
_START = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]\n"
    "from mtsft_preproc.tokenization.child import run_child; run_child()"
)


class TokenizerLoading:
    """A tokenizer that is being loaded; a context manager that leaves no process behind.

    Args:
        path: As for :func:`~mtsft_preproc.tokenization.load.load_tokenizer`, as are the others.
        adjustment: What the chat format changes.
        use_fast: Whether to take the Rust tokenizer.
        trust_remote_code: Whether the folder's own Python code may run.
        after: Called with the tokenizer in that process; see :meth:`afterwards`.
    """

    def __init__(
        self,
        path: str,
        adjustment: Adjustment,
        use_fast: bool,
        trust_remote_code: bool,
        after: Callable[[ResolvedTokenizer], Any] | None = None,
    ) -> None:
        self._path = path
        home = str(Path(__file__).parents[2])
        search = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        # A file: a pipe that nobody reads would fill, and stop the process.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": search},
        )
        assert self._process.stdin is not None
        pickle.dump((path, adjustment, use_fast, trust_remote_code, after), self._process.stdin)
        self._process.stdin.close()

    def result(self) -> ResolvedTokenizer:
        """Wait for the tokenizer.

        Raises:
            TokenizerError: It can't be loaded.
        """
        found: ResolvedTokenizer = self._next()
        return found

    def afterwards(self) -> Any:
        """Wait for what ``after`` returned; to be called behind :meth:`result`.

        Raises:
            MtsftError: What it raised.
        """
        return self._next()

    def _next(self) -> Any:
        assert self._process.stdout is not None
        try:
            found = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines() or ["no message"]
            raise TokenizerError(
                f"--tokenizer-name-or-path: {self._path}: loading it ended with code {code}: {lines[-1]}"
            ) from None
        if isinstance(found, MtsftError):
            raise found
        return found

    def __enter__(self) -> TokenizerLoading:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None and not stream.closed:
                stream.close()
        self._process.wait()


def run_child() -> None:
    """Be the child: settings come in; out go the tokenizer, and what ``after`` makes of it."""
    path, adjustment, use_fast, trust_remote_code, after = pickle.load(sys.stdin.buffer)
    # A tokenizer's own code may print; what goes to the driver is the result alone.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if not trust_remote_code:
        # transformers imports torch where it finds it: seconds, for which a tokenizer has no use.
        sys.modules["torch"] = None  # type: ignore[assignment]
    with channel:
        try:
            found = load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust_remote_code)
            pickle.dump(found, channel)
            channel.flush()
            if after is not None:
                pickle.dump(after(found), channel)
        except MtsftError as error:
            pickle.dump(error, channel)
