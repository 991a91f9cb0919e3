"""The files that a manifest names: whether they are there, with the bytes that it tells of."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtsft_preproc.hashing import file_sha256, start_hashing
from mtsft_preproc.inspection.verify.report import Check
from mtsft_preproc.layout import OutputPaths

__all__ = ["Hashes", "check_files", "check_unnamed"]


@dataclass
class Hashes:
    """Hashes of files, each of which is read once, in threads of its own.

    Attributes:
        threads: What hashes.
        found: What was found, by path and by the name of the kind of hash.
    """

    threads: ThreadPoolExecutor
    found: dict[tuple[Path, str], Callable[[], str]] = field(default_factory=dict)

    def start(self, path: Path, kind: str) -> Callable[[], str]:
        """Begin to hash a file that is there; return what waits for the hash.

        Args:
            path: The file.
            kind: ``"sha256"`` or ``"sha256_by_chunk"``, as of :func:`~mtsft_preproc.hashing.start_hashing`.
        """
        if (path, kind) not in self.found:
            if kind == "sha256":
                self.found[path, kind] = self.threads.submit(file_sha256, path).result
            else:
                chunks = start_hashing(path, self.threads)
                self.found[path, kind] = lambda: chunks().get(kind, "that of a file of one chunk")
        return self.found[path, kind]


def check_files(check: Check, paths: OutputPaths, files: Mapping[str, Any], hashes: Hashes) -> set[str]:
    """Look at sizes and hashes.

    Args:
        check: Takes the failures.
        paths: The output.
        files: What the manifest says of each file, by name.
        hashes: Hashes the files.

    Returns:
        Names of the files whose bytes are those that the manifest tells of.
    """
    began = time.monotonic()
    waiting, size, fresh = [], 0, 0
    for name, entry in files.items():
        check.file = name
        path = paths.folder / name
        try:
            status = os.stat(path)
        except OSError as error:
            check.fail(name, f"{error.strerror}, but {paths.manifest.name} names it")
            continue
        if not stat.S_ISREG(status.st_mode):
            check.fail(name, "no file, but a folder or something else")
            continue
        if status.st_size != entry["bytes"]:
            check.fail(
                f"{name}, byte {min(status.st_size, entry['bytes'])}",
                f"the file has {status.st_size} bytes, the manifest says {entry['bytes']}",
            )
            continue
        kind = "sha256" if "sha256" in entry else "sha256_by_chunk"
        fresh += status.st_size if (path, kind) not in hashes.found else 0
        waiting.append((name, entry[kind], hashes.start(path, kind)))
        size += status.st_size
    whole = set()
    for name, says, wait in waiting:
        check.file = name
        digest = wait()
        if digest == says:
            whole.add(name)
        else:
            check.fail(name, f"its sha256 is {digest[:12]}..., the manifest says {says[:12]}...")
    seconds = time.monotonic() - began
    speed = f", sha256 at {fresh / 1e6 / seconds:,.0f} MB/s" if fresh else ", hashed with the run's"
    check.checked = f"{len(files)} files, {size / 1e6:,.1f} MB{speed}"
    return whole


def check_unnamed(check: Check, paths: OutputPaths, files: Mapping[str, Any]) -> None:
    """Look for files that a trainer would take for a field of the dataset, and that the manifest lacks.

    Trainers of MindSpeed-LLM take every match of ``PREFIX_packed_*_document*``.
    """
    start = f"{paths.prefix.name}_packed_"
    for name in sorted(os.listdir(paths.folder)):
        if name.startswith(start) and "_document" in name[len(start) - 1 :] and name not in files:
            check.fail(
                name,
                f"{paths.manifest.name} does not name it; trainers that look for {start}*_document* take "
                "it for a field",
            )
