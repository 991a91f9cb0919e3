"""JSON files that carry their own sha256, so that any changed bit in them is found.

The last member of such a file is a sha256: that of the file's bytes with zeros in place of its 64 digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import naming

__all__ = ["MANIFEST_SEAL", "TIMINGS_SEAL", "broken_seal", "write_sealed"]

#: The member that seals a manifest, and the one that seals ``PREFIX.timings.json``.
MANIFEST_SEAL, TIMINGS_SEAL = "manifest_sha256", "timings_sha256"
_DIGITS = 64
_END = b'"\n}\n'


def write_sealed(path: Path, content: Mapping[str, Any], seal: str) -> dict[str, Any]:
    """Write a JSON object with its seal.

    Args:
        path: Where it goes.
        content: The object.
        seal: Name of the member that seals it; one that is there already is replaced.

    Returns:
        What was written, the seal included.
    """
    sealed = {name: value for name, value in content.items() if name != seal}
    sealed[seal] = "0" * _DIGITS
    raw = (json.dumps(sealed, ensure_ascii=False, indent=1) + "\n").encode()
    sealed[seal] = hashlib.sha256(raw).hexdigest()
    with naming(path):
        path.write_bytes(_with_digits(raw, sealed[seal].encode()))
    return sealed


def broken_seal(raw: bytes, seal: str) -> str | None:
    """Return what is wrong with the seal of a file, or None where it holds.

    Args:
        raw: The file's bytes.
        seal: Name of the member that seals it.
    """
    at = len(raw) - len(_END) - _DIGITS
    if at < 0 or not raw.endswith(_END) or not raw[:at].endswith(f'"{seal}": "'.encode()):
        return f"no seal at its end; expected {seal!r} as its last member"
    says = raw[at : at + _DIGITS]
    found = hashlib.sha256(_with_digits(raw, b"0" * _DIGITS)).hexdigest()
    if says == found.encode():
        return None
    return f"its sha256 is {found[:12]}..., its seal says {says[:12].decode('ascii', 'replace')}..."


def _with_digits(raw: bytes, digits: bytes) -> bytes:
    return raw[: -len(_END) - _DIGITS] + digits + _END
