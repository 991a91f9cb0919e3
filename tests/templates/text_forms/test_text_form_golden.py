"""Text forms and documents against what the original program wrote for the same data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.handlers import DialogueHandler, HandlerOptions, TextHandler, handlers
from mtsft_preproc.readers import Shard, find_inputs, readers
from mtsft_preproc.templates import TextTemplate, encode_documents, text_forms
from mtsft_preproc.tokenization import Encoder, load_tokenizer, open_encoder


def records_of(path: Path) -> Iterator[Any]:
    (file,) = find_inputs([str(path)])
    reader = readers.get(file.kind)
    for start, end in reader.cut(file, 1 << 30):
        for batch in reader.read(Shard(0, 0, file, start, end)):
            assert not batch.rejections
            for record in batch.records:
                yield record.value


def encoder_of(shared: Path, name: str, scratch: Path) -> Encoder:
    return open_encoder(load_tokenizer(str(shared / "golden" / "tokenizers" / name)).save(scratch))


def samples_of(dialogue: Dialogue, train_on: str) -> list[tuple[Dialogue, list[bool]]]:
    """Return the samples that ``--train-on`` makes, as plainly as that can be said."""
    replies = [number for number, message in enumerate(dialogue.messages) if message.role.is_target]
    if train_on == "assistant":
        return [(dialogue, [number in replies for number in range(len(dialogue.messages))])]
    chosen = replies if train_on == "split" else replies[-1:]
    return [
        (
            dialogue.but(messages=dialogue.messages[: last + 1]),
            [number == last for number in range(last + 1)],
        )
        for last in chosen
    ]


@pytest.mark.parametrize(
    ("case", "source", "name", "tokenizer", "train_on"),
    [
        ("general_llama2", "alpaca_en.json", "GeneralInstructionHandler", "llama2", "last"),
        ("belle_qwen", "belle_multi.json", "BelleMultiTurnInstructionHandler", "qwen", "last"),
        ("moss_instr_qwen", "moss.jsonl", "MOSSInstructionHandler", "qwen", "split"),
        ("moss_multi_llama2", "moss.jsonl", "MOSSMultiTurnHandler", "llama2", "assistant"),
    ],
    ids=["general", "belle", "moss_instruction", "moss_multi_turn"],
)
def test_ids_and_labels_are_those_of_the_original(
    shared: Path, tmp_path: Path, case: str, source: str, name: str, tokenizer: str, train_on: str
) -> None:
    handler = handlers.get(name)()
    assert isinstance(handler, DialogueHandler)
    assert handler.text_form is not None
    assert handler.defaults.get("train_on", "assistant") == train_on
    encoder = encoder_of(shared, tokenizer, tmp_path)
    template = TextTemplate(text_forms.get(handler.text_form)(encoder.spec), encoder)
    samples = [
        sample
        for record in records_of(shared / "golden" / "inputs" / source)
        for sample in samples_of(handler.dialogue(record), train_on)
    ]
    batch = template.encode([dialogue for dialogue, _ in samples], [flags for _, flags in samples])
    assert batch.failed == {}
    expected = np.load(shared / "golden" / "expected" / f"{case}.npz")
    field = "packed_{}_document"
    lengths = expected[field.format("input_ids") + ".lengths"]
    np.testing.assert_array_equal(np.diff(batch.sample_ends, prepend=0), lengths)
    np.testing.assert_array_equal(batch.ids, expected[field.format("input_ids") + ".tokens"])
    labels = np.where(batch.mask(), batch.ids, -100)
    if template.late_stop_id is not None:
        labels[batch.late_stops] = template.late_stop_id
    np.testing.assert_array_equal(labels, expected[field.format("labels") + ".tokens"])


@pytest.mark.parametrize(
    ("case", "source", "name", "key"),
    [
        ("pretrain_eod_llama2", "pretrain_c4.jsonl", "GeneralPretrainHandler", "text"),
        ("pretrain_sharegpt", "sharegpt_plain.json", "SharegptPretrainHandler", "conversations"),
    ],
    ids=["text", "sharegpt"],
)
def test_documents_are_those_of_the_original(
    shared: Path, tmp_path: Path, case: str, source: str, name: str, key: str
) -> None:
    handler = handlers.get(name)(options=HandlerOptions(json_keys=(key,)))
    assert isinstance(handler, TextHandler)
    assert handler.datasets() == [key]
    encoder = encoder_of(shared, "llama2", tmp_path)
    records = list(records_of(shared / "golden" / "inputs" / source))
    texts = [text for record in records for text in handler.texts(record)]
    flat, failed, _ = encode_documents(texts, encoder)
    assert failed == {}
    # The original was told to append EOS, which is the caller's matter here.
    ids = np.insert(flat.ids, flat.offsets[1:], encoder.spec.eos_id)
    expected = np.load(shared / "golden" / "expected" / f"{case}.npz")
    np.testing.assert_array_equal(np.diff(flat.offsets) + 1, expected[f"{key}_document.lengths"])
    np.testing.assert_array_equal(ids, expected[f"{key}_document.tokens"])
