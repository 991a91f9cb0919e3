"""The files that tasks publish, whole or not at all: what a shard became, and gathered items."""

from mtsft_preproc.parts.container import Container, ContainerWriter, sync_folder
from mtsft_preproc.parts.shard import Differs, PartReader, PartSummary, PartWriter

__all__ = [
    "Container",
    "ContainerWriter",
    "Differs",
    "PartReader",
    "PartSummary",
    "PartWriter",
    "sync_folder",
]
