"""Any JSON object as a record, through detection, every handler and the encoding of samples."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.engine import Target, one_line
from fuzzing.mutation import JSON_TOKENS, havoc, mutated_json
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import REASONS, Record, Rejection
from mtsft_preproc.encoding import EncodedBatch, RecordEncoder, Tools, make_record_encoder
from mtsft_preproc.errors import MtsftError, SettingsError
from mtsft_preproc.handlers import Detected, TextHandler, detect, handlers, make_handler
from mtsft_preproc.handlers.base import HandlerChoice
from mtsft_preproc.parts.shard import _json
from mtsft_preproc.readers.parse import parse_record
from mtsft_preproc.templates import Format, make_format
from mtsft_preproc.tokenization import Adjustment, Encoder, load_tokenizer, open_encoder

__all__ = ["RecordsTarget", "encoder_of"]

EXAMPLES = Path(__file__).parents[2] / "examples"
TOKENIZER = EXAMPLES / "tokenizer"
_LINES = Path(__file__).with_name("records.jsonl").read_text("utf-8").splitlines()
_ENTRIES = {entry["handler"]: entry for entry in map(json.loads, _LINES)}
#: A valid record of each handler.
RECORDS: dict[str, dict[str, Any]] = {name: entry["record"] for name, entry in _ENTRIES.items()}
_NAMES = list(RECORDS)
#: Settings that say how a dialogue becomes samples.
_VARIATIONS: list[dict[str, Any]] = [
    {"prompt_type": "chatml"},
    {"prompt_type": "chatml", "seq_length": 24, "overlong": "window", "train_on": "split"},
    {"prompt_type": "qwen3", "enable_thinking": "true", "seq_length": 40, "overlong": "recent"},
    {"prompt_type": "gemma", "seq_length": 20, "overlong": "pair", "train_on": "last-round"},
    {"chat_template": "chatml", "parity": "split", "train_on": "last"},
    {"chat_template": "chatml", "seq_length": 24, "overlong": "head", "special_tokens_in_text": "reject"},
    {
        "prompt_type": "qwen",
        "seq_length": 16,
        "overlong": "right",
        "empty_reply": "untrained",
        "append_eod": True,
    },
    {"prompt_type": "chatml", "seq_length": 16, "overlong": "left", "train_on": "full", "pack": True},
    {"chat_template": "deepseek4", "empty_reply": "reject"},
    {"prompt_type": "default", "special_tokens_in_text": "allow", "train_on_tools": True},
]


@functools.cache
def encoder_of(adjustment: Adjustment, folder: Path) -> Encoder:
    """Return the reference for the bundled tokenizer, which is saved below ``folder``."""
    own = folder / f"tokenizer-{abs(hash(adjustment))}"
    own.mkdir(exist_ok=True)
    return open_encoder(load_tokenizer(str(TOKENIZER), adjustment).save(own))


class RecordsTarget(Target):
    """Each record ends as samples or as a rejection, and none beside it is harmed.

    The first two bytes of an input choose the handler and the settings, the others are the record.
    """

    name = "records"
    tokens = JSON_TOKENS
    most = 4000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._made: dict[tuple[int, int], tuple[RecordEncoder, bytes] | None] = {}
        self._templates: dict[str, Any] = {}

    def seeds(self) -> list[bytes]:
        records = list(RECORDS.values())
        for path in sorted((EXAMPLES / "data").glob("*.jsonl")):
            records += [json.loads(line) for line in path.read_text("utf-8").splitlines()[:2]]
        texts = [json.dumps(record).encode() for record in records]
        found = [bytes([at % len(_NAMES), at]) + text for at, text in enumerate(texts)]
        return [own for own in found if len(own) < self.most]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        head, body = data[:2], data[2:]
        if rng.random() < 0.5:
            head = bytes([int(rng.random() * 256), int(rng.random() * 256)])
        if rng.random() < 0.05:
            return head + havoc(rng, body, other[2:], self.tokens)
        return head + mutated_json(rng, body, other[2:])

    def run(self, data: bytes) -> object:
        if len(data) < 3:
            return None
        record = parse_record(data[2:], 0, 0)
        if isinstance(record, Rejection):
            return record.reason
        said = None
        if data[1] >= 128:
            try:
                found = detect([record.value, record.value])
                assert isinstance(found, Detected)
                said = found.handler
                handlers.get(said)(found.map_keys)
            except SettingsError as error:
                said = one_line(error) and "none"
        which, how = data[0] % len(_NAMES), data[1] % len(_VARIATIONS)
        if (which, how) not in self._made:
            self._made[which, how] = self._make(_NAMES[which], _VARIATIONS[how])
        made = self._made[which, how]
        if made is None:
            return said
        encoder, alone = made
        good = Record(7, RECORDS[_NAMES[which]], 99)
        batch = encoder.encode([record, good])
        self._check(batch, _NAMES[which])
        assert _told(batch, 7) == alone, "a record beside it came out otherwise"
        return said, which, how, tuple(sorted({(own.reason, own.field[:8]) for own in batch.rejections}))

    def _make(self, name: str, variation: dict[str, Any]) -> tuple[RecordEncoder, bytes] | None:
        """Return an encoder, and what becomes of the valid record; None where they don't go together."""
        given = dict(variation)
        keys = json.dumps(_ENTRIES[name]["map_keys"])
        own = handlers.get(name)
        if issubclass(own, TextHandler) or own.text_form_only:
            given = {}
        try:
            config = PreprocessConfig(("in",), "out/x", str(TOKENIZER), name, map_keys=keys, **given)
            handler = make_handler(config, HandlerChoice(name, keys))
            template, encoder = None, encoder_of(Adjustment(), self.folder)
            if not isinstance(handler, TextHandler):
                chat_format: Format = make_format(config, own.text_form, own.text_form_only)
                encoder = encoder_of(chat_format.adjustment(), self.folder)
                key = repr((chat_format, given))
                if key not in self._templates:
                    self._templates[key] = chat_format.resolve(encoder.spec, config.date()).open(
                        encoder, config
                    )
                template = self._templates[key]
            made = make_record_encoder(handler, Tools(encoder, template), config)
        except MtsftError:
            return None
        return made, _told(made.encode([Record(7, RECORDS[name], 99)]), 7)

    @staticmethod
    def _check(batch: EncodedBatch, name: str) -> None:
        kept = set(batch.rows.tolist())
        whole = [own.row for own in batch.rejections if own.turn < 0]
        assert len(whole) == len(set(whole))
        assert not kept & set(whole)
        assert kept | set(whole) == {0, 7}, "kept + rejected is not read"
        assert {own.row for own in batch.rejections if own.turn >= 0} <= kept
        for own in batch.rejections:
            assert own.reason in REASONS
            json.loads(_json(own))
        if not issubclass(handlers.get(name), TextHandler) and handlers.get(name).objective == "sft":
            assert (batch.trained > 0).all(), "a sample without a trained token"
            ids, labels = batch.tokens["packed_input_ids"], batch.tokens["packed_labels"]
            assert len(ids) == len(labels) == batch.lengths["sample"].sum()
            assert (labels != -100).sum() == batch.trained.sum()
            assert ids.dtype == labels.dtype == np.int32


def _told(batch: EncodedBatch, row: int) -> bytes:
    """Return all that a batch says of one record of it."""
    found: list[Any] = [(own.reason, own.turn, own.got) for own in batch.rejections if own.row == row]
    names = list(batch.tokens)
    groups = {name: next(iter(batch.lengths)) for name in names}
    for name in names:
        group = next((own for own in batch.lengths if own in name), groups[name])
        lengths = batch.lengths[group]
        if lengths.sum() != len(batch.tokens[name]):
            continue
        ends = np.cumsum(lengths)
        for number in np.flatnonzero(batch.rows == row).tolist():
            found.append(batch.tokens[name][ends[number] - lengths[number] : ends[number]].tolist())
    return repr(found).encode()
