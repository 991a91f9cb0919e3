"""A parquet file whose row groups have one size: its bytes must not tell how the input was cut."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.errors import naming

__all__ = ["RowGroups"]

_GROUP_ROWS = 1 << 16
#: Columns whose values hardly repeat, which a dictionary would only make larger.
_VARIED = frozenset({"item", "offset", "position", "length", "trained", "row", "turn", "digest"})


class RowGroups:
    """Writes such a file. A context manager: on an exception the file is left without its footer.

    Args:
        path: Where it goes.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        repetitive = [name for name in schema.names if name not in _VARIED]
        self._path = path
        with naming(path):
            self._writer = pq.ParquetWriter(
                path, schema, compression="zstd", write_page_checksum=True, use_dictionary=repetitive
            )
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            joined = pa.concat_tables(self._waiting)
            whole = len(joined) - len(joined) % _GROUP_ROWS
            for start in range(0, whole, _GROUP_ROWS):
                self._write(joined.slice(start, _GROUP_ROWS))
            self._waiting = [joined.slice(whole)]

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting:
            joined = pa.concat_tables(self._waiting)
            if len(joined):
                self._write(joined)
        with naming(self._path):
            self._writer.close()

    def _write(self, table: pa.Table) -> None:
        with naming(self._path):
            self._writer.write_table(table.combine_chunks())
