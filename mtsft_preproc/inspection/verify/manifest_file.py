"""The manifest itself: its seal, the entries that it must have, and the names in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from mtsft_preproc.indexed.layout import SFT_FIELDS
from mtsft_preproc.inspection.verify.report import Check
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.sealed import MANIFEST_SEAL, broken_seal

__all__ = ["datasets_of", "read_json", "read_manifest"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNTS = {"items": int, "samples": int, "tokens": int, "trained_tokens": int}
_ENTRIES: dict[str, type] = {
    "format": int, "version": str, "settings": dict, "inputs": list, "tokenizer": dict,
    "fingerprint": str, "objective": str, "fields": list, "pad_id": int, "ignore_index": int, **_COUNTS,
    "files": dict,
}  # fmt: skip
_TOKENIZER: dict[str, type] = {"sha256": str, "vocab_size": int, "eos_id": int}
_PACKING: dict[str, type] = {"seq_length": int, "multiple": int, "neat": bool, "fill": float}
_RECORDS: dict[str, type] = {
    "read": int, "kept": int, "rejected": int, "rejected_by_reason": dict, "lost_samples_by_reason": dict,
    "by_file": list,
}  # fmt: skip
_BY_FILE: dict[str, type] = {"path": str, "read": int, "rejected": int}
_SOURCE: dict[str, type] = {
    "name": str, "read": int, "kept": int, "samples": int, "tokens": int, "trained_tokens": int,
}  # fmt: skip
#: Fields that an objective has at least; other than these has only what ends in an ellipsis.
_FIELDS: dict[str, tuple[str, ...]] = {
    "sft": SFT_FIELDS,
    "pairwise": ("chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"),
    "ppo": ("input_ids", "attention_mask"),
    "r1": ("input_ids", "attention_mask", "..."),
    "text": ("...",),
}


def read_manifest(check: Check, paths: OutputPaths) -> dict[str, Any] | None:
    """Read a manifest, and look at it.

    Returns:
        Its content, with names of files that are this output's alone; None where it is of no use.
    """
    check.file = paths.manifest.name
    raw = paths.manifest.read_bytes()
    if wrong := broken_seal(raw, MANIFEST_SEAL):
        check.fail(check.file, wrong)
    content = read_json(check, raw)
    if content is None:
        return None
    failed = check.failed
    _Shape(check).manifest(content)
    if check.failed > failed:
        check.skip("the rest of this output: its manifest is not what it must be")
        return None
    _names(check, paths, content)
    check.checked = f"sealed; names {len(content['files'])} files"
    return content


def read_json(check: Check, raw: bytes) -> dict[str, Any] | None:
    """Return a JSON object, or None where there is none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        check.fail(check.file, f"not JSON: {error}")
        return None
    if not isinstance(content, dict):
        check.fail(check.file, f"not a JSON object but of type {type(content).__name__}")
        return None
    return content


