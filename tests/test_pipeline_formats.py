"""Whole runs of every kind of data: what is published, what is said of it, what is left of an older run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import InProcess

from mtsft_preproc import plan
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import OutputError, RejectedDataError, SettingsError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.pipeline import RunResult, preprocess

MakeConfig = Callable[..., PreprocessConfig]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the tokenizer here: a process of its own costs a second each time."""
    monkeypatch.setattr(plan, "TokenizerLoading", InProcess)


def chat(*texts: str, **fields: Any) -> dict[str, Any]:
    """Return a ShareGPT record."""
    names = ("human", "gpt")
    return {
        "conversations": [{"from": names[n % 2], "value": text} for n, text in enumerate(texts)],
        **fields,
    }


def about(number: int) -> dict[str, Any]:
    """Return the columns that say where a record comes from, the last two as a field of ``metadata``."""
    return {"id": f"r{number}", "metadata": {"source": f"web{number % 3}", "n": number}}


SFT = [
    chat(
        *(f"{number}-{turn} " + "word " * (number % 7) for turn in range(2 * (1 + number % 4))),
        **about(number),
    )
    for number in range(40)
]
PAIRS = [
    {
        "instruction": f"ask {number}",
        "input": "",
        "chosen": "good " * number,
        "rejected": "bad",
        **about(number),
    }
    for number in range(1, 40)
]
PROMPTS = [
    {
        "instruction": f"ask {number}",
        "input": "",
        "output": f"reply {number} " * (number % 5 + 1),
        **about(number),
    }
    for number in range(40)
]
TEXTS = [{"text": f"some text {number} " * (number % 6), **about(number)} for number in range(40)]
KEPT = ("id", "source", "n")
WAYS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "sft": (SFT, {"handler_name": "sharegpt", "prompt_type": "qwen"}),
    "split": (SFT, {"handler_name": "sharegpt", "prompt_type": "gemma", "train_on": "split"}),
    "window": (
        SFT,
        {"handler_name": "sharegpt", "prompt_type": "qwen", "overlong": "window", "seq_length": 60},
    ),
    "pairwise": (PAIRS, {"handler_name": "alpaca-pairwise", "prompt_type": "qwen"}),
    "ppo": (PROMPTS, {"handler_name": "alpaca-ppo", "prompt_type": "gemma"}),
    "r1": (
        PROMPTS,
        {"handler_name": "alpaca-r1", "prompt_type": "qwen", "dataset_additional_keys": ("labels",)},
    ),
    "text": (TEXTS, {"handler_name": "pretrain", "prompt_type": None, "append_eod": True}),
}
FIELDS = {
    "sft": ["packed_attention_mask", "packed_input_ids", "packed_labels"],
    "split": ["packed_attention_mask", "packed_input_ids", "packed_labels"],
    "window": ["packed_attention_mask", "packed_input_ids", "packed_labels"],
    "pairwise": [
        "packed_chosen_input_ids", "packed_chosen_labels",
        "packed_rejected_input_ids", "packed_rejected_labels",
    ],
    "ppo": ["packed_attention_mask", "packed_input_ids"],
    "r1": ["packed_attention_mask", "packed_input_ids", "packed_labels"],
    "text": ["text"],
}  # fmt: skip
each_way = pytest.mark.parametrize("way", WAYS)


def published(result: RunResult) -> dict[str, bytes]:
    folder = result.prefix.parent
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "data.timings.json"
    }


