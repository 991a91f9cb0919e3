"""Encodes plain text documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.elements import TextGuard, data
from mtsft_preproc.templates.segments import Kind, SegmentBatch
from mtsft_preproc.tokenization import Encoder, FlatIds, SpecialText

__all__ = ["encode_documents"]


def encode_documents(
    texts: Sequence[str], encoder: Encoder, special_tokens_in_text: str = "plain"
) -> tuple[FlatIds, dict[int, RecordError], set[int]]:
    """Encode each text with what the tokenizer by itself adds around it.

    Args:
        texts: The documents. An empty one becomes what is added around it alone.
        encoder: Of the tokenizer.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.

    Returns:
        The ids; why a text could not be encoded, by its number (it then has no ids at all); and the numbers
        of the texts that spell a special token.
    """
    guard = TextGuard(SpecialText(encoder.spec), special_tokens_in_text, encoder.spec.normalizes_special)
    failed: dict[int, RecordError] = {}
    spelled: set[int] = set()
    ready = list(texts)
    guarded: dict[int, list[int]] = {}
    for number, text in enumerate(texts):
        one = SegmentBatch()
        try:
            if guard.add([data(text)], Kind.CONTEXT, one):
                spelled.add(number)
            if one.guarded:
                guarded[number] = encoder.encode_marked(one.texts[0])
        except RecordError as error:
            failed[number] = error
        if number in failed or number in guarded:
            ready[number] = ""
    flat = _replaced(encoder.encode(ready), guarded)
    return _surrounded(flat, encoder, failed), failed, spelled


def _replaced(flat: FlatIds, others: dict[int, list[int]]) -> FlatIds:
    """Return the ids with those of some texts, which have none yet, in their places."""
    if not others:
        return flat
    pieces: list[npt.NDArray[np.int32]] = []
    lengths = np.diff(flat.offsets)
    done = 0
    for number in sorted(others):
        start = int(flat.offsets[number])
        pieces += [flat.ids[done:start], np.asarray(others[number], np.int32)]
        lengths[number] = len(others[number])
        done = start
    ids = np.concatenate([*pieces, flat.ids[done:]])
    return FlatIds(ids, np.concatenate([[0], np.cumsum(lengths)]))


def _surrounded(flat: FlatIds, encoder: Encoder, failed: dict[int, RecordError]) -> FlatIds:
    """Return the ids with what the tokenizer adds around each text, but for those that failed."""
    prefix, suffix = encoder.spec.auto_prefix, encoder.spec.auto_suffix
    if not prefix and not suffix:
        return flat
    added = np.full(len(flat.offsets) - 1, len(prefix) + len(suffix), np.int64)
    added[list(failed)] = 0
    offsets = flat.offsets.copy()
    offsets[1:] += np.cumsum(added)
    lengths = np.diff(flat.offsets)
    kept = added > 0
    starts = offsets[:-1] + np.where(kept, len(prefix), 0)
    ids = np.empty(int(offsets[-1]), np.int32)
    ids[np.repeat(starts - flat.offsets[:-1], lengths) + np.arange(len(flat.ids))] = flat.ids
    ids[offsets[:-1][kept, None] + np.arange(len(prefix))] = np.asarray(prefix, np.int32)
    ids[(starts + lengths)[kept, None] + np.arange(len(suffix))] = np.asarray(suffix, np.int32)
    return FlatIds(ids, offsets)
