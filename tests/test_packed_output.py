"""Whole runs with ``--pack``: every sample stands in one item, whole; the rest of each item is padding."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arranged import (
    FIELDS,
    IGNORED,
    TOKENIZER,
    check_packs,
    dialogues,
    items_of,
    lines,
    make,
    manifest_of,
    rejected_of,
    rows_of,
    samples_of,
    settings_of,
    write,
)
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcess
from reading import thorough

from mtsft_preproc import plan
from mtsft_preproc.cli import preprocess_main
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.pipeline import preprocess

pytestmark = pytest.mark.filterwarnings(
    "ignore:Transformer Engine and Apex are not installed:UserWarning",
)


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 good records, and two that are none."""
    records = [*dialogues(40), "broken {", {"instruction": "x", "output": None}, *dialogues(30, 40)]
    return write(tmp_path_factory.mktemp("packed") / "in.jsonl", records)


def check(source: Path, folder: Path, capacity: int, **changes: Any) -> Path:
    """Pack, and hold the packs against an unpacked run of the same data; return the prefix."""
    shaping = {name: changes[name] for name in ("train_on", "append_eod", "tokenizer") if name in changes}
    plain = make(source, folder / "plain", **shaping)
    packed = make(source, folder / "packed", pack=True, seq_length=capacity, **changes)
    wanted = [sample.in_a_pack() for sample in samples_of(plain) if len(sample.ids) <= capacity]
    assert [sample.in_a_pack() for sample in samples_of(packed)] == wanted
    # In the packs the first labels are ignored already.
    assert all(sample.labels[0] == IGNORED for sample in samples_of(packed))
    check_packs(
        packed,
        capacity,
        neat=changes.get("neat_pack", False),
        multiple=changes.get("pad_to_multiple_of", 1),
    )
    return packed


@pytest.mark.parametrize(
    ("capacity", "changes"),
    [
        (128, {}),
        (128, {"neat_pack": True}),
        (4096, {"neat_pack": True}),
        (128, {"neat_pack": True, "pad_to_multiple_of": 8}),
        (120, {"pad_to_multiple_of": 40}),
        (128, {"neat_pack": True, "pad_to_multiple_of": 128}),
        (128, {"pack_scope": "window:7"}),
        (128, {"pack_scope": "global", "neat_pack": True}),
        (128, {"train_on": "split", "neat_pack": True}),
        (80, {"train_on": "split"}),
        (128, {"train_on": "full", "neat_pack": True}),
        (128, {"train_on": "full", "pad_to_multiple_of": 16}),
        (128, {"append_eod": True}),
    ],
)
def test_every_sample_stands_whole_in_one_item(
    source: Path, tmp_path: Path, capacity: int, changes: dict[str, Any]
) -> None:
    packed = check(source, tmp_path, capacity, **changes)
    manifest = manifest_of(packed)
    assert manifest["samples"] > 40
    assert manifest["packing"] == {
        "seq_length": capacity,
        "multiple": changes.get("pad_to_multiple_of", 1),
        "neat": changes.get("neat_pack", False),
        "window": {"window:7": 7, "global": None}.get(changes.get("pack_scope", ""), 100_000_000),
        "fill": manifest["tokens"] / (manifest["items"] * capacity),
    }


def test_megatron_core_reads_items_of_the_sequence_length(source: Path, tmp_path: Path) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    packed = make(source, tmp_path / "data", pack=True, neat_pack=True, seq_length=128)
    for field in FIELDS:
        read = megatron.IndexedDataset(str(tmp_path / f"data_packed_{field}_document"))
        own = items_of(packed, field)
        assert len(read) == len(own) == manifest_of(packed)["items"]
        assert read.sequence_lengths.tolist() == [128] * len(own)
        assert read.document_indices.tolist() == list(range(len(own) + 1))
        for number, item in enumerate(own):
            np.testing.assert_array_equal(read[number], item)


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Return how many items the textbook's rule needs."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


