"""Looks into finished datasets, and at chat formats before there are any; changes nothing."""

from mtsft_preproc.inspection.show import show_item
from mtsft_preproc.inspection.template_check import check_formats, print_check

__all__ = ["check_formats", "print_check", "show_item"]
