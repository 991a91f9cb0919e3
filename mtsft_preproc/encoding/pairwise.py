"""Preference pairs -> two samples each, in four datasets, as DPO, SimPO and reward models take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Record, Rejection
from mtsft_preproc.encoding.batch import DatasetSpec, EncodedBatch, RecordEncoder
from mtsft_preproc.encoding.columns import kept_columns
from mtsft_preproc.encoding.digests import dialogue_digest, digest_array
from mtsft_preproc.encoding.rules import check_dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import PairHandler
from mtsft_preproc.templates import Template

__all__ = ["PairEncoder"]

_SIDES = ("chosen", "rejected")


class PairEncoder(RecordEncoder):
    """Turns pairs of dialogues into pairs of samples, of which the last message is trained.

    A pair of which a side has nothing to train, or is too long, is rejected whole.

    Args:
        handler: Record -> two dialogues.
        template: Dialogues -> tokens.
        config: The settings.
    """

    datasets = tuple(
        DatasetSpec(f"packed_{side}_{field}", side) for side in _SIDES for field in ("input_ids", "labels")
    )

    def __init__(self, handler: PairHandler, template: Template, config: PreprocessConfig) -> None:
        self._handler = handler
        self._template = template
        self._config = config

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        kept: list[Record] = []
        dialogues: list[Dialogue] = []
        rejections: list[Rejection] = []
        for record in records:
            try:
                pair = [
                    check_dialogue(side.but(one_turn=True), self._config.empty_reply)
                    for side in self._handler.pair(record.value)
                ]
            except RecordError as error:
                rejections.append(Rejection.of(record, error))
            else:
                dialogues += pair
                kept.append(record)
        flags = [
            [False] * (len(item.messages) - 1) + [item.messages[-1].train is not False]
            for item in dialogues
        ]
        tokens = self._template.encode(dialogues, flags, shared=True)
        lengths = np.zeros(len(dialogues), np.int64)
        lengths[tokens.dialogues] = np.diff(tokens.sample_ends, prepend=0)
        mask = tokens.mask()
        trained = np.zeros(len(dialogues), np.int64)
        np.add.at(trained, np.repeat(tokens.dialogues, np.diff(tokens.sample_ends, prepend=0)), mask)
        errors = {number // 2: error for number, error in reversed(tokens.failed.items())}
        self._refuse(lengths, trained, errors)
        rejections += [Rejection.of(kept[number], error) for number, error in errors.items()]
        alive = np.asarray([number not in errors for number in range(len(kept))], bool)
        positions = np.repeat(tokens.dialogues, np.diff(tokens.sample_ends, prepend=0))
        labels = np.where(mask, tokens.ids, np.int32(self._config.ignore_index))
        chosen = {}
        for place, side in enumerate(_SIDES):
            own = (positions % 2 == place) & alive[positions // 2]
            chosen[f"packed_{side}_input_ids"] = tokens.ids[own].astype(np.int32, copy=False)
            chosen[f"packed_{side}_labels"] = labels[own].astype(np.int32, copy=False)
        which = np.flatnonzero(alive).tolist()
        alive_records = [kept[number] for number in which]
        digests = [dialogue_digest(*dialogues[2 * number : 2 * number + 2]) for number in which]
        columns = self._config.keep_columns
        return EncodedBatch(
            tokens=chosen,
            lengths={side: _own(lengths, place, alive) for place, side in enumerate(_SIDES)},
            # Of both sides, as the tokens that are counted are.
            trained=_own(trained, 0, alive) + _own(trained, 1, alive),
            rows=np.asarray([record.row for record in alive_records], np.int64),
            turns=np.full(len(alive_records), -1, np.int32),
            digests=digest_array(digests),
            kept=[kept_columns(record.value, columns) for record in alive_records] if columns else [],
            rejections=rejections,
            notes=self._notes(dialogues, tokens.notes, alive),
        )

    def _refuse(
        self, lengths: npt.NDArray[np.int64], trained: npt.NDArray[np.int64], errors: dict[int, RecordError]
    ) -> None:
        """Refuse pairs of which a side is too long, or has nothing to train."""
        limit = self._config.seq_length
        for number in np.flatnonzero(
            (trained == 0) | (lengths > (limit or lengths.max(initial=0)))
        ).tolist():
            side = _SIDES[number % 2]
            if trained[number] == 0:
                error = RecordError("nothing-trained", side, "a reply with a token to train", "none")
            else:
                error = RecordError(
                    "overlong", side, f"at most {limit} tokens", f"{lengths[number]} tokens"
                )
            errors.setdefault(number // 2, error)

    def _notes(
        self, dialogues: list[Dialogue], found: list[list[str]], alive: npt.NDArray[np.bool_]
    ) -> Counter[str]:
        notes: Counter[str] = Counter()
        for number in np.flatnonzero(alive).tolist():
            both = range(2 * number, 2 * number + 2)
            notes.update({note for side in both for note in (*dialogues[side].notes, *found[side])})
        return notes


def _own(values: npt.NDArray[np.int64], place: int, alive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the values of one side of the pairs that are alive."""
    return values[place::2][alive].astype(np.int32)
