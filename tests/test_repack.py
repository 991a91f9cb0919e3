"""``mtsft repack``: byte for byte what the first run would have written, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from arranged import (
    IGNORED,
    TOKENIZER,
    Stopped,
    check_packs,
    dialogues,
    items_of,
    lines,
    make,
    manifest_of,
    published,
    rejected_of,
    repacked,
    rows_of,
    samples_of,
    tokens_of,
    write,
)
from in_process import InProcess

from mtsft_preproc import gather, plan
from mtsft_preproc.cli import main
from mtsft_preproc.errors import DatasetError, OutputError, RejectedDataError, SettingsError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.ledger import row_groups


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 dialogues, a bad line, and five of them again."""
    records = [*dialogues(40), "broken {", *dialogues(20, 40), *dialogues(5, 17)]
    return write(tmp_path_factory.mktemp("repack") / "in.jsonl", records)


@pytest.fixture(scope="module")
def plain(source: Path) -> Path:
    """An unpacked run; tests leave it as it is."""
    return make(source, source.parent / "plain")


NEAT: dict[str, Any] = {"seq_length": 160, "neat_pack": True}


@pytest.mark.parametrize(
    ("first", "packing"),
    [
        ({}, {"seq_length": 128}),
        ({}, NEAT),
        ({}, {"seq_length": 90}),  # some are too long
        ({}, {"seq_length": 128, "pack_scope": "window:7"}),
        ({}, {"seq_length": 128, "pack_scope": "global", "neat_pack": True, "pad_to_multiple_of": 16}),
        ({}, {"shuffle": True, "seed": 3}),
        ({}, {"dedup": "exact"}),
        ({}, {"split": (6.0, 3.0, 1.0)}),
        ({}, {**NEAT, "split": (6.0, 3.0, 1.0), "shuffle": True, "dedup": "exact"}),
        ({"train_on": "split"}, {**NEAT, "dedup": "exact"}),
        ({"train_on": "split"}, {"seq_length": 70, "split": (1.0, 1.0)}),
        ({"train_on": "full"}, NEAT),
        ({"train_on": "full", "append_eod": True, "ignore_index": -7}, {"seq_length": 128}),
        ({"keep_columns": ("output", "history")}, {**NEAT, "shuffle": True}),
    ],
)
def test_it_is_what_the_first_run_would_have_written(
    source: Path, tmp_path: Path, first: dict[str, Any], packing: dict[str, Any]
) -> None:
    before = make(source, tmp_path / "before" / "data", **first)
    pack = "seq_length" in packing
    wanted = make(source, tmp_path / "wanted" / "data", pack=pack, **first, **packing)
    found = repacked(before, tmp_path / "found" / "data", **packing)
    assert tokens_of(found) == tokens_of(wanted)
    one, two = manifest_of(found), manifest_of(wanted)
    for name in ("items", "samples", "tokens", "trained_tokens", "splits", "packing", "length_quantiles"):
        assert one.get(name) == two.get(name)
    # The bad line is no record of the finished dataset.
    assert one["records"]["read"] == two["records"]["read"] - 1
    assert one["records"]["kept"] == two["records"]["kept"]
    if "train_on" not in first:
        reasons = two["records"]["rejected_by_reason"]
        assert one["records"]["rejected_by_reason"] == {
            name: count for name, count in reasons.items() if name != "not-json"
        }
        assert rejected_of(found) == [
            {name: value for name, value in own.items() if name != "byte_offset"}
            for own in rejected_of(wanted)
            if own["reason"] != "not-json"
        ]


