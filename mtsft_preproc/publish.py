"""Publishes a finished output as a redo log does: all of it, or nothing yet.

Everything is staged in the work folder and synced. Then a commit record is written: from that moment on the
output is decided, and whoever comes next finishes the renames. Before it, nothing is visible.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.parts import sync_folder

__all__ = ["commit", "finish_commit", "write_synced"]


def write_synced(path: Path, text: str) -> None:
    """Write a file, make it durable, and give it its name at once."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def commit(paths: OutputPaths, names: Sequence[str], left_over: Sequence[str] = ()) -> None:
    """Decide that the staged files are the output, and publish them.

    Args:
        paths: The output.
        names: Names of the staged files, in the order in which they are to appear; the manifest last.
        left_over: Names of files of the output that is replaced which are to vanish.
    """
    for name in names:
        with open(paths.staging / name, "rb") as file:
            os.fsync(file.fileno())
    sync_folder(paths.staging)
    write_synced(paths.commit, json.dumps({"files": list(names), "left_over": list(left_over)}))
    finish_commit(paths)


def finish_commit(paths: OutputPaths) -> bool:
    """Finish a publication that was decided; return whether there was one."""
    if not paths.commit.exists():
        return False
    decided = json.loads(paths.commit.read_text("utf-8"))
    for name in decided["left_over"]:
        (paths.folder / name).unlink(missing_ok=True)
    for name in decided["files"]:
        staged = paths.staging / name
        if staged.exists():  # else it was renamed before the interruption
            os.replace(staged, paths.folder / name)
    sync_folder(paths.folder)
    # At once, and the record with it: readers refuse an output while it is there.
    shutil.rmtree(paths.done, ignore_errors=True)
    os.replace(paths.work, paths.done)
    sync_folder(paths.folder)
    shutil.rmtree(paths.done)
    return True
