"""What was found out about tokenizers, kept from run to run.

Loading a tokenizer with transformers and comparing a fast encoder with the reference take two to three
seconds together, and come to the same each time: as long as the tokenizer's files, the packages that
read them, and this package's own code are the same. All of these are in the keys. An entry carries its
own checksum; one that is damaged, or can't be written, is as good as none.

The folder is ``$MTSFT_CACHE``, else ``mtsft_preproc`` in ``$XDG_CACHE_HOME`` or ``~/.cache``;
``MTSFT_CACHE=off`` goes without.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from mtsft_preproc.tokenization.spec import AddedToken, Adjustment, ResolvedTokenizer, TokenizerSpec

__all__ = [
    "CACHE_VARIABLE",
    "TokenizerKey",
    "cached_json",
    "cached_tokenizer",
    "keep_json",
    "keep_tokenizer",
]

CACHE_VARIABLE = "MTSFT_CACHE"
#: Entries that are kept, the last used ones.
_ENTRIES = 32
#: Ends the names of our files: the folder may be one that holds others, which are not ours to remove.
_SUFFIX = ".mtsft"
#: Larger files are weights: their size and date stand for them.
_LARGE = 1 << 26
#: Those that load tokenizers, and those that transformers takes for some folders where they are installed.
_PACKAGES = (
    "transformers",
    "tokenizers",
    "sentencepiece",
    "fastokens",
    "mistral-common",
    "tiktoken",
    "protobuf",
)
#: A folder with more files than this holds more than a tokenizer.
_MOST_FILES = 500
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class TokenizerKey:
    """Names a tokenizer as of its files, the settings that it is loaded with, and what loads it.

    Attributes:
        path: The folder, which is not part of the name.
        name: Hexadecimal digits.
    """

    path: str
    name: str

    @classmethod
    def of(cls, path: str, adjustment: Adjustment, use_fast: bool) -> TokenizerKey | None:
        """Return the key of a tokenizer folder; None where it can't be read or told, or holds too much."""
        try:
            files = list(itertools.islice(_files(Path(path)), _MOST_FILES + 1))
            if len(files) > _MOST_FILES:
                return None
            return cls(path, _name("tokenizer", asdict(adjustment), use_fast, files))
        except (OSError, orjson.JSONEncodeError):  # The latter: a name that is no UTF-8.
            return None


def cached_tokenizer(key: TokenizerKey) -> ResolvedTokenizer | None:
    """Return a tokenizer that :func:`keep_tokenizer` has kept, or None."""
    content = _read(key.name)
    if content is None:
        return None
    head, _, payload = content.partition(b"\n")
    described = orjson.loads(head)
    spec = _spec(described["spec"])
    return ResolvedTokenizer(replace(spec, source=key.path, file=key.path), payload, described["file_name"])


def keep_tokenizer(key: TokenizerKey, tokenizer: ResolvedTokenizer) -> None:
    """Keep a tokenizer; one that workers open in the user's folder is not kept."""
    if tokenizer.payload is None:
        return
    try:
        head = orjson.dumps({"spec": asdict(tokenizer.spec), "file_name": tokenizer.file_name})
    except orjson.JSONEncodeError:
        return  # Half a surrogate pair in a token.
    _write(key.name, head + b"\n" + tokenizer.payload)


def cached_json(*key: Any) -> Any:
    """Return what :func:`keep_json` has kept under a key, or None."""
    content = _read(_name(*key))
    return None if content is None else orjson.loads(content)


def keep_json(value: Any, *key: Any) -> None:
    """Keep a value under a key; both are JSON."""
    _write(_name(*key), orjson.dumps(value))


def _spec(described: dict[str, Any]) -> TokenizerSpec:
    added = tuple(AddedToken(**token) for token in described.pop("added"))
    adjustment = {name: _tuples(value) for name, value in described.pop("adjustment").items()}
    rest = {name: _tuples(value) for name, value in described.items()}
    return TokenizerSpec(added=added, adjustment=Adjustment(**adjustment), **rest)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and content hash of the files of a folder, those in folders below it included.

    Raises:
        OSError: A file can't be read, or a folder below it is a link: what lies there would not be seen.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and path.is_dir():
            raise OSError(f"{path} is a link to a folder")
        if path.is_file():
            status = path.stat()
            if status.st_size > _LARGE:
                digest = f"{status.st_size} bytes of {status.st_mtime_ns}"
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield path.relative_to(folder).as_posix(), digest


def _name(*key: Any) -> str:
    return hashlib.sha256(orjson.dumps([_code(), *key])).hexdigest()


@functools.cache
def _code() -> list[str]:
    """Return what tells this version of the code, the packages and the processor from others."""
    from importlib import metadata

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            versions.append("")
    return [digest.hexdigest(), platform.python_version(), platform.machine(), *versions]


def _folder() -> Path | None:
    given = os.environ.get(CACHE_VARIABLE)
    if given == "off":
        return None
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "mtsft_preproc"
    except RuntimeError:
        return None  # There is no home.


def _read(name: str) -> bytes | None:
    folder = _folder()
    if folder is None:
        return None
    path = folder / (name + _SUFFIX)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        os.utime(path)
    except OSError:
        return None
    return content[_DIGEST:]


def _write(name: str, content: bytes) -> None:
    """Write an entry, all of it or nothing, and forget those that were not used for longest."""
    folder = _folder()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, prefix="partial-", suffix=_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(partial, folder / (name + _SUFFIX))
        except BaseException:
            os.unlink(partial)
            raise
        own = folder.glob(f"*{_SUFFIX}")
        entries = sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in entries[_ENTRIES:]:
            path.unlink(missing_ok=True)
    except OSError:
        return  # A cache that is full, or is not ours to write, saves no time and does no harm.
