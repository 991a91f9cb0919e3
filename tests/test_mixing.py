"""How often each source is gone through, and the order of the mix."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc.errors import RejectedDataError
from mtsft_preproc.mixing import Mix, Source, mixed_order, passes
from mtsft_preproc.permutation import derive_key, uniform

KEY = derive_key(1234, "mix")
keys = st.integers(0, 2**64 - 1)
#: Counts and passes of a few sources.
plans = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3.5)), min_size=1, max_size=5)


def mix(strategy: str, *weights: float | None, epochs: tuple[float, ...] = ()) -> Mix:
    often = epochs or (1.0,) * len(weights)
    names = "abcdefgh"
    return Mix(
        strategy, "samples", tuple(Source(names[i], w, often[i]) for i, w in enumerate(weights))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "measures", "expected"),
    [
        # Half and half of 100 and 400: both until the first has had its 100, or until the second its 400.
        (mix("interleave_under", 0.5, 0.5), [100, 400], [1.0, 0.25]),
        (mix("interleave_over", 0.5, 0.5), [100, 400], [4.0, 1.0]),
        # 7 to 3, by weights that don't sum to 1: 300 of the second need 700 of the first.
        (mix("interleave_under", 7, 3), [1400, 300], [0.5, 1.0]),
        (mix("interleave_over", 7, 3), [1400, 300], [1.0, 2.0]),
        (mix("interleave_under", 1, 1, 2), [10, 20, 30], [1.0, 0.5, 20 / 30]),
        (mix("interleave_over", 1, 1, 2), [10, 20, 30], [2.0, 1.0, 40 / 30]),
        # As many of each as they have.
        (mix("interleave_under", 0.1, 0.3), [10, 30], [1.0, 1.0]),
        (mix("concat", None, None, epochs=(2.5, 1.0)), [3, 0], [2.5, 1.0]),
        (mix("interleave_under", None, None, epochs=(2.5, 0.5)), [3, 0], [2.5, 0.5]),
        (mix("interleave_over", None, None), [3, 5], [1.0, 1.0]),
    ],
)
def test_how_often_each_source_is_gone_through(
    asked: Mix, measures: list[int], expected: list[float]
) -> None:
    assert passes(asked, measures) == pytest.approx(expected, rel=1e-12)


@given(
    st.lists(st.tuples(st.floats(0.001, 1000), st.integers(1, 10**9)), min_size=1, max_size=6),
    st.booleans(),
)
def test_the_source_that_decides_is_gone_through_just_once(
    sources: list[tuple[float, int]], under: bool
) -> None:
    weights, measures = zip(*sources, strict=True)
    found = passes(mix("interleave_under" if under else "interleave_over", *weights), measures)
    assert (max(found) if under else min(found)) == 1.0
    shares = [often * measure for often, measure in zip(found, measures, strict=True)]
    assert [share / sum(shares) for share in shares] == pytest.approx(
        [weight / sum(weights) for weight in weights]
    )


@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over"])
def test_a_share_of_nothing_is_refused(strategy: str) -> None:
    with pytest.raises(RejectedDataError, match="source 'b': no sample of it is there"):
        passes(mix(strategy, 0.5, 0.5), [3, 0])


def test_a_mix_is_trivial_where_it_changes_nothing() -> None:
    assert mix("concat", None, None).trivial
    assert not mix("concat", None, None, epochs=(1.0, 1.5)).trivial
    assert not mix("interleave_under", None, None).trivial
    assert not mix("interleave_over", 1, 2).trivial


def test_shares_are_weights_that_sum_to_one() -> None:
    assert mix("interleave_over", 3, 1).shares == [0.75, 0.25]
    assert mix("interleave_over", None, None).shares is None
    assert mix("concat", None, None).shares is None


def by_hand(counts: list[int], often: list[float], interleave: bool, key: int) -> list[tuple[int, int]]:
    """The definition, one occurrence at a time and in exact numbers."""
    found = []
    for source, (count, times) in enumerate(zip(counts, often, strict=True)):
        if count == 0 or times == 0:
            continue
        whole = int(times)
        part = int((times - whole) * count + 0.5)
        if whole == 0 and part == 0:
            part = 1
        own = [record for _ in range(whole) for record in range(count)]
        if part:
            start = int(uniform(derive_key(key, "partial", str(source)), [0])[0] * count)
            own += [math.floor(Fraction(nth * count + start, part)) for nth in range(part)]
        places = uniform(derive_key(key, "interleave", str(source)), range(len(own))).tolist()
        for nth, record in enumerate(own):
            place = (nth + Fraction(places[nth])) / len(own) if interleave else Fraction(0)
            found.append((place, source, nth, record))
    return [(source, record) for _, source, _, record in sorted(found)]


@given(plans, st.booleans(), keys)
def test_the_order_is_that_of_the_definition(
    sources: list[tuple[int, float]], interleave: bool, key: int
) -> None:
    counts, often = [count for count, _ in sources], [times for _, times in sources]
    numbers, records = mixed_order(counts, often, interleave, key)
    assert (numbers.dtype, records.dtype) == (np.int32, np.int64)
    assert list(zip(numbers.tolist(), records.tolist(), strict=True)) == by_hand(
        counts, often, interleave, key
    )


def test_the_order_of_a_mix_stays_what_it_is() -> None:
    """Bytes of datasets rest on it: a change needs a new version of the package.

    Computed apart from the package, in plain Python, with the numbers that permutation.py defines.
    """
    numbers, records = mixed_order([4, 3], [1.0, 2.5], True, KEY)
    assert list(zip(numbers.tolist(), records.tolist(), strict=True)) == [
        (1, 0), (0, 0), (1, 1), (1, 2), (1, 0), (0, 1),
        (0, 2), (1, 1), (1, 2), (1, 0), (0, 3), (1, 2),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0.01, 2)), min_size=1, max_size=8), keys)
def test_every_prefix_holds_the_shares(sources: list[tuple[int, float]], key: int) -> None:
    numbers, _ = mixed_order([count for count, _ in sources], [times for _, times in sources], True, key)
    ends = np.arange(1, len(numbers) + 1)
    for source in range(len(sources)):
        held = np.cumsum(numbers == source)
        share = held[-1] / len(numbers)
        bound = (1 - share) + share * (len(sources) - 1)
        assert np.abs(held - share * ends).max() <= bound + 1e-9
        if len(sources) <= 3:
            assert bound < 2


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.5, 0.3, 0.2), (0.9, 0.05, 0.05)])
@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over"])
def test_the_shares_asked_for_are_reached_all_the_way(strategy: str, weights: tuple[float, ...]) -> None:
    counts = [5000, 3000, 700][: len(weights)]
    often = passes(mix(strategy, *weights), counts)
    numbers, records = mixed_order(counts, often, True, KEY)
    ends = np.arange(1, len(numbers) + 1)
    for source, weight in enumerate(weights):
        held = np.cumsum(numbers == source)
        # What rounding the passes costs at the end, and the bound of the order on the way.
        assert abs(held[-1] - weight * len(numbers)) <= 1
        bound = (1 - weight) + weight * (len(weights) - 1)
        assert np.abs(held - weight * ends).max() <= bound + 1
        times = np.bincount(records[numbers == source])
        if strategy == "interleave_under":
            assert times.max() == 1
        else:
            assert len(times) == counts[source]
            assert times.min() >= 1


def test_two_and_a_half_epochs() -> None:
    """Each record two or three times, pass by pass, each pass in order."""
    numbers, records = mixed_order([101, 7], [2.5, 1.0], True, KEY)
    own = records[numbers == 0]
    times = np.bincount(own)
    assert set(times.tolist()) == {2, 3}
    assert (times == 3).sum() == 51  # 50.5, rounded up
    assert own[:101].tolist() == own[101:202].tolist() == list(range(101))
    assert (np.diff(own[202:]) > 0).all()
    assert records[numbers == 1].tolist() == list(range(7))


@given(st.integers(1, 5000), st.floats(0.0001, 0.9999), keys)
def test_a_part_of_a_pass_is_spread_over_the_source(count: int, often: float, key: int) -> None:
    _, records = mixed_order([count], [often], False, key)
    assert len(records) == max(1, int(often * count + 0.5))
    assert records[0] >= 0
    assert records[-1] < count
    mean = count / len(records)
    # From the last one on to the first, as if the source went on from its start.
    gaps = np.diff([*records.tolist(), records[0] + count])
    assert gaps.min() >= math.floor(mean)
    assert gaps.max() <= math.ceil(mean) <= 2 * mean


def test_each_record_is_as_likely_to_be_in_a_part() -> None:
    times = np.zeros(10)
    for seed in range(4000):
        times[mixed_order([10], [0.3], False, derive_key(seed))[1]] += 1
    # 3 of 10; four standard deviations of a binomial.
    assert np.abs(times / 4000 - 0.3).max() < 4 * math.sqrt(0.3 * 0.7 / 4000)


def test_concat_puts_source_behind_source() -> None:
    numbers, records = mixed_order([2, 0, 3], [2.0, 1.0, 1.0], False, KEY)
    assert numbers.tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert records.tolist() == [0, 1, 0, 1, 0, 1, 2]


def test_a_source_is_placed_by_its_number_and_size_alone() -> None:
    """What the others hold moves nothing within it, and neither does the block in which it is computed."""
    alone = mixed_order([0, 40, 0], [1.0, 0.6, 1.0], True, KEY)
    among = mixed_order([7, 40, 90], [1.0, 0.6, 2.0], True, KEY)
    assert alone[1].tolist() == among[1][among[0] == 1].tolist()


def test_sources_larger_than_a_block() -> None:
    """Blocks of places join without a seam: the order within the source and the shares hold."""
    count = (1 << 20) + 1000
    numbers, records = mixed_order([count, count], [1.0, 1.0], True, KEY)
    assert (records[numbers == 1] == np.arange(count)).all()
    held = np.cumsum(numbers == 0)
    assert np.abs(held - np.arange(1, 2 * count + 1) / 2).max() <= 1


def test_another_key_is_another_order() -> None:
    orders = {mixed_order([50, 50], [1.0, 0.5], True, key)[0].tobytes() for key in range(5)}
    assert len(orders) == 5
    assert len({mixed_order([50], [0.5], False, key)[1].tobytes() for key in range(20)}) == 2


def test_sources_of_one_size_do_not_alternate_by_rule() -> None:
    numbers, _ = mixed_order([1000, 1000], [1.0, 1.0], True, KEY)
    first = numbers[::2]
    assert 300 < (first == 0).sum() < 700


def test_nothing_gives_nothing() -> None:
    numbers, records = mixed_order([0, 5], [3.0, 0.0], True, KEY)
    assert (len(numbers), len(records)) == (0, 0)
