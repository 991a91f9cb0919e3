"""The settings of a run: frozen, checked once, passed down whole."""

from mtsft_preproc.config.checks import check_output_prefix
from mtsft_preproc.config.choices import (
    DEDUP,
    DEEPSEEK4,
    EMPTY_REPLY,
    ENABLE_THINKING,
    MIX_STRATEGIES,
    ON_ERROR,
    OVERLONG,
    PACK_WINDOW,
    PARITY,
    REASONING_EFFORT,
    SIDES,
    SOURCES_COLUMNS,
    SPECIAL_TOKENS_IN_TEXT,
    TRUE_FALSE,
)
from mtsft_preproc.config.cores import usable_cores
from mtsft_preproc.config.settings import PreprocessConfig

__all__ = [
    "DEDUP",
    "DEEPSEEK4",
    "EMPTY_REPLY",
    "ENABLE_THINKING",
    "MIX_STRATEGIES",
    "ON_ERROR",
    "OVERLONG",
    "PACK_WINDOW",
    "PARITY",
    "REASONING_EFFORT",
    "SIDES",
    "SOURCES_COLUMNS",
    "SPECIAL_TOKENS_IN_TEXT",
    "TRUE_FALSE",
    "PreprocessConfig",
    "check_output_prefix",
    "usable_cores",
]
