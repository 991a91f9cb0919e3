"""Segments -> tokens, in arrays: every text is encoded once, every constant was."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.stages import clock
from mtsft_preproc.templates.segments import TEXT, Kind, SegmentBatch, Segments
from mtsft_preproc.templates.token_batch import WHOLE, Bools, Ints, TokenBatch
from mtsft_preproc.tokenization import Encoder, FlatIds, SpannedIds

__all__ = ["assemble"]

_Kinds = npt.NDArray[np.uint8]


@dataclass(slots=True)
class _Encoded:
    """The ids of all texts of a batch; texts that are equal share theirs.

    Attributes:
        flat: Ids of the different texts.
        numbers: int64: per text of the batch, which of those it is.
        spans: Of the different texts with stretches, by number: the characters that each token covers.
        failed: Why one of the different texts could not be encoded.
    """

    flat: FlatIds
    numbers: Ints
    spans: dict[int, SpannedIds]
    failed: dict[int, RecordError]


class _Repeated(NamedTuple):
    """An array in which values stand several times in a row, to be made when it is needed."""

    values: npt.NDArray[Any]
    counts: Ints

    def array(self) -> npt.NDArray[Any]:
        """Return it."""
        return np.repeat(self.values, self.counts)


class _Assembled(TokenBatch):
    """A batch whose ``kinds`` and ``messages`` are made when somebody asks: few settings need them."""

    __slots__ = ("_kinds", "_messages")
    _kinds: _Kinds | _Repeated
    _messages: Ints | _Repeated

    @property
    def kinds(self) -> _Kinds:
        if isinstance(self._kinds, _Repeated):
            self._kinds = self._kinds.array()
        return self._kinds

    @kinds.setter
    def kinds(self, kinds: Any) -> None:
        self._kinds = kinds

    @property
    def messages(self) -> Ints:
        if isinstance(self._messages, _Repeated):
            self._messages = self._messages.array()
        return self._messages

    @messages.setter
    def messages(self, messages: Any) -> None:
        self._messages = messages


@clock.stage("assemble")
def assemble(
    segments: SegmentBatch, encoder: Encoder, constants: FlatIds, targets: Sequence[bool] | None
) -> TokenBatch:
    """Encode the segments of whole dialogues and put them together.

    Args:
        segments: Of dialogues that could be rendered; ``dialogues`` says which.
        encoder: Of the texts.
        constants: Ids of the constants, by number.
        targets: Per message, whether the model writes it, where the first position of a source behind a
            trained target has a label; else None.
    """
    encoded = _encode_texts(segments, encoder)
    columns = segments.table.expand(segments.runs)
    starts, lengths, pool = _locate(columns, encoded, constants)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    # Position p of the output takes pool[p + (start of its segment there - start of it here)].
    places = np.repeat(starts - ends[:-1], lengths)
    places += np.arange(len(places))
    ids = pool.take(places)

    borders = np.concatenate([[0], columns.message_ends])
    per_message = np.diff(ends[borders])
    message_ends = ends[borders[1:]]
    dialogue_ends = np.asarray(segments.dialogue_ends, np.int64)
    trained = np.asarray(segments.trained, bool)
    numbers = np.arange(len(per_message))
    said = None
    kinds: Any
    messages: Any
    if segments.stretches:
        kinds, messages = np.repeat(columns.kinds, lengths), np.repeat(numbers, per_message)
        _paint(segments, encoded, ends[:-1][columns.constants == TEXT], kinds, messages)
    else:
        kinds, messages = _Repeated(columns.kinds, lengths), _Repeated(numbers, per_message)
        of_message = np.repeat(trained, np.diff(borders))
        said = np.repeat((columns.kinds >= Kind.GENERATED) & of_message, lengths)
    late = np.zeros(0, np.int64)
    if targets:
        starting = message_ends - per_message
        late = _late_stops(starting, message_ends, dialogue_ends, trained, np.asarray(targets, bool))
    return _Assembled(
        ids=ids,
        kinds=kinds,
        messages=messages,
        trained=trained,
        sample_ends=message_ends[dialogue_ends - 1] if len(dialogue_ends) else message_ends[:0],
        dialogues=np.asarray(segments.dialogues, np.int64),
        turns=np.full(len(dialogue_ends), WHOLE, np.int32),
        late_stops=late,
        failed=_by_dialogue(segments, columns, encoded) if encoded.failed else {},
        notes=[],
        said=said,
    )


@clock.stage("tokenize")
def _encode_texts(segments: SegmentBatch, encoder: Encoder) -> _Encoded:
    """Encode all texts, those that are equal once."""
    if not segments.guarded and not segments.stretches:
        different, places = _different(segments.texts)
        return _Encoded(encoder.encode(different), places, {}, {})
    # Texts whose control tokens are marks, and texts of which parts are sought, are encoded in other ways.
    guarded, parted = set(segments.guarded), {stretch.text for stretch in segments.stretches}
    plain: dict[str, int] = {}
    others: dict[tuple[str, bool, bool], int] = {}
    numbers = []
    for number, text in enumerate(segments.texts):
        if number in guarded or number in parted:
            key = (text, number in guarded, number in parted)
            numbers.append(~others.setdefault(key, len(others)))
        else:
            numbers.append(plain.setdefault(text, len(plain)))
    first, second = encoder.encode(list(plain)), _encode_others(list(others), encoder)
    flat = FlatIds(
        np.concatenate([first.ids, second.flat.ids]),
        np.concatenate([first.offsets, second.flat.offsets[1:] + len(first.ids)]),
    )
    found = np.asarray(numbers, np.int64)
    found[found < 0] = len(plain) + ~found[found < 0]
    spans = {len(plain) + number: one for number, one in second.spans.items()}
    failed = {len(plain) + number: error for number, error in second.failed.items()}
    return _Encoded(flat, found, spans, failed)


def _different(texts: list[str]) -> tuple[list[str], Ints]:
    """Return the different texts, and which of those each text is, int64 (T,)."""
    known: dict[str, int] = {}
    # Per text, the place of the first that is equal; places become numbers as the dict has its keys.
    firsts = np.fromiter(map(known.setdefault, texts, itertools.count()), np.int64, len(texts))
    numbers = np.cumsum(firsts == np.arange(len(texts))) - 1
    return list(known), numbers[firsts]


def _encode_others(texts: list[tuple[str, bool, bool]], encoder: Encoder) -> _Encoded:
    """Encode (text, whether it holds marks, whether it has stretches), one by one."""
    lists: list[Sequence[int]] = []
    spans: dict[int, SpannedIds] = {}
    failed: dict[int, RecordError] = {}
    for number, (text, guarded, parted) in enumerate(texts):
        try:
            if parted:
                one = encoder.encode_marked_spans(text) if guarded else encoder.encode_spans([text])
                spans[number] = one
                lists.append(one.ids.tolist())
            else:
                lists.append(encoder.encode_marked(text))
        except RecordError as error:
            lists.append([])
            failed[number] = error
    return _Encoded(FlatIds.of(lists), np.arange(len(lists)), spans, failed)


def _by_dialogue(segments: SegmentBatch, columns: Segments, encoded: _Encoded) -> dict[int, RecordError]:
    """Return the errors of texts by dialogue."""
    found: dict[int, RecordError] = {}
    owners = np.flatnonzero(columns.constants == TEXT)
    for number in np.flatnonzero(np.isin(encoded.numbers, list(encoded.failed))).tolist():
        message = int(np.searchsorted(columns.message_ends, owners[number], side="right"))
        place = int(np.searchsorted(segments.dialogue_ends, message, side="right"))
        found.setdefault(segments.dialogues[place], encoded.failed[int(encoded.numbers[number])])
    return found


def _locate(
    columns: Segments, encoded: _Encoded, constants: FlatIds
) -> tuple[Ints, Ints, npt.NDArray[np.int32]]:
    """Return where each segment's ids lie, how many they are, and the array that they lie in."""
    flat = encoded.flat
    is_text = columns.constants == TEXT
    starts = (constants.offsets[:-1] + len(flat.ids))[columns.constants]
    lengths = np.diff(constants.offsets)[columns.constants]
    starts[is_text] = flat.offsets[encoded.numbers]
    lengths[is_text] = np.diff(flat.offsets)[encoded.numbers]
    return starts, lengths, np.concatenate([flat.ids, constants.ids])


def _paint(segments: SegmentBatch, encoded: _Encoded, starts: Ints, kinds: _Kinds, messages: Ints) -> None:
    """Give the tokens of stretches their own kind; ``starts`` says where each text starts."""
    for stretch in segments.stretches:
        spans = encoded.spans.get(int(encoded.numbers[stretch.text]))
        if spans is None:
            continue  # It could not be encoded.
        if stretch.kind is Kind.SYSTEM:
            # Never trained, so a token that holds a letter of it is its.
            own = (spans.starts < stretch.end) & (spans.ends > stretch.start)
        else:
            own = (spans.starts >= stretch.start) & (spans.ends <= stretch.end)
            own &= spans.starts < stretch.end
        places = np.flatnonzero(own) + starts[stretch.text]
        kinds[places] = stretch.kind
        messages[places] = stretch.message


def _late_stops(starts: Ints, ends: Ints, dialogue_ends: Ints, trained: Bools, targets: Bools) -> Ints:
    """Return the first position of each source that follows a trained target."""
    follows = np.ones(len(starts), bool)
    follows[0] = False
    follows[dialogue_ends[:-1]] = False
    follows[1:] &= (trained & targets)[:-1] & ~targets[1:]
    return starts[follows & (ends > starts)]
