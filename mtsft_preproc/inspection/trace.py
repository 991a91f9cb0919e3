"""``mtsft trace``: which file, row and turn the tokens of an item came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dealing import items_of_step
from mtsft_preproc.dialogue import Record
from mtsft_preproc.errors import DatasetError, MtsftError, SettingsError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.inspection.finished import Finished, open_finished
from mtsft_preproc.inspection.reencoding import EncodedSample, Kitchen, SpeakingTemplate, records_at
from mtsft_preproc.inspection.tokenizer import encoder_of_manifest
from mtsft_preproc.inspection.trace_report import ItemTrace, Place, StepTrace, Text, TokenTrace
from mtsft_preproc.readers import InputFile
from mtsft_preproc.registry import nearest
from mtsft_preproc.tokenization import Encoder

__all__ = ["Tracer", "trace_step"]

#: Characters of text that are shown on each side of a token.
_AROUND = 200
#: The group of the pairs of a dataset to fine-tune on, which has no other; users never meet the name.
_ONLY = "sample"
_PARTS = {
    "reply": "what the assistant says, as the model would generate it",
    "result": "what a tool returned",
    "message": "what is said, or what the chat format writes around it",
    "opening": "what opens the text (BOS and the like); of no message",
    "system": "the system text or the tools; of no message",
    "format": "what the chat format writes around messages; of none of them",
}


def trace_step(prefix: str, step: int, batch: int, seed: int, tail: str = "drop") -> StepTrace:
    """Return the samples that a training step was dealt, as :mod:`mtsft_preproc.dealing` defines it.

    Args:
        prefix: The output prefix.
        step: Number of the step, from 1.
        batch: The global batch size, in items.
        seed: The seed of the training run.
        tail: ``"drop"`` or ``"pad"``.

    Raises:
        DatasetError: There is no such dataset, or it is damaged.
        SettingsError: There is no such step.
    """
    finished = open_finished(prefix)
    spec = finished.specs[0]
    dealt = items_of_step(len(finished.datasets[spec.name]), batch, seed, step, tail)
    numbers = finished.numbers_of_items(spec.group)
    known = dealt.items if numbers is None else numbers[dealt.items]
    by_item: dict[int, list[dict[str, Any]]] = {}
    for row in finished.samples_of(known):
        by_item.setdefault(row["item"], []).append(row)
    items = [
        ItemTrace(item, None, _places(by_item.get(number, [])))
        for item, number in zip(dealt.items.tolist(), known.tolist(), strict=True)
    ]
    return StepTrace(step, dealt.epoch, items)


def _places(rows: Sequence[Mapping[str, Any]]) -> list[Place]:
    return [
        Place(
            sample=number,
            offset=row["offset"],
            length=row["length"],
            trained=row["trained"],
            source=row["source_name"],
            file=row["file"],
            row=row["row"],
            turn=row["turn"],
            digest=row["digest"].hex(),
        )
        for number, row in enumerate(rows)
    ]


@dataclass
class _Encoded:
    """A record, encoded again.

    Attributes:
        key: Source, file and row.
        record: The record, if it could be read.
        samples: Its samples, with numbers of tokens in the place of ids.
        speaking: Knows these; None for text documents.
        why: Why it could not be encoded; else nothing.
    """

    key: tuple[str, str, int]
    record: Any = None
    samples: Sequence[EncodedSample] = ()
    speaking: SpeakingTemplate | None = None
    why: str = ""


class Tracer:
    """Traces the items and tokens of one dataset.

    Args:
        prefix: The output prefix.
        field: Which of the sequences of a sample is meant, where it has several: ``"chosen"`` or
            ``"rejected"``, or a key of text documents or prompts; None: the first.
        inputs: Paths that take the place of the manifest's, for data that moved.
        trust_remote_code: Whether the tokenizer's folder may run its own Python code.

    Raises:
        DatasetError: There is no such dataset with a manifest, or it is damaged.
        SettingsError: It has no such field.
    """

    def __init__(
        self,
        prefix: str,
        field: str | None = None,
        inputs: Sequence[str] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._finished: Finished = open_finished(prefix)
        self._inputs, self._trust = inputs, trust_remote_code
        groups = self._finished.groups
        if field is not None and list(groups) == [_ONLY]:
            raise SettingsError(
                f"--field: expected none: {prefix} has one sequence of tokens per sample, and no fields to "
                "choose from"
            )
        if field is not None and field not in groups:
            raise SettingsError(f"--field: {prefix} has no {field!r}; {nearest(field, list(groups))}")
        self._group = field or next(iter(groups))
        names = [spec.name for spec in groups[self._group]]
        self._ids_name = names[0]
        self._ids: IndexedDataset = self._finished.datasets[names[0]]
        labels = next((name for name in names if name.endswith("labels") and name != names[0]), None)
        self._labels = None if labels is None else self._finished.datasets[labels]
        self._ignored = int(self._finished.manifest["ignore_index"])
        self._encoder: Encoder | None = None
        self._kitchen: Kitchen | None = None
        self._item: ItemTrace | None = None
        self._last: _Encoded | None = None

    def item(self, number: int) -> ItemTrace:
        """Return the samples of an item.

        Args:
            number: Of the item; negative ones count from the end.

        Raises:
            DatasetError: There is no such item.
        """
        count = len(self._ids)
        if not -count <= number < count:
            raise DatasetError(f"{self._finished.paths.prefix}: no item {number}; there are {count}")
        number %= count
        if self._item is not None and self._item.item == number:
            return self._item
        numbers = self._finished.numbers_of_items(self._group)
        known = number if numbers is None else int(numbers[number])
        length = int(self._ids.lengths[number])
        places = _places(self._finished.samples_of(np.asarray([known], np.int64)))
        if self._finished.manifest.get("packing") is None:
            # The sidecar has the length of a sample's first field; each is an item of its own.
            places = [replace(place, length=length) for place in places]
        self._item = ItemTrace(number, length, places)
        return self._item

    def token(self, item: int, token: int) -> TokenTrace:
        """Return where a token came from.

        Args:
            item: Number of the item; negative ones count from the end.
            token: Number of the token in it; negative ones count from the end.

        Raises:
            DatasetError: There is no such item or token.
            TokenizerError: The tokenizer is gone, or another; so the token has no text.
        """
        found = self.item(item)
        length = found.length or 0
        if not -length <= token < length:
            raise DatasetError(
                f"{self._finished.paths.prefix}: item {found.item} has no token {token}; it has {length}"
            )
        token %= length
        if self._encoder is None:
            self._encoder = encoder_of_manifest(self._finished.manifest["tokenizer"], self._trust)
        ids = self._ids[found.item]
        # Of text documents and prompts, ids are all there is; what is trained, trainers decide.
        labels = None if self._labels is None else self._labels[found.item]
        place, start, stop = _span(found, token)
        traced = TokenTrace(
            item=found.item,
            token=token,
            items=found,
            place=place,
            text=_text(self._encoder, ids, labels, self._ignored, (start, token, stop)),
        )
        if place is None:
            traced.why = "padding: it fills the item, and belongs to no sample"
        else:
            self._say_whose(traced, place, ids[start:stop], None if labels is None else labels[start:stop])
        return traced

    def _say_whose(
        self,
        traced: TokenTrace,
        place: Place,
        ids: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None,
    ) -> None:
        """Encode the record again, for the record itself and the turn; or say why that can't be done."""
        encoded = self._encoded(place)
        traced.record = encoded.record
        if encoded.why or encoded.speaking is None:
            traced.why = encoded.why or "a text document, which has no turns"
            return
        own = self._sample(encoded.samples, encoded.speaking, place, ids, labels)
        if own is None:
            traced.why = (
                "the turn can't be told: the record, encoded again, gives other tokens; mtsft verify "
                "--against compares the dataset with its input"
            )
            return
        number = int(own.tokens[self._ids_name][traced.token - place.offset])
        speaker = encoded.speaking.speaker_of(number)
        if speaker is None:
            traced.why = f"of the field {self._group!r} of the record, which is no message"
            return
        traced.message, traced.role, traced.part = speaker.message, speaker.role, speaker.part
        traced.why = _PARTS[speaker.part]
        if speaker.part == "format":
            at = traced.token - place.offset
            traced.why += _between(encoded.speaking, own.tokens[self._ids_name].tolist(), at)

    def _encoded(self, place: Place) -> _Encoded:
        """Read and encode the record of a sample again; the last one is kept."""
        key = (place.source, place.file, place.row)
        if self._last is None or self._last.key != key:
            self._last = _Encoded(key)
            try:
                self._encode(self._last)
            except MtsftError as error:
                self._last.why = f"the turn can't be told: {error}"
        return self._last

    def _encode(self, encoded: _Encoded) -> None:
        """Read and encode the record.

        It is read with the columns that the run read: others could make it too large. Only where what
        encodes is gone or changed, so that nobody can tell these, all of them are read, to show the record.
        """
        source, file, _ = encoded.key
        if self._kitchen is None:
            self._kitchen = Kitchen(self._finished, self._inputs, self._trust, self._encoder)
        recipe, entry = self._kitchen.find(source, file)
        found = self._kitchen.files.open(entry)
        limit = recipe.config.record_bytes
        try:
            reencoder = self._kitchen.reencoder(recipe)
            columns = reencoder.columns(entry)
        except MtsftError:
            encoded.record = _record(found, encoded.key, limit, None).value
            raise
        record = _record(found, encoded.key, limit, columns)
        encoded.record = record.value
        encoded.samples, encoded.speaking = reencoder.encode_speaking(entry, record)

    def _sample(
        self,
        samples: Sequence[EncodedSample],
        speaking: SpeakingTemplate,
        place: Place,
        ids: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None,
    ) -> EncodedSample | None:
        """Return the sample whose tokens are those that stand in the dataset, labels included."""
        for sample in samples:
            tokens = sample.tokens[self._ids_name]
            if sample.turn != place.turn or not np.array_equal(speaking.ids_of(tokens), ids):
                continue
            if labels is not None:
                own = speaking.ids_of(sample.tokens[self._ids_name.replace("input_ids", "labels")])
                # In a pack, the first label is ignored.
                if not np.array_equal(own[1:], labels[1:]):
                    continue
            return sample
        return None


