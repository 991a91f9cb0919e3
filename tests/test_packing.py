"""Packing, against best-fit decreasing one sample at a time, greedy knapsack, and the best there is."""

from __future__ import annotations

import bisect
import math
import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtsft_preproc.packing import Packing, aligned, best_fit, chunks, offsets_in_items, order_by_item, pack

Contents = list[tuple[int, ...]]


def array(lengths: list[int]) -> np.ndarray:
    return np.array(lengths, dtype=np.int32)


def best_fit_decreasing(lengths: list[int], capacity: int) -> Contents:
    """Place samples one by one into the tightest bin; of equals, into that which has been so longest."""
    bins: list[list[int]] = []
    state: list[tuple[int, int, int]] = []  # room, time since when, bin
    for time, length in enumerate(sorted(lengths, reverse=True)):
        fitting = [entry for entry in state if entry[0] >= length]
        if fitting:
            chosen = min(fitting)
            state.remove(chosen)
            room, _, place = chosen
        else:
            room, place = capacity, len(bins)
            bins.append([])
        bins[place].append(length)
        state.append((room - length, time, place))
    return sorted(tuple(sorted(content)) for content in bins)


def greedy_knapsack(lengths: list[int], capacity: int) -> Contents:
    """Fill one bin after another, always with the longest that fits into the rest of it."""
    left = sorted(lengths)
    bins: list[list[int]] = []
    while left:
        bins.append([])
        room = capacity
        while place := bisect.bisect_right(left, room):
            bins[-1].append(left.pop(place - 1))
            room -= bins[-1][-1]
    return sorted(tuple(sorted(content)) for content in bins)


def better_of_two(lengths: list[int], capacity: int) -> Contents:
    one, two = best_fit_decreasing(lengths, capacity), greedy_knapsack(lengths, capacity)
    return two if len(two) < len(one) else one


def fewest_items(lengths: list[int], capacity: int) -> int:
    """Try all packings: for each set of samples the fewest items, and the least in the last of them."""
    best = [(0, capacity)] + [(len(lengths) + 1, 0)] * (2 ** len(lengths) - 1)
    for chosen in range(1, 2 ** len(lengths)):
        for sample, length in enumerate(lengths):
            if chosen >> sample & 1:
                count, used = best[chosen ^ 1 << sample]
                fits = used + length <= capacity
                best[chosen] = min(best[chosen], (count, used + length) if fits else (count + 1, length))
    return best[-1][0]


def contents(lengths: list[int], packed: Packing) -> Contents:
    bins: dict[int, list[int]] = defaultdict(list)
    for length, item in zip(lengths, packed.items.tolist(), strict=True):
        bins[item].append(length)
    assert sorted(bins) == list(range(packed.count))
    return sorted(tuple(sorted(content)) for content in bins.values())


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int]:
    """Draw lengths, from few or many values, and a capacity."""
    capacity = draw(st.integers(1, 40) | st.sampled_from([511, 512, 513, 4096]))
    values = st.integers(1, capacity)
    if draw(st.booleans()):
        values = st.sampled_from(draw(st.lists(values, min_size=1, max_size=4)))
    return draw(st.lists(values, max_size=60)), capacity


