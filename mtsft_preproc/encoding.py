"""A batch of records -> sample arrays: the pure core of a task.

records -> handler -> dialogues -> template -> tokens -> samples, rejections
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue, Record, Rejection
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import Handler
from mtsft_preproc.masking import MaskPolicy
from mtsft_preproc.templates import Template, TokenBatch
from mtsft_preproc.truncation import overlong

__all__ = ["EncodedBatch", "SampleEncoder"]


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
        notes: How many of the records are odd in a harmless way, by kind.
        parity: Trained turns by whether training text is serving text.
        differences: The first few where it isn't: row, message, kind, training, serving.
    """

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    trained: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    turns: npt.NDArray[np.int32]
    rejections: list[Rejection] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    parity: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)


class SampleEncoder:
    """Turns records into samples.

    Args:
        handler: Record -> dialogue.
        template: Dialogues -> tokens.
        policy: Which messages are trained.
        ignore_index: Label of what is not trained.
        seq_length: The most tokens a sample may have, or None.
    """

    def __init__(
        self,
        handler: Handler,
        template: Template,
        policy: MaskPolicy,
        ignore_index: int = -100,
        seq_length: int | None = None,
    ) -> None:
        self._handler = handler
        self._template = template
        self._policy = policy
        self._ignore_index = ignore_index
        self._seq_length = seq_length

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        """Encode a batch of records; each ends as samples or as a rejection."""
        kept: list[Record] = []
        dialogues: list[Dialogue] = []
        rejections: list[Rejection] = []
        for record in records:
            try:
                dialogues.append(self._handler.dialogue(record.value))
            except RecordError as error:
                rejections.append(Rejection.of(record, error))
            else:
                kept.append(record)
        tokens = self._template.encode(dialogues, [self._policy(item.messages) for item in dialogues])
        notes = [[*item.notes, *found] for item, found in zip(dialogues, tokens.notes, strict=True)]
        return self._select(tokens, kept, notes, rejections)

    def _select(
        self, tokens: TokenBatch, records: list[Record], notes: list[list[str]], rejections: list[Rejection]
    ) -> EncodedBatch:
        """Keep the samples of the records that are sound, and say of the others why they are not."""
        mask = tokens.mask()
        labels = np.where(mask, tokens.ids, np.int32(self._ignore_index))
        if self._template.late_stop_id is not None:
            labels[tokens.late_stops] = self._template.late_stop_id
        borders = np.concatenate([[0], tokens.sample_ends])
        lengths = np.diff(borders)
        trained = np.diff(np.concatenate([[0], np.cumsum(mask)])[borders])
        failed = dict(tokens.failed)
        over = overlong(lengths, self._seq_length)
        for sample in np.flatnonzero(over | (trained == 0)).tolist():
            if over[sample]:
                limit, got = f"at most {self._seq_length} tokens", f"{lengths[sample]} tokens"
                error = RecordError("overlong", "", limit, got)
            else:
                error = RecordError("nothing-trained", "", "a reply with a token to train", "none")
            failed.setdefault(int(tokens.dialogues[sample]), error)
        rejections += [Rejection.of(records[number], error) for number, error in failed.items()]
        dropped = np.zeros(len(records), bool)
        dropped[list(failed)] = True
        keep = ~dropped[tokens.dialogues]
        ids = tokens.ids
        if not keep.all():
            positions = np.repeat(keep, lengths)
            ids, labels = ids[positions], labels[positions]
        rows = np.asarray([record.row for record in records], np.int64)
        return EncodedBatch(
            input_ids=ids.astype(np.int32, copy=False),
            labels=labels.astype(np.int32, copy=False),
            lengths=lengths[keep].astype(np.int32),
            trained=trained[keep].astype(np.int32),
            rows=rows[tokens.dialogues[keep]],
            turns=tokens.turns[keep],
            rejections=rejections,
            notes=Counter(note for number in np.flatnonzero(~dropped).tolist() for note in notes[number]),
            parity=sum(
                (turns for number, turns in tokens.parity_of.items() if not dropped[number]), Counter()
            ),
            differences=[
                {"row": records[item.dialogue].row, "message": item.message, "kind": item.kind}
                | {"training": item.training, "serving": item.serving}
                for item in tokens.differences
                if not dropped[item.dialogue]
            ],
        )
