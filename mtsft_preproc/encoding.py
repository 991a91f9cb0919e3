"""A batch of records -> sample arrays: the pure core of a task.

records -> handler -> template -> segments -> encoder -> ids, labels -> samples, rejections
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import Handler
from mtsft_preproc.masking import MaskPolicy
from mtsft_preproc.templates import Kind, PromptTemplate, SegmentBatch
from mtsft_preproc.tokenization import Encoder, FlatIds
from mtsft_preproc.truncation import overlong

__all__ = ["EncodedBatch", "SampleEncoder"]

#: Turn of a sample that is a whole dialogue.
WHOLE = -1

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass
class EncodedBatch:
    """The samples of a batch of records, in the order of the records.

    Attributes:
        input_ids: int32, shape (N,): tokens of all samples, one behind the other.
        labels: int32, shape (N,): the token where it is trained, else the ignore index. Unshifted.
        lengths: int32, shape (S,): tokens of each sample, summing to N.
        trained: int32, shape (S,): trained tokens of each sample.
        rows: int64, shape (S,): row of the record that each sample came from, inside the shard.
        turns: int32, shape (S,): number of the message that a sample is for, or -1 for whole dialogues.
        rejections: Records that became no sample.
        notes: How many of the samples are odd in a harmless way, by kind.
    """

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    trained: npt.NDArray[np.int32]
    rows: Ints
    turns: npt.NDArray[np.int32]
    rejections: list[Rejection] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


class SampleEncoder:
    """Turns records into samples.

    Args:
        handler: Record -> dialogue.
        template: Dialogue -> segments.
        policy: Which messages are trained.
        encoder: Segments -> ids.
        ignore_index: Label of what is not trained.
        seq_length: The most tokens a sample may have, or None.
    """

    def __init__(
        self,
        handler: Handler,
        template: PromptTemplate,
        policy: MaskPolicy,
        encoder: Encoder,
        ignore_index: int = -100,
        seq_length: int | None = None,
    ) -> None:
        self._handler = handler
        self._template = template
        self._policy = policy
        self._encoder = encoder
        self._ignore_index = ignore_index
        self._seq_length = seq_length
        constants = FlatIds.of(template.constants)
        self._constant_ids = constants.ids
        self._constant_starts = constants.offsets[:-1]
        self._constant_lengths = np.diff(constants.offsets)

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        """Encode a batch of records; each ends as a sample or as a rejection."""
        segments = SegmentBatch()
        kept: list[Record] = []
        rejections: list[Rejection] = []
        notes: list[list[str]] = []
        for record in records:
            mark = segments.mark()
            try:
                dialogue = self._handler.dialogue(record.value)
                found = self._template.render(dialogue, segments)
            except RecordError as error:
                segments.rollback(mark)
                rejections.append(Rejection.of(record, error))
                continue
            segments.end_dialogue(self._policy(dialogue.messages))
            kept.append(record)
            notes.append([*dialogue.notes, *found])
        batch = self._assemble(segments, kept, notes)
        batch.rejections[:0] = rejections
        return batch

    def _assemble(
        self, segments: SegmentBatch, records: list[Record], notes: list[list[str]]
    ) -> EncodedBatch:
        flat, failed = self._encode_texts(segments)
        starts, lengths, pool = self._locate(segments, flat)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        # Position p of the output takes pool[p + (start of its segment there - start of it here)].
        ids = pool[np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])]

        message_ends = ends[np.asarray(segments.message_ends, np.int64)]
        message_starts = np.concatenate([[0], message_ends[:-1]])
        dialogue_ends = np.asarray(segments.dialogue_ends, np.int64)
        trained_messages = np.asarray(segments.trained, bool)
        mask = self._mask(segments, lengths, trained_messages)
        labels = np.where(mask, ids, np.int32(self._ignore_index))
        self._label_late_stops(labels, mask, message_starts, message_ends, dialogue_ends, trained_messages)
        sample_ends = message_ends[dialogue_ends - 1] if len(dialogue_ends) else message_ends[:0]
        return self._select(ids, labels, mask, sample_ends, records, notes, failed)

    def _encode_texts(self, segments: SegmentBatch) -> tuple[FlatIds, dict[int, RecordError]]:
        """Encode all texts; return the ids, and the errors of guarded texts by number of the text."""
        if not segments.guarded:
            return self._encoder.encode(segments.texts), {}
        texts = list(segments.texts)
        found: dict[int, list[int]] = {}
        failed: dict[int, RecordError] = {}
        for number in segments.guarded:
            try:
                found[number] = self._encoder.encode_marked(texts[number])
            except RecordError as error:
                found[number], failed[number] = [], error
            texts[number] = ""
        flat = self._encoder.encode(texts)
        lists = [
            found[number] if number in found else flat.ids[start:end].tolist()
            for number, (start, end) in enumerate(
                zip(flat.offsets[:-1].tolist(), flat.offsets[1:].tolist(), strict=True)
            )
        ]
        return FlatIds.of(lists), self._by_dialogue(segments, failed)

    @staticmethod
    def _by_dialogue(segments: SegmentBatch, failed: dict[int, RecordError]) -> dict[int, RecordError]:
        """Turn errors by text into errors by dialogue."""
        found: dict[int, RecordError] = {}
        for number, error in failed.items():
            segment = segments.refs.index(number)
            message = int(np.searchsorted(segments.message_ends, segment, side="right"))
            dialogue = int(np.searchsorted(segments.dialogue_ends, message, side="right"))
            found.setdefault(dialogue, error)
        return found

    def _locate(self, segments: SegmentBatch, flat: FlatIds) -> tuple[Ints, Ints, npt.NDArray[np.int32]]:
        """Return where each segment's ids lie, how many they are, and the array that they lie in."""
        refs = np.asarray(segments.refs, np.int64)
        is_text = refs >= 0
        starts, lengths = np.empty_like(refs), np.empty_like(refs)
        text = refs[is_text]
        starts[is_text] = flat.offsets[text]
        lengths[is_text] = flat.offsets[text + 1] - flat.offsets[text]
        constant = ~refs[~is_text]
        starts[~is_text] = self._constant_starts[constant] + len(flat.ids)
        lengths[~is_text] = self._constant_lengths[constant]
        return starts, lengths, np.concatenate([flat.ids, self._constant_ids])

    @staticmethod
    def _mask(segments: SegmentBatch, lengths: Ints, trained: Bools) -> Bools:
        """Return which positions are trained: what is generated in the messages that are."""
        ends = np.asarray([0, *segments.message_ends], np.int64)
        per_message = ends[1:] - ends[:-1]
        generated = np.asarray(segments.kinds, np.int64) == Kind.GENERATED
        mask: Bools = np.repeat(generated & np.repeat(trained, per_message), lengths)
        return mask

    def _label_late_stops(
        self,
        labels: npt.NDArray[np.int32],
        mask: Bools,
        starts: Ints,
        ends: Ints,
        dialogue_ends: Ints,
        trained: Bools,
    ) -> None:
        """Label the first position of each later message with the EOS of the trained one before it."""
        if self._template.late_stop_id is None or len(starts) < 2:
            return
        follows = np.ones(len(starts), bool)
        follows[0] = False
        follows[dialogue_ends[:-1]] = False
        follows[1:] &= trained[:-1] & ~trained[1:]
        places = starts[follows & (ends > starts)]
        labels[places] = self._template.late_stop_id
        mask[places] = True

    def _select(
        self,
        ids: npt.NDArray[np.int32],
        labels: npt.NDArray[np.int32],
        mask: Bools,
        sample_ends: Ints,
        records: list[Record],
        notes: list[list[str]],
        failed: dict[int, RecordError],
    ) -> EncodedBatch:
        """Keep the samples that are sound, and say of the others why they are not."""
        borders = np.concatenate([[0], sample_ends])
        lengths = np.diff(borders)
        trained = np.diff(np.concatenate([[0], np.cumsum(mask)])[borders])
        over = overlong(lengths, self._seq_length)
        dropped = over | (trained == 0)
        dropped[list(failed)] = True
        rejections = []
        for number in np.flatnonzero(dropped).tolist():
            if number in failed:
                error = failed[number]
            elif over[number]:
                error = RecordError(
                    "overlong", "", f"at most {self._seq_length} tokens", f"{lengths[number]} tokens"
                )
            else:
                error = RecordError("nothing-trained", "", "a reply with a token to train", "none")
            rejections.append(Rejection.of(records[number], error))
        keep = ~dropped
        if dropped.any():
            positions = np.repeat(keep, lengths)
            ids, labels = ids[positions], labels[positions]
        rows = np.asarray([record.row for record in records], np.int64)[keep]
        return EncodedBatch(
            input_ids=ids.astype(np.int32, copy=False),
            labels=labels.astype(np.int32, copy=False),
            lengths=lengths[keep].astype(np.int32),
            trained=trained[keep].astype(np.int32),
            rows=rows,
            turns=np.full(len(rows), WHOLE, np.int32),
            rejections=rejections,
            notes=Counter(note for number in np.flatnonzero(keep).tolist() for note in notes[number]),
        )