@settings(max_examples=300)
@given(case=cases())
@example(case=([], 8))
@example(case=([8], 8))
@example(case=([1] * 50, 8))
@example(case=([5] * 50, 8))
@example(case=([20, 11, 11, 7, 4, 4, 3], 30))
def test_it_is_best_fit_decreasing_or_what_needs_fewer(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    packed = pack(array(lengths), capacity)
    assert packed.items.dtype == np.int32
    assert packed.items.shape == (len(lengths),)
    found = contents(lengths, packed)
    assert found == better_of_two(lengths, capacity)
    assert all(sum(content) <= capacity for content in found)


@pytest.mark.parametrize("capacity", [700, 4096, 131072])
def test_it_is_best_fit_decreasing_at_size(capacity: int) -> None:
    lengths = log_normal(3000, capacity, seed=capacity)
    if capacity > 4096:
        lengths = np.maximum(lengths, lengths**2 % capacity).astype(np.int32)
    packed = pack(lengths, capacity)
    assert contents(lengths.tolist(), packed) == better_of_two(lengths.tolist(), capacity)


@given(case=cases(), window=st.integers(1, 20))
def test_items_are_numbered_by_their_lowest_sample(case: tuple[list[int], int], window: int) -> None:
    lengths, capacity = case
    for packed in (pack(array(lengths), capacity), pack(array(lengths), capacity, window)):
        seen = list(dict.fromkeys(packed.items.tolist()))
        assert seen == list(range(packed.count))


@given(case=cases(), window=st.integers(1, 70))
def test_a_window_is_packed_for_itself(case: tuple[list[int], int], window: int) -> None:
    lengths, capacity = case
    packed = pack(array(lengths), capacity, window)
    expected: list[int] = []
    count = 0
    for start in range(0, len(lengths), window):
        alone = pack(array(lengths[start : start + window]), capacity)
        expected += (alone.items + count).tolist()
        count += alone.count
    assert packed.items.tolist() == expected
    assert packed.count == count


@given(case=cases(), chunk=st.integers(1, 9), window=st.none() | st.integers(1, 70))
def test_no_result_depends_on_the_chunk(
    case: tuple[list[int], int], chunk: int, window: int | None
) -> None:
    lengths, capacity = array(case[0]), case[1]
    packed = pack(lengths, capacity, window)
    order, first = order_by_item(packed.items, packed.count)
    offsets = offsets_in_items(lengths, order, first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", chunk)
        again = pack(lengths, capacity, window)
        order_again, first_again = order_by_item(packed.items, packed.count)
        offsets_again = offsets_in_items(lengths, order, first)
    assert again.count == packed.count
    assert np.array_equal(again.items, packed.items)
    assert np.array_equal(order_again, order)
    assert np.array_equal(first_again, first)
    assert np.array_equal(offsets_again, offsets)


@given(case=cases())
def test_order_and_offsets(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    packed = pack(array(lengths), capacity)
    order, first = order_by_item(packed.items, packed.count)
    offsets = offsets_in_items(array(lengths), order, first)
    assert (order.dtype, first.dtype, offsets.dtype) == (np.int32, np.int64, np.int32)
    items = packed.items.tolist()
    assert order.tolist() == sorted(range(len(items)), key=lambda sample: (items[sample], sample))
    assert first.tolist() == [sum(item < bound for item in items) for bound in range(packed.count + 1)]
    for sample, item in enumerate(items):
        before = [lengths[other] for other in range(sample) if items[other] == item]
        assert offsets[sample] == sum(before)


def test_by_hand() -> None:
    # 7 | 5 | 5 joins 5 | 3 joins 7, being the tighter | 3 opens the third, which 2 joins.
    lengths = array([5, 3, 7, 5, 2, 3])
    packed = pack(lengths, 10)
    assert packed.items.tolist() == [0, 1, 1, 0, 2, 2]
    assert packed.count == 3
    order, first = order_by_item(packed.items, packed.count)
    assert order.tolist() == [0, 3, 1, 2, 4, 5]
    assert first.tolist() == [0, 2, 4, 6]
    assert offsets_in_items(lengths, order, first).tolist() == [0, 0, 3, 5, 0, 2]


def test_windows_by_hand() -> None:
    packed = pack(array([5, 3, 7, 5, 2, 3]), 10, window=4)
    # [5, 3, 7, 5] -> 7 + 3, 5 + 5; [2, 3] -> one item.
    assert packed.items.tolist() == [0, 1, 1, 0, 2, 2]
    assert pack(array([5, 3, 7, 5, 2, 3]), 10, window=2).items.tolist() == [0, 0, 1, 2, 3, 3]
    assert pack(array([5, 5, 5, 5]), 10, window=1).items.tolist() == [0, 1, 2, 3]


def test_samples_of_equal_length_go_in_their_order() -> None:
    assert pack(array([4, 4, 4, 4, 4, 4, 4]), 10).items.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert pack(array([2, 8, 2, 8, 2]), 10).items.tolist() == [0, 0, 1, 1, 2]


def test_a_full_item_and_a_single_one() -> None:
    assert pack(array([10, 10]), 10).items.tolist() == [0, 1]
    assert pack(array([1]), 1).items.tolist() == [0]
    assert pack(array([1]), 2**31 - 1).items.tolist() == [0]


def test_nothing_to_pack() -> None:
    for window in (None, 5):
        packed = pack(array([]), 10, window)
        assert packed.count == 0
        assert packed.items.tolist() == []
    order, first = order_by_item(packed.items, 0)
    assert (order.tolist(), first.tolist()) == ([], [0])
    assert offsets_in_items(array([]), order, first).tolist() == []


def test_items_without_samples_are_ordered_too() -> None:
    order, first = order_by_item(array([3, 1, 3]), 5)
    assert order.tolist() == [1, 0, 2]
    assert first.tolist() == [0, 0, 1, 1, 3, 3]
    assert offsets_in_items(array([4, 5, 6]), order, first).tolist() == [0, 0, 4]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 11, 12], "sample 1: expected a length of 1 to 10, got 11"),
        ([3, 3, 0], "sample 2: expected a length of 1 to 10, got 0"),
        ([-1], "sample 0: expected a length of 1 to 10, got -1"),
    ],
)
@pytest.mark.parametrize("window", [None, 1, 2])
def test_a_wrong_length_is_an_error(lengths: list[int], message: str, window: int | None) -> None:
    with pytest.raises(ValueError, match=message):
        pack(array(lengths), 10, window)


@pytest.mark.parametrize(("capacity", "window"), [(0, None), (-1, None), (10, 0), (10, -1)])
def test_a_wrong_capacity_or_window_is_an_error(capacity: int, window: int | None) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pack(array([1]), capacity, window)


