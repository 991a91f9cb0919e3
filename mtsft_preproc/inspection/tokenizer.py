"""The tokenizer that a finished dataset was made with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization import Adjustment, Encoder, TokenizerLoading, open_encoder

__all__ = ["encoder_of_manifest"]


def encoder_of_manifest(described: Mapping[str, Any], trust_remote_code: bool = False) -> Encoder:
    """Open the reference encoder of a dataset's tokenizer, from the folder that the manifest names.

    Args:
        described: The manifest's entry on the tokenizer.
        trust_remote_code: Whether the folder may run its own Python code: the user's word, as a manifest
            may come from anywhere.

    Raises:
        TokenizerError: The folder is gone, or its tokenizer is not the one that the dataset was made with.
    """
    adjustment = described["adjustment"]
    with TokenizerLoading(
        described["path"],
        Adjustment(adjustment["eos"], tuple(adjustment["special"])),
        described["use_fast"],
        trust_remote_code,
    ) as loading:
        resolved = loading.result()
    if resolved.spec.sha256 != described["sha256"]:
        raise TokenizerError(
            f"{described['path']}: not the tokenizer that the dataset was made with (sha256 "
            f"{resolved.spec.sha256[:12]}, the manifest says {described['sha256'][:12]})"
        )
    with tempfile.TemporaryDirectory() as folder:
        return open_encoder(resolved.save(Path(folder)))
