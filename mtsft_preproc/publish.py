"""Publishes a finished output as a redo log does: all of it, or nothing yet.

Everything is staged in the work folder and synced. Then a commit record is written: from that moment on the
output is decided, and whoever comes next finishes the renames. Before it, nothing is visible.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtsft_preproc.errors import OutputError, naming
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.parts import sync_folder

__all__ = [
    "DamagedCommitError",
    "Decided",
    "clear",
    "commit",
    "finish_commit",
    "make_synced",
    "read_commit",
    "write_synced",
]

logger = logging.getLogger(__name__)


class DamagedCommitError(OutputError):
    """The record of a publication can't be followed: nobody can tell what of it is in place."""


@dataclass(frozen=True)
class Decided:
    """What a commit record says.

    Attributes:
        files: Names of the files of the output, in the order in which they appear.
        left_over: Names of files of the output before it, which vanish.
    """

    files: tuple[str, ...]
    left_over: tuple[str, ...]


def write_synced(path: Path, text: str) -> None:
    """Write a file, make it durable, and give it its name at once."""
    partial = path.with_name(path.name + ".partial")
    with naming(partial), open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def make_synced(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there; durably."""
    missing = [own for own in (folder, *folder.parents) if not own.exists()]
    for own in reversed(missing):
        own.mkdir(exist_ok=True)
        sync_folder(own.parent)


def clear(path: Path) -> None:
    """Remove what has a name: a folder with all that is in it, or a file; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def commit(paths: OutputPaths, names: Sequence[str], left_over: Sequence[str] = ()) -> None:
    """Decide that the staged files are the output, and publish them.

    Args:
        paths: The output.
        names: Names of the staged files, in the order in which they are to appear; the manifest last.
        left_over: Names of files of the output that is replaced which are to vanish.

    Raises:
        OutputError: A name is not one of a file of this output.
    """
    for name in (*names, *left_over):
        if not paths.owns(name):
            raise OutputError(
                f"{name!r}: expected a name that begins with {paths.prefix.name!r}, in {paths.folder}"
            )
    for name in names:
        with naming(paths.staging / name), open(paths.staging / name, "rb") as file:
            os.fsync(file.fileno())
    sync_folder(paths.staging)
    # The record must not be lost with the folder that it is in, while renames that it stands for are kept.
    sync_folder(paths.folder)
    write_synced(paths.commit, json.dumps({"files": list(names), "left_over": list(left_over)}))
    finish_commit(paths)


def read_commit(paths: OutputPaths) -> Decided | None:
    """Return what was decided and is not finished, or None.

    Raises:
        DamagedCommitError: The record is no whole one, names what is not this output's, or a file that it
            names is neither staged nor in place.
    """
    if paths.work.is_symlink():
        return None  # Nothing of ours, and nothing to move files out of.
    try:
        record = json.loads(paths.commit.read_text("utf-8"))
        decided = Decided(tuple(record["files"]), tuple(record["left_over"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(paths, f"not a whole record ({error!r})") from None
    for name in (*decided.files, *decided.left_over):
        if not paths.owns(name):
            raise _damaged(paths, f"names {name!r}, which is no file of this output")
    for name in decided.files:
        if not (paths.staging / name).is_file() and not (paths.folder / name).is_file():
            raise _damaged(paths, f"{name} is neither staged nor in place")
    return decided


def _damaged(paths: OutputPaths, why: str) -> DamagedCommitError:
    return DamagedCommitError(
        f"{paths.commit}: an interrupted publication can't be finished: {why}; expected --restart and "
        f"--overwrite, to make the output anew (or, for a command without --restart, that {paths.work} is "
        "removed and --overwrite is given)"
    )


def finish_commit(paths: OutputPaths) -> bool:
    """Finish a publication that was decided; return whether there was one.

    Raises:
        DamagedCommitError: It can't be finished; nothing was touched.
    """
    decided = read_commit(paths)
    if decided is None:
        return False
    for name in decided.left_over:
        (paths.folder / name).unlink(missing_ok=True)
    for name in decided.files:
        staged = paths.staging / name
        if staged.exists():  # else it was renamed before the interruption
            os.replace(staged, paths.folder / name)
    sync_folder(paths.folder)
    # At once, and the record with it: readers refuse an output while it is there.
    clear(paths.done)
    os.replace(paths.work, paths.done)
    sync_folder(paths.folder)
    try:
        clear(paths.done)
    except OSError as error:
        # All is published. The next run on this prefix removes what is left.
        logger.warning("%s: can't be removed: %s", paths.done, error.strerror)
    return True