@pytest.mark.parametrize("train_on", ["assistant", "split"])
@pytest.mark.parametrize("strategy", ["concat", "interleave_over"])
def test_a_mix_that_is_packed_later_is_the_mix_packed_at_once(
    tmp_path: Path, train_on: str, strategy: str
) -> None:
    files = [
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (14,)), ("b", (9, 50)))
    ]
    keys = [{"epochs": 2.5}, {"epochs": 0.6}] if strategy == "concat" else [{"weight": 1}, {"weight": 2}]
    sources = {path.stem: {"input": str(path), **own} for path, own in zip(files, keys, strict=True)}
    mix = tmp_path / "mix.yaml"
    mix.write_text(json.dumps({"sources": sources}))
    given: dict[str, Any] = {"mix": str(mix), "mix_strategy": strategy, "train_on": train_on}
    before = make(tmp_path, tmp_path / "before" / "data", **given)
    wanted = make(
        tmp_path, tmp_path / "wanted" / "data", pack=True, seq_length=256, neat_pack=True, **given
    )
    found = repacked(before, tmp_path / "found" / "data", seq_length=256, neat_pack=True)
    check_packs(found, 256, neat=True)
    assert tokens_of(found) == tokens_of(wanted)
    # What was repeated stays so, and back it goes.
    assert tokens_of(repacked(found, tmp_path / "back" / "data")) == tokens_of(before)
    with pytest.raises(SettingsError, match="--mix-strategy: these samples are a mix already"):
        repacked(
            before, tmp_path / "again" / "data", mix_strategy="interleave_under",
            interleave_probs=(0.5, 0.5),
        )  # fmt: skip


def test_packs_are_repacked_and_unpacked(plain: Path, tmp_path: Path) -> None:
    first = repacked(plain, tmp_path / "first", **NEAT)
    other = repacked(first, tmp_path / "other", seq_length=512, pad_to_multiple_of=8, shuffle=True)
    check_packs(other, 512, multiple=8, shuffled=True)
    assert tokens_of(repacked(other, tmp_path / "back", **NEAT)) == tokens_of(first)
    assert tokens_of(repacked(other, tmp_path / "alone")) == tokens_of(plain)


def test_what_was_trained_at_the_start_of_a_sample_does_not_come_back(source: Path, tmp_path: Path) -> None:
    full = make(source, tmp_path / "full", train_on="full")
    alone = repacked(repacked(full, tmp_path / "packed", **NEAT), tmp_path / "alone")
    before, after = samples_of(full), samples_of(alone)
    assert all(sample.labels[0] != IGNORED for sample in before)
    assert [(own.key, own.ids, own.labels) for own in after] == [own.in_a_pack() for own in before]
    assert manifest_of(alone)["trained_tokens"] == manifest_of(full)["trained_tokens"] - len(before)


def test_a_side_is_packed_like_the_side_of_a_packed_run(source: Path, tmp_path: Path) -> None:
    before = make(source, tmp_path / "before" / "data", split=(2.0, 1.0))
    make(source, tmp_path / "wanted" / "data", split=(2.0, 1.0), pack=True, **NEAT)
    for side in ("train", "valid"):
        found = repacked(before.with_name(f"data_{side}"), tmp_path / "found" / f"data_{side}", **NEAT)
        assert tokens_of(found) == tokens_of(tmp_path / "wanted" / f"data_{side}")
        assert manifest_of(found)["split"] == {"side": side, "shares": [2 / 3, 1 / 3], "seed": 1234}
        assert len(open_published(found).fields["labels"]) == manifest_of(found)["items"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seq_length": 160, "neat_pack": True},
        {"dedup": "exact", "shuffle": True},
        {
            "seq_length": 160, "neat_pack": True, "mix_strategy": "interleave_under",
            "interleave_probs": (0.3, 0.7),
        },
        {"mix_strategy": "interleave_over", "split": (1.0, 1.0)},
    ],
)  # fmt: skip
def test_several_datasets_become_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    files = [
        write(tmp_path / f"{name}.jsonl", own)
        for name, own in (("a", dialogues(23)), ("b", dialogues(30, 20)))
    ]
    inputs = [make(path, tmp_path / path.stem) for path in files]
    found = repacked(inputs, tmp_path / "found" / "data", **changes)
    wanted = make(
        files[0], tmp_path / "wanted" / "data", input=tuple(map(str, files)), pack="seq_length" in changes,
        **changes,
    )  # fmt: skip
    datasets = {name: raw for name, raw in tokens_of(wanted).items() if not name.endswith("parquet")}
    assert {name: raw for name, raw in tokens_of(found).items() if not name.endswith("parquet")} == datasets
    told = ("read", "kept", "samples", "tokens", "trained_tokens", "share_reached")
    for one, two, prefix in zip(
        manifest_of(found)["sources"], manifest_of(wanted)["sources"], inputs, strict=True
    ):
        assert one["name"] == str(prefix)
        assert [one[name] for name in told] == [two[name] for name in told]


