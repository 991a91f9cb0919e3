"""The inputs of a run: which files, of which source, read by which handler; and what that brings along."""

from mtsft_preproc.sources.defaults import with_defaults
from mtsft_preproc.sources.find import Sources, find_sources
from mtsft_preproc.sources.names import AUTO, DATASET_INFO, named_mix, origin

__all__ = ["AUTO", "DATASET_INFO", "Sources", "find_sources", "named_mix", "origin", "with_defaults"]
