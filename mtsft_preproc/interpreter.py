"""Starts processes of our own that know nothing of the one that starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["start_python"]

#: Without the current folder on the path: what lies there is data, not code.
_CLEAN = "import sys; sys.path[:] = [entry for entry in sys.path if entry]\n"


def start_python(code: str, environment: dict[str, str] | None = None, **options: Any) -> Any:
    """Start an interpreter that can import this package and runs ``code``.

    Args:
        code: Python.
        environment: Variables that it has besides those of this process.
        options: For :class:`subprocess.Popen`.

    Returns:
        The ``Popen``.
    """
    home = str(Path(__file__).parents[1])
    search = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", _CLEAN + code],
        env={**os.environ, "PYTHONPATH": search, **(environment or {})},
        **options,
    )