def sources(result: RunResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(OutputPaths(result.prefix).sources).to_pylist()
    return found


def rejected(result: RunResult) -> list[dict[str, Any]]:
    lines = OutputPaths(result.prefix).rejected.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def items(result: RunResult, name: str) -> list[list[int]]:
    return [item.tolist() for item in IndexedDataset(OutputPaths(result.prefix).dataset(name))]


def reconcile(result: RunResult) -> None:
    """Hold the counts of a run against its ledger, and the ledger against its datasets."""
    counts, ledger, told = result.manifest["records"], rejected(result), sources(result)
    whole = [entry for entry in ledger if "turn" not in entry]
    assert counts["read"] == counts["kept"] + counts["rejected"]
    assert counts["rejected"] == len(whole)
    assert counts["kept"] == len({(row["file"], row["row"]) for row in told})
    assert sum(counts["lost_samples_by_reason"].values()) == len(ledger) - len(whole)
    assert result.manifest["samples"] == result.manifest["items"] == len(told)
    assert [row["item"] for row in told] == list(range(len(told)))


# Every objective


@each_way
def test_what_is_published(way: str, make_config: MakeConfig) -> None:
    records, changes = WAYS[way]
    result = preprocess(make_config(records, **changes))
    reconcile(result)
    sidecars = ["data.manifest.json", "data.rejected.jsonl", "data.sources.parquet"]
    pairs = [f"data_{name}_document{suffix}" for name in FIELDS[way] for suffix in (".bin", ".idx")]
    assert sorted(published(result)) == sorted([*sidecars, *pairs])
    expected = "sft" if way in ("split", "window") else way
    assert result.manifest["objective"] == expected
    first = (
        "text" if way == "text" else "packed_chosen_input_ids" if way == "pairwise" else "packed_input_ids"
    )
    assert [row["length"] for row in sources(result)] == [len(item) for item in items(result, first)]
    assert result.manifest["tokens"] == sum(
        len(item)
        for name in FIELDS[way]
        if name.endswith(("input_ids", "text")) or (way == "r1" and name == "packed_labels")
        for item in items(result, name)
    )


@each_way
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_kept_columns_stand_beside_each_sample(
    way: str, kind: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    records, changes = WAYS[way]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "in.parquet")
        changes = {**changes, "input": (str(tmp_path / "in.parquet"),)}
    result = preprocess(make_config(records, keep_columns=KEPT, **changes))
    told = sources(result)
    assert told
    for row in told:
        number = int(records[row["row"]]["id"][1:])
        assert {name: row[name] for name in KEPT} == {
            "id": f"r{number}", "source": f"web{number % 3}", "n": str(number),
        }  # fmt: skip
    if way == "split":
        assert len(told) > len(SFT)
        assert all(row["turn"] % 2 == 1 for row in told)


@each_way
def test_bytes_depend_on_neither_workers_nor_shards(
    way: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    records, changes = WAYS[way]
    found = []
    ways = [{"workers": 1}, {"workers": 2, "shard_bytes": 900}, {"workers": 1, "shard_bytes": 1}]
    for number, how in enumerate(ways):
        prefix = str(tmp_path / str(number) / "data")
        config = make_config(records, **changes, keep_columns=KEPT, output_prefix=prefix, **how)
        found.append(published(preprocess(config)))
    assert found[0] == found[1] == found[2]


@each_way
def test_several_files_are_read_in_order(way: str, make_config: MakeConfig, tmp_path: Path) -> None:
    records, changes = WAYS[way]
    whole = preprocess(make_config(records, **changes))
    (tmp_path / "a.json").write_text(json.dumps(records[:7]), "utf-8")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records[7:20]), "utf-8")
    pq.write_table(pa.Table.from_pylist(records[20:]), tmp_path / "c.parquet")
    paths = tuple(str(tmp_path / name) for name in ("a.json", "b.jsonl", "c.parquet"))
    prefix = str(tmp_path / "parts" / "data")
    result = preprocess(make_config(input=paths, output_prefix=prefix, keep_columns=("id",), **changes))
    reconcile(result)
    for name in FIELDS[way]:
        assert items(result, name) == items(whole, name)
    assert [int(row["id"][1:]) for row in sources(result)] == [
        int(records[row["row"]]["id"][1:]) for row in sources(whole)
    ]
    assert [entry["read"] for entry in result.manifest["records"]["by_file"]] == [7, 13, len(records) - 20]


# Rejected records


@pytest.mark.parametrize("wanted", [False, True])
def test_rejected_records_themselves(wanted: bool, make_config: MakeConfig) -> None:
    flat = chat("a", extra={"ä": [None, 1.5]})
    twice = chat("a", "b")
    twice["conversations"].append({"from": "gpt", "value": "c"})
    lines = [chat("a", "b"), "not JSON ü", flat, [1], twice]
    result = preprocess(
        make_config(lines, handler_name="sharegpt", prompt_type="qwen", rejected_records=wanted)
    )
    reconcile(result)
    found = rejected(result)
    assert [(entry["row"], entry["reason"]) for entry in found] == [
        (1, "not-json"), (2, "no-assistant"), (3, "not-an-object"), (4, "role-order"),
    ]  # fmt: skip
    if wanted:
        assert [entry["record"] for entry in found] == [json.loads(json.dumps(one)) for one in lines[1:]]
    else:
        assert not any("record" in entry for entry in found)


