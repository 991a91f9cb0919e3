"""What a person sees while a run works, and when it is done."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from mtsft_preproc.parts import PartSummary

__all__ = ["Progress", "bar"]


def bar(total: int, what: str, unit: str, stream: TextIO | None = None) -> tqdm[Any]:
    """Return a bar for work that takes seconds; nothing is shown where there is no terminal."""
    stream = stream or sys.stderr
    return tqdm(
        total=total, unit=unit, unit_scale=True, file=stream, desc=what, disable=not stream.isatty()
    )


class Progress:
    """A bar on a terminal; elsewhere a line per so many records.

    Args:
        total_bytes: Size of the input.
        log_interval: Records between two lines where ``stream`` is no terminal.
        stream: Where to show it.
    """

    def __init__(self, total_bytes: float, log_interval: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._interval = log_interval
        self._started = time.monotonic()
        self._bytes = 0.0
        self._records = self._tokens = self._rejected = self._logged = 0
        self._bar = (
            tqdm(
                total=round(total_bytes),
                unit="B",
                unit_scale=True,
                file=self._stream,
                desc="encode",
                dynamic_ncols=True,
            )
            if self._stream.isatty()
            else None
        )

    def add(self, size: float, summary: PartSummary) -> None:
        """Count a finished part of ``size`` bytes of input."""
        self._bytes += size
        self._records += summary.records
        self._tokens += summary.tokens
        self._rejected += summary.rejected.total()
        if self._bar is not None:
            self._bar.update(round(self._bytes) - self._bar.n)
            self._bar.set_postfix_str(self._rates())
        elif self._records - self._logged >= self._interval:
            self._logged = self._records
            print(f"encoded {self._rates()}", file=self._stream, flush=True)

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return (
            f"{self._records:,} records, {self._bytes / seconds / 1e6:.1f} MB/s, "
            f"{self._tokens / seconds / 1e3:,.0f}k tokens/s, {self._rejected:,} rejected"
        )

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
