"""What a chat template may not make: values so large that they would take all memory or time.

Jinja's sandbox keeps a template from Python's inside, and bounds ``range``; it lets ``"a" * 10**10`` pass,
which would end the process. Whatever multiplies or pads is bounded here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from jinja2.exceptions import SecurityError

__all__ = ["GROWING_METHODS", "bounded", "check_format", "power", "product"]

#: Characters or entries that one operation may make, and the largest width or count it may be given.
MOST = 1 << 24
#: Methods of text that pad it to a width.
GROWING_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
#: Bits of an integer that is a power.
_BITS = 1 << 14
_NUMBER = re.compile(r"[0-9]+")
#: A format specification that holds a field, as ``{:{width}}`` does, or ``%*d``.
_GIVEN_WIDTH = re.compile(r":[^{}]*\{|%[^a-zA-Z%]*\*")


def product(left: Any, right: Any) -> Any:
    """Return ``left * right``.

    Raises:
        SecurityError: It would be too large.
    """
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str | bytes | list | tuple) and isinstance(count, int):
            _check(len(value) * count)
    return left * right


def power(left: Any, right: Any) -> Any:
    """Return ``left ** right``.

    Raises:
        SecurityError: It would be too large.
    """
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _BITS:
        raise SecurityError(f"a power of more than {_BITS} bits")
    return left**right


def check_format(pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check the widths of a format, for ``%``, ``format`` and ``str.format``.

    Raises:
        SecurityError: What it makes could be too large.
    """
    for number in _NUMBER.findall(pattern):
        if len(number) > len(str(MOST)):
            raise SecurityError("a format with a number that is too large")
        _check(int(number))
    if _GIVEN_WIDTH.search(pattern):
        _check_numbers(args, kwargs)


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that refuses to be given too large a number."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        _check_numbers(args, kwargs)
        return function(*args, **kwargs)

    return called


def _check_numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int):
            _check(value)


def _check(size: int) -> None:
    if size > MOST:
        raise SecurityError(f"a value of {size:,} characters or entries; at most {MOST:,} are allowed")