def datasets_of(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of the datasets of an output, as ``packed_input_ids``."""
    packed = "" if manifest["objective"] == "text" else "packed_"
    return [packed + field for field in manifest["fields"]]


class _Shape:
    """Looks whether entries are there and of the right type.

    Args:
        check: Takes the failures.
    """

    def __init__(self, check: Check) -> None:
        self._check = check

    def manifest(self, content: dict[str, Any]) -> None:
        """Look at a whole manifest."""
        if not self._entries("", content, _ENTRIES):
            return
        self._fields(content["objective"], content["fields"])
        self._sha256("fingerprint", content["fingerprint"])
        self._entries("tokenizer", content["tokenizer"], _TOKENIZER)
        for number, entry in enumerate(content["inputs"]):
            if self._entries(f"inputs[{number}]", entry, {"path": str, "bytes": int}):
                self._digest(f"inputs[{number}]", entry)
        for name, entry in content["files"].items():
            if self._entries(f"files[{name!r}]", entry, {"bytes": int}):
                self._digest(f"files[{name!r}]", entry)
        if "splits" in content and self._entries("", content, {"splits": dict}):
            for side, entry in content["splits"].items():
                self._output(f"splits[{side!r}]", entry)
        else:
            self._output("", content)
        if "split" in content:
            self._entries("split", content["split"], {"side": str})
        # A side of a split has none, and so has what was joined of such sides.
        if "records" in content or not {"split", "merged"} & content.keys():
            self._records(content)
        self._turn_ends(content.get("turn_ends", []))

    def _fields(self, objective: str, fields: list[Any]) -> None:
        if objective not in _FIELDS:
            self._fail("objective", f"one of {', '.join(_FIELDS)}", objective)
            return
        wanted = set(_FIELDS[objective]) - {"..."}
        plain = all(isinstance(name, str) and "/" not in name and "\0" not in name for name in fields)
        if not plain or not fields or wanted - set(fields):
            self._fail("fields", ", ".join(_FIELDS[objective]), fields)
        elif len(set(fields)) < len(fields) or ("..." not in _FIELDS[objective] and set(fields) - wanted):
            self._fail("fields", f"no other than {', '.join(wanted)}, each once", fields)

    def _output(self, where: str, entry: Any) -> None:
        if not self._entries(where, entry, {**_COUNTS, "length_quantiles": dict}):
            return
        if "packing" in entry:
            self._entries(f"{where}.packing".lstrip("."), entry["packing"], _PACKING)

    def _records(self, content: dict[str, Any]) -> None:
        if not self._entries("", content, {"records": dict, "sources": list}):
            return
        records = content["records"]
        if not self._entries("records", records, _RECORDS):
            return
        for name in ("rejected_by_reason", "lost_samples_by_reason"):
            for reason, count in records[name].items():
                self._entries(f"records.{name}", {reason: count}, {reason: int})
        for number, entry in enumerate(records["by_file"]):
            self._entries(f"records.by_file[{number}]", entry, _BY_FILE)
        for number, entry in enumerate(content["sources"]):
            self._entries(f"sources[{number}]", entry, _SOURCE)

    def _turn_ends(self, ends: Any) -> None:
        if not isinstance(ends, list):
            self._fail("turn_ends", "list", type(ends).__name__)
            return
        for number, end in enumerate(ends):
            self._entries(f"turn_ends[{number}]", end, {"id": int, "late": bool})

    def _entries(self, where: str, entry: Any, wanted: Mapping[str, type]) -> bool:
        """Look at the members of an object; return whether all are right."""
        if not isinstance(entry, dict):
            self._fail(where, "an object", type(entry).__name__)
            return False
        right = True
        for name, kind in wanted.items():
            value = entry.get(name)
            # JSON has one kind of numbers; and in Python a truth value is one, too.
            if kind is float and type(value) is int:
                continue
            if type(value) is not kind:
                got = type(value).__name__ if name in entry else "nothing"
                self._fail(f"{where}.{name}".lstrip("."), kind.__name__, got)
                right = False
            elif type(value) is int and name != "ignore_index" and value < 0:
                self._fail(f"{where}.{name}".lstrip("."), "a number from 0 on", value)
                right = False
        return right

    def _digest(self, where: str, entry: Mapping[str, Any]) -> None:
        given = [name for name in ("sha256", "sha256_by_chunk") if name in entry]
        if len(given) != 1:
            self._fail(where, "sha256 or sha256_by_chunk", ", ".join(given) or "neither")
            return
        self._sha256(f"{where}.{given[0]}", entry[given[0]])

    def _sha256(self, where: str, value: Any) -> None:
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            self._fail(where, "64 hexadecimal digits", value)

    def _fail(self, where: str, expected: str, got: object) -> None:
        shown = f"{got}"[:80]
        self._check.fail(self._check.file, f"{where or 'it'}: expected {expected}, got {shown}")


def _names(check: Check, paths: OutputPaths, content: dict[str, Any]) -> None:
    """Look at the names of files, and take those out that must not be followed."""
    files: dict[str, Any] = content["files"]
    own = (f"{paths.prefix.name}_", f"{paths.prefix.name}.")
    for name in list(files):
        if "/" in name or "\0" in name or "\\" in name or name in (".", ".."):
            check.fail(check.file, f"files: {name!r} leaves the folder; expected a plain name")
            del files[name]
        elif not name.startswith(own):
            check.fail(
                check.file, f"files: {name!r} is no file of {paths.prefix.name}; was the output renamed?"
            )
            del files[name]
    outputs = {side: paths.side(side) for side in content.get("splits", {"": None})}
    wanted = [paths.rejected.name] if "records" in content else []
    for side, output in outputs.items():
        wanted += [output.manifest.name] if side else []
        wanted.append(output.sources.name)
        for name in datasets_of(content):
            pair = output.dataset(name).name
            wanted += [f"{pair}.bin", f"{pair}.idx"]
    for name in wanted:
        if name not in files:
            check.fail(check.file, f"files: expected {name!r} among them")