def test_rejected_records_are_whole_whatever_columns_are_read(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    records = [
        {"instruction": "a", "output": "b", "other": 1},
        {"instruction": "a", "output": None, "other": 2},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "in.parquet")
    config = make_config(input=(str(tmp_path / "in.parquet"),), rejected_records=True)
    (entry,) = rejected(preprocess(config))
    assert entry["record"] == records[1]


def test_numbers_that_json_has_no_form_for_are_text_there(make_config: MakeConfig, tmp_path: Path) -> None:
    records = [
        {"instruction": "a", "output": None, "score": float("nan"), "more": [float("-inf"), 0.5]},
        {"instruction": "a", "output": "b", "score": 1.0, "more": None},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "in.parquet")
    config = make_config(input=(str(tmp_path / "in.parquet"),), rejected_records=True)
    (entry,) = rejected(preprocess(config))
    assert (entry["record"]["score"], entry["record"]["more"]) == ("NaN", ["-Infinity", 0.5])


def test_half_characters_and_deep_nesting_stop_no_run(make_config: MakeConfig) -> None:
    deep = json.loads("[" * 150 + "]" * 150)
    records = [
        chat("a", "b", metadata='{"source": "\\ud800"}', id=deep),
        chat("a", extra=deep, metadata="[" * 100_000),
        chat("a", "b", metadata="[" * 100_000, id="x"),
    ]
    config = make_config(
        records,
        handler_name="sharegpt",
        prompt_type="qwen",
        keep_columns=("id", "source"),
        rejected_records=True,
    )
    result = preprocess(config)
    reconcile(result)
    assert [(row["row"], row["source"]) for row in sources(result)] == [(0, '"\\ud800"'), (2, None)]
    assert sources(result)[1]["id"] == "x"
    (entry,) = rejected(result)
    assert (entry["row"], entry["reason"]) == (1, "no-assistant")


# Samples that are too long


def test_lost_samples_have_lines_and_counts(make_config: MakeConfig) -> None:
    records = [chat("a", "b"), chat("c", "d", "e", "f" * 90, "g", "h"), chat("i", "j" * 200)]
    changes: dict[str, Any] = {"handler_name": "sharegpt", "prompt_type": "qwen", "train_on": "split"}
    result = preprocess(make_config(records, seq_length=40, **changes))
    reconcile(result)
    found = [(entry["row"], entry.get("turn"), entry["reason"]) for entry in rejected(result)]
    assert found == [(1, 3, "overlong"), (1, 5, "overlong"), (2, None, "overlong")]
    counts = result.manifest["records"]
    assert counts["lost_samples_by_reason"] == {"overlong": 2}
    assert counts["rejected_by_reason"] == {"overlong": 1}
    assert [(row["row"], row["turn"]) for row in sources(result)] == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("records", "changes", "row"),
    [
        ([chat("a", "b"), chat("a", "b" * 300)], {"handler_name": "sharegpt", "prompt_type": "qwen"}, 1),
        (
            [chat("a", "b"), chat("a", "b"), chat("a", "b", "c", "d" * 300)],
            {"handler_name": "sharegpt", "prompt_type": "qwen", "train_on": "split"},
            2,
        ),
        (
            [{"instruction": "a", "input": "", "chosen": "b", "rejected": "c" * 300}],
            {"handler_name": "alpaca-pairwise", "prompt_type": "qwen"},
            0,
        ),
        ([{"text": "a"}, {"text": "b" * 300}], {"handler_name": "pretrain", "prompt_type": None}, 1),
    ],
    ids=["sft", "split", "pairwise", "text"],
)
def test_fail_stops_at_what_is_too_long(
    records: list[Any], changes: dict[str, Any], row: int, make_config: MakeConfig
) -> None:
    config = make_config(records, seq_length=60, overlong="fail", **changes)
    with pytest.raises(RejectedDataError, match=rf"--overlong fail: .*in\.jsonl, row {row}.*overlong"):
        preprocess(config)
    assert not list(config.prefix.parent.glob("*_document*"))
    again = make_config(records, seq_length=400, overlong="fail", restart=True, **changes)
    assert preprocess(again).manifest["records"]["rejected"] == 0


def test_other_rejections_do_not_stop_a_run_that_fails_at_long_ones(make_config: MakeConfig) -> None:
    config = make_config(
        [chat("a"), chat("a", "b")], handler_name="sharegpt", overlong="fail", seq_length=60
    )
    assert preprocess(config).manifest["records"]["rejected_by_reason"] == {"no-assistant": 1}


# Empty replies


