"""Which items a training step is dealt: a function of (seed, step), so that it can be told afterwards.

The definition, on which samplers and ``mtsft trace --step`` rest; it stays the same for all versions:

- Epochs count from 0. Epoch ``e`` of ``n`` items is the shuffle
  ``KeyedPermutation(n, derive_key(seed, "epoch", str(e)))``: its place ``p`` holds the item
  ``permutation(p)``, for ``p`` from 0 to ``n - 1``.
- Steps count from 1, as trainers log them, and go on counting over the epochs. A step takes the next ``B``
  places of its epoch, ``B`` being the global batch size: all items of one step of the optimizer, over all
  ranks and micro-batches, in this order.
- With the tail ``drop`` an epoch has ``n // B`` steps, and its last ``n % B`` places are not dealt. With
  ``pad`` it has ``ceil(n / B)`` steps, of which the last one may have fewer than ``B`` items. (A sampler
  fills that up to equal shares per rank; what it fills up with is no item of the step.)

Nothing is kept between steps: a step costs memory of the size of its batch, however many items there are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.permutation import KeyedPermutation, derive_key

__all__ = ["TAILS", "Dealt", "epoch_order", "items_of_step", "steps_of_epoch"]

#: What becomes of the last places of an epoch that don't fill a batch.
TAILS = ("drop", "pad")


class Dealt(NamedTuple):
    """What a step is dealt.

    Attributes:
        epoch: Number of the epoch, from 0.
        items: int64, shape (B,): numbers of the items, in their order; fewer in the last step of an epoch
            whose tail is ``pad``.
    """

    epoch: int
    items: npt.NDArray[np.int64]


def epoch_order(items: int, seed: int, epoch: int) -> KeyedPermutation:
    """Return the order of an epoch: called with places, it gives the items there.

    Args:
        items: How many items the dataset has.
        seed: The seed of the training run; any integer.
        epoch: Number of the epoch, from 0.
    """
    return KeyedPermutation(items, derive_key(seed, "epoch", str(epoch)))


def steps_of_epoch(items: int, batch: int, tail: str = "drop") -> int:
    """Return how many steps an epoch has.

    Args:
        items: How many items the dataset has.
        batch: The global batch size.
        tail: One of :data:`TAILS`.

    Raises:
        SettingsError: There is no item, a batch is larger than what is dropped for it, or an argument is
            none of the right ones.
    """
    if tail not in TAILS:
        raise SettingsError(f"--epoch-tail: expected {' or '.join(TAILS)}, got {tail!r}")
    if batch < 1:
        raise SettingsError(f"--global-batch-size: expected at least 1, got {batch}")
    if items < 1:
        raise SettingsError("a dataset without items has no steps")
    if tail == "drop" and batch > items:
        raise SettingsError(
            f"--global-batch-size: {batch} is more than the {items} items of the dataset, so that with "
            "--epoch-tail drop there is no step at all; expected a smaller one, or --epoch-tail pad"
        )
    return items // batch if tail == "drop" else -(-items // batch)


def items_of_step(items: int, batch: int, seed: int, step: int, tail: str = "drop") -> Dealt:
    """Return which items a step is dealt.

    Args:
        items: How many items the dataset has.
        batch: The global batch size.
        seed: The seed of the training run; any integer.
        step: Number of the step, from 1.
        tail: One of :data:`TAILS`.

    Raises:
        SettingsError: As :func:`steps_of_epoch`; or ``step`` is less than 1.

    >>> items_of_step(10, batch=4, seed=1234, step=3)  # two steps an epoch: the first of the second one
    Dealt(epoch=1, items=array([2, 1, 7, 6]))
    """
    steps = steps_of_epoch(items, batch, tail)
    if step < 1:
        raise SettingsError(f"--step: expected at least 1, as steps count from 1, got {step}")
    epoch, place = divmod(step - 1, steps)
    places = np.arange(place * batch, min((place + 1) * batch, items), dtype=np.int64)
    return Dealt(epoch, epoch_order(items, seed, epoch)(places))
