"""Collects the tokens of samples into the columns of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.text_forms.passages import Owner
from mtsft_preproc.templates.token_batch import WHOLE, TokenBatch

__all__ = ["Tokens"]


class Tokens:
    """The tokens of samples, one behind the other."""

    def __init__(self) -> None:
        self._ids: list[npt.NDArray[Any]] = [np.zeros(0, np.int32)]
        self._kinds: list[npt.NDArray[Any]] = [np.zeros(0, np.uint8)]
        self._messages: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
        self._length = 0
        self._trained: list[bool] = []
        self._ends: list[int] = []
        self._dialogues: list[int] = []
        self._late: list[int] = []

    def add(self, ids: Sequence[int] | npt.NDArray[np.int32], owner: Owner, late: bool = False) -> None:
        """Append tokens of one owner; ``late`` marks the first of them as a late stop."""
        if not len(ids):
            return
        if late:
            self._late.append(self._length)
        count = len(ids)
        self.add_owned(
            np.asarray(ids, np.int32), np.full(count, owner.kind), np.full(count, owner.message, np.int64)
        )

    def add_owned(
        self, ids: npt.NDArray[np.int32], kinds: npt.NDArray[Any], messages: npt.NDArray[np.int64]
    ) -> None:
        """Append tokens, with the kind and the message of each."""
        self._ids.append(ids)
        self._kinds.append(kinds.astype(np.uint8, copy=False))
        self._messages.append(messages + len(self._trained))
        self._length += len(ids)

    def end_sample(self, dialogue: int, trained: Sequence[bool]) -> None:
        """Close a sample: the tokens since the last call are its; ``trained`` has an entry per message."""
        self._trained.extend(trained)
        self._ends.append(self._length)
        self._dialogues.append(dialogue)

    def batch(self, failed: dict[int, RecordError], notes: list[list[str]]) -> TokenBatch:
        """Return the samples."""
        return TokenBatch(
            ids=np.concatenate(self._ids),
            kinds=np.concatenate(self._kinds),
            messages=np.concatenate(self._messages),
            trained=np.asarray(self._trained, bool),
            sample_ends=np.asarray(self._ends, np.int64),
            dialogues=np.asarray(self._dialogues, np.int64),
            turns=np.full(len(self._ends), WHOLE, np.int32),
            late_stops=np.asarray(self._late, np.int64),
            failed=failed,
            notes=notes,
        )
