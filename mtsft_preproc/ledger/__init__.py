"""The ledger: what became of every record.

``PREFIX.rejected.jsonl`` has a line per rejected record; ``PREFIX.sources.parquet`` a row per sample, in
the order of the input, with the place at which it stands.
"""

from mtsft_preproc.ledger.block import Block, OutputTotals, Totals
from mtsft_preproc.ledger.columns import numbers_column, numbers_of, same_column
from mtsft_preproc.ledger.row_groups import RowGroups
from mtsft_preproc.ledger.sidecar import sample_schema, sidecar_schema
from mtsft_preproc.ledger.write import write_ledger

__all__ = [
    "Block",
    "OutputTotals",
    "RowGroups",
    "Totals",
    "numbers_column",
    "numbers_of",
    "same_column",
    "sample_schema",
    "sidecar_schema",
    "write_ledger",
]
