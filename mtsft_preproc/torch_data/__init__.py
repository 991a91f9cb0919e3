"""The consumer's side: finished datasets as PyTorch datasets. Needs neither transformers nor pyarrow."""

from mtsft_preproc.torch_data.collate import collate
from mtsft_preproc.torch_data.dataset import SFTDataset

__all__ = ["SFTDataset", "collate"]
