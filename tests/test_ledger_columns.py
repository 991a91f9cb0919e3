"""Columns of the ledger against pyarrow's own conversions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from mtsft_preproc.ledger import numbers_column, numbers_of, same_column


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint64"])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_numbers_are_those_that_went_in(dtype: str, count: int) -> None:
    values = np.arange(count).astype(dtype) * 1_000_003
    column = numbers_column(values)
    column.validate(full=True)
    assert column.equals(pa.array(values))
    null = np.arange(count) % 3 == 1
    column = numbers_column(values, null)
    column.validate(full=True)
    assert column.equals(pa.array(values, mask=null))
    assert column.null_count == null.sum()


def test_numbers_that_are_no_neighbours_are_copied() -> None:
    values = np.arange(20, dtype=np.int32)[::2]
    assert numbers_column(values).to_pylist() == values.tolist()


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("text", ["", "é/漢.jsonl"])
def test_one_text_is_repeated(text: str, count: int) -> None:
    column = same_column(text, count)
    column.validate(full=True)
    assert column.equals(pa.array([text] * count, pa.string()))


def test_numbers_come_back_from_chunks_and_slices() -> None:
    column = pa.chunked_array(
        [pa.array([1, 2, 3], pa.int32()), pa.array([], pa.int32()), pa.array([4, 5], pa.int32())]
    )
    assert numbers_of(column).tolist() == [1, 2, 3, 4, 5]
    assert numbers_of(column.slice(1, 3)).tolist() == [2, 3, 4]
    assert numbers_of(column.slice(5)).tolist() == []
    assert numbers_of(column).dtype == np.int32


def test_pandas_is_left_alone() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from mtsft_preproc.ledger import numbers_column, numbers_of, same_column\n"
        "column = numbers_column(np.arange(3), np.arange(3) < 1)\n"
        "numbers_of(pa.chunked_array([numbers_column(np.arange(3))])), same_column('x', 2)\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
