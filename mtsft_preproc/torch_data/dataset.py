"""A finished SFT dataset as a map-style PyTorch dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.torch_data.collate import collate

__all__ = ["SFTDataset"]

Sample = dict[str, torch.Tensor]


class SFTDataset(Dataset[Sample]):
    """The items of one output prefix, memory-mapped.

    Opening checks that each ``.bin`` has the size that its ``.idx`` says, that the three datasets have
    equal lengths, and both against the manifest where there is one. Pickles as its path alone, so it
    costs nothing to hand to DataLoader workers, forked or spawned.

    Args:
        prefix: What ``--output-prefix`` was.
        pad_id: Padding token for :meth:`collate`; by default the manifest's.

    Raises:
        DatasetError: Files are missing, damaged, or a mixture of two outputs.

    Example:
        ::

            dataset = SFTDataset("finetune_dataset/alpaca")
            loader = DataLoader(dataset, batch_size=8, collate_fn=dataset.collate)
    """

    def __init__(self, prefix: str | Path, *, pad_id: int | None = None) -> None:
        self.prefix = Path(prefix)
        self._given_pad_id = pad_id
        self._open()

    def _open(self) -> None:
        opened = open_published(self.prefix)
        self._fields = opened.fields
        self.manifest = opened.manifest

    @property
    def pad_id(self) -> int:
        """The padding token.

        Raises:
            DatasetError: There is no manifest to take it from, and none was given.
        """
        if self._given_pad_id is not None:
            return self._given_pad_id
        if self.manifest is None:
            raise DatasetError(f"{self.prefix}: no manifest: expected SFTDataset(prefix, pad_id=...)")
        return int(self.manifest["pad_id"])

    @property
    def ignore_index(self) -> int:
        """Label of positions that are not trained; -100 where there is no manifest."""
        return int(self.manifest["ignore_index"]) if self.manifest else -100

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """int32, shape (len(self),): tokens of each item, without touching a token."""
        return self._fields["input_ids"].lengths

    def __len__(self) -> int:
        return len(self._fields["input_ids"])

    def __iter__(self) -> Iterator[Sample]:
        return (self[at] for at in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return item ``index``: ``input_ids``, ``labels`` and ``attention_mask``, int64, shape (T,)."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return {
            field: torch.from_numpy(dataset[index].astype(np.int64))
            for field, dataset in self._fields.items()
        }

    def collate(self, samples: Sequence[Mapping[str, torch.Tensor]], pad_to_multiple_of: int = 1) -> Sample:
        """Pad samples of this dataset to one batch; see :func:`~mtsft_preproc.torch_data.collate`."""
        return collate(
            samples,
            pad_id=self.pad_id,
            ignore_index=self.ignore_index,
            pad_to_multiple_of=pad_to_multiple_of,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "pad_id": self._given_pad_id}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.prefix = state["prefix"]
        self._given_pad_id = state["pad_id"]
        self._open()
