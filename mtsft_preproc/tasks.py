"""The pure task: one shard in, one part out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding import REPLY, Tools, make_record_encoder
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.handlers import METADATA, Handler, HandlerChoice, make_handler
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
        choices: The handler of each file, by its number.
        tokenizer: The tokenizer, pointing to a file that workers can open.
        format: The chat format, or None for text documents.
        fingerprint: Of the run; a part of another is never taken for this one's.
        parts: Folder of the parts.
    """

    config: PreprocessConfig
    choices: tuple[HandlerChoice, ...]
    tokenizer: TokenizerSpec
    format: Format | None
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
        handler = make_handler(self.config, self.choices[shard.file])
        encoder = make_record_encoder(handler, _tools(self), self.config)
        reader = readers.get(shard.source.kind)
        columns = columns_to_read(handler, self.config)
        with PartWriter(
            self.path(shard), self.identity(shard), encoder.datasets, self.config.rejected_records
        ) as writer:
            for batch in reader.read(shard, columns):
                encoded = encoder.encode(batch.records)
                encoded.rejections.extend(batch.rejections)
                writer.add(encoded, len(batch))
        return writer.summary


def columns_to_read(handler: Handler, config: PreprocessConfig) -> list[str] | None:
    """Return the columns of which an encoder makes use, or None for all."""
    if config.rejected_records:
        return None
    kept = [*config.keep_columns, METADATA] if config.keep_columns else []
    extra = [key for key in config.dataset_additional_keys if key != REPLY]
    return list(dict.fromkeys([*handler.columns.values(), *kept, *extra]))


@functools.lru_cache(maxsize=1)
def _tools(task: EncodeShard) -> Tools:
    """Open what encodes, once per process and run: loading a tokenizer takes a second."""
    encoder = open_encoder(task.tokenizer)
    chat_format = task.format
    return Tools(encoder, None if chat_format is None else chat_format.open(encoder, task.config))
