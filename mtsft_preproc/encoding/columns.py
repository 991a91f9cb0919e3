"""Columns of the records that the sources sidecar takes over (``--keep-columns``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.handlers import METADATA

__all__ = ["kept_columns"]

#: What JSON has a form for; all else (dates, decimals) is text as Python writes it.
_JSON = (bool, int, float, list, dict)


def kept_columns(record: Mapping[str, Any], names: Sequence[str]) -> list[str | None]:
    """Return the values of some columns of a record, or of fields of its ``metadata``.

    Text stays as it is; other values become JSON text; what is absent or null is None.
    """
    if not names:
        return []
    inner = record.get(METADATA)
    if isinstance(inner, str) and any(name not in record for name in names):
        try:
            inner = json.loads(inner)
        except (ValueError, RecursionError):
            inner = None
    fields = inner if isinstance(inner, Mapping) else {}
    return [_text(record.get(name) if name in record else fields.get(name)) for name in names]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    try:
        text = (
            json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, _JSON) else str(value)
        )
        text.encode("utf-8")
    except RecursionError:
        return shorten(value)
    except UnicodeEncodeError:
        # JSON text can spell half a character, which no file of text takes; escaped, nothing is lost.
        return json.dumps(value, default=str)
    return text
