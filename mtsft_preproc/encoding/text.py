"""Text documents -> token ids, one dataset per field of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Record, Rejection, shorten
from mtsft_preproc.encoding.batch import DatasetSpec, EncodedBatch, RecordEncoder
from mtsft_preproc.encoding.columns import kept_columns
from mtsft_preproc.encoding.digests import digest_array, text_digest
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import TextHandler
from mtsft_preproc.templates import encode_documents
from mtsft_preproc.tokenization import Encoder, FlatIds

__all__ = ["DocumentEncoder"]


class DocumentEncoder(RecordEncoder):
    """Turns records into text documents.

    A document is what the tokenizer makes of the text, its own BOS and the like included; then, with
    ``--append-eod``, EOS; then the pad token up to a multiple of ``--pad-to-multiple-of``.

    Args:
        handler: Record -> texts.
        encoder: Of the texts.
        config: The settings.
    """

    def __init__(self, handler: TextHandler, encoder: Encoder, config: PreprocessConfig) -> None:
        self._handler = handler
        self._encoder = encoder
        self._config = config
        self._keys = handler.datasets()
        self.datasets = document_datasets(self._keys)

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        kept: list[Record] = []
        texts: list[list[str]] = []
        rejections: list[Rejection] = []
        for record in records:
            try:
                found = self._handler.texts(record.value)
                if not any(found):
                    raise RecordError("empty-text", self._keys[0], "a text that is not empty", "''")
            except RecordError as error:
                rejections.append(Rejection.of(record, error))
            else:
                texts.append(found)
                kept.append(record)
        errors: dict[int, RecordError] = {}
        spelled: set[int] = set()
        encoded: dict[str, list[npt.NDArray[np.int32]]] = {}
        for place, key in enumerate(self._keys):
            flat, failed, marked = encode_documents(
                [own[place] for own in texts], self._encoder, self._config.special_tokens_in_text
            )
            encoded[key] = self._closed(flat, self._present(flat, [own[place] for own in texts]))
            errors = {**failed, **errors}
            spelled |= marked
            self._refuse_long(key, encoded[key], errors)
        for number in range(len(kept)):
            if not any(len(encoded[key][number]) for key in self._keys):
                got = ", ".join(map(shorten, texts[number]))
                empty = RecordError("empty-text", self._keys[0], "a text of at least one token", got)
                errors.setdefault(number, empty)
        rejections += [Rejection.of(kept[number], error) for number, error in errors.items()]
        alive = [number for number in range(len(kept)) if number not in errors]
        digests = digest_array([text_digest(texts[number]) for number in alive])
        return self._batch(kept, encoded, alive, digests, rejections, len(spelled - errors.keys()))

    def _refuse_long(
        self, key: str, documents: list[npt.NDArray[np.int32]], errors: dict[int, RecordError]
    ) -> None:
        limit = self._config.seq_length
        if limit is None:
            return
        for number, ids in enumerate(documents):
            if len(ids) > limit:
                error = RecordError("overlong", key, f"at most {limit} tokens", f"{len(ids)} tokens")
                errors.setdefault(number, error)

    def _batch(
        self,
        kept: list[Record],
        encoded: dict[str, list[npt.NDArray[np.int32]]],
        alive: list[int],
        digests: npt.NDArray[np.uint64],
        rejections: list[Rejection],
        spelled: int,
    ) -> EncodedBatch:
        none = np.zeros(0, np.int32)
        own = {key: [ids[number] for number in alive] for key, ids in encoded.items()}
        lengths = {key: np.asarray([len(ids) for ids in lists], np.int32) for key, lists in own.items()}
        columns = self._config.keep_columns
        return EncodedBatch(
            tokens={key: np.concatenate([none, *lists]) for key, lists in own.items()},
            lengths=lengths,
            # All of it is trained: trainers of such datasets take the tokens themselves for labels.
            trained=sum(lengths.values(), np.zeros(len(alive), np.int32)),
            rows=np.asarray([kept[number].row for number in alive], np.int64),
            turns=np.full(len(alive), -1, np.int32),
            digests=digests,
            kept=[kept_columns(kept[number].value, columns) for number in alive] if columns else [],
            rejections=rejections,
            notes=Counter({"special-token-in-text": spelled} if spelled else {}),
        )

    def _present(self, flat: FlatIds, texts: list[str]) -> list[bool]:
        """Return which texts have a token of their own: a tokenizer may trim white space away."""
        spec = self._encoder.spec
        around = len(spec.auto_prefix) + len(spec.auto_suffix)
        words = (np.diff(flat.offsets) > around).tolist()
        return [bool(text) and there for text, there in zip(texts, words, strict=True)]

    def _closed(self, flat: FlatIds, present: list[bool]) -> list[npt.NDArray[np.int32]]:
        """Return each document with EOS and padding behind it; nothing at all where there is no text."""
        spec = self._encoder.spec
        step = self._config.pad_to_multiple_of
        none = np.zeros(0, np.int32)
        end = np.asarray([spec.eos_id] if self._config.append_eod else [], np.int32)
        found = []
        for number, there in enumerate(present):
            if not there:
                found.append(none)
                continue
            ids = np.concatenate([flat.ids[flat.offsets[number] : flat.offsets[number + 1]], end])
            padding = np.full(-len(ids) % step, spec.pad_id, np.int32)
            found.append(np.concatenate([ids, padding]))
        return found


def document_datasets(keys: Iterable[str]) -> tuple[DatasetSpec, ...]:
    """Return the datasets of text documents."""
    return tuple(DatasetSpec(key, key, skips_empty=True) for key in keys)
