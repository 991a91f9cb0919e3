"""Reads files as a run does, cut and then shard by shard; and makes JSON that is hard to cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.readers import InputFile, Shard, readers

BOM = b"\xef\xbb\xbf"
WHOLE = 1 << 40

#: Text of all that could mislead someone who looks for brackets, quotes and line ends.
hard_text = st.text(
    st.one_of(
        st.sampled_from('[]{}",:\\/ \n\r\tuabn\u2028\u0085\x00é漢😀\ufeff'), st.characters(codec="utf-8")
    ),
    max_size=10,
)
_scalars = st.one_of(
    hard_text,
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hard_text, inner, max_size=2),
    max_leaves=6,
)
json_objects = st.dictionaries(hard_text, _values, max_size=3)


def thorough(examples: int) -> settings:
    """Return settings that don't mind a slow machine."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def source_of(path: Path, kind: str, compression: str | None = None) -> InputFile:
    """Return ``path`` as an input of the reader ``kind``."""
    return InputFile(str(path), kind, path.stat().st_size, compression)


def shards_of(source: InputFile, shard_bytes: int = WHOLE) -> list[Shard]:
    """Return the shards of one file."""
    borders = readers.get(source.kind).cut(source, shard_bytes)
    return [Shard(index, 0, source, start, end) for index, (start, end) in enumerate(borders)]


def read_shard(shard: Shard, columns: Sequence[str] | None = None) -> list[Record | Rejection]:
    """Return a shard's records and rejections in their order, which must count from 0 without gaps."""
    found: list[Record | Rejection] = []
    for batch in readers.get(shard.source.kind).read(shard, columns):
        for part in (batch.records, batch.rejections):
            assert [entry.row for entry in part] == sorted(entry.row for entry in part)
        found += sorted([*batch.records, *batch.rejections], key=lambda entry: entry.row)
    assert [entry.row for entry in found] == list(range(len(found)))
    return found


def read_all(
    source: InputFile, shard_bytes: int = WHOLE, columns: Sequence[str] | None = None
) -> list[Record | Rejection]:
    """Return the entries of all shards of a file, one behind the other."""
    return [entry for shard in shards_of(source, shard_bytes) for entry in read_shard(shard, columns)]


def outcomes(entries: Sequence[Record | Rejection]) -> list[Any]:
    """Return the value of each record and the reason of each rejection."""
    return [entry.value if isinstance(entry, Record) else entry.reason for entry in entries]
