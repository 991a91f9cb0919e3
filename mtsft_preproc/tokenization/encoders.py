"""Encoder back ends behind one small interface."""

from __future__ import annotations

import itertools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.tokenization.load import open_transformers
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import count_marks, mark_of, split_marks

__all__ = ["Encoder", "FlatIds", "open_encoder"]


class FlatIds(NamedTuple):
    """The ids of many texts in one array.

    Attributes:
        ids: int32, shape (N,).
        offsets: int64, shape (T+1,): text t has the ids ``ids[offsets[t]:offsets[t+1]]``.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> FlatIds:
        """Join one list of ids per text."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        flat = itertools.chain.from_iterable(lists)
        return cls(np.fromiter(flat, np.int32, int(offsets[-1])), offsets)


class Encoder(ABC):
    """Turns texts into ids; adds nothing at either end."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec

    @abstractmethod
    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text; special tokens that it spells become tokens."""

    @abstractmethod
    def encode_marked(self, text: str) -> list[int]:
        """Encode a text in which marks stand for the special tokens; what it spells stays text.

        Raises:
            RecordError: ``special-token``: the tokenizer can't be kept from making a token of it.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""

    def _prove(self, text: str, ids: list[int]) -> list[int]:
        """Return ``ids`` if they hold no special token but those that were marked."""
        special = {token.id for token in self.spec.added if token.special} - {self.spec.unk_id}
        if sum(index in special for index in ids) != count_marks(text):
            raise RecordError(
                "special-token", "", "text that the tokenizer can encode as plain text", "control ids"
            )
        return ids


class RustEncoder(Encoder):
    """The reference: Hugging Face ``tokenizers``."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        # Workers are the unit of parallelism; threads inside each would only fight over the cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(spec.file)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._marks: dict[int, int] = {}

    def encode(self, texts: list[str]) -> FlatIds:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return FlatIds.of([encoding.ids for encoding in encodings])

    def encode_marked(self, text: str) -> list[int]:
        if not self._marks:
            self._marks = self._add_marks()
        self._tokenizer.encode_special_tokens = True
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = False
        return self._prove(text, [self._marks.get(index, index) for index in found])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _add_marks(self) -> dict[int, int]:
        """Add a token for each mark; return the ids that they stand for."""
        from tokenizers import AddedToken

        special = [token for token in self.spec.added if token.special]
        self._tokenizer.add_tokens(
            [
                AddedToken(
                    mark_of(token.id),
                    special=False,
                    normalized=token.normalized,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                )
                for token in special
            ]
        )
        return {self._tokenizer.token_to_id(mark_of(token.id)): token.id for token in special}


class SentencePieceEncoder(Encoder):
    """The sentencepiece library itself; the text between added tokens is encoded piece by piece."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor(model_file=spec.file)
        self._ids = {token.text: token.id for token in spec.added}
        ordered = sorted(self._ids, key=len, reverse=True)
        self._regex = re.compile("(" + "|".join(map(re.escape, ordered)) + ")")
        self._starts = tuple({text[:2] for text in ordered})

    def encode(self, texts: list[str]) -> FlatIds:
        if not any(start in text for text in texts for start in self._starts):
            return FlatIds.of(self._model.encode(texts, out_type=int))
        return FlatIds.of([self._join(self._split(text)) for text in texts])

    def encode_marked(self, text: str) -> list[int]:
        return self._prove(text, self._join(split_marks(text)))

    def decode(self, ids: Sequence[int]) -> str:
        names = {token.id: token.text for token in self.spec.added}
        pieces: list[str] = []
        for is_added, group in itertools.groupby(ids, key=names.__contains__):
            run = list(group)
            pieces += [names[index] for index in run] if is_added else [self._model.decode(run)]
        return "".join(pieces)

    def _split(self, text: str) -> list[tuple[str, int]]:
        pieces = self._regex.split(text)
        ids = [self._ids[token] for token in pieces[1::2]]
        return list(zip(pieces[::2], [*ids, -1], strict=True))

    def _join(self, pieces: Iterable[tuple[str, int]]) -> list[int]:
        ids: list[int] = []
        for text, token in pieces:
            if text:
                ids += self._model.encode(text, out_type=int)
            if token >= 0:
                ids.append(token)
        return ids


class TransformersEncoder(Encoder):
    """A Python tokenizer, through transformers: correct, and slow."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__(spec)
        self._tokenizer: Any = open_transformers(spec.file, False, spec.trust_remote_code)
        special = [token.text for token in spec.added if token.special]
        if special:
            self._tokenizer.add_tokens(special, special_tokens=True)

    def encode(self, texts: list[str]) -> FlatIds:
        return FlatIds.of([self._tokenizer.encode(text, add_special_tokens=False) for text in texts])

    def encode_marked(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece, token in split_marks(text):
            if piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
            if token >= 0:
                ids.append(token)
        return self._prove(text, ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


_BACKENDS: dict[str, type[Encoder]] = {
    "tokenizers": RustEncoder,
    "sentencepiece": SentencePieceEncoder,
    "transformers": TransformersEncoder,
}


def open_encoder(spec: TokenizerSpec) -> Encoder:
    """Open the encoder that ``spec`` names."""
    return _BACKENDS[spec.backend](spec)