def _record(
    found: InputFile, key: tuple[str, str, int], record_bytes: int, columns: Sequence[str] | None
) -> Record:
    """Return a record.

    Args:
        found: Its file.
        key: Its source, its file as the manifest names it, and its row.
        record_bytes: The most bytes of a record.
        columns: The columns that are read, or None for all.

    Raises:
        InputError: The file has no such row, or is damaged.
        DatasetError: It can't be read any more.
    """
    _, file, row = key
    [record] = records_at(found, [row], record_bytes, columns)
    if not isinstance(record, Record):
        raise DatasetError(f"{file}, row {row}: can't be read any more: {record.reason}")
    return record


def _between(speaking: SpeakingTemplate, numbers: Sequence[int], at: int) -> str:
    """Return which messages a token stands between, as the end of a sentence."""
    found = []
    for where, order in (("behind", numbers[:at][::-1]), ("in front of", numbers[at + 1 :])):
        speakers = map(speaking.speaker_of, order)
        near = next((own for own in speakers if own is not None and own.message is not None), None)
        if near is not None:
            found.append(f"{where} message {near.message} ({near.role})")
    return f": {' and '.join(found)}" if found else ""


def _span(found: ItemTrace, token: int) -> tuple[Place | None, int, int]:
    """Return the sample that a token lies in, and where it starts and ends; or padding's."""
    start, stop = 0, found.length or 0
    for place in found.samples:
        end = place.offset + place.length
        if place.offset <= token < end:
            return place, place.offset, end
        if end <= token:
            start = max(start, end)
        else:
            stop = min(stop, place.offset)
    return None, start, stop


