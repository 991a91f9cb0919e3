"""Packing: lengths of samples to items of one capacity. Never sees a token.

:func:`pack` gives each sample an item; the other functions turn "sample -> item" into the order of the
output. All of it works in chunks, so that no wider array than int32 is ever as long as the input; no result
depends on the chunk.
"""

from mtsft_preproc.packing.pack import Packing, pack
from mtsft_preproc.packing.places import aligned, offsets_in_items, order_by_item

__all__ = ["Packing", "aligned", "offsets_in_items", "order_by_item", "pack"]
