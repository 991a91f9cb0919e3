"""Runs that die at a certain point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from arranged import Stopped, make

from mtsft_preproc import publish
from mtsft_preproc.layout import OutputPaths

__all__ = ["decided", "stop", "stopped"]


def stop(*_: Any, **__: Any) -> None:
    raise Stopped


def stopped(source: Path, prefix: Path, where: tuple[Any, str], **changes: Any) -> OutputPaths:
    """Run, and die at a function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, stop)
        with pytest.raises(Stopped):
            make(source, prefix, shard_bytes=1000, **changes)
    return OutputPaths(prefix)


def decided(source: Path, prefix: Path, **changes: Any) -> OutputPaths:
    """Run, and die when the publication is decided and nothing is renamed."""
    return stopped(source, prefix, (publish, "finish_commit"), **changes)
