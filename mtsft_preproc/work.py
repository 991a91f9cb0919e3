"""The work folder of a run: opened, taken up after an interruption, or refused."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.config import SIDES
from mtsft_preproc.errors import OutputError
from mtsft_preproc.hashing import file_sha256
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.publish import (
    DamagedCommitError,
    Decided,
    clear,
    finish_commit,
    make_synced,
    read_commit,
    write_synced,
)

__all__ = [
    "Finished",
    "finish_interrupted",
    "hold",
    "left_over",
    "make_folder",
    "open_work",
    "read_plan",
    "refuse_finished",
]

logger = logging.getLogger(__name__)

_MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Finished:
    """A publication that was interrupted, and is finished.

    Attributes:
        fingerprint: That of its run; None where nothing tells any more.
        manifest: The manifest, or None where the output has none, or is no longer whole.
    """

    fingerprint: str | None
    manifest: dict[str, Any] | None


@contextmanager
def hold(paths: OutputPaths, sides: Iterable[str] = ()) -> Iterator[None]:
    """Keep all other runs away from an output, the sides that it gets, and those that it has.

    Nobody waits for a lock, so however runs overlap, none blocks another for good.

    Args:
        paths: The output; its folder exists.
        sides: Names of the sides that it gets.

    Raises:
        OutputError: Another run works on one of them; or the output is a side of one whose publication was
            interrupted, which would replace files of this one when it is finished.
    """
    with ExitStack() as locks:
        locks.enter_context(OutputLock(paths.prefix))
        _refuse_side_of_unfinished(paths)
        own = {paths.side(side).prefix for side in sides} | _sides_there(paths)
        for prefix in sorted(own - {paths.prefix}):
            locks.enter_context(OutputLock(prefix))
        yield


def _sides_there(paths: OutputPaths) -> set[Any]:
    """Return the prefixes of the sides of an output as it is there, or is decided."""
    try:
        decided = read_commit(paths) or Decided((), ())
    except DamagedCommitError:
        decided = Decided((), ())
    manifest = _manifest(paths) or {}
    splits = manifest.get("splits")
    names = [
        f"{paths.prefix.name}_{side}{_MANIFEST}" for side in (splits if isinstance(splits, dict) else ())
    ]
    return {
        paths.prefix.with_name(name.removesuffix(_MANIFEST))
        for name in (*decided.files, *names)
        if name.endswith(_MANIFEST) and paths.owns(name)
    }


def _refuse_side_of_unfinished(paths: OutputPaths) -> None:
    run, _, side = paths.prefix.name.rpartition("_")
    if not run or side not in SIDES:
        return
    whole = OutputPaths(paths.prefix.with_name(run))
    try:
        decided = read_commit(whole)
        ours = decided is not None and paths.manifest.name in decided.files
    except DamagedCommitError:
        ours = True
    if ours:
        raise OutputError(
            f"--output-prefix: {paths.prefix} is a side of {whole.prefix}, whose publication was "
            "interrupted; expected that command to be run again first, to finish it"
        )


def finish_interrupted(paths: OutputPaths, restart: bool = False) -> Finished | None:
    """Finish a publication that was decided and interrupted; return it, or None if there was none.

    Before anything else: it needs neither the inputs nor the settings that it was made with. All of it is
    done by one run alone, and what a dead one left beside its output is removed.

    Args:
        paths: The output.
        restart: Whether one that can't be finished may be forgotten; else it is an error.

    Raises:
        OutputError: Another run works on the output, or a record is damaged.
    """
    locks = [paths.lock, *(paths.side(side).lock for side in SIDES)]
    if not any(os.path.lexists(path) for path in (paths.commit, paths.done, *locks)):
        return None
    with hold(paths):
        _remove_dead_locks(paths)
        plan = read_plan(paths)
        ended = os.path.lexists(paths.done)
        try:
            decided = finish_commit(paths)
        except DamagedCommitError as error:
            if not restart:
                raise
            # The record stays until there is a whole one: readers refuse the output while it is there.
            logger.warning("%s", error)
            return None
        if ended and not decided:
            clear(paths.done)
        if not ended and not decided:
            return None
        manifest = _whole_manifest(paths)
    logger.warning("%s: finished the publication of an interrupted run", paths.prefix)
    fingerprint = (
        (plan or manifest or {}).get("fingerprint") if decided else (manifest or {}).get("fingerprint")
    )
    return Finished(fingerprint, manifest)


def _remove_dead_locks(paths: OutputPaths) -> None:
    """Remove the locks of sides whose holder died, also where nothing tells of them any more."""
    for side in SIDES:
        own = paths.side(side)
        if os.path.lexists(own.lock):
            # Else it is that of a run that lives, or of this one.
            with contextlib.suppress(OutputError), OutputLock(own.prefix):
                pass


def _manifest(paths: OutputPaths) -> dict[str, Any] | None:
    try:
        manifest = json.loads(paths.manifest.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _whole_manifest(paths: OutputPaths) -> dict[str, Any] | None:
    """Return the manifest of an output whose files are all there, or None."""
    manifest = _manifest(paths)
    try:
        sizes = {paths.folder / name: own["bytes"] for name, own in (manifest or {})["files"].items()}
        whole = all(path.stat().st_size == size for path, size in sizes.items())
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


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
        make_synced(folder)
    except OSError as error:
        raise OutputError(f"--output-prefix: can't create the folder {folder}: {error.strerror}") from None
    if not folder.is_dir():
        raise OutputError(f"--output-prefix: can't create the folder {folder}: it is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"--output-prefix: the folder {folder} is not writable")


def read_plan(paths: OutputPaths) -> dict[str, Any] | None:
    """Return what the run in the work folder set out to do, or None where nothing tells.

    A record that is damaged tells nothing; every part says itself which run it is the work of.
    """
    try:
        plan = json.loads(paths.plan.read_text("utf-8"))
        if isinstance(plan["fingerprint"], str) and isinstance(plan["identity"], dict):
            return dict(plan)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: damaged; parts that are whole and of just these settings are used", paths.plan)
    return None


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
    if restart:
        _throw_away(paths)
    if paths.work.is_symlink() or (paths.work.exists() and not paths.work.is_dir()):
        raise OutputError(
            f"{paths.work}: expected a folder, and no link to one; --restart removes it (the link alone)"
        )
    before = read_plan(paths)
    if before is not None and before["fingerprint"] != fingerprint:
        raise OutputError(
            f"{paths.work} holds the work of an interrupted run with other settings "
            f"({'; '.join(_differences(before['identity'], identity))}); expected the same "
            "settings to go on with it, or --restart to start over"
        )
    make_synced(paths.parts)
    # What a dead process had under way takes up room that may be just what is missing.
    clear(paths.staging)
    for partial in [*paths.work.rglob("*.partial")]:
        partial.unlink(missing_ok=True)
    if before is None:
        record = {"fingerprint": fingerprint, "identity": identity}
        write_synced(paths.plan, json.dumps(record, ensure_ascii=False, indent=1))


def _throw_away(paths: OutputPaths) -> None:
    """Empty the work folder, but for the record of a publication that can't be finished."""
    if paths.work.is_symlink() or not paths.commit.exists():
        clear(paths.work)
        return
    for path in paths.work.iterdir():
        if path != paths.commit:
            clear(path)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return in words what differs between two identities."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*before, *now}):
            shown = json.dumps(key, ensure_ascii=False)[1:-1]  # what was read back may hold line breaks
            found += _differences(before.get(key), now.get(key), f"{name}.{shown}".lstrip("."))
        return found
    # What was read back from JSON has lists where the settings have tuples.
    before, now = json.dumps(before), json.dumps(now)
    return [] if before == now else [f"{name}: was {before[:80]}, is {now[:80]}"]