@pytest.mark.parametrize(
    ("empty_reply", "kept", "reasons"),
    [
        ("keep", 3, {}),
        ("reject", 1, {"empty-reply": 2}),
        ("untrained", 2, {"nothing-trained": 1}),
    ],
)
def test_empty_replies(
    empty_reply: str, kept: int, reasons: dict[str, int], make_config: MakeConfig
) -> None:
    records = [chat("a", "b"), chat("a", "", "c", "d"), chat("a", "")]
    config = make_config(records, handler_name="sharegpt", prompt_type="qwen", empty_reply=empty_reply)
    result = preprocess(config)
    reconcile(result)
    counts = result.manifest["records"]
    assert (counts["kept"], counts["rejected_by_reason"]) == (kept, reasons)
    assert counts["notes"] == ({"empty-reply": kept - 1} if kept > 1 else {})
    ends = [
        sum(label == ids[-1] for label in labels)
        for ids, labels in zip(
            items(result, "packed_input_ids"), items(result, "packed_labels"), strict=True
        )
    ]
    assert ends == {"keep": [1, 2, 1], "reject": [1], "untrained": [1, 1]}[empty_reply]


# Another kind of output in the place of an older one


def test_nothing_is_left_of_another_kind_of_output(make_config: MakeConfig) -> None:
    before: set[str] = set()
    for way in ("sft", "text", "pairwise", "r1", "ppo"):
        records, changes = WAYS[way]
        if before:
            with pytest.raises(OutputError, match="exists already"):
                preprocess(make_config(records, **changes))
            assert {name for name in published(result) if "_document" in name} == before  # noqa: F821
        result = preprocess(make_config(records, overwrite=bool(before), **changes))
        before = {f"data_{name}_document{suffix}" for name in FIELDS[way] for suffix in (".bin", ".idx")}
        assert {name for name in published(result) if "_document" in name} == before
        reconcile(result)


def test_a_file_that_is_not_of_the_output_stays(make_config: MakeConfig) -> None:
    records, changes = WAYS["sft"]
    result = preprocess(make_config(records, **changes))
    mine = result.prefix.with_name("data_packed_mine_document.bin")
    mine.write_bytes(b"x")
    records, changes = WAYS["text"]
    preprocess(make_config(records, overwrite=True, **changes))
    assert mine.read_bytes() == b"x"


# Text documents


def test_a_dataset_whose_text_is_empty_has_one_item_less(make_config: MakeConfig) -> None:
    records = [{"a": "one", "b": "two"}, {"a": "three", "b": ""}, {"a": "", "b": ""}]
    config = make_config(
        records, handler_name="pretrain", prompt_type=None, json_keys=("a", "b"), append_eod=True
    )
    result = preprocess(config)
    assert (len(items(result, "a")), len(items(result, "b"))) == (2, 1)
    assert result.manifest["records"]["rejected_by_reason"] == {"empty-text": 1}
    assert all(item[-1] == items(result, "b")[0][-1] for item in items(result, "a"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep_columns": ("nosuch",)}, "--keep-columns: the data has no column 'nosuch'; "),
        ({"keep_columns": ("instruction", "instruction")}, "is named twice"),
        ({"keep_columns": ("row",)}, "the sources sidecar has such a column"),
        ({"overlong": "window"}, "--overlong window: nothing is too long without --seq-length"),
        ({"overlong": "fail"}, "--overlong fail: nothing is too long without --seq-length"),
        (
            {"train_on": "full", "overlong": "window", "seq_length": 9},
            "--train-on full: with --overlong window",
        ),
    ],
    ids=str,
)
def test_settings_that_would_do_nothing_or_harm_are_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"instruction": "q", "input": "", "output": "a"}))
    with pytest.raises(SettingsError) as caught:
        preprocess(
            PreprocessConfig(
                input=(str(tmp_path / "in.jsonl"),), output_prefix=str(tmp_path / "out"),
                tokenizer=str(tokenizer_folder), handler_name="alpaca", prompt_type="chatml", **changes,
            )
        )  # fmt: skip
    assert said in str(caught.value)


def test_all_files_of_other_kinds_are_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    """One run makes samples, or pairs, or documents."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"instruction": "q", "input": "", "output": "a"}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "words"}))
    with pytest.raises(SettingsError, match="files that don't go together"):
        preprocess(
            PreprocessConfig(
                input=(str(tmp_path),), output_prefix=str(tmp_path / "out"),
                tokenizer=str(tokenizer_folder), handler_name="auto", prompt_type="chatml",
            )
        )  # fmt: skip
