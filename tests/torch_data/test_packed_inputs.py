"""Positions, masks and offsets from a mask that numbers samples: literal arrays, and plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mtsft_preproc.torch_data import block_diagonal_mask, cu_seqlens, position_ids

#: Padding behind a sample and at the end of the row; a sample of one token; samples at a row's border.
BATCH = [[1, 1, 1, 0, 2, 2, 3, 0], [1, 1, 1, 1, 1, 2, 2, 2]]
LOWEST = torch.finfo(torch.float32).min


@st.composite
def batches(draw: st.DrawFn) -> list[list[int]]:
    """Draw rows of one width, each of samples with padding behind them."""
    width = draw(st.integers(1, 12))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row: list[int] = []
        while len(row) < width and (not row or draw(st.booleans())):
            number = max(row, default=0) + 1
            row += [number] * draw(st.integers(1, 5)) + [0] * draw(st.integers(0, 3))
        rows.append((row + [0] * width)[:width])
    return rows


def test_position_ids_count_from_0_in_each_sample() -> None:
    found = position_ids(torch.tensor(BATCH))
    assert found.tolist() == [[0, 1, 2, 0, 0, 1, 0, 0], [0, 1, 2, 3, 4, 0, 1, 2]]
    assert found.dtype == torch.int64
    assert position_ids(torch.tensor(BATCH[0])).tolist() == [0, 1, 2, 0, 0, 1, 0, 0]


def test_block_diagonal_mask() -> None:
    mask = block_diagonal_mask(torch.tensor([1, 1, 0, 2, 2, 0]))
    assert mask.shape == (1, 1, 6, 6)
    assert mask.dtype == torch.float32
    attends = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert mask[0, 0].tolist() == [[0.0 if there else LOWEST for there in row] for row in attends]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_attention_with_the_mask_is_that_of_each_sample(dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 2, 1, 8, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    mask = block_diagonal_mask(torch.tensor(BATCH), dtype)
    assert mask.dtype == dtype
    found = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert not found.isnan().any()
    for row, start, stop in [(0, 0, 3), (0, 4, 6), (0, 6, 7), (1, 0, 5), (1, 5, 8)]:
        own = (tensor[row, :, start:stop] for tensor in (query, key, value))
        alone = scaled_dot_product_attention(*own, is_causal=True)
        # Two kernels round apart; the values are about 1.
        atol = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(found[row, :, start:stop], alone, atol=atol, rtol=0)


def test_cu_seqlens_of_a_batch() -> None:
    found = cu_seqlens(torch.tensor(BATCH, dtype=torch.int32))
    assert found.cu_seqlens.tolist() == [0, 3, 5, 6, 11, 14]
    assert found.cu_seqlens_padded.tolist() == [0, 4, 6, 8, 13, 16]
    assert (found.max_seqlen, found.max_seqlen_padded) == (5, 5)
    assert found.cu_seqlens.dtype == found.cu_seqlens_padded.dtype == torch.int32


def test_cu_seqlens_of_a_row_of_one_aligned_sample() -> None:
    found = cu_seqlens(torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]))
    assert [own.tolist() for own in found[:2]] == [[0, 3], [0, 8]]
    assert found[2:] == (3, 8)


@given(batches())
def test_position_ids_as_a_loop_counts_them(rows: list[list[int]]) -> None:
    expected = []
    for row in rows:
        seen: dict[int, int] = {}
        counted = []
        for number in row:
            counted.append(seen.get(number, 0) if number else 0)
            seen[number] = seen.get(number, 0) + 1
        expected.append(counted)
    assert position_ids(torch.tensor(rows)).tolist() == expected


@given(batches())
def test_block_diagonal_mask_as_a_loop_fills_it(rows: list[list[int]]) -> None:
    found = block_diagonal_mask(torch.tensor(rows))
    for row, mask in zip(rows, found[:, 0].tolist(), strict=True):
        for query, attended in enumerate(mask):
            own = {key for key in range(query + 1) if row[key] == row[query] != 0} or {query}
            assert attended == [0.0 if key in own else LOWEST for key in range(len(row))]


@given(batches())
def test_cu_seqlens_as_a_loop_adds_them_up(rows: list[list[int]]) -> None:
    lengths: list[int] = []
    padded: list[int] = []
    for row in rows:
        for before, number in zip([0, *row], row, strict=False):
            if number and number != before:
                lengths.append(0)
                padded.append(0)
            lengths[-1] += number != 0
            padded[-1] += 1
    found = cu_seqlens(torch.tensor(rows))
    assert found.cu_seqlens.diff().tolist() == lengths
    assert found.cu_seqlens_padded.diff().tolist() == padded
    assert found.cu_seqlens[0] == found.cu_seqlens_padded[0] == 0
    assert found[2:] == (max(lengths), max(padded))


@pytest.mark.parametrize(
    "mask",
    [[2, 2, 1], [1, 3, 0], [1, 0, 1], [1, 2, 1], [-1, -1, 0], [[1, 2], [2, 2]]],
    ids=["falls", "leaves one out", "comes back", "comes back late", "negative", "goes on in the next row"],
)
@pytest.mark.parametrize("function", [position_ids, block_diagonal_mask, cu_seqlens])
def test_samples_that_are_not_numbered_are_refused(function, mask) -> None:
    with pytest.raises(ValueError, match=r"numbered 1, 2, \.\.\. from the start of each row"):
        function(torch.tensor(mask))


@pytest.mark.parametrize("function", [position_ids, block_diagonal_mask, cu_seqlens])
def test_a_mask_of_another_shape_is_refused(function) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(T,\) or \(B, T\), got \(1, 1, 2, 2\)"):
        function(torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("mask", [[0, 1], [0, 0], []])
def test_cu_seqlens_begin_with_a_sample(mask: list[int]) -> None:
    with pytest.raises(ValueError, match="begin with a sample"):
        cu_seqlens(torch.tensor(mask))


def test_the_mask_is_added_and_so_no_flags() -> None:
    with pytest.raises(ValueError, match=r"dtype: expected a floating-point one, got torch\.bool"):
        block_diagonal_mask(torch.tensor([1, 2]), torch.bool)


def test_the_arguments_stay_as_they_are() -> None:
    mask = torch.tensor(BATCH)
    for function in (position_ids, block_diagonal_mask, cu_seqlens):
        function(mask)
    assert mask.tolist() == BATCH
