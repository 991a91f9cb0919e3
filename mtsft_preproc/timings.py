"""``PREFIX.timings.json``: what two runs of one fingerprint differ in."""

from __future__ import annotations

import platform
import resource
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mtsft_preproc._version import __version__
from mtsft_preproc.sealed import MANIFEST_SEAL, TIMINGS_SEAL, write_sealed
from mtsft_preproc.stages import Profile

__all__ = ["Timings"]

_FORMAT = 1


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class Timings:
    """How a run went.

    Attributes:
        command: ``"preprocess"``, ``"repack"`` or ``"merge"``.
        workers: Worker processes; None where there are none.
        engine: What ran the tasks; None where nothing did.
        profile: Where the time went.
        began: When it began.
        reused_parts: Parts that an interrupted run had left; the times are of this run alone.
        texts: Texts that a fast encoder turned into ids.
        checked: How many of them were compared with the reference.
    """

    command: str
    workers: int | None = None
    engine: str | None = None
    profile: Profile = field(default_factory=Profile)
    began: datetime = field(default_factory=_now)
    reused_parts: int = 0
    texts: int = 0
    checked: int = 0

    def write(self, path: Path, manifest: dict[str, Any]) -> None:
        """Write the file.

        Args:
            path: Where it goes.
            manifest: That of the output, sealed: its seal says whose timings these are.
        """
        content = {
            "format": _FORMAT,
            "command": self.command,
            "version": __version__,
            "fingerprint": manifest["fingerprint"],
            MANIFEST_SEAL: manifest[MANIFEST_SEAL],
            "began": self.began.isoformat(timespec="milliseconds"),
            "ended": _now().isoformat(timespec="milliseconds"),
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "workers": self.workers,
            "engine": self.engine,
            "reused_parts": self.reused_parts,
            "encoder": {"texts": self.texts, "checked": self.checked},
            "wall_seconds": _rounded(self.profile.so_far()),
            "cpu_seconds": _rounded(self.profile.stages),
            "peak_memory_bytes": _peak_memory(),
        }
        write_sealed(path, content, TIMINGS_SEAL)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def _peak_memory() -> int:
    """Return the most memory that this process held, in bytes; workers have their own."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
