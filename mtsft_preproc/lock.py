"""One run per output prefix."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from mtsft_preproc.errors import OutputError
from mtsft_preproc.layout import OutputPaths

__all__ = ["OutputLock"]


class OutputLock:
    """Holds ``PREFIX.mtsft-lock`` while a run works on a prefix.

    The lock is the kernel's (``flock``), so it ends with its process however that dies; the file's text
    only names the holder for the error message.

    Args:
        prefix: The output prefix; its folder exists.

    Raises:
        OutputError: On entering: another run holds it, or the file system knows no locks.
    """

    def __init__(self, prefix: Path) -> None:
        self.path = OutputPaths(prefix).lock
        self._handle = -1

    def __enter__(self) -> OutputLock:
        handle = self._locked()
        # The lock holds also where a full disk has no room for the text, or an interruption leaves it out.
        self._handle = handle
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return self

    def _locked(self) -> int:
        """Return the open file, locked."""
        while True:
            try:
                # Never through a link, which would have us write elsewhere.
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise OutputError(f"--output-prefix: can't write {self.path}: {error.strerror}") from None
            try:
                self._lock(handle)
                # The holder before may have removed the file between our two calls: then we hold nothing.
                if self._is_ours(handle):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who has just taken it may not have written the text yet.
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "one that is just starting"
            raise OutputError(f"another run works on this output (held by {holder}; {self.path})") from None
        except OSError as error:
            raise OutputError(
                f"--output-prefix: can't lock {self.path}: {error.strerror}; expected a file system that "
                "knows flock (on NFS: version 4, or mounted with local_lock=flock)"
            ) from None

    def _is_ours(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A file that stays, as in a folder that became read-only, locks nobody out.
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._handle)
