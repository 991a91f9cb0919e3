"""An argument parser whose errors are one line that helps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mtsft_preproc.registry import nearest

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and names the nearest ones for a flag that doesn't exist."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse; an unknown flag is answered with the nearest that exist."""
        found, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for flag in self._known_flags(found) if flag.startswith("--")]
            hint = nearest(unknown[0].partition("=")[0], flags).partition("available")[0]
            self.error(f"unknown argument {unknown[0]!r}; {hint}".rstrip("; "))
        return found

    def _known_flags(self, found: argparse.Namespace) -> list[str]:
        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers.append(action.choices[found.command])
        return [flag for parser in parsers for flag in parser._option_string_actions]
