"""The consumer's side: finished datasets as PyTorch datasets. Needs neither transformers nor pyarrow."""

from mtsft_preproc.torch_data.collate import collate
from mtsft_preproc.torch_data.dataset import SFTDataset
from mtsft_preproc.torch_data.packed import CuSeqlens, block_diagonal_mask, cu_seqlens, position_ids

__all__ = ["CuSeqlens", "SFTDataset", "block_diagonal_mask", "collate", "cu_seqlens", "position_ids"]
