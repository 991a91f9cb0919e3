"""Encoder back ends behind one small interface."""

from __future__ import annotations

import itertools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError, TokenizerError
from mtsft_preproc.tokenization.load import open_transformers
from mtsft_preproc.tokenization.spec import TokenizerSpec
from mtsft_preproc.tokenization.special_text import count_marks, mark_of, split_marks

__all__ = ["Encoder", "FlatIds", "SpannedIds", "open_encoder"]

#: Tokens that are a space alone, as the two families write it.
_SPACES = ("\u2581", "\u0120")
#: Normalizers of ``tokenizers`` that may make one character of several.
_COMPOSING = frozenset({"NFC", "NFKC", "Precompiled", "Replace"})
_Pairs = npt.NDArray[np.int64]


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


class SpannedIds(NamedTuple):
    """The ids of many texts, and which characters each covers.

    Neither ``starts`` nor ``ends`` decreases within a text. Tokens that share a character (its bytes, say)
    each cover the whole of it; a token without text of its own, as a prepended space, has an empty span
    where it stands. White space that an added token swallows is in that token's span, and so is in the
    span of the character before what a normalizer composed into that or dropped.

    Attributes:
        ids: int32, shape (N,).
        offsets: int64, shape (T+1,): text t has the tokens ``offsets[t]`` to ``offsets[t+1]``.
        starts: int32, shape (N,): token n of text t covers ``text[starts[n]:ends[n]]``, counted in
            characters (as Python counts) from the start of its text.
        ends: int32, shape (N,).
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class Encoder(ABC):
    """Turns texts into ids; adds nothing at either end.

    Attributes:
        spec: The tokenizer.
        special_ids: As :attr:`TokenizerSpec.special_ids`.
        special_mask: bool, shape (vocab_size,): True at those ids.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.special_ids = spec.special_ids
        self.special_mask: npt.NDArray[np.bool_] = np.zeros(spec.vocab_size, np.bool_)
        self.special_mask[list(self.special_ids)] = True

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
    def encode_spans(self, texts: list[str]) -> SpannedIds:
        """Give the ids of :meth:`encode`, and the characters that each covers.

        Raises:
            TokenizerError: The tokenizer can't say which.
        """

    @abstractmethod
    def encode_marked_spans(self, text: str) -> SpannedIds:
        """Give the ids of :meth:`encode_marked`, and the characters of ``text``, marks included.

        Raises:
            RecordError: As :meth:`encode_marked`.
            TokenizerError: The tokenizer can't say which.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""

    def _prove(self, text: str, ids: list[int]) -> list[int]:
        """Return ``ids`` if they hold no special token but those that were marked."""
        if sum(index in self.special_ids for index in ids) != count_marks(text):
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
        self._keep_offsets_whole()
        self._spaces = [self._tokenizer.token_to_id(space) for space in _SPACES]
        normalizer = self._tokenizer.normalizer
        state = b"" if normalizer is None else normalizer.__getstate__()
        self._composes = not _COMPOSING.isdisjoint(re.findall(r'"type":\s*"(\w+)"', state.decode()))
        self._marks: dict[int, int] = {}

    def encode(self, texts: list[str]) -> FlatIds:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return FlatIds.of([encoding.ids for encoding in encodings])

    def encode_marked(self, text: str) -> list[int]:
        return self._encode_marked(text)[0]

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        flat = FlatIds.of([encoding.ids for encoding in encodings])
        return self._span(texts, flat, [encoding.offsets for encoding in encodings])

    def encode_marked_spans(self, text: str) -> SpannedIds:
        ids, spans = self._encode_marked(text)
        return self._span([text], FlatIds.of([ids]), [spans])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _encode_marked(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        if not self._marks:
            self._marks = self._add_marks()
        self._tokenizer.encode_special_tokens = True
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = False
        return self._prove(text, [self._marks.get(index, index) for index in found.ids]), found.offsets

    def _keep_offsets_whole(self) -> None:
        """Stop a byte-level post-processor from cutting spaces off the spans; no id depends on it."""
        processor = self._tokenizer.post_processor
        if processor is not None:
            state = re.sub(rb'("trim_offsets":\s*)true', rb"\1false", processor.__getstate__())
            processor.__setstate__(state)
            self._tokenizer.post_processor = processor

    def _span(self, texts: list[str], flat: FlatIds, spans: list[list[tuple[int, int]]]) -> SpannedIds:
        """Join the library's spans, and mend them where they say less or more than they should."""
        ids, offsets = flat
        if not len(ids):
            return SpannedIds(ids, offsets, np.zeros(0, np.int32), np.zeros(0, np.int32))
        # Counted through all texts, with a gap after each, so that no token meets one of another text.
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        base = np.repeat(np.cumsum(lengths) - lengths, np.diff(offsets))
        starts, ends = (_pairs(itertools.chain.from_iterable(spans), len(ids)) + base[:, None]).T
        if self._composes:
            # Of "e" and an accent that become one character, the library names the "e" alone. The
            # tokens that end together (bytes of one character) reach to where the next one starts.
            limits = np.append(starts[1:], 0)
            filled = np.diff(offsets) > 0
            limits[offsets[1:][filled] - 1] = (np.cumsum(lengths) - 1)[filled]
            lasts = np.flatnonzero(np.append(ends[1:] != ends[:-1], True))
            ends = np.maximum(ends, np.repeat(limits[lasts], np.diff(lasts, prepend=-1)))
        # A prepended space that is a token of its own is given the character that it stands before.
        empty = np.isin(ids, [index for index in self._spaces if index is not None])
        empty &= np.append(starts[1:] == starts[:-1], False)
        empty[1:] &= ends[:-1] <= starts[1:]
        ends = np.where(empty, starts, ends)
        return SpannedIds(ids, offsets, (starts - base).astype(np.int32), (ends - base).astype(np.int32))

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

        self._model: Any = sentencepiece.SentencePieceProcessor(model_file=spec.file)
        self._ids = {token.text: token.id for token in spec.added}
        ordered = sorted(self._ids, key=len, reverse=True)
        self._regex = re.compile("(" + "|".join(map(re.escape, ordered)) + ")")
        self._starts = tuple({text[:2] for text in ordered})
        self._widths = {token.id: len(token.text) for token in spec.added}
        self._space = self._model.piece_to_id(_SPACES[0])
        try:
            self._maps_offsets = bool(self._model.encode("", out_type="offset_mapping"))
        except RuntimeError:
            # sentencepiece before 0.2.2, which has what was removed then.
            self._maps_offsets = False

    def encode(self, texts: list[str]) -> FlatIds:
        if not any(map(self._may_hold_added, texts)):
            return FlatIds.of(self._model.encode(texts, out_type=int))
        return FlatIds.of([self._join(self._split(text)) for text in texts])

    def encode_marked(self, text: str) -> list[int]:
        return self._prove(text, self._join(split_marks(text)))

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        return self._span(list(map(self._split, texts)), self._widths)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        pieces = split_marks(text)
        found = self._span([pieces], {token: len(mark_of(token)) for _, token in pieces})
        self._prove(text, found.ids.tolist())
        return found

    def decode(self, ids: Sequence[int]) -> str:
        names = {token.id: token.text for token in self.spec.added}
        pieces: list[str] = []
        for is_added, group in itertools.groupby(ids, key=names.__contains__):
            run = list(group)
            pieces += [names[index] for index in run] if is_added else [self._model.decode(run)]
        return "".join(pieces)

    def _may_hold_added(self, text: str) -> bool:
        return any(start in text for start in self._starts)

    def _split(self, text: str) -> list[tuple[str, int]]:
        if not self._may_hold_added(text):
            return [(text, -1)]
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

    def _span(self, split: list[list[tuple[str, int]]], widths: dict[int, int]) -> SpannedIds:
        """Encode texts that are split at their added tokens, which are ``widths`` characters wide."""
        found = self._encode_pieces([piece for pieces in split for piece, _ in pieces if piece])
        lists: list[list[int]] = []
        spans: list[_Pairs] = [np.zeros((0, 2), np.int64)]
        for pieces in split:
            lists.append([])
            at = 0
            for piece, token in pieces:
                if piece:
                    ids, pairs = next(found)
                    lists[-1] += ids
                    spans.append(pairs + at)
                    at += len(piece)
                if token >= 0:
                    lists[-1].append(token)
                    spans.append(np.array([[at, at + widths[token]]], np.int64))
                    at += widths[token]
        starts, ends = np.concatenate(spans).astype(np.int32).T
        return SpannedIds(*FlatIds.of(lists), np.ascontiguousarray(starts), np.ascontiguousarray(ends))

    def _encode_pieces(self, texts: list[str]) -> Iterator[tuple[list[int], _Pairs]]:
        if self._maps_offsets:
            maps = self._model.encode(texts, out_type="offset_mapping")
            rows = [(found["ids"], found["offsets"]) for found in maps]
        else:
            # Its pieces point into it: each is read while it is held.
            protos = self._model.encode(texts, out_type="immutable_proto")
            rows = [
                ([piece.id for piece in proto.pieces], [(piece.begin, piece.end) for piece in proto.pieces])
                for proto in protos
            ]
        for ids, spans in rows:
            pairs = _pairs(spans, len(ids))
            starts, ends = pairs[:, 0], pairs[:, 1]
            # Of the tokens of one character (its bytes, say) the library gives it to the last alone.
            part = (starts == ends) & (starts < ends.max(initial=0))
            part[:1] &= ids[:1] != [self._space]
            ends[part] += 1
            yield ids, pairs


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

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        raise self._no_spans()

    def encode_marked_spans(self, text: str) -> SpannedIds:
        raise self._no_spans()

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _no_spans(self) -> TokenizerError:
        return TokenizerError(
            f"--tokenizer-name-or-path: {self.spec.source}: a chat template needs to know which characters "
            "each token covers, which this Python tokenizer can't say; expected a Rust (fast) tokenizer or "
            "a folder with a SentencePiece tokenizer.model, or a chat format by --prompt-type"
        )


_BACKENDS: dict[str, type[Encoder]] = {
    "tokenizers": RustEncoder,
    "sentencepiece": SentencePieceEncoder,
    "transformers": TransformersEncoder,
}


def open_encoder(spec: TokenizerSpec) -> Encoder:
    """Open the encoder that ``spec`` names."""
    return _BACKENDS[spec.backend](spec)


def _pairs(spans: Iterable[tuple[int, int]], count: int) -> _Pairs:
    """Return ``count`` pairs as an array of shape (count, 2)."""
    return np.fromiter(itertools.chain.from_iterable(spans), np.int64, 2 * count).reshape(-1, 2)