def _text(
    encoder: Encoder,
    ids: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None,
    ignored: int,
    span: tuple[int, int, int],
) -> Text:
    """Return the text around a token.

    Args:
        encoder: Decodes.
        ids: Shape (N,): of the item.
        labels: Shape (N,), or None where all is trained.
        ignored: Label of what is not.
        span: Start of the sample, the token, end of the sample.
    """
    start, token, stop = span[0], span[1], min(span[2], len(ids))
    own = ids if labels is None else labels
    left, right = token, token + 1
    step = 16
    while left > start and len(encoder.decode(ids[left:token].tolist())) < _AROUND:
        left = max(start, left - step)
    while right < stop and len(encoder.decode(ids[token + 1 : right].tolist())) < _AROUND:
        right = min(stop, right + step)
    label = int(own[token])
    index = int(ids[token])
    return Text(
        id=index,
        text=encoder.decode([index]),
        label=None if labels is None else label,
        trained=None if labels is None else label != ignored,
        taught=encoder.decode([label]) if label not in (ignored, index) else None,
        predicted=label != ignored and token > start,
        before=encoder.decode(ids[left:token].tolist()),
        after=encoder.decode(ids[token + 1 : right].tolist()),
        parts=[
            (ids[low:high].tolist(), own[low:high].tolist())
            for low, high in ((left, token), (token, token + 1), (token + 1, right))
        ],
        encoder=encoder,
        ignored=ignored,
    )
