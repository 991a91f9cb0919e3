"""Looks into finished datasets; changes nothing."""

from mtsft_preproc.inspection.show import show_item

__all__ = ["show_item"]
