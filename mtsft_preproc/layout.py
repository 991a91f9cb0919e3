"""Where everything that belongs to an output prefix lies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mtsft_preproc.indexed import bin_path, idx_path

__all__ = ["OutputPaths", "is_ours"]

_SIDECARS = (".manifest.json", ".rejected.jsonl", ".sources.parquet", ".timings.json")
_SCRATCH = (".mtsft-work", ".mtsft-done", ".mtsft-lock")
#: Bytes that a name may have; the least that file systems allow.
_LONGEST = 255


def is_ours(name: str) -> bool:
    """Return whether a file or folder of that name belongs to an output, and is no input."""
    return name.endswith((*_SIDECARS, *_SCRATCH))


def _is_file_name(text: str) -> bool:
    """Return whether a file system takes a name: it can be encoded, and is not too long."""
    try:
        return len(os.fsencode(text)) <= _LONGEST
    except UnicodeEncodeError:
        return False


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
        #: Beside the others, but not named in the manifest: no two runs have the same.
        self.timings = self._beside(".timings.json")
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
        self.lock = self._beside(".mtsft-lock")

    def _beside(self, suffix: str) -> Path:
        return self.prefix.with_name(self.prefix.name + suffix)

    def owns(self, name: object) -> bool:
        """Return whether what stands in a file as a name may be that of a file of this output.

        It is a plain name in the folder of the output that begins with this prefix or a side's, so nothing
        that a damaged or forged manifest says makes a run touch what is not its own.
        """
        return (
            isinstance(name, str)
            and name.startswith((f"{self.prefix.name}.", f"{self.prefix.name}_"))
            and not {"/", "\0"} & set(name)
            and not name.endswith(_SCRATCH)
            and _is_file_name(name)
        )

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