def test_a_dataset_without_a_sample(source: Path, plain: Path, tmp_path: Path) -> None:
    empty = make(source, tmp_path / "empty", pack=True, seq_length=2)
    assert manifest_of(empty)["items"] == 0
    changes: dict[str, Any]
    for number, changes in enumerate(
        ({}, NEAT, {**NEAT, "dedup": "exact", "shuffle": True}, {"split": (1.0, 1.0), "dedup": "exact"})
    ):
        found = repacked(empty, tmp_path / str(number), **changes)
        assert manifest_of(found)["items"] == manifest_of(found)["records"]["read"] == 0
    # Beside others, it is a source that nothing came of.
    alone = repacked(plain, tmp_path / "alone", **NEAT)
    unpacked = repacked(empty, tmp_path / "unpacked")
    for inputs in ([plain, unpacked], [unpacked, plain]):
        found = repacked(inputs, tmp_path / "both", overwrite=True, **NEAT)
        assert tokens_of(found).keys() == tokens_of(alone).keys()
        assert samples_of(found) == samples_of(alone)
        assert [(own["name"], own["read"]) for own in manifest_of(found)["sources"]] == [
            (str(prefix), 65 if prefix == plain else 0) for prefix in inputs
        ]
        with pytest.raises(RejectedDataError, match=r"unpacked': no sample of it is there"):
            repacked(
                inputs, tmp_path / "mix", mix_strategy="interleave_under", interleave_probs=(0.5, 0.5),
                restart=True,
            )  # fmt: skip


# What is too long, or has nothing left to train.


def test_samples_that_are_too_long_are_rejected_or_end_the_run(plain: Path, tmp_path: Path) -> None:
    lengths = {(own.key[:2]): len(own.ids) for own in samples_of(plain)}
    found = repacked(plain, tmp_path / "found", seq_length=80)
    over = [(*key, "overlong") for key, length in lengths.items() if length > 80]
    assert 0 < len(over) < len(lengths)
    assert lines(found) == over
    for own in rejected_of(found):
        length = lengths[Path(own["file"]).name, own["row"]]
        assert (own["expected"], own["got"]) == ("at most 80 tokens", f"{length} tokens")
    first = min(key for key, length in lengths.items() if length > 80)
    with pytest.raises(
        RejectedDataError, match=rf"--overlong fail: .*in\.jsonl, row {first[1]}: .*{lengths[first]} tokens"
    ):
        repacked(plain, tmp_path / "fail", seq_length=80, overlong="fail")
    assert published(tmp_path / "fail") == {}


def test_a_record_that_loses_a_sample_keeps_the_others(source: Path, tmp_path: Path) -> None:
    before = make(source, tmp_path / "before", train_on="split")
    samples = samples_of(before)
    found = repacked(before, tmp_path / "found", seq_length=60)
    assert [own.in_a_pack() for own in samples_of(found)] == [
        own.in_a_pack() for own in samples if len(own.ids) <= 60
    ]
    alive = {own.key[:2] for own in samples if len(own.ids) <= 60}
    lost = sum(len(own.ids) > 60 and own.key[:2] in alive for own in samples)
    counts = manifest_of(found)["records"]
    assert lost > 0
    assert counts["lost_samples_by_reason"] == {"overlong": lost}
    assert counts["kept"] == len(alive)
    assert counts["read"] == counts["kept"] + counts["rejected"]
    told = [own for own in rejected_of(found) if "turn" in own]
    assert len(told) == lost
    assert {own["turn"] for own in told} <= {3, 5}


