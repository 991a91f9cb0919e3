"""Arrow record batches -> records: what parquet and arrow files share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.readers.base import RecordBatch

__all__ = ["to_record_batches"]


def to_record_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[RecordBatch]:
    """Turn the record batches of one shard into ours; rows count on over all of them."""
    row = 0
    for batch in batches:
        out = RecordBatch(size=batch.nbytes)
        try:
            out.records = [Record(row + at, value) for at, value in enumerate(batch.to_pylist())]
        except UnicodeDecodeError:
            # Arrow checks no text: find the rows whose bytes are not UTF-8, and keep the others.
            for at in range(batch.num_rows):
                try:
                    out.records.append(Record(row + at, batch.slice(at, 1).to_pylist()[0]))
                except UnicodeDecodeError as error:
                    got = f"byte {error.object[error.start : error.start + 1]!r}"
                    out.rejections.append(Rejection(row + at, "invalid-utf8", "", "UTF-8 text", got))
        row += batch.num_rows
        yield out
