"""Children that have everything imported: a run in one of them takes a twentieth of a second."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy.ma  # noqa: F401 - which numpy imports where it is needed

from mtsft_preproc import plan
from mtsft_preproc.tokenization import Adjustment, ResolvedTokenizer, TokenizerLoading, load_tokenizer

__all__ = ["MEMORY", "forked", "in_child", "warm_up"]

#: A disk that takes no time, where there is one.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_loaded: dict[object, ResolvedTokenizer] = {}


class _Loaded(TokenizerLoading):
    """Takes the place of ``TokenizerLoading``, which starts a process."""

    def __init__(self, path: str, adjustment: Adjustment, use_fast: bool, trust: bool) -> None:
        key = (path, repr(adjustment))
        if key not in _loaded:
            _loaded[key] = load_tokenizer(path, adjustment, use_fast=use_fast, trust_remote_code=trust)
        self._tokenizer = _loaded[key]

    def result(self) -> ResolvedTokenizer:
        return self._tokenizer

    def __exit__(self, *_: object) -> None:
        pass


def warm_up(tokenizer: Path, prompt_type: str = "chatml") -> None:
    """Load a tokenizer for the children to come; nothing is encoded here, which would start threads."""
    # Nobody uses torch, and without it a fork takes a third of the time.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from mtsft_preproc.config import PreprocessConfig
    from mtsft_preproc.templates import make_format

    config = PreprocessConfig(
        input=("x",),
        output_prefix="x",
        tokenizer=str(tokenizer),
        handler_name="alpaca",
        prompt_type=prompt_type,
    )
    chat_format = make_format(config, None, False)
    assert chat_format is not None
    _Loaded(str(tokenizer), chat_format.adjustment(), True, False)
    plan.TokenizerLoading = _Loaded  # type: ignore[misc]
    gc.collect()
    gc.freeze()


def forked(action: Callable[[], int], log: Path) -> int:
    """Fork, act with what is printed going to a file, and return the number of the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(log, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def in_child(action: Callable[[], int], log: Path) -> int:
    """As :func:`forked`; wait, and return the exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(action, log), 0)[1])