@thorough(15)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(24, 70),
    st.integers(1, 4),
    st.booleans(),
    st.none() | st.integers(1, 5),
)
def test_packs_of_any_lengths_and_capacities(
    words: list[int], capacity: int, multiple: int, neat: bool, window: int | None
) -> None:
    capacity = capacity // multiple * multiple
    records = [
        {"instruction": f"q{number}", "output": "word " * count} for number, count in enumerate(words)
    ]
    with tempfile.TemporaryDirectory() as name:
        source = write(Path(name) / "in.jsonl", records)
        scope = None if window is None else f"window:{window}"
        changes = {"map_keys": "{}", "neat_pack": neat, "pad_to_multiple_of": multiple, "pack_scope": scope}
        plain = make(source, Path(name) / "plain", map_keys="{}")
        packed = make(source, Path(name) / "packed", pack=True, seq_length=capacity, **changes)
        wanted = [own.in_a_pack() for own in samples_of(plain) if len(own.ids) <= capacity]
        assert [own.in_a_pack() for own in samples_of(packed)] == wanted
        check_packs(packed, capacity, neat=neat, multiple=multiple)
        over = [
            ("in.jsonl", number, "overlong")
            for number, own in enumerate(samples_of(plain))
            if len(own.ids) > capacity
        ]
        assert lines(packed) == over
        wide = [-(-row["length"] // multiple) * multiple for row in rows_of(packed)]
        step = window or max(1, len(wide))
        items = sum(
            best_fit_decreasing(wide[start : start + step], capacity) for start in range(0, len(wide), step)
        )
        assert manifest_of(packed)["items"] == items


def test_windows_are_packed_for_themselves(source: Path, tmp_path: Path) -> None:
    packed = make(source, tmp_path / "data", pack=True, seq_length=256, pack_scope="window:9")
    windows_of: dict[int, set[int]] = {}
    for row in rows_of(packed):
        windows_of.setdefault(row["item"], set()).add(row["position"] // 9)
    assert all(len(windows) == 1 for windows in windows_of.values())
    together = make(source, tmp_path / "all", pack=True, seq_length=256)
    assert manifest_of(together)["items"] < manifest_of(packed)["items"]


def test_a_sample_of_just_the_capacity_fills_an_item(source: Path, tmp_path: Path) -> None:
    lengths = [len(sample.ids) for sample in samples_of(make(source, tmp_path / "plain"))]
    longest = max(lengths)
    packed = make(source, tmp_path / "full", pack=True, neat_pack=True, seq_length=longest)
    ids, mask = items_of(packed, "input_ids"), items_of(packed, "attention_mask")
    full = [row for row in rows_of(packed) if row["length"] == longest]
    assert len(full) == lengths.count(longest)
    for row in full:
        assert row["offset"] == 0
        assert mask[row["item"]].tolist() == [1] * longest
        assert manifest_of(packed)["pad_id"] not in ids[row["item"]].tolist()
    less = make(source, tmp_path / "less", pack=True, seq_length=longest - 1)
    told = [own for own in rejected_of(less) if own["reason"] == "overlong"]
    assert [(own["expected"], own["got"]) for own in told] == [
        (f"at most {longest - 1} tokens", f"{longest} tokens")
    ] * lengths.count(longest)
    counts = manifest_of(less)["records"]
    assert counts["rejected_by_reason"] == {
        "missing-field": 1, "not-json": 1, "overlong": lengths.count(longest),
    }  # fmt: skip
    assert counts["read"] == counts["kept"] + counts["rejected"] == 72


def test_records_that_are_all_too_long_are_rejected_and_give_no_item(source: Path, tmp_path: Path) -> None:
    packed = make(source, tmp_path / "data", pack=True, neat_pack=True, seq_length=2)
    manifest = manifest_of(packed)
    assert (manifest["items"], manifest["samples"], manifest["packing"]["fill"]) == (0, 0, 0.0)
    assert manifest["records"]["rejected_by_reason"]["overlong"] == 70
    assert [items_of(packed, field) for field in FIELDS] == [[], [], []]


def test_the_first_label_of_a_pack_is_never_trained_also_with_full(source: Path, tmp_path: Path) -> None:
    plain = samples_of(make(source, tmp_path / "plain", train_on="full"))
    # Alone, the first token of a dialogue without a system text is trained with "full".
    assert all(sample.labels[0] == sample.ids[0] for sample in plain)
    packed = make(source, tmp_path / "packed", train_on="full", pack=True, seq_length=512)
    labels = np.concatenate(items_of(packed, "labels"))
    trained = sum(len(sample.ids) for sample in plain) - len(plain)
    untrained_breaks = sum(
        own == IGNORED for sample in plain for own in sample.labels
    )  # what no rule trains, such as the line break behind a stop token
    trained -= untrained_breaks
    assert manifest_of(packed)["trained_tokens"] == trained == int((labels != IGNORED).sum())
    assert sum(row["trained"] for row in rows_of(packed)) == trained


def test_a_sample_whose_first_token_alone_is_trained_is_rejected(tmp_path: Path) -> None:
    short: list[dict[str, Any]] = [
        {"role": "user", "content": "Say hi."},
        {"role": "assistant", "content": "Hi!"},
    ]
    untrained = [
        {"role": "user", "content": "And now? " * 40},
        {"role": "assistant", "content": "Nothing.", "weight": 0},
    ]
    records = [{"messages": [*short, *untrained]}, {"messages": short}]
    source = write(tmp_path / "in.jsonl", records)
    given: dict[str, Any] = {"handler_name": "openai", "map_keys": "{}"}
    labels = samples_of(make(source, tmp_path / "plain", **given))[0].labels
    last = max(place for place, label in enumerate(labels) if label != IGNORED)
    # What is left is the stop token of the reply, and all that was said behind it.
    given |= {"overlong": "left", "seq_length": len(labels) - last}
    alone = samples_of(make(source, tmp_path / "alone", **given))
    assert [sample.trained for sample in alone] == [1, 4]
    assert alone[0].labels[0] == labels[last]
    packed = make(source, tmp_path / "packed", pack=True, **given)
    assert lines(packed) == [("in.jsonl", 0, "nothing-trained")]
    assert [sample.in_a_pack() for sample in samples_of(packed)] == [alone[1].in_a_pack()]
    check_packs(packed, given["seq_length"])


@pytest.fixture
def pad_is_stop(tmp_path: Path) -> Path:
    """A tokenizer that pads with the token that ends a turn."""
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    path.write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize("neat", [False, True])
@pytest.mark.parametrize("multiple", [1, 8])
def test_padding_with_the_stop_token_untrains_no_real_one(
    source: Path, tmp_path: Path, pad_is_stop: Path, neat: bool, multiple: int
) -> None:
    packed = check(
        source, tmp_path, 128, tokenizer=str(pad_is_stop), neat_pack=neat, pad_to_multiple_of=multiple
    )
    manifest = manifest_of(packed)
    stop = manifest["pad_id"]
    assert stop == manifest["tokenizer"]["eos_id"]
    # Each reply ends with it: rounds of history and the last one.
    replies = sum(1 + len(record["history"]) for record in dialogues(70))
    labels, ids = (np.concatenate(items_of(packed, field)) for field in ("labels", "input_ids"))
    assert int((labels == stop).sum()) == replies
    # Untrained are those of the questions, and the padding.
    padding = len(ids) - manifest["tokens"]
    assert padding > 0
    assert int(((ids == stop) & (labels == IGNORED)).sum()) == replies + padding


def test_the_command_prints_how_full_the_packs_are(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = preprocess_main(
        [
            "--input", str(source), "--output-prefix", str(tmp_path / "data"), "--tokenizer-name-or-path",
            str(TOKENIZER), "--handler-name", "alpaca", "--prompt-type", "chatml", "--map-keys",
            '{"history": "history"}', "--workers", "1", "--pack", "--neat-pack", "--seq-length", "256",
            "--align", "8", "--pack-scope", "window:50",
        ]
    )  # fmt: skip
    assert code == 0
    packed = tmp_path / "data"
    check_packs(packed, 256, neat=True, multiple=8)
    tokens = sum(int((item != 0).sum()) for item in items_of(packed, "attention_mask"))
    items = len(items_of(packed, "labels"))
    printed = capsys.readouterr().out
    assert f"{items} packs of 256 tokens with 70 samples" in printed
    assert f"fill {100 * tokens / (items * 256):.2f}%" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": True}, "--pack: expected --seq-length N, the tokens of each pack, got none"),
        ({"neat_pack": True, "seq_length": 8}, "--neat-pack: belongs to --pack, which is not given"),
        ({"pack_scope": "global", "seq_length": 8}, "--pack-scope: belongs to --pack, which is not given"),
        (
            {"pack": True, "seq_length": 8, "pack_scope": "local"},
            "--pack-scope: expected global or window:N, got 'local'",
        ),
        ({"pack": True, "seq_length": 8, "pack_scope": "window:0"}, "--pack-scope: expected .*'window:0'"),
        ({"pack": True, "seq_length": 8, "pack_scope": "window:"}, "--pack-scope: expected .*'window:'"),
        ({"pack": True, "seq_length": 0}, "--seq-length: expected a whole number of at least 1, got 0"),
        (
            {"pack": True, "seq_length": 100, "pad_to_multiple_of": 8},
            "--seq-length: expected a multiple of --pad-to-multiple-of 8 with --pack, got 100",
        ),
        ({"pad_to_multiple_of": 8}, "--pad-to-multiple-of: belongs to handlers of .*or to --pack"),
        ({"pad_to_multiple_of": 0}, "--pad-to-multiple-of: expected a whole number of at least 1, got 0"),
        (
            {"pack": True, "seq_length": 8, "handler_name": "alpaca-pairwise", "map_keys": "{}"},
            "--pack: belongs to handlers of dialogues to fine-tune on; AlpacaStylePairwiseHandler is none",
        ),
        (
            {
                "pack": True, "seq_length": 8, "handler_name": "pretrain", "map_keys": "{}",
                "prompt_type": None, "json_keys": ("output",),
            },
            "--pack: belongs to handlers of dialogues to fine-tune on; GeneralPretrainHandler is none",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    record = {**dialogues(1)[0], "chosen": "a", "rejected": "b"}
    source = write(tmp_path / "in.jsonl", [record])
    with pytest.raises(SettingsError, match=message):
        preprocess(settings_of(source, tmp_path / "out" / "data", **changes))
    assert not (tmp_path / "out").exists()
