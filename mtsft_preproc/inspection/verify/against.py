"""Encodes samples again from the inputs, as one more group of checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtsft_preproc.errors import InputError, TemplateError, TokenizerError
from mtsft_preproc.inspection.reencoding import Against, check_against
from mtsft_preproc.inspection.verify.report import SHOWN, Report

__all__ = ["verify_against"]

#: That something is gone or has changed which a dataset was made with says nothing about the dataset.
_GONE = (InputError, TokenizerError, TemplateError)


def verify_against(
    report: Report,
    inputs: Sequence[str] | None = None,
    samples: int = 1000,
    seed: int = 1234,
    trust_remote_code: bool = False,
) -> None:
    """Add to a report whether samples are what the inputs become.

    Args:
        report: Of :func:`verify`; gets a group ``against``. Where an input, the tokenizer or the chat
            format is gone or has changed, the group is not done, and tells why.
        inputs: Where the inputs lie now; None for where the manifest says.
        samples: How many samples to draw; 0 for all.
        seed: Of the draw.
        trust_remote_code: Whether the tokenizer's folder may run its own Python code.
    """
    found = Against(most=SHOWN)
    with report.check("against", Path(report.prefix).name) as check:
        try:
            check_against(
                report.prefix, inputs, samples, seed, trust_remote_code=trust_remote_code, report=found
            )
            check.checked = (
                f"{found.samples:,} samples of {found.records:,} records, and {found.rejections:,} "
                "rejections, made anew by the reference"
            )
        except _GONE as error:
            check.leave(f"can't be compared: {error}")
        finally:
            check.add(found.findings, found.differences)
            for why in found.unchecked:
                check.skip(why)
