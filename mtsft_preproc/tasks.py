"""The pure task: one shard in, one part out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding import SampleEncoder
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.handlers import make_handler
from mtsft_preproc.masking import policies
from mtsft_preproc.parts import PartReader, PartSummary, PartWriter
from mtsft_preproc.readers import Shard, readers
from mtsft_preproc.templates import Format
from mtsft_preproc.tokenization import TokenizerSpec, open_encoder

__all__ = ["EncodeShard"]


@dataclass(frozen=True)
class EncodeShard:
    """Reads a shard, encodes it, publishes its part. Safe to run twice, anywhere, in any order.

    Attributes:
        config: The settings.
        tokenizer: The tokenizer, pointing to a file that workers can open.
        format: The chat format.
        fingerprint: Of the run; a part of another is never taken for this one's.
        parts: Folder of the parts.
    """

    config: PreprocessConfig
    tokenizer: TokenizerSpec
    format: Format
    fingerprint: str
    parts: str

    def path(self, shard: Shard) -> Path:
        """Return where the part of ``shard`` lies."""
        return Path(self.parts) / f"{shard.index:08d}.part"

    def identity(self, shard: Shard) -> dict[str, Any]:
        """Return what the part of ``shard`` is the work of."""
        return {
            "fingerprint": self.fingerprint,
            "shard": [shard.index, shard.file, shard.start, shard.end, shard.max_records],
        }

    def open(self, shard: Shard) -> PartReader:
        """Open the part of ``shard``.

        Raises:
            DatasetError: It is missing, damaged, or another run's.
        """
        part = PartReader(self.path(shard))
        if part.identity != self.identity(shard):
            raise DatasetError(f"{part.path}: not the work of shard {shard.index} of this run")
        return part

    def finished(self, shard: Shard) -> PartSummary | None:
        """Return the summary of the part of ``shard`` if it is there, this run's, and whole."""
        if not self.path(shard).exists():
            return None
        try:
            part = self.open(shard)
            part.check()
        except DatasetError:
            return None
        return part.summary

    def __call__(self, shard: Shard) -> PartSummary:
        """Encode ``shard``.

        Raises:
            InputError: Its file is damaged.
        """
        encoder = _sample_encoder(self)
        reader = readers.get(shard.source.kind)
        columns = list(make_handler(self.config).columns.values())
        with PartWriter(self.path(shard), self.identity(shard)) as writer:
            for batch in reader.read(shard, columns):
                encoded = encoder.encode(batch.records)
                encoded.rejections.extend(batch.rejections)
                writer.add(encoded, len(batch))
        return writer.summary


@functools.lru_cache(maxsize=1)
def _sample_encoder(task: EncodeShard) -> SampleEncoder:
    """Build what encodes, once per process and run: loading a tokenizer takes a second."""
    config = task.config
    encoder = open_encoder(task.tokenizer)
    return SampleEncoder(
        make_handler(config),
        task.format.open(encoder, config),
        policies.get(config.train_on),
        config.ignore_index,
        config.seq_length,
    )
