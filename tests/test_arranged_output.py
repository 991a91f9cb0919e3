"""Whole runs with ``--split``, ``--shuffle``, ``--dedup`` and mixes: same bytes however they ran."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arranged import (
    FIELDS,
    TOKENIZER,
    Stopped,
    check_packs,
    dialogues,
    items_of,
    lines,
    make,
    manifest_of,
    published,
    read_pair,
    rejected_of,
    rows_of,
    samples_of,
    settings_of,
    write,
)
from in_process import InProcess

from mtsft_preproc import finish, gather, plan
from mtsft_preproc.cli import preprocess_main
from mtsft_preproc.errors import DatasetError, RejectedDataError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.torch_data import SFTDataset

ROOT = Path(__file__).parents[1]
SIDES = ("train", "valid", "test")


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("arranged") / "in.jsonl", dialogues(60))


def side(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{name}")


def sides_of(prefix: Path, *names: str) -> dict[tuple[str, int], str]:
    """The side of each record, by file and row; no record is on two."""
    found: dict[tuple[str, int], str] = {}
    for name in names or SIDES:
        for file, row in {(Path(row["file"]).name, row["row"]) for row in rows_of(side(prefix, name))}:
            assert (file, row) not in found
            found[file, row] = name
    return found


def spec(folder: Path, **content: Any) -> str:
    """Write a mix file, as YAML of one line per field."""
    path = folder / "mix.yaml"
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in content.items()), "utf-8")
    return str(path)


# --split


@pytest.mark.parametrize("changes", [{}, {"train_on": "split"}, {"shuffle": True}])
def test_each_sample_is_on_one_side(source: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = make(source, tmp_path / "plain", **{**changes, "shuffle": False})
    run = make(source, tmp_path / "run", split=(6, 3, 1), **changes)
    found = sides_of(run)
    assert set(found.values()) == set(SIDES)
    for name in SIDES:
        own = [sample for sample in samples_of(plain) if found[sample.key[:2]] == name]
        assert samples_of(side(run, name)) == own
        assert sorted(row["item"] for row in rows_of(side(run, name))) == list(range(len(own)))
    assert len(found) == 60


def test_a_packed_side_holds_packs_of_its_own(source: Path, tmp_path: Path) -> None:
    plain = samples_of(make(source, tmp_path / "plain"))
    run = make(source, tmp_path / "run", split=(2, 1), pack=True, neat_pack=True, seq_length=200)
    found = sides_of(run, "train", "valid")
    for name in ("train", "valid"):
        check_packs(side(run, name), 200, neat=True)
        own = [sample.in_a_pack() for sample in plain if found[sample.key[:2]] == name]
        assert [sample.in_a_pack() for sample in samples_of(side(run, name))] == own


def test_equal_dialogues_are_on_one_side_whatever_their_format_and_flags(tmp_path: Path) -> None:
    rows = dialogues(40)
    chats = []
    for row in rows:
        texts = [text for pair in row["history"] for text in pair] + [row["instruction"], row["output"]]
        chat: list[dict[str, Any]] = [
            {"role": "assistant" if place % 2 else "user", "content": text}
            for place, text in enumerate(texts)
        ]
        if len(chat) > 2:
            chat[1]["weight"] = 0
        chats.append({"messages": chat})
    sources = {
        "rows": {"input": str(write(tmp_path / "rows.jsonl", rows)), "map_keys": {"history": "history"}},
        "chats": {"input": str(write(tmp_path / "chats.jsonl", chats)), "handler": "openai"},
    }
    mix = spec(tmp_path, sources=sources)
    for seed in (1, 2):
        run = make(tmp_path, tmp_path / f"run{seed}", mix=mix, map_keys="{}", split=(1, 1), seed=seed)
        found = sides_of(run, "train", "valid")
        assert [found["rows.jsonl", row] for row in range(40)] == [
            found["chats.jsonl", row] for row in range(40)
        ]
        assert set(found.values()) == {"train", "valid"}


def test_a_record_stays_on_its_side_when_data_are_added(tmp_path: Path) -> None:
    before = make(
        write(tmp_path / "a.jsonl", dialogues(50)), tmp_path / "a" / "run", split=(5, 3, 2), shuffle=True
    )
    more = [*dialogues(30, 1000), *dialogues(50), *dialogues(30, 2000)]
    after = make(
        write(tmp_path / "b.jsonl", more), tmp_path / "b" / "run", split=(5, 3, 2), shard_bytes=700
    )
    first, second = sides_of(before), sides_of(after)
    assert [first["a.jsonl", row] for row in range(50)] == [
        second["b.jsonl", row + 30] for row in range(50)
    ]
    other = sides_of(make(tmp_path / "a.jsonl", tmp_path / "c" / "run", split=(5, 3, 2), seed=5))
    assert other != first


def test_a_side_without_a_share_is_not_there(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(1, 0, 1))
    assert set(sides_of(run, "train", "test").values()) == {"train", "test"}
    assert not [name for name in published(run) if "valid" in name]
    assert list(manifest_of(run)["splits"]) == ["train", "test"]


def test_manifests_of_a_run_and_its_sides(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(6, 3, 1), pack=True, seq_length=200)
    whole = manifest_of(run)
    assert whole["records"]["read"] == whole["records"]["kept"] == 60
    for name in SIDES:
        own = manifest_of(side(run, name))
        assert own["split"] == {"side": name, "of": "run", "shares": [0.6, 0.3, 0.1], "seed": 1234}
        assert "records" not in own
        assert own["fingerprint"] == whole["fingerprint"]
        rows = rows_of(side(run, name))
        assert (own["samples"], own["items"]) == (len(rows), len(items_of(side(run, name), "labels")))
        assert own["tokens"] == sum(row["length"] for row in rows)
        entry = whole["splits"][name]
        assert entry == {key: own[key] for key in entry}
        for file, told in own["files"].items():
            content = (tmp_path / file).read_bytes()
            assert told == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            assert whole["files"][file] == told
    for count in ("items", "samples", "tokens", "trained_tokens"):
        assert whole[count] == sum(whole["splits"][name][count] for name in SIDES)


def test_the_sides_are_opened_and_the_run_is_not(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(1, 1))
    with pytest.raises(DatasetError, match=rf"was split; expected one of {run}_train, {run}_valid"):
        open_published(run)
    with pytest.raises(DatasetError, match="was split"):
        SFTDataset(run)
    train = SFTDataset(side(run, "train"))
    assert len(train) == len(rows_of(side(run, "train")))
    assert train[0]["input_ids"].tolist() == list(samples_of(side(run, "train"))[0].ids)


@pytest.mark.parametrize(
    "changes", [{}, {"pack": True, "neat_pack": True, "seq_length": 64, "shuffle": True}]
)
def test_a_side_that_gets_nothing_is_empty_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    source = write(tmp_path / "one.jsonl", dialogues(1))
    with caplog.at_level(logging.WARNING):
        run = make(source, tmp_path / "run", split=(1, 1), **changes)
    (name,) = set(sides_of(run, "train", "valid").values())
    (empty,) = {"train", "valid"} - {name}
    assert f"--split: {empty} gets no sample" in caplog.text
    assert [items_of(side(run, empty), field) for field in FIELDS] == [[], [], []]
    assert len(SFTDataset(side(run, empty))) == 0
    assert manifest_of(side(run, empty))["items"] == 0


def test_an_unsplit_output_that_takes_the_place_of_a_split_one_removes_it(
    source: Path, tmp_path: Path
) -> None:
    run = make(source, tmp_path / "run", split=(1, 1))
    make(source, run, overwrite=True, restart=True)
    assert not [name for name in published(run) if "train" in name or "valid" in name]
    make(source, run, overwrite=True, restart=True, split=(1, 1))
    assert not [name for name in published(run) if name.startswith(("_packed", ".sources"))]


# --shuffle


def test_a_shuffle_is_a_permutation_of_the_items(source: Path, tmp_path: Path) -> None:
    plain = [tuple(item.tolist()) for item in items_of(make(source, tmp_path / "plain"), "input_ids")]
    orders = []
    for seed in (1, 2):
        run = make(source, tmp_path / f"run{seed}", shuffle=True, seed=seed)
        order = [row["item"] for row in rows_of(run)]
        assert sorted(order) == list(range(60))
        shuffled = [tuple(item.tolist()) for item in items_of(run, "input_ids")]
        assert [shuffled[item] for item in order] == plain
        assert [row["position"] for row in rows_of(run)] == list(range(60))
        orders.append(order)
    assert orders[0] != orders[1]
    assert list(range(60)) not in orders


def test_shuffled_packs_are_the_same_packs(source: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"pack": True, "neat_pack": True, "seq_length": 200}
    calm = make(source, tmp_path / "calm", **given)
    run = make(source, tmp_path / "run", shuffle=True, **given)
    check_packs(run, 200, neat=True, shuffled=True)
    assert samples_of(run) == samples_of(calm)
    for field in FIELDS:
        before, after = ([tuple(item.tolist()) for item in items_of(own, field)] for own in (calm, run))
        assert before != after
        assert sorted(before) == sorted(after)


# --dedup


def test_the_first_of_equal_dialogues_is_kept_over_all_files(tmp_path: Path) -> None:
    first, second, third, fourth = dialogues(4)
    trained = {**first, "history": []}  # question 0 has no history: no field is as good as an empty one
    a = write(tmp_path / "a.jsonl", [first, second, first, "broken {", third])
    b = write(tmp_path / "b.jsonl", [third, fourth, trained, {"instruction": "x", "output": None}])
    for number, size in enumerate((None, 1)):
        run = make(a, tmp_path / f"run{number}", input=(str(a), str(b)), dedup="exact", shard_bytes=size)
        assert lines(run) == [
            ("a.jsonl", 2, "duplicate"), ("a.jsonl", 3, "not-json"), ("b.jsonl", 0, "duplicate"),
            ("b.jsonl", 2, "duplicate"), ("b.jsonl", 3, "missing-field"),
        ]  # fmt: skip
        assert [own["got"] for own in rejected_of(run) if own["reason"] == "duplicate"] == [
            f"that of {a}, row 0", f"that of {a}, row 4", f"that of {a}, row 0",
        ]  # fmt: skip
        assert [sample.key[:2] for sample in samples_of(run)] == [
            ("a.jsonl", 0), ("a.jsonl", 1), ("a.jsonl", 4), ("b.jsonl", 1),
        ]  # fmt: skip
        counts = manifest_of(run)["records"]
        assert (counts["read"], counts["kept"], counts["rejected"]) == (9, 4, 5)
        assert [(own["read"], own["rejected"]) for own in counts["by_file"]] == [(5, 2), (4, 3)]
        assert counts["rejected_by_reason"] == {"duplicate": 3, "missing-field": 1, "not-json": 1}


def test_duplicates_do_not_count_as_bad_data(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(1) * 20)
    run = make(source, tmp_path / "run", dedup="exact", max_rejected=0, on_error="fail")
    assert manifest_of(run)["records"]["rejected_by_reason"] == {"duplicate": 19}
    with pytest.raises(RejectedDataError):
        make(write(tmp_path / "bad.jsonl", ["x"]), tmp_path / "bad", dedup="exact", max_rejected=0)


def test_dialogues_that_train_other_words_are_no_duplicates(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    flagged = [dict(message) for message in chat]
    flagged[1]["weight"] = 0
    source = write(tmp_path / "in.jsonl", [{"messages": own} for own in (chat, flagged, chat, flagged)])
    run = make(source, tmp_path / "run", dedup="exact", handler_name="openai", map_keys="{}")
    assert lines(run) == [("in.jsonl", 2, "duplicate"), ("in.jsonl", 3, "duplicate")]


def test_all_samples_of_a_duplicate_are_left_out(tmp_path: Path) -> None:
    records = dialogues(9)
    source = write(tmp_path / "in.jsonl", [*records, records[5], records[0], *dialogues(3, 20), records[2]])
    plain = make(source, tmp_path / "plain", train_on="split")
    for size in (None, 300):
        run = make(
            source, tmp_path / f"run{size}", train_on="split", dedup="exact", shard_bytes=size,
            pack=True, seq_length=300,
        )  # fmt: skip
        assert lines(run) == [("in.jsonl", row, "duplicate") for row in (9, 10, 14)]
        wanted = [own.in_a_pack() for own in samples_of(plain) if own.key[1] not in (9, 10, 14)]
        assert [own.in_a_pack() for own in samples_of(run)] == wanted
        check_packs(run, 300)


def test_a_duplicate_that_lost_a_sample_is_rejected_once(tmp_path: Path) -> None:
    record = {**dialogues(1)[0], "history": [["q", "a"], ["longer " * 50, "b"]]}
    source = write(tmp_path / "in.jsonl", [record, record])
    run = make(source, tmp_path / "run", train_on="split", dedup="exact", seq_length=60)
    # The first record keeps its first round; of the second nothing is left that could lose anything.
    assert [(own["row"], own.get("turn"), own["reason"]) for own in rejected_of(run)] == [
        (0, 3, "overlong"), (0, 5, "overlong"), (1, None, "duplicate"),
    ]  # fmt: skip
    counts = manifest_of(run)["records"]
    assert counts["lost_samples_by_reason"] == {"overlong": 2}
    assert counts["rejected_by_reason"] == {"duplicate": 1}


# --mix, --interleave-probs


def by_source(prefix: Path) -> dict[str, Counter[int]]:
    """How often each row stands in an output, by the name of the source."""
    found: dict[str, Counter[int]] = {}
    for row in rows_of(prefix):
        found.setdefault(row["source_name"], Counter())[row["row"]] += 1
    return found


def check_sources(prefix: Path, output: Path | None = None) -> None:
    """Count each source by hand, and hold the manifest against it."""
    rows = rows_of(output or prefix)
    for entry in manifest_of(prefix)["sources"]:
        own = [row for row in rows if row["source_name"] == entry["name"]]
        assert entry["samples"] == len(own)
        assert entry["tokens"] == sum(row["length"] for row in own)
        assert entry["trained_tokens"] == sum(row["trained"] for row in own)
        assert entry["share_reached"] == len(own) / len(rows)


def test_epochs_repeat_a_source(tmp_path: Path) -> None:
    a, b = (
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (10,)), ("b", (6, 50)))
    )
    mix = spec(tmp_path, sources={"A": {"input": str(a), "epochs": 2.5}, "B": {"input": str(b)}})
    plain = {own.key: own for own in samples_of(make(a, tmp_path / "plain", input=(str(a), str(b))))}
    run = make(a, tmp_path / "run", mix=mix)
    rows = sorted(rows_of(run), key=lambda row: row["position"])
    assert [row["item"] for row in rows] == [row["position"] for row in rows] == list(range(31))
    assert [row["row"] for row in rows[:20]] == [*range(10), *range(10)]
    rest = [row["row"] for row in rows[20:25]]
    assert len(set(rest)) == 5
    assert rest == sorted(rest)
    assert [(row["source_name"], row["row"]) for row in rows[25:]] == [("B", row) for row in range(6)]
    ids = items_of(run, "input_ids")
    for row in rows:
        assert ids[row["item"]].tolist() == list(plain[Path(row["file"]).name, row["row"], 0].ids)
    # The sidecar stands in the order of the input, the same sample row by row.
    assert [row["row"] for row in rows_of(run)][:3] == [0] * (3 if 0 in rest else 2) + [1] * (0 not in rest)
    counts = manifest_of(run)["records"]
    assert (counts["read"], counts["kept"], counts["rejected"]) == (16, 16, 0)
    check_sources(run)
    assert [entry["epochs"] for entry in manifest_of(run)["sources"]] == [2.5, 1.0]


@pytest.mark.parametrize(
    ("strategy", "expected"), [("interleave_under", (5, 5)), ("interleave_over", (20, 20))]
)
def test_weights_leave_out_or_repeat(tmp_path: Path, strategy: str, expected: tuple[int, int]) -> None:
    a, b = (
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (20,)), ("b", (5, 50)))
    )
    sources = {"A": {"input": str(a), "weight": 1}, "B": {"input": [str(b)], "weight": 1}}
    run = make(
        a, tmp_path / "run", mix=spec(tmp_path, sources=sources), mix_strategy=strategy, pack=True,
        seq_length=300,
    )  # fmt: skip
    found = by_source(run)
    assert (found["A"].total(), found["B"].total()) == expected
    check_packs(run, 300)
    check_sources(run)
    manifest = manifest_of(run)
    assert [(own["share_asked"], own["share_reached"]) for own in manifest["sources"]] == [(0.5, 0.5)] * 2
    left = sorted({*range(20)} - found["A"].keys())
    assert lines(run) == [("a.jsonl", row, "left-out") for row in left]
    assert manifest["records"]["kept"] == 25 - len(left)
    # They take turns: of every prefix each has half, to within one.
    rows = sorted(rows_of(run), key=lambda row: row["position"])
    for count in range(1, len(rows)):
        assert abs(sum(row["source_name"] == "A" for row in rows[:count]) - count / 2) <= 1
    if strategy == "interleave_over":
        assert set(found["B"].values()) == {4}


def test_shares_on_the_command_line(tmp_path: Path) -> None:
    a, b = (
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (14,)), ("b", (30, 50)))
    )
    run = make(
        a, tmp_path / "run", input=(str(a), str(b)), mix_strategy="interleave_under",
        interleave_probs=(0.7, 0.3),
    )  # fmt: skip
    # 14 of the first are 70 % of 20.
    assert {name: own.total() for name, own in by_source(run).items()} == {str(a): 14, str(b): 6}
    assert manifest_of(run)["records"]["rejected_by_reason"] == {"left-out": 24}
    check_sources(run)


def test_weights_by_trained_tokens(tmp_path: Path) -> None:
    short = [{"instruction": f"q{number}", "output": "yes"} for number in range(300)]
    long = [{"instruction": f"r{number}", "output": "word " * 60} for number in range(20)]
    sources = {
        "short": {"input": str(write(tmp_path / "a.jsonl", short)), "weight": 3, "map_keys": {}},
        "long": {"input": str(write(tmp_path / "b.jsonl", long)), "weight": 1, "map_keys": {}},
    }
    run = make(
        tmp_path, tmp_path / "run", mix_strategy="interleave_under",
        mix=spec(tmp_path, weights_by="trained_tokens", sources=sources),
    )  # fmt: skip
    trained = Counter({"short": 0, "long": 0})
    for row in rows_of(run):
        trained[row["source_name"]] += row["trained"]
    share = trained["short"] / trained.total()
    assert share == pytest.approx(0.75, abs=0.05)
    entries = manifest_of(run)["sources"]
    assert [entry["share_asked"] for entry in entries] == [0.75, 0.25]
    assert [entry["share_reached"] for entry in entries] == pytest.approx([share, 1 - share], rel=1e-12)


def test_a_record_brings_all_its_samples_along(tmp_path: Path) -> None:
    a, b = (
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (12,)), ("b", (9, 50)))
    )
    sources = {"A": {"input": str(a), "epochs": 1.5}, "B": {"input": str(b), "epochs": 2}}
    for strategy in ("concat", "interleave_under"):
        run = make(
            a, tmp_path / strategy, mix=spec(tmp_path, sources=sources), mix_strategy=strategy,
            train_on="split",
        )  # fmt: skip
        rows = sorted(rows_of(run), key=lambda row: row["position"])
        drawn = []
        while rows:
            first = rows[0]
            start = {"A": 0, "B": 50}[first["source_name"]]
            rounds = (first["row"] + start) % 3 + 1
            own, rows = rows[:rounds], rows[rounds:]
            assert {(row["source_name"], row["row"]) for row in own} == {
                (first["source_name"], first["row"])
            }
            assert [row["turn"] for row in own] == list(range(1, 2 * rounds, 2))
            drawn.append(first["source_name"])
        assert Counter(drawn) == {"A": 18, "B": 18}
        assert (sorted(drawn) == drawn) == (strategy == "concat")


def test_only_training_data_are_repeated(tmp_path: Path) -> None:
    a, b = (
        write(tmp_path / f"{name}.jsonl", dialogues(*own)) for name, own in (("a", (30,)), ("b", (30, 50)))
    )
    sources = {"A": {"input": str(a), "epochs": 3}, "B": {"input": str(b), "epochs": 0.5}}
    run = make(
        a, tmp_path / "run", mix=spec(tmp_path, sources=sources), split=(6, 4), mix_strategy="concat"
    )
    once = make(a, tmp_path / "once", input=(str(a), str(b)), split=(6, 4))
    wanted = sides_of(once, "train", "valid")
    train, valid = by_source(side(run, "train")), by_source(side(run, "valid"))
    assert set(train["A"].values()) == {3}
    assert set(train["B"].values()) == {1}
    for name, own in valid.items():
        assert set(own.values()) == {1}
        assert {(f"{name.lower()}.jsonl", row) for row in own} == {
            key for key, where in wanted.items() if where == "valid" and key[0] == f"{name.lower()}.jsonl"
        }
    in_train = sum(file == "b.jsonl" and where == "train" for (file, _), where in wanted.items())
    assert train["B"].total() == int(in_train * 0.5 + 0.5)
    assert manifest_of(run)["records"]["rejected_by_reason"] == {"left-out": in_train - train["B"].total()}


# However it ran.


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two inputs, with duplicates within and between them, and bad lines."""
    folder = tmp_path_factory.mktemp("two")
    records = dialogues(50)
    a = write(folder / "a.jsonl", [*records[:30], "broken {", *records[3:9]])
    b = write(folder / "b.jsonl", [*records[30:], {"instruction": "x", "output": None}, *records[20:26]])
    return a, b


