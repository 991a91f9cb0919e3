"""A clean process that loads once what all workers need, and forks them.

Loading a tokenizer takes a second and a quarter of a gigabyte. A process that was started for it, and does
nothing else, can be forked without harm: it has no threads that could hold a lock, no files, no state of
the user's program. Its children share its memory. (The idea is that of Python's ``forkserver``, which can
import modules, but not run something first and give the result back.)
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import io
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NoReturn

from mtsft_preproc.errors import WorkerError
from mtsft_preproc.interpreter import start_python

__all__ = ["Nursery", "NurseryEndedError", "Worker", "outcome", "result_of"]

#: numpy's library of linear algebra starts a thread for each core, of which nobody here makes use.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: How long it may take to end when nobody needs it any more, in seconds.
_PATIENCE = 2.0


@dataclass(frozen=True)
class Worker:
    """A process that runs the task on each item that it is sent.

    Attributes:
        pid: Its number.
        connection: Items go in, pickled; outcomes come back in their order, as of :func:`outcome`. It ends
            when this is closed.
    """

    pid: int
    connection: Connection[Any, Any]


class NurseryEndedError(Exception):
    """The nursery is gone: killed, or by what it was asked for.

    No ``OSError``, which what it calls may raise as well.
    """


class Nursery:
    """The process, seen from the one that started it.

    Raises:
        NurseryEndedError: It ended at once, as all that asks something of it may find out.
    """

    def __init__(self) -> None:
        self._control, theirs = Pipe()
        with theirs:
            # Behind the standard streams: where those are closed here, it would be one of them there.
            handle = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            self._process: subprocess.Popen[bytes] = start_python(
                f"from mtsft_preproc.engines.nursery import serve; serve({handle})",
                _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                pass_fds=[handle],
            )
        finally:
            os.close(handle)
        # So that it finds the classes of what it is going to be sent.
        try:
            self._send("path", [entry for entry in sys.path if entry])
        except NurseryEndedError:
            self.close()
            raise

    def load(self, modules: Sequence[str]) -> None:
        """Let it import modules; doesn't wait for that."""
        self._send("import", list(modules))

    def call(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Let it call a function that pickles; what that leaves in memory is there in all workers.

        Returns:
            What waits for the result and returns it, or raises what the function raised. It must be called
            before anything else is asked of the nursery.
        """
        self._send("call", pickle.dumps(function))
        return lambda: result_of(self._answer())

    def fork(self, task: bytes) -> Worker:
        """Fork a worker.

        Args:
            task: The pickled task; it is unpickled once for all workers in a row that get the same.

        Raises:
            OSError: There can't be another process, or another connection.
        """
        ours, theirs = Pipe()
        try:
            with theirs, self._in_step():
                self._send("fork", task)
                self._hand_over(theirs)
                answer = self._answer()
            pid: int = result_of(answer)
        except BaseException:
            ours.close()
            raise
        return Worker(pid, ours)

    def stop(self, worker: Worker) -> int:
        """End a worker, whatever it is doing, and wait for that; return its exit code as ``Popen`` does."""
        worker.connection.close()
        try:
            with self._in_step():
                self._send("stop", worker.pid)
                answer = self._answer()
        except NurseryEndedError:
            return -signal.SIGKILL  # with the nursery
        code: int = result_of(answer)
        return code

    def close(self) -> None:
        """End it, and all of its workers."""
        self._control.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """End the nursery where what is asked of it is broken off, as by Ctrl-C.

        It would wait for the rest, and whoever asked next for another's answer.
        """
        try:
            yield
        except BaseException:
            self._control.close()
            raise

    def _send(self, kind: str, content: Any) -> None:
        try:
            self._control.send((kind, content))
        except OSError as error:
            raise NurseryEndedError from error

    def _hand_over(self, connection: Connection[Any, Any]) -> None:
        try:
            send_handle(self._control, connection.fileno(), self._process.pid)
        except OSError as error:
            raise NurseryEndedError from error

    def _answer(self) -> bytes:
        try:
            return self._control.recv_bytes()
        except (EOFError, OSError) as error:
            raise NurseryEndedError from error


def outcome(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Call a function; return its result, or what it raised, pickled for :func:`result_of`."""
    try:
        return pickle.dumps((True, function(*arguments), ""))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            pickled = pickle.dumps((False, error, text))
            pickle.loads(pickled)
        except Exception:
            # An exception of somebody else's that can't travel.
            return pickle.dumps((False, WorkerError(f"{type(error).__name__}: {error}"), text))
        return pickled


def result_of(pickled: bytes) -> Any:
    """Return the result that :func:`outcome` was told, or raise what was raised there."""
    good, content, text = pickle.loads(pickled)
    if good:
        return content
    raise content from ElsewhereError(text)


class ElsewhereError(Exception):
    """Where in another process an exception was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def serve(handle: int) -> None:
    """Be the nursery: do what comes over the connection ``handle`` until it is closed."""
    # Ctrl-C reaches all processes of a terminal, and SIGTERM all of a job; the first of them says what
    # becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Workers end without emptying buffers.
    with Connection(handle) as control:
        server = _Server(control)
        try:
            while True:
                kind, content = control.recv()
                getattr(server, f"on_{kind}")(content)
        except (EOFError, OSError):
            pass
        finally:
            server.end()
    os._exit(0)  # without giving a quarter of a gigabyte back piece by piece


class _Server:
    """What the nursery does for each kind of message."""

    def __init__(self, control: Connection[Any, Any]) -> None:
        self._control = control
        self._children: set[int] = set()
        self._pickled = b""
        self._task: Callable[[Any], Any] | None = None

    def on_path(self, path: list[str]) -> None:
        sys.path[:] = path

    def on_import(self, modules: list[str]) -> None:
        # Who needs one that can't be imported finds out, and can say so.
        with contextlib.suppress(Exception):
            for module in modules:
                importlib.import_module(module)

    def on_call(self, pickled: bytes) -> None:
        self._control.send_bytes(outcome(lambda: pickle.loads(pickled)()))

    def on_fork(self, pickled: bytes) -> None:
        handle = recv_handle(self._control)
        self._control.send_bytes(outcome(self._fork, pickled, handle))
        os.close(handle)

    def _fork(self, pickled: bytes, handle: int) -> int:
        if self._task is None or pickled != self._pickled:
            self._pickled, self._task = pickled, pickle.loads(pickled)
        # What is there now is not looked at again by the collector, which would copy it page by page.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if not pid:
            self._control.close()
            _work(handle, self._task)
        self._children.add(pid)
        return pid

    def on_stop(self, pid: int) -> None:
        self._control.send_bytes(outcome(self._stop, pid))

    def _stop(self, pid: int) -> int:
        if pid not in self._children:
            return -signal.SIGKILL  # a child of the nursery before this one, which ends by itself
        # Its number can't be somebody else's meanwhile: nobody but us waits for it.
        os.kill(pid, signal.SIGKILL)
        self._children.discard(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def end(self) -> None:
        for pid in list(self._children):
            self._stop(pid)


def _work(handle: int, task: Callable[[Any], Any]) -> NoReturn:
    """Be a worker: run the task on each item, until the connection is closed."""
    code = 1
    try:
        connection: Connection[Any, Any] = Connection(handle)
        threading.Thread(target=_end_with, args=(handle,), daemon=True).start()
        while True:
            connection.send_bytes(outcome(task, connection.recv()))
    except (EOFError, OSError):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _end_with(handle: int) -> None:
    """End this process in the midst of a task when nobody waits for it any more, as after kill -9."""
    poll = select.poll()
    poll.register(handle, select.POLLHUP)
    poll.poll()
    os._exit(1)