def test_duplicates_are_found_where_the_first_sample_is_dropped(tmp_path: Path) -> None:
    record = {
        "instruction": "And?", "input": "", "output": "Yes.", "history": [["long " * 40, "words " * 30]],
    }  # fmt: skip
    source = write(tmp_path / "in.jsonl", [record, dialogues(1)[0], record])
    before = make(source, tmp_path / "before", overlong="window", seq_length=100)
    first, second = (len(own.ids) for own in samples_of(before) if own.key[1] == 0)
    assert first > second
    found = repacked(before, tmp_path / "found", seq_length=first - 1, dedup="exact")
    assert [(own["row"], "turn" in own, own["reason"]) for own in rejected_of(found)] == [
        (0, True, "overlong"), (2, False, "duplicate"),
    ]  # fmt: skip
    assert [own.key[1] for own in samples_of(found)] == [0, 1]
    assert manifest_of(found)["records"]["lost_samples_by_reason"] == {"overlong": 1}


def test_a_sample_whose_first_token_alone_was_trained_is_rejected(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(3))
    # One token is left of each: the token that stops.
    before = make(source, tmp_path / "before", overlong="left", seq_length=1)
    assert [own.trained for own in samples_of(before)] == [1, 1, 1]
    found = repacked(before, tmp_path / "found", seq_length=8)
    assert lines(found) == [("in.jsonl", row, "nothing-trained") for row in range(3)]
    assert manifest_of(found)["items"] == 0
    assert samples_of(repacked(before, tmp_path / "alone")) == samples_of(before)


# However it ran.


