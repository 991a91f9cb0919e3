"""From what the user typed behind ``--input`` to a list of files with their formats."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from mtsft_preproc.errors import DamagedFileError, InputError
from mtsft_preproc.layout import is_ours
from mtsft_preproc.readers.base import InputFile, ReadingRules, readers
from mtsft_preproc.readers.parse import is_settings

__all__ = ["find_inputs"]

logger = logging.getLogger(__name__)

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MAGIC_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BOM = b"\xef\xbb\xbf"
#: Byte order marks; that of UTF-32LE begins with that of UTF-16LE.
_WIDE_MARKS = {
    "UTF-32LE": b"\xff\xfe\0\0",
    "UTF-32BE": b"\0\0\xfe\xff",
    "UTF-16LE": b"\xff\xfe",
    "UTF-16BE": b"\xfe\xff",
}
#: Which of four bytes are zero in text that is mostly ASCII.
_WIDE_ZEROS = {"UTF-32LE": (1, 2, 3), "UTF-32BE": (0, 1, 2), "UTF-16LE": (1, 3), "UTF-16BE": (0, 2)}
#: How JSON with records starts. Text may start with a bracket, too.
_JSON = re.compile(rb'(\[\s*)?\{\s*["}]')
#: Formats whose files may be compressed.
_PACKABLE = ("jsonl", "text")


def find_inputs(inputs: Iterable[str], rules: ReadingRules | None = None) -> list[InputFile]:
    """Return the files behind ``inputs``, those of each folder or glob in sorted order.

    The format is taken from the file's ending, then from its content; ``.json`` and ``.jsonl`` are told
    apart by content alone, as both endings are used for both. In folders, hidden files and files that
    are no data are passed over, with a word.

    Args:
        inputs: Files, folders and globs.
        rules: How the files are read.

    Raises:
        InputError: Something is missing, empty of files, or of an unknown format.
    """
    found: list[InputFile] = []
    for given in inputs:
        files = list(_expand(given, rules or ReadingRules()))
        if not files:
            raise InputError(f"--input: {given}: no data files there ({_supported()})")
        found.extend(files)
    for path, count in Counter(os.path.realpath(file.path) for file in found).items():
        if count > 1:
            logger.warning("%s is named %d times and is read as often", path, count)
    return found if rules is None else [replace(file, rules=rules) for file in found]


def _expand(given: str, rules: ReadingRules) -> Iterator[InputFile]:
    if not given:
        raise InputError("--input: an empty path; is a shell variable unset?")
    path = Path(given)
    if path.is_dir():
        yield from _folder(path, rules)
    elif path.is_file():
        yield _known(path, rules)
    elif path.exists():
        raise InputError(
            f"--input: {given}: {_special(path)}; expected a regular file: the input is read more than once"
        )
    elif path.is_symlink():
        raise InputError(f"--input: {given}: a link that leads nowhere; expected a file or folder")
    elif glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise InputError(f"--input: no file matches the pattern {given!r}")
        yield from _once(
            file
            for match in map(Path, matches)
            for file in (_folder(match, rules) if match.is_dir() else [_known(match, rules)])
        )
    else:
        raise InputError(f"--input: no such file or folder: {given}{_neighbours(path)}")


def _once(files: Iterable[InputFile]) -> Iterator[InputFile]:
    """Yield each file once: a pattern such as ``**`` matches a folder and what is in it."""
    seen: set[str] = set()
    for file in files:
        real = os.path.realpath(file.path)
        if real not in seen:
            seen.add(real)
            yield file


def _folder(folder: Path, rules: ReadingRules) -> Iterator[InputFile]:
    paths = list(_below(folder, set()))
    found = [
        _identify(path, rules) if _by_suffix(path)[0] and not _special(path) else None for path in paths
    ]
    # Beside other data, a .txt file is a licence or a read-me.
    only_text = all(file.kind == "text" for file in found if file)
    skipped = []
    for path, file in zip(paths, found, strict=True):
        if file is None or (file.kind == "text" and not only_text):
            skipped.append(str(path.relative_to(folder)))
        else:
            yield file
    if skipped:
        logger.warning(
            "%s: passed over %d file(s) that are no data: %s%s",
            folder, len(skipped), ", ".join(skipped[:5]), ", ..." if len(skipped) > 5 else "",
        )  # fmt: skip


def _below(folder: Path, above: set[str]) -> Iterator[Path]:
    """Yield the files below ``folder``, sorted, links followed, but for hidden ones and our own outputs."""
    real = os.path.realpath(folder)
    if real in above:
        return  # a link back up
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or is_ours(path.name):
            continue
        if path.is_dir():
            yield from _below(path, above | {real})
        else:
            yield path


def _known(path: Path, rules: ReadingRules) -> InputFile:
    """Return a file that the user named, which must be data."""
    if special := _special(path):
        raise InputError(f"--input: {path}: {special}; expected a regular file")
    file = _identify(path, rules)
    if file is None:
        head = _head(path, None)[:16]
        raise InputError(
            f"--input: {path}: neither a list of records nor one record a line; it starts with {head!r} "
            f"({_supported()})"
        )
    return file


def _identify(path: Path, rules: ReadingRules) -> InputFile | None:
    """Return a file with its format, or None where it is no data."""
    kind, compression = _by_suffix(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"--input: {str(path)!a}: its name is not UTF-8; rename it") from None
    try:
        status = path.stat()
        head = _head(path, compression)
    except OSError as error:
        raise InputError(f"--input: {path}: {error.strerror or error}") from None
    except DamagedFileError:
        if not rules.past_damage or kind is None:
            raise
        # By its name; what is there to read, the reader finds out.
        kind = kind if kind in _PACKABLE else "jsonl"
        return InputFile(str(path), kind, status.st_size, compression, status.st_mtime_ns)
    if kind is None and compression is None:
        compression = next((c for magic, c in _MAGIC_COMPRESSIONS.items() if head.startswith(magic)), None)
        head = _head(path, compression) if compression else head
    is_text = (kind or _by_content(head, None)) in (None, "json", "jsonl", "text", "csv")
    if is_text and (encoding := _wide_encoding(head)):
        raise InputError(
            f"--input: {path}: its text is {encoding}; expected UTF-8: "
            f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > NEW"
        )
    if kind in (None, "json", "jsonl"):
        kind = _by_content(head, kind)
    elif kind == "text" and _JSON.match(head.removeprefix(_BOM).lstrip()):
        kind = _by_content(head, None)
    if kind is None:
        return None
    if compression and kind not in _PACKABLE:
        raise InputError(
            f"--input: {path}: a compressed file must be text or must hold JSON lines; "
            f"this one holds {kind}: unpack it"
        )
    return InputFile(str(path), kind, status.st_size, compression, status.st_mtime_ns)


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
    """Return the format that ``head`` shows; of a file that is ``kind`` by name where it shows none."""
    text = head.removeprefix(_BOM).lstrip()
    for reader in readers:
        if reader.sniff(text):
            return reader.name
    # What is no object is rejected line by line.
    return None if kind is None or is_settings(text) else "jsonl"


def _special(path: Path) -> str:
    """Return what a path is that is neither a file nor a folder; opening such a thing may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""  # whoever opens it will say
    kinds = (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device")
    return next((name for test, name in (*kinds, (stat.S_ISBLK, "a device")) if test(mode)), "")


def _wide_encoding(head: bytes) -> str | None:
    """Return the encoding of text whose characters take two or four bytes; None for any other text.

    It begins with its byte order mark, or has zeros in nearly every other byte, as ASCII is written so.
    """
    for name, mark in _WIDE_MARKS.items():
        if head.startswith(mark):
            return name
    units = len(head) // 4
    zeros = [head[place : 4 * units : 4].count(0) for place in range(4)]
    for name, places in _WIDE_ZEROS.items():
        if units and all((zeros[place] > 0.9 * units) == (place in places) for place in range(4)):
            return name
    return None


def _head(path: Path, compression: str | None) -> bytes:
    if compression is None:
        with open(path, "rb") as file:
            return file.read(4096)
    try:
        with pa.input_stream(str(path), compression=compression) as file:
            return bytes(file.read(4096))
    except OSError as error:
        raise DamagedFileError(f"{path}: can't be decompressed: {error}") from None


def _supported() -> str:
    endings = ", ".join(" ".join(reader.suffixes) for reader in readers)
    return f"supported: {endings}; .jsonl and .txt also with .gz or .zst"


def _neighbours(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f" (and no folder {path.parent})"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f" (in {path.parent}: {shown or 'nothing'})"