EVERYTHING: dict[str, Any] = {
    "pack": True, "neat_pack": True, "seq_length": 160, "pad_to_multiple_of": 8, "split": (6, 3, 1),
    "shuffle": True, "dedup": "exact", "mix_strategy": "interleave_over", "train_on": "split",
    "interleave_probs": (0.4, 0.6),
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"pack": True, "seq_length": 160},
        {"split": (6, 3, 1)},
        {"shuffle": True},
        {"dedup": "exact"},
        {"mix_strategy": "interleave_under", "interleave_probs": (0.4, 0.6)},
        EVERYTHING,
    ],
)
def test_bytes_depend_neither_on_shards_nor_on_ranges(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    changes = {**changes, "input": tuple(map(str, two)), "keep_columns": ("output",)}
    wanted = published(make(two[0], tmp_path / "0" / "data", **changes))
    assert published(make(two[0], tmp_path / "1" / "data", shard_bytes=1, **changes)) == wanted
    monkeypatch.setattr(gather, "_RANGE_TOKENS", 400)
    assert published(make(two[0], tmp_path / "2" / "data", shard_bytes=1500, **changes)) == wanted


def test_bytes_depend_neither_on_workers_nor_on_the_engine(two: tuple[Path, Path], tmp_path: Path) -> None:
    changes = {**EVERYTHING, "input": tuple(map(str, two))}
    wanted = published(make(two[0], tmp_path / "0" / "data", **changes))
    for number, way in enumerate(
        [{"workers": 3, "shard_bytes": 1500}, {"workers": 1, "engine": "pool", "shard_bytes": 4000}], 1
    ):
        assert published(make(two[0], tmp_path / str(number) / "data", **way, **changes)) == wanted


def test_the_command_takes_it_all(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {**EVERYTHING, "input": tuple(map(str, two)), "split": (6.0, 3.0, 1.0), "seed": 7}
    wanted = make(two[0], tmp_path / "0" / "data", **changes)
    run = tmp_path / "1" / "data"
    code = preprocess_main(
        [
            "--input", *map(str, two), "--output-prefix", str(run), "--tokenizer-name-or-path",
            str(TOKENIZER), "--handler-name", "alpaca", "--prompt-type", "chatml", "--map-keys",
            '{"history": "history"}', "--workers", "1", "--max-rejected", "1.0", "--train-on", "split",
            "--pack", "--neat-pack", "--seq-length", "160", "--pad-to-multiple-of", "8", "--split", "6,3,1",
            "--shuffle", "--dedup", "--mix-strategy", "interleave_over", "--interleave-probs", "0.4,0.6",
            "--seed", "7",
        ]
    )  # fmt: skip
    assert code == 0
    assert published(run) == published(wanted)
    printed = capsys.readouterr().out
    for name in SIDES:
        entry = manifest_of(side(run, name))
        fill = 100 * entry["tokens"] / (160 * len(items_of(side(run, name), "labels")))
        assert f"{name:<10}{entry['items']} packs of 160 tokens with {entry['samples']} samples" in printed
        assert f"fill {fill:.2f}%" in printed
    for own in manifest_of(run)["sources"]:
        assert f"share {100 * own['share_reached']:.2f}%" in printed
    assert "asked 40.00%" in printed
    assert "asked 60.00%" in printed
    duplicates = sum(own["reason"] == "duplicate" for own in rejected_of(run))
    assert duplicates == 12
    assert f"{duplicates} duplicate" in printed


# Pairs and text documents.


def test_pairs_are_split_shuffled_and_deduplicated(tmp_path: Path) -> None:
    records = [
        {
            "instruction": f"q{number}",
            "chosen": "good " * (number % 7 + 1),
            "rejected": "bad " * (number % 5),
        }
        for number in range(30)
    ]
    source = write(tmp_path / "in.jsonl", [*records, records[4], records[11]])
    given: dict[str, Any] = {"handler_name": "alpaca-pairwise", "map_keys": "{}"}
    names = ("chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels")
    plain = make(source, tmp_path / "plain", **given)
    run = make(source, tmp_path / "run", split=(1, 1), shuffle=True, dedup="exact", **given)
    assert lines(run) == [("in.jsonl", 30, "duplicate"), ("in.jsonl", 31, "duplicate")]
    assert sorted(sides_of(run, "train", "valid")) == [("in.jsonl", row) for row in range(30)]
    for name in names:
        wanted = items_of(plain, name)
        for own in (side(run, "train"), side(run, "valid")):
            items = items_of(own, name)
            assert len(items) == len(rows_of(own))
            assert [items[row["item"]].tolist() for row in rows_of(own)] == [
                wanted[row["row"]].tolist() for row in rows_of(own)
            ]
            assert [row["item"] for row in rows_of(own)] != list(range(len(items)))


def test_texts_are_split_shuffled_and_deduplicated(tmp_path: Path) -> None:
    records = [
        {"text": f"text {number} " * (number % 4), "title": "" if number % 3 else f"title {number}"}
        for number in range(1, 40)
    ]
    source = write(tmp_path / "in.jsonl", [*records, records[1], records[13]])
    given: dict[str, Any] = {
        "handler_name": "pretrain", "map_keys": "{}", "prompt_type": None, "json_keys": ("text", "title"),
    }  # fmt: skip
    kept = [number for number, record in enumerate(records) if record["text"] or record["title"]]
    plain = make(source, tmp_path / "plain", **given)
    run = make(source, tmp_path / "run", split=(1, 1), shuffle=True, dedup="exact", **given)
    assert [row for _, row, reason in lines(run) if reason == "duplicate"] == [39, 40]
    for name in ("text", "title"):
        documents = iter(read_pair(tmp_path / f"plain_{name}_document"))
        # A document without a text of that key has no item in its dataset.
        of_row = {row: next(documents).tolist() for row in kept if records[row][name]}
        for own in (side(run, "train"), side(run, "valid")):
            order = [row["row"] for row in sorted(rows_of(own), key=lambda row: row["item"])]
            assert order != sorted(order)
            found = read_pair(own.with_name(f"{own.name}_{name}_document"))
            assert [item.tolist() for item in found] == [of_row[row] for row in order if row in of_row]
    assert sorted(sides_of(run, "train", "valid")) == [("in.jsonl", row) for row in kept]
    assert manifest_of(plain)["samples"] == len(kept) + 2


# Interruptions.

INTERRUPTED: dict[str, Any] = {
    "pack": True, "neat_pack": True, "seq_length": 128, "split": (1.0, 1.0), "shuffle": True,
    "dedup": "exact",
    "shard_bytes": 1500,
}  # fmt: skip


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_RANGE_TOKENS", 300)


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return published(make(source, tmp_path_factory.mktemp("calm") / "data", **INTERRUPTED))


class Counted:
    """Counts calls, and dies at one of them."""

    def __init__(self, real: Any, stop_at: int = 1 << 30) -> None:
        self.real = real
        self.stop_at = stop_at
        self.count = 0

    def __get__(self, instance: Any, _: Any) -> Any:
        return lambda *arguments: self(instance, *arguments)

    def __call__(self, *arguments: Any) -> Any:
        if self.count == self.stop_at:
            raise Stopped
        self.count += 1
        return self.real(*arguments)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("at", [0, 1, 2, 9])
def test_a_gather_that_was_stopped_goes_on_where_it_was(
    source: Path, tmp_path: Path, calm: dict[str, bytes], at: int
) -> None:
    real = gather.GatherItems.__call__
    config = settings_of(source, tmp_path / "data", **INTERRUPTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather.GatherItems, "__call__", Counted(real, at))
        with pytest.raises(Stopped):
            preprocess(config)
    assert not (tmp_path / "data.manifest.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(real)
        patch.setattr(gather.GatherItems, "__call__", counted)
        preprocess(config)
    # Two items to a range, on both sides.
    ranges = sum((entry["items"] + 1) // 2 for entry in manifest_of(tmp_path / "data")["splits"].values())
    assert ranges > 10
    assert counted.count == ranges - at
    assert published(tmp_path / "data") == calm


#: Of a publication of two sides: the commit record; of each side six files of datasets, its sidecar and its
#: manifest; the rejections, the timings, the manifest; and the work folder out of the way.
RENAMES = 1 + 2 * 8 + 3 + 1


@pytest.mark.parametrize("at", range(RENAMES + 1))
def test_stopped_at_a_rename_the_same_command_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, calm: dict[str, bytes], at: int
) -> None:
    config = settings_of(source, tmp_path / "data", **INTERRUPTED)
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(os.replace, at)
        commit = finish.commit

        def then_count(*arguments: Any) -> Any:
            patch.setattr(os, "replace", counted)
            return commit(*arguments)

        patch.setattr(finish, "commit", then_count)
        if at < RENAMES:
            with pytest.raises(Stopped):
                preprocess(config)
        else:
            preprocess(config)
            assert counted.count == RENAMES
            return
    assert (tmp_path / "data.manifest.json").exists() == (at >= RENAMES - 1)
    for name in ("train", "valid"):
        if (tmp_path / f"data_{name}.manifest.json").exists():
            with pytest.raises(DatasetError, match="publication was interrupted"):
                open_published(tmp_path / f"data_{name}")
    preprocess(config)
    assert published(tmp_path / "data") == calm
    assert not OutputPaths(config.prefix).work.exists()


@pytest.mark.usefixtures("small_ranges")
def test_a_damaged_gathered_file_is_made_again(
    source: Path, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    config = settings_of(source, tmp_path / "data", **INTERRUPTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "publish_outputs", Counted(None, 0))
        patch.setattr("mtsft_preproc.pipeline.publish_outputs", Counted(None, 0))
        with pytest.raises(Stopped):
            preprocess(config)
    files = sorted((OutputPaths(config.prefix).gathered / "train").glob("*.items"))
    assert len(files) > 4
    flipped = bytearray(files[0].read_bytes())
    flipped[100] ^= 1
    files[0].write_bytes(flipped)
    files[1].write_bytes(files[1].read_bytes()[:-7])
    files[2].unlink()
    files[4].write_bytes(files[3].read_bytes())  # whole, but of another range
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(gather.GatherItems.__call__)
        patch.setattr(gather.GatherItems, "__call__", counted)
        preprocess(config)
    assert counted.count == 4
    assert published(tmp_path / "data") == calm


def test_a_part_that_is_damaged_before_it_is_gathered_from_is_noticed(
    source: Path, tmp_path: Path, calm: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of(source, tmp_path / "data", **INTERRUPTED)
    real = finish.arrange

    def damage(*arguments: Any) -> Any:
        part = sorted(OutputPaths(config.prefix).parts.glob("*.part"))[1]
        raw = bytearray(part.read_bytes())
        raw[60] ^= 1  # in the tokens
        part.write_bytes(raw)
        return real(*arguments)

    monkeypatch.setattr(finish, "arrange", damage)
    with pytest.raises(DatasetError, match=r"00000001\.part: damaged packed_input_ids"):
        preprocess(config)
    assert published(tmp_path / "data") == {}
    monkeypatch.undo()
    monkeypatch.setattr(plan, "TokenizerLoading", InProcess)
    preprocess(config)
    assert published(tmp_path / "data") == calm


SLOW = """
import sys, time
from mtsft_preproc import gather
from mtsft_preproc.cli import preprocess_main

gather._RANGE_TOKENS = 300
real = gather.GatherItems.__call__

def slow(task, span):
    time.sleep(0.1)
    return real(task, span)

gather.GatherItems.__call__ = slow

if __name__ == "__main__":
    sys.exit(preprocess_main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("small_ranges")
def test_kill_9_of_the_whole_group_in_the_gather_loses_nothing(
    source: Path, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    config = settings_of(source, tmp_path / "data", **INTERRUPTED)
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    run = subprocess.Popen(
        [
            sys.executable, str(script), "--input", str(source), "--output-prefix", config.output_prefix,
            "--tokenizer-name-or-path", str(TOKENIZER), "--handler-name", "alpaca",
            "--prompt-type", "chatml", "--map-keys", '{"history": "history"}', "--pack", "--neat-pack",
            "--seq-length", "128", "--split", "1,1", "--shuffle", "--dedup", "exact",
            "--shard-bytes", "1500", "--workers", "2",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    gathered = OutputPaths(config.prefix).gathered
    deadline = time.monotonic() + 60
    while len(list(gathered.glob("*/*.items"))) < 3 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = len(list(gathered.glob("*/*.items")))
    assert done >= 3
    assert not (tmp_path / "data.manifest.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(gather.GatherItems.__call__)
        patch.setattr(gather.GatherItems, "__call__", counted)
        preprocess(config)
    ranges = sum((entry["items"] + 1) // 2 for entry in manifest_of(tmp_path / "data")["splits"].values())
    assert counted.count == ranges - done
    assert published(tmp_path / "data") == calm
