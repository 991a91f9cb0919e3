"""Samples of different lengths -> one rectangular batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

__all__ = ["collate"]


def collate(
    samples: Sequence[Mapping[str, torch.Tensor]],
    *,
    pad_id: int,
    ignore_index: int = -100,
    pad_to_multiple_of: int = 1,
) -> dict[str, torch.Tensor]:
    """Pad samples on the right to the longest of them.

    Padding has the token ``pad_id``, the label ``ignore_index`` and the attention mask 0, whatever the
    real tokens are: an end-of-sequence token that is also the padding token keeps its label.

    Args:
        samples: Each with ``input_ids``, ``labels`` and ``attention_mask``, int64, shape (T_i,).
        pad_id: Token of the padding.
        ignore_index: Label of the padding.
        pad_to_multiple_of: The padded length is the next multiple of this.

    Returns:
        The same keys, int64, shape (len(samples), T).

    Raises:
        ValueError: There are no samples, or ``pad_to_multiple_of`` is under 1.
    """
    if not samples or pad_to_multiple_of < 1:
        raise ValueError(
            f"expected samples and a multiple of at least 1, got {len(samples)} samples "
            f"and pad_to_multiple_of={pad_to_multiple_of}"
        )
    longest = max(len(sample["input_ids"]) for sample in samples)
    width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    fills = {"input_ids": pad_id, "labels": ignore_index, "attention_mask": 0}
    batch = {
        name: torch.full((len(samples), width), fill, dtype=torch.int64) for name, fill in fills.items()
    }
    for row, sample in enumerate(samples):
        for name in fills:
            batch[name][row, : len(sample[name])] = sample[name]
    return batch
