"""The row groups of the sources sidecar don't tell how the input was cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.ledger import row_groups
from mtsft_preproc.pipeline import preprocess


@pytest.mark.parametrize("group", [1, 7, 64])
def test_row_groups_have_one_size(
    group: int, make_config: Callable[..., PreprocessConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(row_groups, "_GROUP_ROWS", group)
    records = [{"instruction": f"q{number}", "input": "", "output": "a"} for number in range(50)]
    found = []
    for number, size in enumerate((100, 300, 10**6)):
        config = make_config(records, shard_bytes=size, output_prefix=str(tmp_path / str(number) / "data"))
        preprocess(config)
        path = tmp_path / str(number) / "data.sources.parquet"
        found.append(path.read_bytes())
        metadata = pq.ParquetFile(path).metadata
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        assert sizes == [min(group, 50 - start) for start in range(0, 50, group)]
    assert found[0] == found[1] == found[2]
