"""Finished datasets -> another packing, mix, split or order, without a tokenizer: ``mtsft repack``.

The sources sidecar says where each sample lies. What comes out is, byte for byte, what the first run would
have written with these settings.
"""

from mtsft_preproc.repack.run import OVERLONG, check_overlong, repack

__all__ = ["OVERLONG", "check_overlong", "repack"]
