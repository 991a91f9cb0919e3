"""Which items a step is dealt: the definition, counted by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc import dealing
from mtsft_preproc.dealing import items_of_step, steps_of_epoch
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.permutation import KeyedPermutation, derive_key


def test_steps_take_places_one_behind_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = {0: [3, 1, 4, 0, 2, 6, 5], 1: [6, 5, 4, 3, 2, 1, 0]}

    def order(items: int, seed: int, epoch: int) -> object:
        assert (items, seed) == (7, 11)
        return lambda places: np.asarray(orders[epoch])[places]

    monkeypatch.setattr(dealing, "epoch_order", order)

    def dealt(step: int, tail: str) -> tuple[int, list[int]]:
        epoch, items = items_of_step(7, 3, 11, step, tail)
        return epoch, items.tolist()

    # 7 = 3 + 3 + 1: the last place is left out, or makes a step of its own.
    assert [dealt(step, "drop") for step in (1, 2, 3, 4)] == [
        (0, [3, 1, 4]), (0, [0, 2, 6]), (1, [6, 5, 4]), (1, [3, 2, 1]),
    ]  # fmt: skip
    assert [dealt(step, "pad") for step in (1, 2, 3, 4, 6)] == [
        (0, [3, 1, 4]), (0, [0, 2, 6]), (0, [5]), (1, [6, 5, 4]), (1, [0]),
    ]  # fmt: skip


def test_an_epoch_is_the_shuffle_of_its_key() -> None:
    for epoch in range(3):
        shuffle = KeyedPermutation(10, derive_key(7, "epoch", str(epoch)))(np.arange(10)).tolist()
        steps = [items_of_step(10, 5, 7, 2 * epoch + place).items.tolist() for place in (1, 2)]
        assert steps[0] + steps[1] == shuffle


def test_the_definition_stays() -> None:
    """What trainings were dealt with an earlier version must be told right by all later ones."""
    assert items_of_step(10, 4, 1234, 1).items.tolist() == [7, 8, 2, 3]
    assert items_of_step(10, 4, 1234, 3).items.tolist() == [2, 1, 7, 6]
    assert items_of_step(10**9, 4, 5, 10**9, "pad").items.tolist() == [
        790705265,
        619681605,
        465750264,
        317690177,
    ]


@given(
    st.integers(1, 60), st.integers(1, 70), st.integers(-(2**70), 2**70), st.sampled_from(["drop", "pad"])
)
def test_every_item_once_in_an_epoch(items: int, batch: int, seed: int, tail: str) -> None:
    if tail == "drop" and batch > items:
        with pytest.raises(SettingsError, match="--global-batch-size"):
            items_of_step(items, batch, seed, 1, tail)
        return
    steps = steps_of_epoch(items, batch, tail)
    for epoch in (0, 1, 5):
        found = [
            items_of_step(items, batch, seed, epoch * steps + step, tail) for step in range(1, steps + 1)
        ]
        assert {own.epoch for own in found} == {epoch}
        sizes = [len(own.items) for own in found]
        assert sizes[:-1] == [batch] * (steps - 1)
        assert sizes[-1] == (batch if tail == "drop" or items % batch == 0 else items % batch)
        dealt = np.concatenate([own.items for own in found]).tolist()
        assert len(set(dealt)) == len(dealt) == (items - items % batch if tail == "drop" else items)
        assert set(dealt) <= set(range(items))


def test_epochs_and_seeds_differ() -> None:
    firsts = {
        tuple(items_of_step(1000, 1000, seed, step).items[:8]) for seed in (1, 2) for step in (1, 2, 3)
    }
    assert len(firsts) == 6


def test_memory_is_that_of_the_batch() -> None:
    tracemalloc.start()
    items = items_of_step(10**9, 4096, 1, 123_456).items
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(items.tolist())) == 4096
    assert items.dtype == np.int64
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((10, 4, 1, 0), "--step: expected at least 1"),
        ((10, 11, 1, 1), "11 is more than the 10 items"),
        ((10, 0, 1, 1), "--global-batch-size: expected at least 1"),
        ((0, 4, 1, 1, "pad"), "without items"),
        ((10, 4, 1, 1, "keep"), "--epoch-tail: expected drop or pad, got 'keep'"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[int, ...], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        items_of_step(*arguments)  # type: ignore[arg-type]
