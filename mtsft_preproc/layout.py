"""Where everything that belongs to an output prefix lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mtsft_preproc.indexed import bin_path, idx_path

__all__ = ["OutputPaths", "is_ours"]

_SIDECARS = (".manifest.json", ".rejected.jsonl", ".sources.parquet")
_SCRATCH = (".mtsft-work", ".mtsft-done", ".mtsft-lock")


def is_ours(name: str) -> bool:
    """Return whether a file or folder of that name belongs to an output, and is no input."""
    return name.endswith((*_SIDECARS, *_SCRATCH))


class OutputPaths:
    """The paths of one output.

    Args:
        prefix: The output prefix.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.folder = prefix.parent
        self.manifest = self._beside(".manifest.json")
        self.rejected = self._beside(".rejected.jsonl")
        self.sources = self._beside(".sources.parquet")
        #: Parts and staged files of a run that is not finished.
        self.work = self._beside(".mtsft-work")
        #: What is left of it behind a publication.
        self.done = self._beside(".mtsft-done")
        self.parts = self.work / "parts"
        self.survey = self.work / "survey"
        self.gathered = self.work / "gathered"
        self.staging = self.work / "staging"
        self.plan = self.work / "plan.json"
        self.commit = self.work / "commit.json"

    def _beside(self, suffix: str) -> Path:
        return self.prefix.with_name(self.prefix.name + suffix)

    def side(self, name: str) -> OutputPaths:
        """Return the paths of a side of the split, ``PREFIX_train``; those of the output for ``""``."""
        return self if not name else OutputPaths(self._beside(f"_{name}"))

    def dataset(self, name: str) -> Path:
        """Return the path, without suffix, of a ``.bin``/``.idx`` pair: ``packed_input_ids``."""
        return self._beside(f"_{name}_document")

    def existing(self, names: Iterable[str]) -> list[Path]:
        """Return those files of a finished output with datasets of these names that are there."""
        prefixes = [self.dataset(name) for name in names]
        files = [path(prefix) for prefix in prefixes for path in (bin_path, idx_path)]
        return [path for path in (*files, self.manifest) if path.exists()]
