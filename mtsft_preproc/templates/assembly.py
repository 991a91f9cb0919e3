"""Segments -> tokens, in arrays: every text is encoded once, every constant was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.segments import SegmentBatch
from mtsft_preproc.templates.token_batch import WHOLE, Bools, Ints, TokenBatch
from mtsft_preproc.tokenization import Encoder, FlatIds

__all__ = ["assemble"]


def assemble(
    segments: SegmentBatch, encoder: Encoder, constants: FlatIds, teaches_late: bool
) -> TokenBatch:
    """Encode the segments of whole dialogues and put them together.

    Args:
        segments: Of dialogues that could be rendered; ``dialogues`` says which.
        encoder: Of the texts.
        constants: Ids of the constants, by number.
        teaches_late: Whether the first position of a source behind a trained target has a label.
    """
    flat, failed = _encode_texts(segments, encoder)
    starts, lengths, pool = _locate(segments, flat, constants)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    # Position p of the output takes pool[p + (start of its segment there - start of it here)].
    ids = pool[np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])]

    borders = np.asarray([0, *segments.message_ends], np.int64)
    per_message = np.diff(ends[borders])
    message_ends = ends[borders[1:]]
    dialogue_ends = np.asarray(segments.dialogue_ends, np.int64)
    trained = np.asarray(segments.trained, bool)
    late = np.zeros(0, np.int64)
    if teaches_late and len(message_ends):
        late = _late_stops(message_ends - per_message, message_ends, dialogue_ends, trained)
    return TokenBatch(
        ids=ids,
        kinds=np.repeat(np.asarray(segments.kinds, np.uint8), lengths),
        messages=np.repeat(np.arange(len(per_message)), per_message),
        trained=trained,
        sample_ends=message_ends[dialogue_ends - 1] if len(dialogue_ends) else message_ends[:0],
        dialogues=np.asarray(segments.dialogues, np.int64),
        turns=np.full(len(dialogue_ends), WHOLE, np.int32),
        late_stops=late,
        failed=_by_dialogue(segments, failed),
        notes=[],
    )


def _encode_texts(segments: SegmentBatch, encoder: Encoder) -> tuple[FlatIds, dict[int, RecordError]]:
    """Encode all texts; return the ids, and the errors of guarded texts by number of the text."""
    if not segments.guarded:
        return encoder.encode(segments.texts), {}
    texts = list(segments.texts)
    found: dict[int, list[int]] = {}
    failed: dict[int, RecordError] = {}
    for number in segments.guarded:
        try:
            found[number] = encoder.encode_marked(texts[number])
        except RecordError as error:
            found[number], failed[number] = [], error
        texts[number] = ""
    flat = encoder.encode(texts)
    lists: Sequence[list[int]] = [
        found[number] if number in found else flat.ids[start:end].tolist()
        for number, (start, end) in enumerate(
            zip(flat.offsets[:-1].tolist(), flat.offsets[1:].tolist(), strict=True)
        )
    ]
    return FlatIds.of(lists), failed


def _by_dialogue(segments: SegmentBatch, failed: dict[int, RecordError]) -> dict[int, RecordError]:
    """Turn errors by text into errors by dialogue."""
    found: dict[int, RecordError] = {}
    for number, error in failed.items():
        segment = segments.refs.index(number)
        message = int(np.searchsorted(segments.message_ends, segment, side="right"))
        place = int(np.searchsorted(segments.dialogue_ends, message, side="right"))
        found.setdefault(segments.dialogues[place], error)
    return found


def _locate(
    segments: SegmentBatch, flat: FlatIds, constants: FlatIds
) -> tuple[Ints, Ints, npt.NDArray[np.int32]]:
    """Return where each segment's ids lie, how many they are, and the array that they lie in."""
    refs = np.asarray(segments.refs, np.int64)
    is_text = refs >= 0
    starts, lengths = np.empty_like(refs), np.empty_like(refs)
    text = refs[is_text]
    starts[is_text] = flat.offsets[text]
    lengths[is_text] = flat.offsets[text + 1] - flat.offsets[text]
    constant = ~refs[~is_text]
    starts[~is_text] = constants.offsets[constant] + len(flat.ids)
    lengths[~is_text] = constants.offsets[constant + 1] - constants.offsets[constant]
    return starts, lengths, np.concatenate([flat.ids, constants.ids])


def _late_stops(starts: Ints, ends: Ints, dialogue_ends: Ints, trained: Bools) -> Ints:
    """Return the first position of each later message that follows a trained one and isn't trained."""
    follows = np.ones(len(starts), bool)
    follows[0] = False
    follows[dialogue_ends[:-1]] = False
    follows[1:] &= trained[:-1] & ~trained[1:]
    return starts[follows & (ends > starts)]