@given(lengths=st.lists(st.integers(0, 2**31 - 2**16), max_size=20), multiple=st.integers(1, 2**16))
def test_aligned_lengths_are_rounded_up(lengths: list[int], multiple: int) -> None:
    before = array(lengths)
    rounded = aligned(before, multiple)
    assert rounded.dtype == np.int32
    assert rounded.tolist() == [math.ceil(length / multiple) * multiple for length in lengths]
    assert before.tolist() == lengths


def test_alignment_that_int32_cannot_hold_is_an_error() -> None:
    assert aligned(array([2**31 - 8]), 8).tolist() == [2**31 - 8]
    with pytest.raises(ValueError, match=r"length 2147483647 can't be rounded up to a multiple of 8"):
        aligned(array([2**31 - 1]), 8)
    with pytest.raises(ValueError, match="multiple: expected at least 1, got 0"):
        aligned(array([1]), 0)


@settings(max_examples=60)
@given(st.integers(4, 30).flatmap(lambda c: st.tuples(st.lists(st.integers(1, c), max_size=8), st.just(c))))
def test_items_are_close_to_the_fewest_there_can_be(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    count = pack(array(lengths), capacity).count
    fewest = fewest_items(lengths, capacity)
    assert fewest <= count <= 11 / 9 * fewest + 6 / 9  # Johnson 1973, Dosa 2007
    # Whatever fits into an open item opens no new one: all items but one are more than half full.
    assert count <= 1 or 2 * sum(lengths) > capacity * (count - 1)


def log_normal(size: int, capacity: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).lognormal(5.45, 0.9, size)
    return np.clip(drawn, 1, capacity).astype(np.int32)


def like_alpaca(size: int, capacity: int, seed: int) -> np.ndarray:
    """Draw lengths like those of Alpaca: a system text of 30, a short instruction, answers of two kinds."""
    rng = np.random.default_rng(seed)
    short = rng.poisson(12, size) + 4
    answer = np.where(rng.random(size) < 0.35, rng.geometric(1 / 15, size), rng.gamma(1.9, 55, size))
    return np.clip(30 + short + answer, 1, capacity).astype(np.int32)


@pytest.mark.parametrize("draw", [log_normal, like_alpaca])
@pytest.mark.parametrize("capacity", [512, 2048, 4096, 8192, 32768])
def test_no_more_items_than_greedy_knapsack_on_real_shapes(draw, capacity: int) -> None:  # type: ignore[no-untyped-def]
    for size in (500, 8000):
        lengths = draw(size, capacity, seed=size + capacity)
        count = pack(lengths, capacity).count
        assert (
            math.ceil(lengths.sum() / capacity) <= count <= len(greedy_knapsack(lengths.tolist(), capacity))
        )


def test_where_greedy_knapsack_needs_fewer_it_is_taken() -> None:
    lengths = [20, 11, 11, 7, 4, 4, 3]
    assert len(best_fit_decreasing(lengths, 30)) == 3
    assert pack(array(lengths), 30).items.tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert fewest_items(lengths, 30) == 2


@settings(max_examples=200)
@given(case=cases(), times=st.integers(1, 50))
def test_it_is_never_above_greedy_knapsack(case: tuple[list[int], int], times: int) -> None:
    lengths, capacity = case[0] * times, case[1]
    assert pack(array(lengths), capacity).count <= len(greedy_knapsack(lengths, capacity))


def test_moves_go_by_distinct_lengths_not_by_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = 0
    add = best_fit._Bins.add

    def counted(self: best_fit._Bins, residual: int, bins: np.ndarray) -> None:
        nonlocal moves
        moves += 1
        add(self, residual, bins)

    monkeypatch.setattr(best_fit._Bins, "add", counted)
    lengths = log_normal(1_000_000, 2048, seed=1)
    pack(lengths, 2048)
    assert moves <= 10 * len(np.unique(lengths))
    moves = 0
    lengths = np.random.default_rng(2).integers(1, 131073, 200_000).astype(np.int32)
    pack(lengths, 131072)
    assert moves <= 10 * len(np.unique(lengths))


def test_memory_goes_by_int32_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 1 << 13)
    size = 1_000_000
    lengths = log_normal(size, 2048, seed=3)
    for given_lengths in (lengths, np.full(size, 1500, dtype=np.int32)):
        tracemalloc.start()
        try:
            packed = pack(given_lengths, 2048)
            assert tracemalloc.get_traced_memory()[1] < 8 * size + 4 * packed.count + 2_000_000
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            order, first = order_by_item(packed.items, packed.count)
            assert tracemalloc.get_traced_memory()[1] - before < 4 * size + 16 * packed.count + 1_000_000
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            offsets_in_items(given_lengths, order, first)
            assert tracemalloc.get_traced_memory()[1] - before < 4 * size + 1_000_000
        finally:
            tracemalloc.stop()
