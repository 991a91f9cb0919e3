"""Encodes records of a finished dataset again, as they were then: with the reference, in this process."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Record
from mtsft_preproc.encoding import (
    DatasetSpec,
    EncodedBatch,
    RecordEncoder,
    Tools,
    make_record_encoder,
)
from mtsft_preproc.errors import InputError, TemplateError
from mtsft_preproc.handlers import (
    Handler,
    HandlerChoice,
    load_user_handlers,
    make_handler,
    user_file_sha256,
)
from mtsft_preproc.inspection.reencoding.recipe import Recipe
from mtsft_preproc.inspection.reencoding.speaking import SpeakingTemplate
from mtsft_preproc.inspection.tokenizer import encoder_of_manifest
from mtsft_preproc.tasks import columns_to_read
from mtsft_preproc.templates import Template, make_format
from mtsft_preproc.tokenization import Encoder

__all__ = ["EncodedSample", "Reencoder"]

#: Entries of a manifest that hold a chat format; the name is only a name for it.
_FORMATS = ("prompt_type", "chat_template", "text_form")


@dataclass(frozen=True)
class EncodedSample:
    """A sample, as encoding gives it.

    Attributes:
        row: Row of its record in the file.
        turn: The message that it is for, or None for whole dialogues.
        tokens: int32, shape (N_group,): by name of each stored dataset.
        lengths: Tokens by group.
        trained: Trained tokens.
        digest: 16 bytes, as the sidecar has them.
    """

    row: int
    turn: int | None
    tokens: Mapping[str, npt.NDArray[np.int32]]
    lengths: Mapping[str, int]
    trained: int
    digest: bytes


class Reencoder:
    """Encodes records as a recipe says.

    Opening checks that handler, tokenizer and chat format are those of then.

    Args:
        recipe: The recipe.
        trust_remote_code: Whether the tokenizer's folder may run its own Python code.
        encoder: Of its tokenizer, if that is open already.

    Raises:
        InputError: The handler's file is another.
        TokenizerError: The tokenizer is gone, or another.
        TemplateError: The chat format is another.
        SettingsError: Something that the settings name is gone.
    """

    def __init__(
        self, recipe: Recipe, trust_remote_code: bool = False, encoder: Encoder | None = None
    ) -> None:
        self._recipe = recipe
        self._config = replace(recipe.config, trust_remote_code=trust_remote_code)
        self._user_file: str | None = None
        self._user_handlers: list[str] = []
        self._load_user_handlers()
        self._handlers: dict[HandlerChoice, Handler] = {}
        handler = self._handler(recipe.inputs[0])
        self.encoder: Encoder = encoder or encoder_of_manifest(
            recipe.manifest["tokenizer"], trust_remote_code
        )
        self._template = self._open_format(handler)
        self._encoders: dict[HandlerChoice, RecordEncoder] = {}
        self._speaking: SpeakingTemplate | None = None

    @property
    def config(self) -> PreprocessConfig:
        """The settings."""
        return self._config

    def columns(self, entry: Mapping[str, Any]) -> list[str] | None:
        """Return the columns of a file that the run read, or None for all.

        Args:
            entry: The manifest's entry on the file.
        """
        return columns_to_read(self._handler(entry), self._config)

    def _choice(self, entry: Mapping[str, Any]) -> HandlerChoice:
        """Return the handler of a file."""
        name, map_keys = entry["handler"], json.dumps(entry["map_keys"], ensure_ascii=False)
        return HandlerChoice(name, map_keys, self._user_file if name in self._user_handlers else None)

    def _load_user_handlers(self) -> None:
        """Run the user's file, if it is that of then."""
        path = self._config.handler_path
        if path is None:
            return
        found, expected = user_file_sha256(path), self._recipe.manifest.get("handler_file")
        if found != expected:
            raise InputError(
                f"--handler-path: {path}: not the file that the dataset was made with (sha256 "
                f"{found[:12]}, the manifest says {str(expected)[:12]})"
            )
        self._user_file, self._user_handlers = found, load_user_handlers(path)

    def _handler(self, entry: Mapping[str, Any]) -> Handler:
        choice = self._choice(entry)
        if choice not in self._handlers:
            self._handlers[choice] = make_handler(self._config, choice)
        return self._handlers[choice]

    def _open_format(self, handler: Handler) -> Template | None:
        """Open the chat format, and compare it with the manifest's."""
        if handler.objective == "text":
            return None
        manifest = self._recipe.manifest
        entry = manifest.get("chat_template") or {}
        date = datetime.date.fromisoformat(entry["date"]) if entry.get("date") else datetime.date.today()
        chat_format = make_format(self._config, handler.text_form, handler.text_form_only)
        chat_format = chat_format.resolve(self.encoder.spec, date)
        described = json.loads(json.dumps(chat_format.describe()))
        for kind in _FORMATS:
            own, then = described.get(kind), manifest.get(kind)
            if own is None and then is None:
                continue
            for name in sorted({*(own or {}), *(then or {})} - {"name"}):
                values = [(one or {}).get(name) for one in (own, then)]
                if values[0] != values[1]:
                    raise TemplateError(
                        f"the chat format ({kind} {(then or own or {}).get('name')!r}) is not the one that "
                        f"the dataset was made with: {name}: {_short(values[0])}, the manifest says "
                        f"{_short(values[1])}"
                    )
        return chat_format.open(self.encoder, self._config)

    def encode(
        self, entry: Mapping[str, Any], records: Sequence[Record]
    ) -> tuple[list[EncodedSample], list[tuple[int, int | None, str]]]:
        """Encode records of one file.

        Args:
            entry: The manifest's entry on the file.
            records: Its records, with their rows in it.

        Returns:
            Their samples; and row, turn (None: the whole record) and reason of what is rejected.
        """
        choice = self._choice(entry)
        if choice not in self._encoders:
            tools = Tools(self.encoder, self._template)
            self._encoders[choice] = make_record_encoder(self._handler(entry), tools, self._config)
        encoder = self._encoders[choice]
        batch = encoder.encode(records)
        rejected = [(own.row, own.turn if own.turn >= 0 else None, own.reason) for own in batch.rejections]
        return _samples_of(batch, encoder.datasets), rejected

    def encode_speaking(
        self, entry: Mapping[str, Any], record: Record
    ) -> tuple[list[EncodedSample], SpeakingTemplate | None]:
        """Encode a record, with numbers of tokens in the place of ids: who wrote them, the template tells.

        Args:
            entry: The manifest's entry on its file.
            record: The record.

        Returns:
            Its samples; and the template, which knows their tokens until it is asked to encode again. None
            for text documents, which have no messages: there ids are ids.
        """
        if self._template is None:
            return self.encode(entry, [record])[0], None
        if self._speaking is None:
            self._speaking = SpeakingTemplate(self._template, self.encoder.spec.vocab_size)
        self._speaking.forget()
        tools = Tools(self.encoder, self._speaking)
        encoder = make_record_encoder(self._handler(entry), tools, self._config)
        return _samples_of(encoder.encode([record]), encoder.datasets), self._speaking


def _samples_of(batch: EncodedBatch, datasets: Sequence[DatasetSpec]) -> list[EncodedSample]:
    """Return the samples of a batch one by one."""
    ends = {group: np.cumsum(lengths).tolist() for group, lengths in batch.lengths.items()}
    stored = [spec for spec in datasets if spec.stored]
    found = []
    for number, (row, turn) in enumerate(zip(batch.rows.tolist(), batch.turns.tolist(), strict=True)):
        lengths = {group: int(own[number]) for group, own in batch.lengths.items()}
        slices = {group: slice(ends[group][number] - lengths[group], ends[group][number]) for group in ends}
        found.append(
            EncodedSample(
                row,
                turn if turn >= 0 else None,
                {spec.name: batch.tokens[spec.name][slices[spec.group]] for spec in stored},
                lengths,
                int(batch.trained[number]),
                batch.digests[number].astype("<u8").tobytes(),
            )
        )
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
