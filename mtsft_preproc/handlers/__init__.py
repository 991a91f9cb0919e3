"""Record -> dialogue; one file per data format.

To add a format: write one file with a :class:`~mtsft_preproc.handlers.base.Handler` and list it here.
"""

from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.handlers.base import Handler, check_columns, handlers, make_handler

handlers.add("AlpacaStyleInstructionHandler", AlpacaHandler, "alpaca")

__all__ = ["Handler", "check_columns", "handlers", "make_handler"]
