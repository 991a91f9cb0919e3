"""Offline preprocessing of dialogues for multi-turn supervised fine-tuning (SFT).

The command line is ``preprocess_data.py`` (or ``mtsft preprocess``); from Python::

    from mtsft_preproc import IndexedDataset, SFTDataset

``SFTDataset`` needs PyTorch (``pip install mtsft_preproc[torch]``), the rest does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtsft_preproc._version import __version__

if TYPE_CHECKING:
    from mtsft_preproc.config import PreprocessConfig
    from mtsft_preproc.indexed import IndexedDataset
    from mtsft_preproc.pipeline import preprocess
    from mtsft_preproc.torch_data import SFTDataset

__all__ = ["IndexedDataset", "PreprocessConfig", "SFTDataset", "__version__", "preprocess"]

_HOMES = {
    "IndexedDataset": "mtsft_preproc.indexed",
    "PreprocessConfig": "mtsft_preproc.config",
    "SFTDataset": "mtsft_preproc.torch_data",
    "preprocess": "mtsft_preproc.pipeline",
}


def __getattr__(name: str) -> Any:
    # Looked up when asked for (PEP 562): a DataLoader worker must not pay for pyarrow, nor a preprocessing
    # worker for torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