def test_records_whose_samples_lie_in_several_row_groups(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {**NEAT, "dedup": "exact", "split": (1.0, 1.0)}
    wanted = make(source, tmp_path / "wanted" / "data", train_on="split", pack=True, **given)
    for size in (1, 2, 5):
        monkeypatch.setattr(row_groups, "_GROUP_ROWS", size)
        before = make(source, tmp_path / str(size) / "data", train_on="split")
        assert pq.ParquetFile(f"{before}.sources.parquet").num_row_groups == -(
            -len(rows_of(before)) // size
        )
        monkeypatch.setattr(row_groups, "_GROUP_ROWS", 1 << 16)
        found = repacked(before, tmp_path / f"found{size}" / "data", **given)
        assert tokens_of(found) == tokens_of(wanted)


def test_bytes_depend_on_neither_workers_nor_engine_nor_ranges(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {**NEAT, "shuffle": True, "split": (1.0, 1.0)}
    wanted = published(repacked(plain, tmp_path / "0" / "data", **given))
    monkeypatch.setattr(gather, "_RANGE_TOKENS", 400)
    for number, way in enumerate([{"workers": 1}, {"workers": 2}], 1):
        assert published(repacked(plain, tmp_path / str(number) / "data", **way, **given)) == wanted


def test_a_run_that_was_stopped_goes_on_where_it_was(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_RANGE_TOKENS", 400)
    wanted = published(repacked(plain, tmp_path / "calm" / "data", **NEAT))
    real = gather.GatherItems.__call__
    spans: list[int] = []

    def stopped(task: Any, span: Any) -> int:
        if len(spans) == 3:
            raise Stopped
        spans.append(span.index)
        return real(task, span)

    with monkeypatch.context() as patch:
        patch.setattr(gather.GatherItems, "__call__", stopped)
        with pytest.raises(Stopped):
            repacked(plain, tmp_path / "data", **NEAT)
    with pytest.raises(OutputError, match=r"with other settings .*settings\.seq_length: was 160, is 128"):
        repacked(plain, tmp_path / "data", seq_length=128, neat_pack=True)

    def counted(task: Any, span: Any) -> int:
        spans.append(span.index)
        return real(task, span)

    with monkeypatch.context() as patch:
        patch.setattr(gather.GatherItems, "__call__", counted)
        repacked(plain, tmp_path / "data", **NEAT)
    ranges = -(-manifest_of(tmp_path / "data")["items"] // 2)
    assert sorted(spans) == list(range(ranges))
    assert published(tmp_path / "data") == wanted


def test_a_finished_output_is_refused_or_replaced(plain: Path, tmp_path: Path) -> None:
    found = repacked(plain, tmp_path / "data", **NEAT)
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        repacked(plain, found, seq_length=128)
    repacked(plain, found, seq_length=128, overwrite=True)
    check_packs(found, 128)


# What it refuses.


@pytest.fixture
def here(plain: Path, tmp_path: Path) -> Path:
    """A copy of the unpacked run that a test may damage."""
    for path in plain.parent.iterdir():
        if path.is_file() and path.name.startswith(("plain.", "plain_")):
            shutil.copy(path, tmp_path)
    return tmp_path / "plain"


def test_a_dataset_without_a_manifest_is_refused(here: Path) -> None:
    Path(f"{here}.manifest.json").unlink()
    with pytest.raises(DatasetError, match="no manifest beside it"):
        repacked(here, here.with_name("data"), **NEAT)


def test_a_run_that_was_split_is_refused_with_the_names_of_its_sides(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(1.0, 1.0))
    with pytest.raises(DatasetError, match=f"was split; expected .*{run}_train, {run}_valid"):
        repacked(run, tmp_path / "data", **NEAT)


def test_what_is_trained_and_what_it_is_tested_with_are_kept_apart(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(1.0, 1.0))
    sides = [run.with_name("run_train"), run.with_name("run_valid")]
    with pytest.raises(DatasetError, match=r'side of a split: "train" and "valid"'):
        repacked(sides, tmp_path / "data", **NEAT)


def test_a_mix_is_not_split(source: Path, tmp_path: Path) -> None:
    """What stands in it several times would do so on the side that models are tested with, too."""
    spec = tmp_path / "mix.yaml"
    spec.write_text(f"sources: {{a: {{input: '{source}', handler: alpaca, epochs: 2}}}}")
    mixed = make(source, tmp_path / "mixed", input=(), mix=str(spec), handler_name="auto")
    with pytest.raises(SettingsError, match="--split: these samples are a mix already"):
        repacked(mixed, tmp_path / "data", **NEAT, split=(1.0, 1.0))
    assert not (tmp_path / "data.mtsft-work").exists()


def test_pairs_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"instruction": "q", "chosen": "a", "rejected": "b"}])
    pairs = make(source, tmp_path / "pairs", handler_name="alpaca-pairwise", map_keys="{}")
    with pytest.raises(DatasetError, match=r"chosen_input_ids.*expected samples to fine-tune on"):
        repacked(pairs, tmp_path / "data", **NEAT)


def test_datasets_of_two_tokenizers_are_refused(source: Path, plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<eos>"}))
    other = make(source, tmp_path / "other", tokenizer=str(folder))
    with pytest.raises(DatasetError, match="don't go together: tokenizer"):
        repacked([plain, other], tmp_path / "data", **NEAT)


def test_one_dataset_twice_and_the_output_as_input_are_refused(here: Path) -> None:
    with pytest.raises(SettingsError, match="is named twice"):
        repacked([here, here.parent / "." / "plain"], here.with_name("data"), **NEAT)
    with pytest.raises(SettingsError, match="is one of the inputs"):
        repacked(here, here, overwrite=True, **NEAT)


def test_a_sidecar_of_an_older_version_is_refused(here: Path) -> None:
    path = Path(f"{here}.sources.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["position", "digest"]), path)
    manifest = manifest_of(here)
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    Path(f"{here}.manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=r"no column position, digest; made by an older version\?"):
        repacked(here, here.with_name("data"), **NEAT)


def put(here: Path, sidecar: bytes, **changes: Any) -> None:
    """Give a dataset another sidecar, and a manifest that tells of it."""
    path = Path(f"{here}.sources.parquet")
    path.write_bytes(sidecar)
    manifest = manifest_of(here) | changes
    manifest["files"][path.name] = {"bytes": len(sidecar), "sha256": hashlib.sha256(sidecar).hexdigest()}
    Path(f"{here}.manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("where", ["magic", "footer", "name", "page"])
def test_a_sidecar_that_is_damaged_is_refused_in_one_line(here: Path, where: str) -> None:
    raw = Path(f"{here}.sources.parquet").read_bytes()
    size = int.from_bytes(raw[-8:-4], "little")
    changed = {
        "magic": raw[:-1],
        "footer": raw[: -8 - size] + b"\xff" * size + raw[-8:],
        "name": raw.replace(b"digest", b"dig\xf1st"),
        "page": raw[:4] + b"\xff" * 40 + raw[44:],
    }
    put(here, changed[where])
    with pytest.raises(DatasetError, match=r"^\S*\.sources\.parquet: [^\n]*$"):
        repacked(here, here.with_name("data"), **NEAT)


@pytest.mark.parametrize("merged", [["x"], [{"samples": {}}], [{}], [{"samples": 1}, {"samples": [2]}]])
def test_a_manifest_whose_parts_have_no_size_is_refused(here: Path, merged: list[Any]) -> None:
    put(here, Path(f"{here}.sources.parquet").read_bytes(), merged=merged)
    with pytest.raises(DatasetError, match=r"manifest\.json: not a manifest: expected 'samples'"):
        repacked(here, here.with_name("data"), **NEAT)


@pytest.mark.parametrize(
    "name", ["_packed_input_ids_document.bin", "_packed_labels_document.bin", ".sources.parquet"]
)
def test_a_changed_byte_is_noticed(here: Path, name: str) -> None:
    path = Path(f"{here}{name}")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=path.name):
        repacked(here, here.with_name("data"), **NEAT)
    assert published(here.with_name("data")) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": True}, "--seq-length: expected it for packs"),
        ({"seq_length": 128, "pack": False}, "--seq-length: .*none for --unpacked"),
        ({"seq_length": 128, "overlong": "recent"}, "--overlong: expected drop or fail for samples"),
        (
            {"seq_length": 100, "pad_to_multiple_of": 8},
            "--seq-length: expected a multiple of .* 8, got 100",
        ),
        ({"pad_to_multiple_of": 8}, "--pad-to-multiple-of: belongs to packs"),
        ({"neat_pack": True}, "--neat-pack: belongs to --pack"),
        (
            {"mix_strategy": "interleave_under", "interleave_probs": (0.5, 0.5)},
            "--interleave-probs: expected a share for each of the 1 sources",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    plain: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        repacked(plain, tmp_path / "data", **changes)
    assert published(tmp_path / "data") == {}


def test_the_command(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "packed"
    given = ["--workers", "1", "--neat-pack", "--align", "8", "--shuffle", "--seed", "5"]
    assert main(["repack", str(plain), "--output-prefix", str(packed), "--seq-length", "128", *given]) == 0
    check_packs(packed, 128, neat=True, multiple=8, shuffled=True)
    labels = items_of(packed, "labels")
    fill = 100 * manifest_of(packed)["tokens"] / (128 * len(labels))
    assert f"{len(labels)} packs of 128 tokens" in (printed := capsys.readouterr().out)
    assert f"fill {fill:.2f}%" in printed
    alone = tmp_path / "alone"
    assert main(["repack", str(packed), "--output-prefix", str(alone), "--unpacked", "--workers", "1"]) == 0
    assert tokens_of(alone) == tokens_of(plain)
    assert np.concatenate(items_of(alone, "attention_mask")).min() == 1
    for wrong in ([], ["--unpacked", "--seq-length", "128"]):
        with pytest.raises(SystemExit):
            main(["repack", str(plain), "--output-prefix", str(tmp_path / "no"), *wrong])
