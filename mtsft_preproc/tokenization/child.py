"""Loads a tokenizer in a process of its own, or takes it from the cache.

transformers takes a second to import (several where torch is installed) and a hundred MB and more that
are never given back. A child process takes both: it works while the driver looks at the inputs, and ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from mtsft_preproc.errors import MtsftError, TokenizerError
from mtsft_preproc.interpreter import start_python
from mtsft_preproc.tokenization.cache import TokenizerKey, cached_tokenizer, keep_tokenizer
from mtsft_preproc.tokenization.load import load_tokenizer
from mtsft_preproc.tokenization.spec import Adjustment, ResolvedTokenizer

__all__ = ["TokenizerLoading"]


class TokenizerLoading:
    """A tokenizer that is being loaded; a context manager that leaves no process behind.

    Args:
        path: As for :func:`~mtsft_preproc.tokenization.load.load_tokenizer`, as are the others.
        adjustment: What the chat format changes.
        use_fast: Whether to take the Rust tokenizer.
        trust_remote_code: Whether the folder's own Python code may run.
    """

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self, path: str, adjustment: Adjustment, use_fast: bool, trust_remote_code: bool) -> None:
        self._path = path
        self._settings = adjustment, use_fast
        self._key = None if trust_remote_code else TokenizerKey.of(path, adjustment, use_fast)
        self._found = None if self._key is None else cached_tokenizer(self._key)
        if self._found is not None:
            return
        # A file: a pipe that nobody reads would fill, and stop the process.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start_python(
            "from mtsft_preproc.tokenization.child import run_child; run_child()",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process is not None
        assert self._process.stdin is not None
        pickle.dump((path, adjustment, use_fast, trust_remote_code), self._process.stdin)
        self._process.stdin.close()

    def result(self) -> ResolvedTokenizer:
        """Wait for the tokenizer.

        Raises:
            TokenizerError: It can't be loaded.
        """
        if self._found is None:
            self._found = self._received()
            # A file that changed meanwhile may have been read before or after that.
            if self._key is not None and self._key == TokenizerKey.of(self._path, *self._settings):
                keep_tokenizer(self._key, self._found)
        return self._found

    def _received(self) -> ResolvedTokenizer:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            found: ResolvedTokenizer | MtsftError = pickle.load(self._process.stdout)
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
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None and not stream.closed:
                stream.close()
        self._process.wait()


def run_child() -> None:
    """Be the child: settings come in, the tokenizer goes out."""
    path, adjustment, use_fast, trust_remote_code = pickle.load(sys.stdin.buffer)
    # A tokenizer's own code may print; what goes to the driver is the result alone.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if not trust_remote_code:
        # transformers imports torch where it finds it: seconds, for which a tokenizer has no use.
        sys.modules["torch"] = None  # type: ignore[assignment]
    with channel:
        found: Any
        try:
            found = load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust_remote_code)
        except MtsftError as error:
            found = error
        pickle.dump(found, channel)
