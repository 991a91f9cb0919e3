"""Looks into finished datasets, and at chat formats before there are any; changes nothing."""

from mtsft_preproc.inspection.reencoding import Against, check_against
from mtsft_preproc.inspection.show import show_item
from mtsft_preproc.inspection.template_check import check_formats, print_check
from mtsft_preproc.inspection.trace import Tracer, trace_step
from mtsft_preproc.inspection.trace_report import print_item, print_step, print_token
from mtsft_preproc.inspection.verify import verify

__all__ = [
    "Against",
    "Tracer",
    "check_against",
    "check_formats",
    "print_check",
    "print_item",
    "print_step",
    "print_token",
    "show_item",
    "trace_step",
    "verify",
]
