"""The calls by which a process changes a disk, each of which can be made its last, or fail.

What is wrapped are the functions of ``os`` (those of ``pathlib`` and ``shutil`` end there) and ``open``,
whose files report their writes. Files that libraries write in C are not seen: real full disks are for
those.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Durability", "Fallible"]

#: Those of ``os`` that are wrapped, and whether they take up room on a disk.
_CALLS = {
    "replace": False, "rename": False, "fsync": False, "unlink": False, "rmdir": False, "mkdir": True,
    "ftruncate": False,
}  # fmt: skip


class Fallible:
    """Counts such calls from :meth:`begin` on, and lets one end badly.

    Args:
        mode: ``"count"``; ``"kill-before"`` or ``"kill-after"`` the call; ``"full"``: no room on the disk
            from the call on; ``"broken"``: that call alone fails (EIO).
        at: The number of the call, from 0.
        folder: What lies elsewhere is not looked at.
        watch: Is told of each call before (False) and after it (True): name, paths or file, and that.
    """

    def __init__(self, mode: str, at: int, folder: Path, watch: Callable[..., None] | None = None) -> None:
        self.mode, self.at, self.folder, self.watch = mode, at, str(folder), watch
        self.seen: list[str] = []
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Take the place of the real calls, for good."""
        for name, fills in _CALLS.items():
            setattr(os, name, self._wrapped(name, getattr(os, name), fills))
        real = builtins.open

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax") or not self._here(file):
                return real(file, mode, buffering, *rest, **named)
            return self._open(str(file), mode, *rest, **named)

        builtins.open = opened  # type: ignore[assignment]
        io.open = opened  # type: ignore[assignment]

    def _here(self, *names: Any) -> bool:
        for name in names:
            if isinstance(name, int):
                name = os.readlink(f"/proc/self/fd/{name}")
            if isinstance(name, str | Path) and os.path.abspath(name).startswith(self.folder):
                return True
        return False

    def _wrapped(self, name: str, real: Callable[..., Any], fills: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            # rmtree names what it removes by an open folder; a number may also be a mode.
            places = arguments[: 2 if name in ("replace", "rename") else 1]
            folder = named.get("dir_fd")
            if not self._here(*(places if folder is None else [folder])):
                return real(*arguments, **named)
            return self.pass_by(name, arguments, fills, lambda: real(*arguments, **named))

        return call

    def pass_by(self, name: str, arguments: tuple[Any, ...], fills: bool, do: Callable[[], Any]) -> Any:
        """Do something, unless this is where it ends."""
        with self._lock:
            number = len(self.seen)
            self.seen.append(f"{name} {' '.join(map(str, arguments))}")
            if self.mode == "kill-before" and number == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            path = [own for own in arguments[:1] if not isinstance(own, int)]  # As the real ones say it.
            if self.mode == "full" and number >= self.at and fills:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *path)
            if self.mode == "broken" and number == self.at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), *path)
            if self.watch:
                self.watch(name, arguments, False)
            try:
                result = do()
            finally:  # also where there was nothing to remove
                if self.mode == "kill-after" and number == self.at:
                    os.kill(os.getpid(), signal.SIGKILL)
            if self.watch:
                self.watch(name, arguments, True)
        return result

    def _open(
        self, path: str, mode: str, encoding: Any = None, errors: Any = None, newline: Any = None
    ) -> Any:
        raw = self.pass_by("open", (path, mode), True, lambda: _File(self, path, mode))
        file = io.BufferedWriter(raw)
        return file if "b" in mode else io.TextIOWrapper(file, encoding, errors, newline)


class _File(io.FileIO):
    """A file that reports its writes."""

    def __init__(self, fallible: Fallible, path: str, mode: str) -> None:
        super().__init__(path, mode.replace("b", "").replace("t", ""))
        self._fallible = fallible

    def write(self, data: Any) -> int:
        written: int = self._fallible.pass_by(
            "write", (self.fileno(),), True, lambda: super(_File, self).write(data)
        )
        return written


@dataclass
class Durability:
    """Holds what must hold so that a crash of the machine loses no more than a kill does.

    1. A file is renamed only if all that was written to it has been synced. (But for the tokenizer's copy,
       which every run writes anew.)
    2. When the commit record gets its name, all staged files are synced, and then their folder, and the
       folder of the output, in which the work folder stands.
    3. Nothing in the output's folder is renamed or removed before the folder of the commit record is
       synced.
    4. The commit record goes away only when the output's folder is synced behind the last rename into it.

    Attributes:
        folder: That of the output.
        work: The work folder.
        broken: Where one of that does not hold, in words.
        renames: Renames that were looked at.
    """

    folder: Path
    work: Path
    broken: list[str] = field(default_factory=list)
    renames: int = 0
    _synced: set[int] = field(default_factory=set)
    _unsynced_folders: set[str] = field(default_factory=set)

    def __call__(self, name: str, arguments: tuple[Any, ...], done: bool) -> None:
        places = [os.path.abspath(own) for own in arguments if isinstance(own, str | Path)]
        if done:
            self._after(name, arguments, places)
        elif name in ("replace", "rename"):
            self._before_rename(*places)
        elif name == "unlink" and os.path.dirname(places[0]) == str(self.folder):
            lock = places[0].endswith(".mtsft-lock")
            self._need_synced(f"unlink {places[0]}", *([] if lock else [self.work]))

    def _after(self, name: str, arguments: tuple[Any, ...], places: list[str]) -> None:
        if name == "fsync":
            status = os.fstat(arguments[0])
            if stat.S_ISDIR(status.st_mode):
                self._unsynced_folders.discard(os.readlink(f"/proc/self/fd/{arguments[0]}"))
            else:
                self._synced.add(status.st_ino)
        elif name == "write":
            self._synced.discard(os.fstat(arguments[0]).st_ino)
        elif name == "open":
            self._synced.discard(os.stat(places[0]).st_ino)
            self._change(os.path.dirname(places[0]))
        elif name in ("replace", "rename"):
            self._change(os.path.dirname(places[1]))
        elif name == "mkdir":
            self._change(os.path.dirname(places[0]))

    def _change(self, folder: str) -> None:
        self._unsynced_folders.add(folder)

    def _before_rename(self, source: str, target: str) -> None:
        self.renames += 1
        if os.path.isfile(source):
            if os.stat(source).st_ino not in self._synced and "tokenizer" not in os.path.basename(source):
                self.broken.append(f"{source} -> {target}: not synced")
            if target == str(self.work / "commit.json"):
                staging = self.work / "staging"
                self._need_synced("the commit record", staging, self.folder)
                loose = [own for own in os.scandir(staging) if own.inode() not in self._synced]
                self.broken += [f"the commit record: {own.path} is not synced" for own in loose]
            if os.path.dirname(target) == str(self.folder):
                self._need_synced(f"{source} -> {target}", self.work)
        elif source == str(self.work):
            self._need_synced(f"{source} -> {target}", self.folder)

    def _need_synced(self, what: str, *folders: Path) -> None:
        self.broken += [
            f"{what}: {own} is not synced" for own in folders if str(own) in self._unsynced_folders
        ]
