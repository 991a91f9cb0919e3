"""The work folder of a run: opened, taken up after an interruption, or refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from typing import Any

from mtsft_preproc.errors import OutputError
from mtsft_preproc.hashing import file_sha256
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.publish import finish_commit, write_synced

__all__ = ["finish_interrupted", "left_over", "make_folder", "open_work", "refuse_finished"]

logger = logging.getLogger(__name__)


def finish_interrupted(paths: OutputPaths) -> bool:
    """Finish a publication that was decided and interrupted; return whether there was one.

    Before anything else: it needs neither the inputs nor the settings that it was made with.
    """
    shutil.rmtree(paths.done, ignore_errors=True)
    if not paths.commit.exists():
        return False
    with OutputLock(paths.prefix):
        finish_commit(paths)
    logger.warning("%s: finished the publication of an interrupted run", paths.prefix)
    return True


def refuse_finished(outputs: Iterable[OutputPaths], datasets: Iterable[str], overwrite: bool) -> None:
    """Refuse to replace what is there, unless that is asked for.

    Raises:
        OutputError: Something is there.
    """
    names = list(datasets)
    existing = [path for paths in outputs for path in paths.existing(names)]
    if existing and not overwrite:
        raise OutputError(
            f"--output-prefix: {existing[0]} exists already; expected a new prefix, or --overwrite to "
            "replace what is there once the new output is whole"
        )


def make_folder(paths: OutputPaths) -> None:
    """Make the folder that an output goes into.

    Raises:
        OutputError: It can't be made, or not be written to.
    """
    folder = paths.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output-prefix: can't create the folder {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"--output-prefix: the folder {folder} is not writable")


def open_work(paths: OutputPaths, fingerprint: str, identity: dict[str, Any], restart: bool) -> None:
    """Open the work folder, or take it up.

    Args:
        paths: The output.
        fingerprint: Of the run.
        identity: What the fingerprint is made of.
        restart: Whether to throw away what is there.

    Raises:
        OutputError: It holds the work of another run.
    """
    if restart and paths.work.exists():
        shutil.rmtree(paths.work)
    if paths.plan.exists():
        before = json.loads(paths.plan.read_text("utf-8"))
        if before["fingerprint"] != fingerprint:
            raise OutputError(
                f"{paths.work} holds the work of an interrupted run with other settings "
                f"({'; '.join(_differences(before['identity'], identity))}); expected the same "
                "settings to go on with it, or --restart to start over"
            )
    paths.parts.mkdir(parents=True, exist_ok=True)
    if not paths.plan.exists():
        record = {"fingerprint": fingerprint, "identity": identity}
        write_synced(paths.plan, json.dumps(record, ensure_ascii=False, indent=1))


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return in words what differs between two identities."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*before, *now}):
            found += _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        return found
    # What was read back from JSON has lists where the settings have tuples.
    before, now = json.dumps(before), json.dumps(now)
    return [] if before == now else [f"{name}: was {before[:80]}, is {now[:80]}"]


def left_over(paths: OutputPaths, names: set[str]) -> list[str]:
    """Return the files of the output that is being replaced which the new one has no like of.

    A trainer would take them for fields of the new one. A side of a split that another run has replaced
    since is that run's.
    """
    try:
        manifest = json.loads(paths.manifest.read_text("utf-8"))
        before = manifest["files"]
    except (OSError, ValueError, KeyError):
        return []
    kept: tuple[str, ...] = ()
    for side in map(paths.side, manifest.get("splits", ())):
        own = side.manifest
        if own.exists() and file_sha256(own) != before.get(own.name, {}).get("sha256"):
            logger.warning("%s: made by another run since; it stays", side.prefix)
            kept += (f"{side.prefix.name}_", f"{side.prefix.name}.")
    return sorted(name for name in set(before) - names if not (kept and name.startswith(kept)))
