"""From what the user typed behind ``--input`` to a list of files with their formats."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from mtsft_preproc.errors import InputError
from mtsft_preproc.readers.base import InputFile, readers

__all__ = ["find_inputs"]

logger = logging.getLogger(__name__)

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MAGIC_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BOM = b"\xef\xbb\xbf"


def find_inputs(inputs: Iterable[str]) -> list[InputFile]:
    """Return the files behind ``inputs``, those of each folder or glob in sorted order.

    The format is taken from the file's ending, then from its content; ``.json`` and ``.jsonl`` are told
    apart by content alone, as both endings are used for both. In folders, hidden files and files that
    are no data are passed over, with a word.

    Raises:
        InputError: Something is missing, empty of files, or of an unknown format.
    """
    found: list[InputFile] = []
    for given in inputs:
        files = list(_expand(given))
        if not files:
            raise InputError(f"--input: {given}: no data files there ({_supported()})")
        found.extend(files)
    for path, count in Counter(os.path.realpath(file.path) for file in found).items():
        if count > 1:
            logger.warning("%s is named %d times and is read as often", path, count)
    return found


def _expand(given: str) -> Iterator[InputFile]:
    path = Path(given)
    if path.is_dir():
        yield from _folder(path)
    elif path.is_file():
        yield _known(path)
    elif glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise InputError(f"--input: no file matches the pattern {given!r}")
        for match in map(Path, matches):
            yield from _folder(match) if match.is_dir() else [_known(match)]
    else:
        raise InputError(f"--input: no such file or folder: {given}{_neighbours(path)}")


def _folder(folder: Path) -> Iterator[InputFile]:
    skipped = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or path.is_dir():
            continue
        file = _identify(path) if _by_suffix(path)[0] else None
        if file is None:
            skipped.append(str(path.relative_to(folder)))
        else:
            yield file
    if skipped:
        logger.warning(
            "%s: passed over %d file(s) that are no data: %s%s",
            folder, len(skipped), ", ".join(skipped[:5]), ", ..." if len(skipped) > 5 else "",
        )  # fmt: skip


def _known(path: Path) -> InputFile:
    """Return a file that the user named, which must be data."""
    file = _identify(path)
    if file is None:
        head = _head(path, None)[:16]
        raise InputError(
            f"--input: {path}: neither a list of records nor one record a line; it starts with {head!r} "
            f"({_supported()})"
        )
    return file


def _identify(path: Path) -> InputFile | None:
    """Return a file with its format, or None where it is no data."""
    kind, compression = _by_suffix(path)
    try:
        size = path.stat().st_size
        head = _head(path, compression)
    except OSError as error:
        raise InputError(f"--input: {path}: {error.strerror or error}") from None
    if kind is None and compression is None:
        compression = next((c for magic, c in _MAGIC_COMPRESSIONS.items() if head.startswith(magic)), None)
        head = _head(path, compression) if compression else head
    if kind in (None, "json", "jsonl"):
        kind = _by_content(head, kind)
    if kind is None:
        return None
    if compression and kind != "jsonl":
        raise InputError(
            f"--input: {path}: a compressed file must hold JSON lines; this one holds {kind}: unpack it"
        )
    return InputFile(str(path), kind, size, compression)


def _by_suffix(path: Path) -> tuple[str | None, str | None]:
    """Return (format, compression) by the name's ending."""
    name = path.name.lower()
    compression = next((c for end, c in _COMPRESSIONS.items() if name.endswith(end)), None)
    if compression:
        name = name.rpartition(".")[0]
    for reader in readers:
        if name.endswith(reader.suffixes):
            return reader.name, compression
    return None, compression


def _by_content(head: bytes, kind: str | None) -> str | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(b"["):
        return "json"
    if text.split(b"\n", 1)[0].strip() == b"{":
        return None  # one object over many lines: settings, not records
    if text.startswith(b"{") or kind is not None:
        # One object a line, whatever the ending says; what is no object is rejected line by line.
        return "jsonl"
    return None


def _head(path: Path, compression: str | None) -> bytes:
    if compression is None:
        with open(path, "rb") as file:
            return file.read(4096)
    try:
        with pa.input_stream(str(path), compression=compression) as file:
            return bytes(file.read(4096))
    except OSError as error:
        raise InputError(f"--input: {path}: can't be decompressed: {error}") from None


def _supported() -> str:
    endings = ", ".join(" ".join(reader.suffixes) for reader in readers)
    return f"supported: {endings}; .jsonl also with .gz or .zst"


def _neighbours(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f" (and no folder {path.parent})"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f" (in {path.parent}: {shown or 'nothing'})"
