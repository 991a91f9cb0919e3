"""Arrow record batches -> records: what parquet and arrow files share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.readers.base import RecordBatch, too_large

__all__ = ["to_record_batches"]

#: Decoded bytes of rows that become Python objects together.
_AT_ONCE = 1 << 24


def to_record_batches(
    batches: Iterable[pa.RecordBatch], limit: int = 64 << 20, row: int = 0
) -> Iterator[RecordBatch]:
    """Turn the record batches of one shard into ours; rows count on over all of them.

    Args:
        batches: Arrow's.
        limit: The most bytes of a row, decoded.
        row: Number of the first row.
    """
    for batch in (piece for whole in batches for piece in _bounded(whole, min(limit, _AT_ONCE))):
        out = RecordBatch(size=batch.nbytes)
        if out.size > limit and (own := _decoded_bytes(batch)) > limit:
            out.rejections.append(too_large(row, own, limit))
            row += 1
            yield out
            continue
        try:
            out.records = [Record(row + at, value) for at, value in enumerate(_to_python(batch))]
        except (ValueError, OverflowError, KeyError):  # UnicodeDecodeError is a ValueError
            # Arrow checks neither text nor dates: find the rows at fault, and keep the others.
            for at in range(batch.num_rows):
                _add_row(out, row + at, batch.slice(at, 1))
        row += batch.num_rows
        yield out


def _bounded(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in pieces of at most so many bytes, or of one row.

    A row has no more bytes than its piece, not even where a value stands in a dictionary.
    """
    if batch.nbytes <= most or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half), most)
    yield from _bounded(batch.slice(half), most)


def _decoded_bytes(row: pa.RecordBatch) -> int:
    """Return the bytes of one row, of a dictionary those of its own value."""
    return sum(
        (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes
        for column in row.columns
    )


def _to_python(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    # A map becomes an object, as it is in JSON, not a list of pairs. Where there is none, pyarrow is not
    # asked for that: since release 26 it is several times as fast then.
    maps = "strict" if any(map(_may_hold_map, batch.schema.types)) else None
    rows: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts=maps)
    return rows


def _may_hold_map(kind: Any) -> bool:
    """Return whether values of an Arrow type may be maps, or hold some."""
    if pa.types.is_struct(kind):
        return any(_may_hold_map(field.type) for field in kind)
    if hasattr(kind, "value_type"):  # lists of all kinds, and dictionaries
        return _may_hold_map(kind.value_type)
    return pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)


def _add_row(out: RecordBatch, row: int, batch: pa.RecordBatch) -> None:
    try:
        out.records.append(Record(row, _to_python(batch)[0]))
    except UnicodeDecodeError as error:
        got = f"byte {error.object[error.start : error.start + 1]!r}"
        out.rejections.append(Rejection(row, "invalid-utf8", "", "UTF-8 text", got))
    except (ValueError, OverflowError, KeyError) as error:
        expected = "values that Python can hold"
        out.rejections.append(Rejection(row, "wrong-type", "", expected, shorten(str(error))))
