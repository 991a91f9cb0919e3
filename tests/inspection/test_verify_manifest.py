"""A manifest, files or timings that are not what they must be are found, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from damage import edit
from damages import (
    ENTRY,
    Damages,
    at,
    check_found,
    entry,
    forget,
    other_timings,
    pair,
    words,
    write_manifest,
)

DAMAGES: Damages = {
    # The manifest: an entry that is not there, or of another type.
    "no count": ("plain", forget("tokens"), False, ("manifest",), "tokens: expected int, got nothing"),
    "text for a count": (
        "plain",
        entry("items", value="5"),
        False,
        ("manifest",),
        "items: expected int, got str",
    ),
    "truth for a count": (
        "plain",
        entry("samples", value=True),
        False,
        ("manifest",),
        "samples: expected int, got bool",
    ),
    "negative count": (
        "plain",
        entry("tokens", value=-1),
        False,
        ("manifest",),
        "tokens: expected a number from 0 on, got -1",
    ),
    "no vocabulary": (
        "plain",
        forget("tokenizer", "vocab_size"),
        False,
        ("manifest",),
        r"tokenizer\.vocab_size: expected int, got nothing",
    ),
    "no hash of an input": (
        "plain",
        lambda p: edit(p, lambda m: m["inputs"][0].pop("sha256")),
        False,
        ("manifest",),
        r"inputs\[0\]: expected sha256 or sha256_by_chunk, got neither",
    ),
    "short fingerprint": (
        "plain",
        entry("fingerprint", value="ab"),
        False,
        ("manifest",),
        "fingerprint: expected 64 hexadecimal digits, got ab",
    ),
    "unknown objective": (
        "plain",
        entry("objective", value="x"),
        False,
        ("manifest",),
        "objective: expected one of sft, .*, got x",
    ),
    "a field too few": (
        "plain",
        entry("fields", value=["input_ids", "labels"]),
        False,
        ("manifest",),
        "fields: expected input_ids, labels, attention_mask, got",
    ),
    "no records": ("plain", forget("records"), False, ("manifest",), "records: expected dict, got nothing"),
    "a count of a reason": (
        "plain",
        entry("records", "rejected_by_reason", "not-json", value="1"),
        False,
        ("manifest",),
        r"records\.rejected_by_reason\.not-json: expected int, got str",
    ),
    "packing without neat": (
        "packed",
        forget("packing", "neat"),
        False,
        ("manifest",),
        r"packing\.neat: expected bool, got nothing",
    ),
    "no quantiles of a side": (
        "split",
        forget("splits", "valid", "length_quantiles"),
        False,
        ("manifest",),
        r"splits\['valid'\]\.length_quantiles: expected dict, got nothing",
    ),
    "cut off": ("plain", write_manifest(lambda raw: raw[: len(raw) // 2]), False, ("manifest",), "no seal"),
    "a list": ("plain", write_manifest(lambda raw: b"[]"), False, ("manifest",), "no seal"),
    "empty": ("plain", write_manifest(lambda raw: b""), False, ("manifest",), "no seal"),
    "other encoding": (
        "plain",
        write_manifest(lambda raw: raw.decode().encode("utf-16")),
        False,
        ("manifest",),
        "no seal",
    ),
    "deep": ("plain", write_manifest(lambda raw: b"[" * 100_000), False, ("manifest",), "no seal"),
    "another number": (
        "plain",
        write_manifest(lambda raw: raw.replace(b'"pad_id": 3967', b'"pad_id": 3966')),
        False,
        ("manifest",),
        r"plain\.manifest\.json: its sha256 is [0-9a-f]{12}\.\.\., its seal says",
    ),
    # Names of files.
    "out of the folder": (
        "plain",
        lambda p: edit(p, lambda m: m["files"].update({"../x": ENTRY})),
        False,
        ("manifest",),
        r"files: '\.\./x' leaves the folder",
    ),
    "absolute": (
        "plain",
        lambda p: edit(p, lambda m: m["files"].update({"/etc/passwd": ENTRY})),
        False,
        ("manifest",),
        "files: '/etc/passwd' leaves the folder",
    ),
    "of another": (
        "plain",
        lambda p: edit(p, lambda m: m["files"].update(other_x=ENTRY)),
        False,
        ("manifest",),
        "files: 'other_x' is no file of plain",
    ),
    "not named": (
        "plain",
        forget("files", "plain_packed_labels_document.bin"),
        False,
        ("files", "manifest"),
        r"files: expected 'plain_packed_labels_document\.bin' among them",
    ),
    # Files.
    "vanished": (
        "plain",
        lambda p: at(p, ".rejected.jsonl").unlink(),
        False,
        ("files", "rejected"),
        r"plain\.rejected\.jsonl: No such file",
    ),
    "a folder": (
        "plain",
        lambda p: (at(p, ".sources.parquet").unlink(), at(p, ".sources.parquet").mkdir()),
        False,
        ("files",),
        "no file, but a folder",
    ),
    "shorter": (
        "plain",
        lambda p: pair(p, "labels").write_bytes(b"abc"),
        False,
        ("files", "index"),
        r"plain_packed_labels_document\.bin, byte 3: the file has 3 bytes, the manifest says \d+",
    ),
    "another byte": (
        "plain",
        words("input_ids", 0, 5),
        False,
        ("files",),
        r"input_ids_document\.bin: its sha256 is [0-9a-f]{12}\.\.\., the manifest says",
    ),
    "a field more": (
        "plain",
        lambda p: pair(p, "extra").write_bytes(b""),
        False,
        ("files",),
        r"plain_packed_extra_document\.bin: plain\.manifest\.json does not name it",
    ),
    # Timings.
    "no timings": (
        "plain",
        lambda p: at(p, ".timings.json").unlink(),
        False,
        ("timings",),
        r"plain\.timings\.json: damaged: FileNotFoundError",
    ),
    "other timings": (
        "plain",
        other_timings,
        False,
        ("timings",),
        "manifest_sha256 '0f0f.*but plain.manifest.json has '",
    ),
    "timings of a side": (
        "split",
        lambda p: at(p, "_train.timings.json").write_text("{}"),
        False,
        ("timings",),
        r"split_train\.timings\.json: of another output",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_it_is_found_and_named(name: str, copy_of: Callable[[str], Path]) -> None:
    check_found(name, DAMAGES, copy_of)
