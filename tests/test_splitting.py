"""Which side of a split a record stands on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtsft_preproc.permutation import derive_key, uniform
from mtsft_preproc.splitting import sides

shares_of = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 1e6)), min_size=1, max_size=5
).filter(any)  # fmt: skip
seeds = st.integers(0, 2**63 - 1)
contents = hnp.arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 2**64 - 1))


def many(count: int, start: int = 0) -> npt.NDArray[np.uint64]:
    """Return numbers as evenly spread as digests are."""
    return np.random.default_rng(start).integers(0, 2**64, count, np.uint64)


@given(content=contents, shares=shares_of, seed=seeds)
def test_each_record_has_one_side_with_a_share(
    content: npt.NDArray[np.uint64], shares: list[float], seed: int
) -> None:
    found = sides(content, shares, seed)
    assert found.dtype == np.int8
    assert found.shape == content.shape
    assert all(0 <= side < len(shares) and shares[side] > 0 for side in found.tolist())


@given(content=contents, others=contents, shares=shares_of, seed=seeds, data=st.data())
def test_nothing_but_the_record_itself_counts(
    content: npt.NDArray[np.uint64],
    others: npt.NDArray[np.uint64],
    shares: list[float],
    seed: int,
    data: st.DataObject,
) -> None:
    """Not the records around it, nor their order, nor how often it stands there."""
    before = dict(zip(content.tolist(), sides(content, shares, seed).tolist(), strict=True))
    mixed = data.draw(st.permutations([*content.tolist(), *others.tolist(), *content.tolist()]))
    after = sides(np.asarray(mixed, np.uint64), shares, seed).tolist()
    for number, side in zip(mixed, after, strict=True):
        assert side == before.setdefault(number, side)


@given(content=contents, shares=shares_of, seed=seeds, power=st.integers(-8, 8))
def test_shares_are_relative(
    content: npt.NDArray[np.uint64], shares: list[float], seed: int, power: int
) -> None:
    scaled = [share * 2.0**power for share in shares]
    assert sides(content, scaled, seed).tolist() == sides(content, shares, seed).tolist()


@pytest.mark.parametrize(
    "shares", [(969, 30, 1), (1, 1), (0.7, 0.2, 0.1), (0, 1, 3), (1, 0, 1), (9, 1, 0), (1, 0, 0), (0, 0, 5)]
)
@pytest.mark.parametrize("seed", [0, 1234])
def test_shares_are_reached(shares: tuple[float, ...], seed: int) -> None:
    """Within five standard deviations of the binomial; a share of 0 or of all is met exactly."""
    count = 200_000
    reached = np.bincount(sides(many(count), shares, seed), minlength=len(shares)).tolist()
    assert sum(reached) == count
    for share, own in zip(shares, reached, strict=True):
        chance = share / sum(shares)
        assert abs(own - count * chance) <= 5 * math.sqrt(count * chance * (1 - chance))


def test_shares_that_do_not_sum_to_1_in_binary_lose_nothing() -> None:
    """0.1 ten times sums to a little less than 1."""
    shares = [0.1] * 10
    assert np.cumsum(shares)[-1] < 1
    found = sides(np.arange(100_000, dtype=np.uint64), shares, 7)
    assert set(found.tolist()) == set(range(10))


def test_another_seed_is_another_split() -> None:
    """Two seeds agree as often as chance has it: on half of the records."""
    content = many(100_000)
    one, other = (sides(content, (1, 1), seed) for seed in (1, 2))
    agree = np.count_nonzero(one == other)
    assert abs(agree - 50_000) <= 5 * math.sqrt(25_000)


def test_a_split_stays_the_same_for_ever() -> None:
    """Datasets rest on it, as on the numbers of the keyed randomness, which has its own tests."""
    content = many(200)
    numbers = uniform(derive_key(5, "split"), content).tolist()
    expected = [0 if number < 0.5 else 1 if number < 0.75 else 2 for number in numbers]
    assert set(expected) == {0, 1, 2}
    assert sides(content, (2, 1, 1), 5).tolist() == expected
