"""Checks of single settings; each error names the flag and the right choices."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtsft_preproc.config.choices import GIVEN_VARIABLES, PACK_WINDOW, SIDES, SOURCES_COLUMNS
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.registry import nearest

__all__ = [
    "at_least",
    "check_ignore_index",
    "check_keep_columns",
    "check_max_record_mb",
    "check_max_rejected",
    "check_output_prefix",
    "check_probs",
    "check_split",
    "one_of",
    "pack_window",
    "parse_date",
    "parse_map_keys",
    "parse_template_kwargs",
]


#: Beyond that a record's places no longer fit the types that hold them.
_MOST_RECORD_MB = 1024


def at_least(flag: str, value: int | None, least: int) -> None:
    """Check a number; None is not given."""
    if value is not None and value < least:
        raise SettingsError(f"{flag}: expected a whole number of at least {least}, got {value}")


def one_of(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """Check a choice."""
    if value not in choices:
        raise SettingsError(f"{flag}: unknown value {value!r}; {nearest(value, list(choices))}")


def check_keep_columns(names: Sequence[str]) -> None:
    """Check the columns that the sources sidecar takes over."""
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"--keep-columns: {name!r} is named twice; expected each column once")
        if name in SOURCES_COLUMNS:
            raise SettingsError(
                f"--keep-columns: {name!r}: the sources sidecar has such a column; expected others "
                f"than {', '.join(SOURCES_COLUMNS)}"
            )


def check_ignore_index(label: int) -> None:
    """Check the label of what is not trained."""
    if not -(2**31) <= label < 2**31:
        raise SettingsError(f"--ignore-index: {label} doesn't fit the labels' type, int32")
    if label >= 0:
        raise SettingsError(
            f"--ignore-index: {label} would also be a token's label; "
            "expected a negative number (trainers use -100)"
        )


def check_output_prefix(prefix: str) -> None:
    """Check what an output is called."""
    name = Path(prefix).name
    if prefix.endswith("/") or name in ("", ".."):
        raise SettingsError(f"--output-prefix: {prefix!r} ends in no name; expected FOLDER/NAME")
    # The names of its files stand in lines of text, and readers refuse such names in manifests.
    if any(char < " " or "\ud800" <= char <= "\udfff" for char in name):
        raise SettingsError(
            f"--output-prefix: {prefix!a} ends in a name with control characters, or that is not UTF-8; "
            "expected FOLDER/NAME"
        )


def check_max_record_mb(most: float) -> None:
    """Check the most megabytes of a record."""
    if not 0 < most <= _MOST_RECORD_MB:
        raise SettingsError(
            f"--max-record-mb: expected megabytes above 0 and up to {_MOST_RECORD_MB}, got {most}"
        )


def check_max_rejected(most: float | int) -> None:
    """Check a share or count of records."""
    share = isinstance(most, float)
    if not 0 <= most <= (1 if share else math.inf):
        raise SettingsError(f"--max-rejected: {most} is neither a share from 0.0 to 1.0 nor a count")


def check_probs(probs: Sequence[float], mixable: bool) -> None:
    """Check the shares of the sources; ``mixable``: whether shares go with the other settings."""
    if not probs:
        return
    if not mixable:
        raise SettingsError(
            "--interleave-probs: expected --mix-strategy interleave_under or interleave_over, and "
            "no --mix file, which has weights itself"
        )
    if min(probs) <= 0 or not math.isclose(sum(probs), 1, abs_tol=1e-6):
        raise SettingsError(
            "--interleave-probs: expected shares above 0 that sum to 1, such as 0.7,0.3, got "
            f"{','.join(map(str, probs))}"
        )


def check_split(shares: Sequence[float]) -> None:
    """Check the shares of the sides; none is no split."""
    if shares and not (
        2 <= len(shares) <= len(SIDES)
        and all(math.isfinite(share) and share >= 0 for share in shares)
        and shares[0] > 0
        and math.isfinite(sum(shares))
    ):
        raise SettingsError(
            f"--split: expected two or three shares of {', '.join(SIDES)}, the first above 0, such as "
            f"969,30,1; got {','.join(map(str, shares))}"
        )


def pack_window(scope: str | None) -> int | None:
    """Return how many samples are packed for themselves; None for all."""
    if scope is None:
        return PACK_WINDOW
    if scope == "global":
        return None
    name, _, count = scope.partition(":")
    if name != "window" or not count.isdecimal() or int(count) < 1:
        raise SettingsError(f"--pack-scope: expected global or window:N, got {scope!r}")
    return int(count)


def parse_map_keys(text: str) -> dict[str, Any]:
    """Return the columns by key."""
    return _object("--map-keys", text, '{"history":"histories"}')


def parse_template_kwargs(text: str) -> dict[str, Any]:
    """Return the variables for a chat template."""
    kwargs = _object("--chat-template-kwargs", text, '{"enable_thinking": false}')
    for name in GIVEN_VARIABLES:
        if name in kwargs:
            raise SettingsError(
                f"--chat-template-kwargs: {name!r} comes from the data; expected other variables"
            )
    return kwargs


def _object(flag: str, text: str, example: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        raise SettingsError(f"{flag}: expected a JSON object such as '{example}', got {text!r}")
    return found


def parse_date(text: str | None) -> datetime.date | None:
    """Return the date for chat templates, or None."""
    if text is None:
        return None
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        date = None
    # Other forms of ISO 8601 are not taken by all versions of Python.
    if date is None or date.isoformat() != text:
        raise SettingsError(f"--template-date: expected YYYY-MM-DD, got {text!r}")
    return date
