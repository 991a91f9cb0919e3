"""Settings -> handlers."""

from __future__ import annotations

import json

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError
from mtsft_preproc.handlers.base import Handler, HandlerChoice, HandlerOptions, handlers
from mtsft_preproc.handlers.guarded import guard
from mtsft_preproc.handlers.user_file import load_user_handlers, user_file_sha256

__all__ = ["make_handler"]


def make_handler(config: PreprocessConfig, choice: HandlerChoice) -> Handler:
    """Return a handler, in whatever process.

    Raises:
        SettingsError: There is none of that name, or ``--map-keys`` doesn't fit it.
        InputError: The user's file is not the one that the run was started with.
    """
    if config.handler_path is not None:
        load_user_handlers(config.handler_path)
        if choice.file_sha256 not in (None, user_file_sha256(config.handler_path)):
            raise InputError(f"{config.handler_path}: changed while it was used; run the command again")
    options = HandlerOptions(config.render_state, config.json_keys)
    handler = handlers.get(choice.name)(json.loads(choice.map_keys), options)
    if config.handler_path is not None and choice.file_sha256 is not None:
        guard(handler, config.handler_path)
    return handler
