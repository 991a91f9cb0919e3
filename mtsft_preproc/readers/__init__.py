"""Files -> records with their source; and the plan of shards, which depends on the files alone.

To add a format: write one file with a :class:`~mtsft_preproc.readers.base.Reader` and list it here.
"""

from mtsft_preproc.readers.arrow import ArrowReader
from mtsft_preproc.readers.base import (
    InputFile,
    Reader,
    ReadingRules,
    RecordBatch,
    Shard,
    readers,
    refuse_changed,
)
from mtsft_preproc.readers.csv import CsvReader
from mtsft_preproc.readers.discover import find_inputs
from mtsft_preproc.readers.json_array import JsonArrayReader
from mtsft_preproc.readers.jsonl import JsonLinesReader
from mtsft_preproc.readers.parquet import ParquetReader
from mtsft_preproc.readers.text import TextReader

for _reader in (
    ParquetReader(),
    JsonArrayReader(),
    JsonLinesReader(),
    ArrowReader(),
    CsvReader(),
    TextReader(),
):
    readers.add(_reader.name, _reader)

__all__ = [
    "InputFile",
    "Reader",
    "ReadingRules",
    "RecordBatch",
    "Shard",
    "find_inputs",
    "readers",
    "refuse_changed",
]
