"""The pure task: one shard in, one part out."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding import REPLY, Tools, make_record_encoder
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.handlers import METADATA, Handler, HandlerChoice, make_handler
from mtsft_preproc.parts import Differs, PartReader, PartSummary, PartWriter
from mtsft_preproc.readers import Shard, readers, refuse_changed
from mtsft_preproc.stages import clock
from mtsft_preproc.templates import ChatTemplate, Format, ShapeDiffers
from mtsft_preproc.tokenization import (
    REFERENCE,
    EncoderDiffers,
    FastEncoder,
    TokenizerSpec,
    shared_encoder,
)

__all__ = ["EncodeShard"]

#: Objects that pile up before garbage is collected: some 50 MB of them.
_OBJECTS = 500_000


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
        encoder: What turns text into ids, as of :func:`shared_encoder`.
        composes: Whether a chat template's dialogues of known shapes are written without the template.
    """

    config: PreprocessConfig
    choices: tuple[HandlerChoice, ...]
    tokenizer: TokenizerSpec
    format: Format | None
    fingerprint: str
    parts: str
    encoder: str = REFERENCE
    composes: bool = True

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
        """Return the summary of the part of ``shard`` if it is there, this run's, and whole.

        Where the reference is to do the work, what another encoder did does not count; nor what was
        composed where every dialogue is to be rendered.
        """
        if not self.path(shard).exists():
            return None
        try:
            part = self.open(shard)
            part.check()
        except DatasetError:
            return None
        if self.encoder == REFERENCE and part.summary.encoder != REFERENCE:
            return None
        if part.summary.composes and not self.composes:
            return None
        return part.summary

    def __call__(self, shard: Shard) -> PartSummary:
        """Encode ``shard``; by what is slow and sure, where what is fast is found to differ from it.

        Raises:
            InputError: Its file is damaged.
        """
        task, differs = self, Differs()
        while True:
            try:
                return task._encode(shard, differs)
            except EncoderDiffers as error:
                differs = differs._replace(encoder=str(error))
            except ShapeDiffers as error:
                differs = differs._replace(shape=str(error))
            task = task.without(differs)

    def without(self, differs: Differs) -> EncodeShard:
        """Return the task that does without what was found to differ."""
        return replace(
            self,
            encoder=REFERENCE if differs.encoder else self.encoder,
            composes=self.composes and not differs.shape,
        )

    def _encode(self, shard: Shard, differs: Differs) -> PartSummary:
        clock.start()
        with clock.stage("open"):
            tools = _tools(self)
        if isinstance(tools.encoder, FastEncoder):
            tools.encoder.start()
        handler = make_handler(self.config, self.choices[shard.file])
        encoder = make_record_encoder(handler, tools, self.config)
        reader = readers.get(shard.source.kind)
        columns = columns_to_read(handler, self.config)
        writer = PartWriter(
            self.path(shard), self.identity(shard), encoder.datasets, self.config.rejected_records
        )
        with writer, _rare_collection():
            for batch in clock.over("read", reader.read(shard, columns)):
                with clock.stage("dialogues"):
                    encoded = encoder.encode(batch.records)
                encoded.rejections.extend(batch.rejections)
                encoded.notes.update(note for _, note in batch.notes)
                with clock.stage("write"):
                    writer.add(encoded, len(batch))
            # Else the part would be taken for that of the content that was looked at, if that came back.
            refuse_changed(shard.source)
            if isinstance(tools.encoder, FastEncoder):
                tools.encoder.settle()
            writer.summary.encoder = self.encoder
            writer.summary.composes = self.composes
            writer.summary.differs = differs
            if isinstance(tools.encoder, FastEncoder):
                writer.summary.texts, writer.summary.checked = tools.encoder.texts, tools.encoder.checked
        writer.summary.stages = clock.seconds
        return writer.summary


def columns_to_read(handler: Handler, config: PreprocessConfig) -> list[str] | None:
    """Return the columns of which an encoder makes use, or None for all."""
    if config.rejected_records:
        return None
    kept = [*config.keep_columns, METADATA] if config.keep_columns else []
    extra = [key for key in config.dataset_additional_keys if key != REPLY]
    return list(dict.fromkeys([*handler.columns.values(), *kept, *extra]))


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Let garbage be collected only where it piles up.

    A batch is tens of thousands of objects, all of which are in use until it is done: looking through them
    again and again took a sixth to a third of the time. The threshold counts the objects that were made and
    are still there, so it is reached by batches of millions of objects, and by garbage.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@functools.lru_cache(maxsize=1)
def _tools(task: EncodeShard) -> Tools:
    """Open what encodes, once per process and run; the encoder may be there already."""
    encoder = shared_encoder(task.tokenizer, task.encoder)
    chat_format = task.format
    template = None if chat_format is None else chat_format.open(encoder, task.config)
    if isinstance(template, ChatTemplate):
        template.composes = task.composes
    return Tools(encoder, template)
