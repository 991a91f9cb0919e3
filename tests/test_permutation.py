"""Keyed randomness, against the same arithmetic in Python's own integers, and by its statistics."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtsft_preproc.permutation import KeyedPermutation, derive_key, keyed_uint64, uniform

M64 = 2**64
GOLDEN = 0x9E3779B97F4A7C15
KEYS = st.integers(0, M64 - 1)


def mix(number: int, finish: bool = True) -> int:
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) % M64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) % M64
    return number ^ (number >> 31) if finish else number


def plain_uint64(key: int, index: int) -> int:
    return mix((mix((index * GOLDEN + key) % M64) + mix(M64 - 1 - key)) % M64)


def plain_permutation(size: int, key: int, position: int) -> int:
    """Permute one position, by the description in KeyedPermutation."""
    half = 2
    while 4**half < size:
        half += 1
    while True:
        left, right = divmod(position, 2**half)
        for turn in range(12):
            changed = left ^ (mix((right + plain_uint64(key, turn)) % M64) >> (64 - half))
            left, right = right, changed
        position = left * 2**half + right
        if position < size:
            break
    if position < 2 <= size:
        position ^= plain_uint64(key, 12) >> 63
    return position


def chi_square(counts: list[int] | np.ndarray, cells: int) -> float:
    """Return how many standard deviations the chi-square of equal chances is off (positive: uneven)."""
    values = np.zeros(cells)
    values[: len(counts)] = counts
    expected = values.sum() / cells
    return float((((values - expected) ** 2).sum() / expected - (cells - 1)) / np.sqrt(2 * (cells - 1)))


def test_the_key_is_that_of_the_canonical_text() -> None:
    text = '[1234, "shuffle", "tr\\u00e4in"]'
    assert json.loads(text) == [1234, "shuffle", "träin"]
    expected = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    assert derive_key(1234, "shuffle", "träin") == expected
    assert derive_key(1234, "shuffle") == 0x5E55C2EBD48A61CA
    uses = [(), ("",), ("", ""), ("ab", "c"), ("a", "bc"), ("abc",), ('a", "bc',)]
    keys = {derive_key(seed, *names) for seed in (-1, 0, 1, 2**70) for names in uses}
    assert len(keys) == 4 * len(uses)


def test_splitmix64_is_the_published_one() -> None:
    # The first outputs of splitmix64 seeded with 1234567, as Rosetta Code and the JDK give them.
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix((1234567 + GOLDEN * turn) % M64) for turn in (1, 2, 3)] == outputs


@given(key=KEYS, index=st.lists(st.integers(0, M64 - 1), max_size=5))
@example(key=0, index=[0, 1, M64 - 1])
@example(key=M64 - 1, index=[0, M64 - 1])
def test_numbers_are_those_of_plain_integers(key: int, index: list[int]) -> None:
    given_index = np.array(index, dtype=np.uint64)
    numbers = keyed_uint64(key, given_index)
    assert numbers.dtype == np.uint64
    assert numbers.tolist() == [plain_uint64(key, i) for i in index]
    assert given_index.tolist() == index
    reals = uniform(key, given_index)
    assert reals.dtype == np.float64
    assert reals.tolist() == [(plain_uint64(key, i) // 2**11) / 2**53 for i in index]


def test_numbers_that_must_never_change() -> None:
    expected = [plain_uint64(42, index) for index in range(3)]
    assert (
        keyed_uint64(42, np.arange(3)).tolist()
        == expected
        == [7125663039125914383, 1980448008946354476, 8152083839205125718]
    )


def test_any_shape_and_kind_of_integer() -> None:
    assert keyed_uint64(7, [[1, 2], [3, -1]]).tolist() == [
        [plain_uint64(7, 1), plain_uint64(7, 2)],
        [plain_uint64(7, 3), plain_uint64(7, M64 - 1)],
    ]
    assert int(keyed_uint64(7, 5)) == plain_uint64(7, 5)
    assert keyed_uint64(7, np.int8([5])).tolist() == [plain_uint64(7, 5)]
    assert keyed_uint64(7, []).shape == (0,)
    assert float(uniform(7, 5)) == uniform(7, [5])[0]
    assert int(KeyedPermutation(9, 7)(5)) == plain_permutation(9, 7, 5)


def test_numbers_look_random() -> None:
    index = np.arange(1 << 16)
    for key in (0, 1, 2, GOLDEN, derive_key(0, "mix")):
        reals = uniform(key, index)
        assert 0 <= reals.min() < reals.max() < 1
        assert abs(chi_square(np.bincount((reals * 256).astype(int)), 256)) < 5
        # Neighbours, in index and in key, have nothing to do with each other (deviation 1/256).
        for other in (reals[1:], uniform(key + 1, index)[:-1], uniform((key + GOLDEN) % M64, index)[:-1]):
            assert abs(np.corrcoef(reals[:-1], other)[0, 1]) < 5 / 256
        # Every bit is set in half of the numbers (deviation 128).
        bits = np.unpackbits(keyed_uint64(key, index).view(np.uint8)).reshape(len(index), 64).sum(0)
        assert abs(bits.astype(int) - (1 << 15)).max() < 5 * 128


def test_a_shifted_key_is_no_shifted_sequence() -> None:
    first = keyed_uint64(5, np.arange(1000))
    second = keyed_uint64((5 + GOLDEN) % M64, np.arange(1000))
    assert not np.intersect1d(first, second).size


@settings(max_examples=50)
@given(size=st.integers(0, 5000), key=KEYS)
@example(size=0, key=1)
@example(size=1, key=1)
@example(size=2, key=1)
@example(size=3, key=1)
@example(size=4096, key=1)
@example(size=4097, key=1)
def test_it_is_a_bijection_with_its_inverse(size: int, key: int) -> None:
    permutation = KeyedPermutation(size, key)
    positions = np.arange(size)
    values = permutation(positions)
    assert values.dtype == np.int64
    assert np.array_equal(np.sort(values), positions)
    assert np.array_equal(permutation.inverse(values), positions)
    assert np.array_equal(permutation(permutation.inverse(positions)), positions)


@settings(max_examples=50)
@given(size=st.integers(1, 2**62), key=KEYS, data=st.data())
@example(size=2**40, key=1, data=None)
@example(size=2**62, key=1, data=None)
def test_large_sizes(size: int, key: int, data: st.DataObject | None) -> None:
    drawn = data.draw(st.lists(st.integers(0, size - 1), max_size=5)) if data else []
    positions = [0, size - 1, *drawn]
    permutation = KeyedPermutation(size, key)
    values = permutation(positions)
    assert values.tolist() == [plain_permutation(size, key, position) for position in positions]
    assert permutation.inverse(values).tolist() == positions


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 100])
def test_small_sizes_are_those_of_plain_integers(size: int) -> None:
    for key in (0, 1, 2**63, M64 - 1):
        expected = [plain_permutation(size, key, position) for position in range(size)]
        assert KeyedPermutation(size, key)(range(size)).tolist() == expected


def test_shuffles_that_must_never_change() -> None:
    assert KeyedPermutation(10, 2024)(range(10)).tolist() == [3, 5, 4, 7, 8, 0, 2, 9, 1, 6]
    assert KeyedPermutation(2**40, 2024)([0, 1, 2**40 - 1]).tolist() == [
        999264916951,
        355701307210,
        417624882778,
    ]


def test_a_batch_gives_what_the_whole_gives() -> None:
    permutation = KeyedPermutation(1000, 3)
    whole = permutation(np.arange(1000))
    batches = [permutation(np.arange(start, min(start + 64, 1000))) for start in range(0, 1000, 64)]
    assert np.array_equal(np.concatenate(batches), whole)
    assert np.array_equal(permutation(np.arange(1000).reshape(10, 100)), whole.reshape(10, 100))
    assert np.array_equal(permutation(np.arange(1000, dtype=np.uint16)[::-1]), whole[::-1])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_shuffles_come_up_equally_often(size: int) -> None:
    shuffles = list(itertools.permutations(range(size)))
    keys = 100 * len(shuffles)
    counts = Counter(tuple(KeyedPermutation(size, key)(range(size)).tolist()) for key in range(keys))
    assert set(counts) == set(shuffles)
    assert chi_square(list(counts.values()), len(shuffles)) < 5


@pytest.mark.parametrize("size", [7, 16, 33])
def test_every_place_is_as_likely_for_every_position(size: int) -> None:
    values = np.stack([KeyedPermutation(size, key)(np.arange(size)) for key in range(2000)])
    for position in range(size):
        assert chi_square(np.bincount(values[:, position]), size) < 5
    for first, second in [(0, 1), (0, size - 1), (size - 2, size - 1)]:
        pairs = values[:, first] * size + values[:, second]
        assert chi_square(np.unique(pairs, return_counts=True)[1], size * (size - 1)) < 5


@pytest.mark.parametrize("size", [1 << 16, 100_000])
def test_a_large_shuffle_looks_random(size: int) -> None:
    values = KeyedPermutation(size, derive_key(9, "shuffle"))(np.arange(size))
    limit = 5 / np.sqrt(size)
    for lag in (1, 2, 16, 256):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < limit
    assert abs(np.corrcoef(values, np.arange(size))[0, 1]) < limit
    # Differences of neighbours, position by value in a grid of 32 by 32, and fixed points (1 on average).
    assert len(np.unique(np.diff(values))) > 0.5 * size
    grid = np.histogram2d(np.arange(size), values, bins=32)[0]
    assert chi_square(grid.ravel(), 1024) < 5
    assert (values == np.arange(size)).sum() < 10


def test_keys_give_shuffles_that_have_nothing_in_common() -> None:
    one, two = (KeyedPermutation(10_000, key)(np.arange(10_000)) for key in (1, 2))
    assert (one == two).sum() < 10
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("size", "positions", "message"),
    [
        (5, [0, 5], "0 <= position < 5, got 5"),
        (5, [-1], "0 <= position < 5, got -1"),
        (0, [0], "0 <= position < 0, got 0"),
        (5, np.array([M64 - 1], np.uint64), f"got {M64 - 1}"),
        (5, [1.0], "expected integers, got float64"),
        (5, [True], "expected integers, got bool"),
    ],
)
def test_wrong_positions_are_refused(size: int, positions: list[int], message: str) -> None:
    permutation = KeyedPermutation(size, 1)
    with pytest.raises(ValueError, match=message):
        permutation(positions)
    with pytest.raises(ValueError, match=message):
        permutation.inverse(positions)


def test_wrong_sizes_and_keys_are_refused() -> None:
    for size in (-1, 2**62 + 1):
        with pytest.raises(ValueError, match="size"):
            KeyedPermutation(size, 1)
    for key in (-1, M64):
        with pytest.raises(ValueError, match="key"):
            KeyedPermutation(5, key)
        with pytest.raises(ValueError, match="key"):
            uniform(key, [1])
    with pytest.raises(ValueError, match="expected integers"):
        keyed_uint64(1, [0.5])
