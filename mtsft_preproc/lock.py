"""One run per output prefix."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from mtsft_preproc.errors import OutputError

__all__ = ["OutputLock"]


class OutputLock:
    """Holds ``PREFIX.mtsft-lock`` while a run works on a prefix.

    The lock is the kernel's (``flock``), so it ends with its process however that dies; the file's text
    only names the holder for the error message.

    Args:
        prefix: The output prefix; its folder exists.

    Raises:
        OutputError: On entering: another run holds it.
    """

    def __init__(self, prefix: Path) -> None:
        self.path = prefix.with_name(prefix.name + ".mtsft-lock")
        self._handle = -1

    def __enter__(self) -> OutputLock:
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise OutputError(f"--output-prefix: can't write {self.path}: {error.strerror}") from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 200).decode("utf-8", "replace").strip()
                os.close(handle)
                raise OutputError(
                    f"another run works on this output (held by {holder or 'unknown'}; {self.path})"
                ) from None
            # The holder before may have removed the file between our two calls: then we hold nothing.
            if self._is_ours(handle):
                break
            os.close(handle)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._handle = handle
        return self

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
        self.path.unlink(missing_ok=True)
        os.close(self._handle)
