"""Encodes the texts of a batch, equal ones once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.segments import SegmentBatch
from mtsft_preproc.tokenization import Encoder, FlatIds

__all__ = ["EncodedTexts", "SpannedText", "encode_texts"]

_Ints = npt.NDArray[np.int32]
_NONE: _Ints = np.zeros(0, np.int32)


@dataclass(slots=True)
class SpannedText:
    """The tokens of one text.

    Attributes:
        ids: int32, shape (N,).
        starts: int32, shape (N,): where the characters that a token covers start; shape (0,) where that
            was not asked for.
        ends: int32: where they end.
        marked: Whether special tokens are written as marks in the text that they are counted in.
    """

    ids: _Ints
    starts: _Ints
    ends: _Ints
    marked: bool = False


@dataclass(slots=True)
class EncodedTexts:
    """The tokens of the texts of a batch.

    Attributes:
        texts: By number of the text.
        failed: Why a text could not be encoded, by its number.
    """

    texts: list[SpannedText] = field(default_factory=list)
    failed: dict[int, RecordError] = field(default_factory=dict)


def encode_texts(texts: SegmentBatch, to_span: set[int], encoder: Encoder) -> EncodedTexts:
    """Encode texts, those whose numbers are in ``to_span`` together with the characters of each token.

    Samples of one dialogue share their history, so many texts of a batch are the same.
    """
    guarded = set(texts.guarded)
    # Per kind of encoding: the texts, each with its place among them.
    kinds: dict[tuple[bool, bool], dict[str, int]] = {}
    keys = []
    for number, text in enumerate(texts.texts):
        how = number in guarded, number in to_span
        keys.append((how, kinds.setdefault(how, {}).setdefault(text, len(kinds[how]))))
    done = {how: _encode(list(found), *how, encoder) for how, found in kinds.items()}
    encoded = EncodedTexts()
    for number, (how, place) in enumerate(keys):
        result = done[how][place]
        if isinstance(result, RecordError):
            encoded.failed[number] = result
            result = SpannedText(_NONE, _NONE, _NONE)
        encoded.texts.append(result)
    return encoded


def _encode(
    texts: list[str], marked: bool, spanned: bool, encoder: Encoder
) -> Sequence[SpannedText | RecordError]:
    if marked:
        return [_encode_marked(text, spanned, encoder) for text in texts]
    if not spanned:
        return [SpannedText(ids, _NONE, _NONE) for ids in _cut(encoder.encode(texts))]
    found = encoder.encode_spans(texts)
    columns = [_cut(FlatIds(column, found.offsets)) for column in (found.ids, found.starts, found.ends)]
    return [SpannedText(ids, starts, ends) for ids, starts, ends in zip(*columns, strict=True)]


def _encode_marked(text: str, spanned: bool, encoder: Encoder) -> SpannedText | RecordError:
    try:
        if not spanned:
            ids = np.asarray(encoder.encode_marked(text), np.int32)
            return SpannedText(ids, _NONE, _NONE, marked=True)
        found = encoder.encode_marked_spans(text)
    except RecordError as error:
        return error
    return SpannedText(found.ids, found.starts, found.ends, marked=True)


def _cut(flat: FlatIds) -> list[_Ints]:
    """Return the column of each text."""
    borders = flat.offsets.tolist()
    return [flat.ids[start:end] for start, end in pairwise(borders)]
