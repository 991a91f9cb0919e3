"""Megatron's memory-mapped dataset format: layout, writer, reader. See the README in this folder."""

from mtsft_preproc.indexed.layout import DTYPE_CODES, SFT_FIELDS, bin_path, dataset_prefix, idx_path
from mtsft_preproc.indexed.published import open_published
from mtsft_preproc.indexed.reader import IndexedDataset
from mtsft_preproc.indexed.writer import IndexedWriter

__all__ = [
    "DTYPE_CODES",
    "SFT_FIELDS",
    "IndexedDataset",
    "IndexedWriter",
    "bin_path",
    "dataset_prefix",
    "idx_path",
    "open_published",
]