def left_over(paths: OutputPaths, names: set[str], sides: Iterable[OutputPaths] = ()) -> list[str]:
    """Return the files of the output that is being replaced which the new one has no like of.

    A trainer would take them for fields of the new one. A side of a split that another run has replaced
    since is that run's, unless it is replaced now. Names that are none of this output's files stay.

    Args:
        paths: The output.
        names: Its files.
        sides: Those of its sides that are written.
    """
    new = [own for own in sides if own.prefix != paths.prefix]
    gone = _unlike(paths, names, {own.prefix for own in new})
    for own in new:
        # What stands there may be the output of another command. A side has no rejections and timings.
        gone += _unlike(own, names, set())
        gone += [path.name for path in (own.rejected, own.timings) if path.is_file()]
    return sorted(set(gone))


def _unlike(paths: OutputPaths, names: set[str], new: set[Path]) -> list[str]:
    """Return the files that the manifest of an output names, and the new output does not have."""
    manifest = _manifest(paths) or {}
    before, splits = (
        own if isinstance(own := manifest.get(key), dict) else {} for key in ("files", "splits")
    )
    kept: tuple[str, ...] = ()
    for side in splits:
        if not paths.owns(f"{paths.prefix.name}_{side}"):
            continue
        own = paths.side(side)
        if own.prefix in new:
            continue
        told = before.get(own.manifest.name)
        digest = told.get("sha256") if isinstance(told, dict) else None
        if own.manifest.exists() and file_sha256(own.manifest) != digest:
            logger.warning("%s: made by another run since; it stays", own.prefix)
            kept += (f"{own.prefix.name}_", f"{own.prefix.name}.")
    gone = []
    for name in sorted(set(before) - names):
        if not paths.owns(name) or (paths.folder / name).is_dir():
            logger.warning("%s names %r, which is no file of this output; it stays", paths.manifest, name)
        elif not (kept and name.startswith(kept)):
            gone.append(name)
    return gone
