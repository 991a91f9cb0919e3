"""Joined datasets: the bytes of Megatron-core's merge, counts that add up, nothing that doesn't fit."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import InProcess

from mtsft_preproc import plan
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import DatasetError, OutputError, SettingsError
from mtsft_preproc.indexed import IndexedDataset, IndexedWriter
from mtsft_preproc.indexed.layout import pack_index
from mtsft_preproc.join import join, merge_group_keys, run
from mtsft_preproc.join.agreement import FREE, WHERE_UNPACKED
from mtsft_preproc.join.datasets import joined_index
from mtsft_preproc.lock import OutputLock
from mtsft_preproc.pipeline import preprocess

pytestmark = pytest.mark.filterwarnings(
    "ignore:Transformer Engine and Apex are not installed:UserWarning",
)

TOKENIZER = Path(__file__).parents[1] / "examples" / "tokenizer"
FIELDS = ("attention_mask", "input_ids", "labels")
KEYS = [f"packed_{field}_document" for field in FIELDS]
I32 = np.int32


@pytest.fixture(scope="module")
def megatron() -> Any:
    return pytest.importorskip("megatron.core.datasets.indexed_dataset")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("joined")
    return (root / str(number) for number in itertools.count())


def records(start: int, stop: int) -> list[Any]:
    good = [
        {"instruction": f"question {at} " + "word " * (at % 7), "input": "", "output": f"answer {at}"}
        for at in range(start, stop)
    ]
    return [*good, "broken {", {"instruction": "x", "output": None}]


def make(folder: Path, name: str, lines: list[Any], **changes: Any) -> Path:
    source = folder / f"{name}.jsonl"
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    source.write_text("".join(line + "\n" for line in text), "utf-8")
    given: dict[str, Any] = {
        "input": (str(source),),
        "output_prefix": str(folder / name),
        "tokenizer": str(TOKENIZER),
        "handler_name": "alpaca",
        "prompt_type": "chatml",
        "max_rejected": 1.0,
    }
    preprocess(PreprocessConfig(**{**given, **changes}))
    return folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a, b and c, and with whole, which was made of the records of all three."""
    folder = tmp_path_factory.mktemp("made")
    cuts = {"a": (0, 9), "b": (9, 13), "c": (13, 24)}
    lines = {name: records(*cut) for name, cut in cuts.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        for name, own in lines.items():
            make(folder, name, own)
        make(folder, "whole", [line for own in lines.values() for line in own])
        texts = [[{"text": f"t{at} " * at, "title": "" if at % 3 else f"n {at}"} for at in range(1, 9)]]
        texts += [[{"text": "" if at % 2 else f"u{at}", "title": f"m {at}"} for at in range(5)]]
        text = {"handler_name": "pretrain", "prompt_type": None, "json_keys": ("title", "text")}
        for name, own in zip(("text_a", "text_b"), texts, strict=True):
            make(folder, name, own, **text)
        make(folder, "text_whole", [line for own in texts for line in own], **text)
        packed = {"pack": True, "neat_pack": True, "seq_length": 64}
        for name in "ab":
            make(folder, f"packed_{name}", lines[name], **packed)
            make(folder, f"split_{name}", lines[name], split=(0.5, 0.5))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def content(folder: Path, prefix: str) -> dict[str, bytes]:
    """All that is reproducible of an output, by what stands behind the prefix."""
    found = (path for path in folder.iterdir() if path.name.startswith((f"{prefix}_", f"{prefix}.")))
    own = (path for path in found if path.is_file() and path.suffix != ".jsonl")
    return content_of([*own, folder / f"{prefix}.rejected.jsonl"], prefix)


def content_of(paths: Iterable[Path], prefix: str) -> dict[str, bytes]:
    """The bytes of files, by what stands behind the prefix; of timings no two runs have the same."""
    return {
        path.name.removeprefix(prefix): path.read_bytes()
        for path in paths
        if not path.name.endswith(".timings.json")
    }


def tokens_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: raw for name, raw in files.items() if name.endswith((".bin", ".idx"))}


def manifest_of(folder: Path, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{prefix}.manifest.json").read_text("utf-8"))
    return found


def change(folder: Path, prefix: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = manifest_of(folder, prefix)
    edit(manifest)
    (folder / f"{prefix}.manifest.json").write_text(json.dumps(manifest), "utf-8")


def build(megatron: Any, prefix: Path, dtype: str, documents: list[list[list[int]]]) -> Path:
    """Write a pair with Megatron-core: documents of sequences."""
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(np, dtype))
    for document in documents:
        flat = np.array([token for sequence in document for token in sequence], dtype)
        builder.add_document(flat, [len(sequence) for sequence in document])
    builder.finalize(f"{prefix}.idx")
    return prefix


def added(megatron: Any, target: Path, dtype: Any, pairs: list[Path]) -> tuple[bytes, bytes]:
    """Join pairs with Megatron-core."""
    builder = megatron.IndexedDatasetBuilder(f"{target}.bin", dtype=dtype)
    for pair in pairs:
        builder.add_index(str(pair))
    builder.finalize(f"{target}.idx")
    return raw(target)


def raw(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


def write(prefix: Path, *items: list[int], dtype: Any = I32) -> Path:
    with IndexedWriter(prefix, dtype) as writer:
        flat = np.array([token for item in items for token in item], dtype)
        writer.write(flat, np.array([len(item) for item in items], I32))
    return prefix


def by_the_byte_table(index: bytes) -> tuple[list[int], list[int], list[int]]:
    """Read an index with struct alone: lengths, offsets, documents."""
    magic, version, code, count, borders = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, code) == (b"MMIDIDX\x00\x00", 1, 4)
    values = struct.unpack_from(f"<{count}i{count}q{borders}q", index, 34)
    return list(values[:count]), list(values[count : 2 * count]), list(values[2 * count :])


# Datasets of other programs.


@pytest.mark.parametrize("way", ["join", "keys"])
def test_what_the_original_wrote_is_joined_as_megatron_joins_it(
    shared: Path, megatron: Any, tmp_path: Path, way: str
) -> None:
    golden = shared / "golden" / "inputs" / "edge" / "merge"
    if way == "join":
        result = join([str(golden / "a"), str(golden / "b")], str(tmp_path / "out"))
    else:
        result = merge_group_keys(str(golden), KEYS[::-1], str(tmp_path / "out"))
    assert result.manifest is None
    assert sorted(result.fields) == list(FIELDS)
    for key in KEYS:
        pairs = [golden / f"{name}_{key}" for name in "ab"]
        ours = raw(tmp_path / f"out_{key}")
        assert ours == added(megatron, tmp_path / f"theirs_{key}", I32, pairs)
        inputs = [raw(pair) for pair in pairs]
        assert ours[0] == inputs[0][0] + inputs[1][0]
        (one, _, _), (two, _, _) = (by_the_byte_table(index) for _, index in inputs)
        count = len(one) + len(two)
        assert count == result.items > 0
        starts = [4 * sum((one + two)[:at]) for at in range(count)]
        assert by_the_byte_table(ours[1]) == (one + two, starts, list(range(count + 1)))
    assert sorted(path.name for path in tmp_path.glob("out*")) == sorted(
        f"out_{key}{suffix}" for key in KEYS for suffix in (".bin", ".idx")
    )
    assert result.tokens == len((tmp_path / f"out_{KEYS[1]}.bin").read_bytes()) // 4


documents = st.lists(
    st.lists(st.lists(st.integers(0, 127), max_size=4), min_size=1, max_size=3), min_size=0, max_size=4
)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int16", "int32", "int64", "float32", "float64", "uint16"]),
    inputs=st.lists(documents, min_size=2, max_size=4),
)
def test_documents_of_several_sequences_keep_their_borders(
    megatron: Any, folders: Iterator[Path], dtype: str, inputs: list[list[list[list[int]]]]
) -> None:
    folder = next(folders)
    folder.mkdir()
    pairs = [
        build(megatron, folder / f"{number}_text_document", dtype, own) for number, own in enumerate(inputs)
    ]
    wanted = [document for own in inputs for document in own]
    join([str(pair) for pair in pairs], str(folder / "out"))
    assert raw(folder / "out") == raw(build(megatron, folder / "theirs", dtype, wanted))
    found = IndexedDataset(folder / "out")
    assert [item.tolist() for item in found] == [item for document in wanted for item in document]
    assert found.document_index.tolist() == [0, *itertools.accumulate(map(len, wanted))]


def test_borders_of_documents_are_megatrons_merge(megatron: Any, tmp_path: Path) -> None:
    inputs: list[list[list[list[int]]]] = [[[[1, 2], [], [3]], [[4]]], [], [[[5], [6, 7]], [[], [8]]]]
    pairs = [build(megatron, tmp_path / str(at), "uint16", own) for at, own in enumerate(inputs)]
    join([str(pair) for pair in pairs], str(tmp_path / "out"))
    assert raw(tmp_path / "out") == added(megatron, tmp_path / "theirs", np.uint16, pairs)
    found = IndexedDataset(tmp_path / "out")
    assert found.document_index.tolist() == [0, 3, 4, 6, 8]
    assert [item.tolist() for item in found] == [[1, 2], [], [3], [4], [5], [6, 7], [], [8]]


def test_lengths_beyond_two_and_four_gigabytes_do_not_overflow() -> None:
    most = (1 << 31) - 1
    parts = [[most, 1], [most, most], [], [5, 0]]
    lengths, borders = joined_index(
        [np.array(own, I32) for own in parts],
        [np.array(own, np.int64) for own in ([0, 2], [0, 1, 2], [0], [0, 1, 2])],
    )
    assert (lengths.dtype, lengths.tolist()) == (np.int32, [most, 1, most, most, 5, 0])
    assert (borders.dtype, borders.tolist()) == (np.int64, [0, 2, 3, 4, 5, 6])
    _, _, offsets, written = pack_index(lengths, np.dtype("<i4"), borders)
    assert offsets.tolist() == [0, 8589934588, 8589934592, 17179869180, 25769803768, 25769803788]
    assert written.tolist() == borders.tolist()
    _, _, narrow, _ = pack_index(lengths, np.dtype("<u1"), borders)
    assert narrow.tolist() == [0, 2147483647, 2147483648, 4294967295, 6442450942, 6442450947]


def test_uint16_stays_uint16(tmp_path: Path) -> None:
    one = write(tmp_path / "a_text_document", [65535, 1], [2], dtype=np.uint16)
    two = write(tmp_path / "b_text_document", [], [40000], dtype=np.uint16)
    result = join([str(one)[:-14], str(two)[:-14]], str(tmp_path / "out"))
    assert (result.fields, result.items, result.tokens) == (("text",), 4, 4)
    assert (tmp_path / "out_text_document.bin").read_bytes() == struct.pack("<4H", 65535, 1, 2, 40000)
    found = IndexedDataset(tmp_path / "out_text_document")
    assert found.dtype == np.uint16
    assert [item.tolist() for item in found] == [[65535, 1], [2], [], [40000]]


def test_a_prefix_that_starts_like_another_keeps_to_its_own_files(tmp_path: Path) -> None:
    write(tmp_path / "data_text_document", [1])
    write(tmp_path / "data_b_text_document", [2])
    prefixes = [str(tmp_path / "data"), str(tmp_path / "data_b")]
    for _ in range(2):
        assert join(prefixes, str(tmp_path / "data_all"), overwrite=True).items == 2
    assert [item.tolist() for item in IndexedDataset(tmp_path / "data_all_text_document")] == [[1], [2]]


def sft(folder: Path, name: str, *items: list[int], **other: list[list[int]]) -> str:
    for field in FIELDS:
        write(folder / f"{name}_packed_{field}_document", *other.get(field, items))
    return str(folder / name)


def test_other_programs_datasets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = sft(tmp_path, "good", [1, 2], [3])
    out = str(tmp_path / "out")
    write(tmp_path / "text_text_document", [1])
    with pytest.raises(
        DatasetError, match=r"good and .*text don't go together: datasets: .*labels.*_text_"
    ):
        join([good, str(tmp_path / "text")], out)
    write(tmp_path / "wide_text_document", [1], dtype=np.int64)
    with pytest.raises(DatasetError, match="type of the tokens differs: int32 and int64"):
        join([str(tmp_path / "text"), str(tmp_path / "wide")], out)
    with pytest.raises(DatasetError, match=r"few_packed_labels_document: 1 items, but .* has 2"):
        join([good, sft(tmp_path, "few", [1, 2], [3], labels=[[1, 2, 3]])], out)
    with pytest.raises(DatasetError, match=r"odd_packed_labels_document: its lengths are not those of"):
        join([good, sft(tmp_path, "odd", [1, 2], [3], labels=[[1], [2, 3]])], out)
    half = sft(tmp_path, "half", [1])
    (tmp_path / "half_packed_labels_document.idx").unlink()
    with pytest.raises(DatasetError, match=r"half_packed_labels_document\.idx: no such file"):
        join([good, half], out)
    with pytest.raises(DatasetError, match=r"nowhere: no dataset there; expected an output prefix"):
        join([good, str(tmp_path / "nowhere")], out)
    with pytest.raises(DatasetError, match=r"document\.idx: no dataset there.* without \.idx"):
        join([good, f"{good}_packed_labels_document.idx"], out)
    assert not list(tmp_path.glob("out*"))


# Datasets of this package.


def test_joined_parts_are_the_whole(here: Path) -> None:
    result = join([str(here / name) for name in "abc"], str(here / "out"))
    joined, whole = content(here, "out"), content(here, "whole")
    assert tokens_of(joined) == tokens_of(whole)
    assert len(tokens_of(joined)) == 6
    assert result.manifest == manifest_of(here, "out")
    ours, theirs = manifest_of(here, "out"), manifest_of(here, "whole")
    for name in ("items", "samples", "tokens", "trained_tokens", "length_quantiles", "pad_id", "fields"):
        assert ours[name] == theirs[name], name
    for name in ("format", "objective", "tokenizer", "prompt_type", "turn_ends", "ignore_index", "parity"):
        assert ours[name] == theirs[name], name
    counts, whole_counts = (dict(own["records"]) for own in (ours, theirs))
    by_file = counts.pop("by_file")
    del whole_counts["by_file"]
    assert counts == whole_counts
    assert (counts["read"], counts["kept"], counts["rejected"]) == (30, 24, 6)
    assert [(Path(entry["path"]).name, entry["read"]) for entry in by_file] == [
        ("a.jsonl", 11), ("b.jsonl", 6), ("c.jsonl", 13),
    ]  # fmt: skip
    assert [(Path(entry["prefix"]).name, entry["items"]) for entry in ours["merged"]] == [
        ("a", 9), ("b", 4), ("c", 11),
    ]  # fmt: skip
    assert [entry["fingerprint"] for entry in ours["merged"]] == [
        manifest_of(here, name)["fingerprint"] for name in "abc"
    ]
    assert [Path(entry["path"]).name for entry in ours["inputs"]] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [Path(entry["name"]).name for entry in ours["sources"]] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert sum(entry["samples"] for entry in ours["sources"]) == 24
    assert ours["settings"]["prompt_type"] == "chatml"
    assert "input" not in ours["settings"]
    for name, entry in ours["files"].items():
        found = (here / name).read_bytes()
        assert (len(found), hashlib.sha256(found).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_the_sidecars_count_on(here: Path) -> None:
    join([str(here / name) for name in "abc"], str(here / "out"))
    tables = {name: pq.read_table(here / f"{name}.sources.parquet") for name in ("a", "b", "c", "out")}
    assert tables["out"].schema == tables["a"].schema
    found = tables["out"].to_pylist()
    before = {"a": 0, "b": 9, "c": 13}
    wanted = [
        {**row, "item": row["item"] + first, "position": row["position"] + first}
        for name, first in before.items()
        for row in tables[name].to_pylist()
    ]
    assert found == wanted
    assert [row["item"] for row in found] == list(range(24))
    lines = b"".join((here / f"{name}.rejected.jsonl").read_bytes() for name in "abc")
    assert (here / "out.rejected.jsonl").read_bytes() == lines
    assert lines.count(b"\n") == 6


def test_text_documents_count_samples_where_a_dataset_has_fewer(here: Path) -> None:
    join([str(here / "text_a"), str(here / "text_b")], str(here / "out"))
    joined, whole = content(here, "out"), content(here, "text_whole")
    assert tokens_of(joined) == tokens_of(whole)
    assert len(IndexedDataset(here / "out_title_document")) < len(
        IndexedDataset(here / "out_text_document")
    )
    columns = [pq.read_table(here / f"{name}.sources.parquet")["item"] for name in ("out", "text_whole")]
    assert columns[0].to_pylist() == columns[1].to_pylist() == list(range(13))
    ours, theirs = manifest_of(here, "out"), manifest_of(here, "text_whole")
    for name in ("items", "samples", "tokens", "length_quantiles"):
        assert ours[name] == theirs[name], name


def test_packs_stay_as_they_are(here: Path) -> None:
    names = ["packed_a", "packed_b"]
    join([str(here / name) for name in names], str(here / "out"))
    for key in KEYS:
        inputs = [IndexedDataset(here / f"{name}_{key}") for name in names]
        found = IndexedDataset(here / f"out_{key}")
        assert [item.tolist() for item in found] == [item.tolist() for own in inputs for item in own]
    each = [manifest_of(here, name) for name in names]
    ours = manifest_of(here, "out")
    assert ours["items"] == sum(own["items"] for own in each) < ours["samples"] == 13
    assert ours["packing"] == {**each[0]["packing"], "fill": ours["tokens"] / (64 * ours["items"])}
    ids = IndexedDataset(here / f"out_{KEYS[1]}")
    whole = IndexedDataset(here / f"whole_{KEYS[1]}")
    rows = pq.read_table(here / "out.sources.parquet").to_pylist()
    assert [row["position"] for row in rows] == list(range(13))
    for row, sample in zip(rows, whole, strict=False):
        place = slice(row["offset"], row["offset"] + row["length"])
        assert ids[row["item"]][place].tolist() == sample.tolist()


def test_sides_of_a_split_are_joined_with_their_like(here: Path) -> None:
    result = join([str(here / f"split_{name}_train") for name in "ab"], str(here / "out"))
    assert result.manifest is not None
    each = [manifest_of(here, f"split_{name}_train") for name in "ab"]
    assert result.items == sum(own["items"] for own in each)
    assert result.manifest["split"] == {name: each[0]["split"][name] for name in ("side", "shares", "seed")}
    assert result.manifest["split"]["side"] == "train"
    # What became of the records stands with the whole run.
    assert "records" not in result.manifest
    assert not (here / "out.rejected.jsonl").exists()
    assert pq.read_table(here / "out.sources.parquet")["item"].to_pylist() == list(range(result.items))
    with pytest.raises(DatasetError, match='side of a split: "train" and "valid"'):
        join([str(here / "split_a_train"), str(here / "split_b_valid")], str(here / "other"))
    with pytest.raises(
        DatasetError, match=r"split_b: was split; expected .*split_b_train, .*split_b_valid"
    ):
        join([str(here / "split_a_train"), str(here / "split_b")], str(here / "other"))
    assert join([str(here / "split_a_train"), str(here / "b")], str(here / "mixed")).manifest is not None


def test_equal_inputs_give_equal_bytes_however_they_are_joined(here: Path) -> None:
    every = [str(here / name) for name in "abc"]
    join(every, str(here / "one"))
    join(every, str(here / "two"))
    join(every[:2], str(here / "ab"))
    join([str(here / "ab"), every[2]], str(here / "three"))
    one, two, three = (content(here, name) for name in ("one", "two", "three"))
    for name in (".rejected.jsonl", ".sources.parquet", *tokens_of(one)):
        assert one[name] == two[name] == three[name], name
    manifests = [json.loads(own[".manifest.json"].replace(b'"one', b'"two')) for own in (one, two)]
    # They differ in the names of their own files, and so in their seals.
    assert manifests[0].pop("manifest_sha256") != manifests[1].pop("manifest_sha256")
    assert manifests[0] == manifests[1]


def rewrite(folder: Path, prefix: str, table: pa.Table) -> None:
    """Give a dataset another sidecar, and tell its manifest."""
    path = folder / f"{prefix}.sources.parquet"
    pq.write_table(table, path, row_group_size=30_000)
    found = path.read_bytes()
    entry = {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    change(folder, prefix, lambda manifest: manifest["files"].update({path.name: entry}))


def test_a_long_sidecar_with_further_columns_streams(here: Path) -> None:
    sizes = {"a": 40_000, "b": 70_000}
    for (name, size), letter in zip(sizes.items(), "xy", strict=True):
        numbers = np.arange(size)
        table = pa.table(
            {
                "item": pa.array(numbers // 3),
                "length": pa.array(np.full(size, 5, I32)),
                "position": pa.array(numbers[::-1].copy()),
                "source_name": pa.array([letter if at % 2 else "both" for at in range(size)]),
                "digest": pa.array([at.to_bytes(8, "little") for at in range(size)], pa.binary(8)),
                "row": pa.array([None if at % 5 == 0 else at for at in range(size)], pa.int64()),
            }
        )
        rewrite(here, name, table)
    join([str(here / "a"), str(here / "b")], str(here / "out"))
    parts = [pq.read_table(here / f"{name}.sources.parquet") for name in "ab"]
    with pq.ParquetFile(here / "out.sources.parquet") as file:
        groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        joined = file.read()
    assert groups == [65_536, 44_464]
    assert joined.schema == parts[0].schema
    firsts = {"item": (0, 9), "position": (0, 40_000)}
    for name in joined.column_names:
        wanted = [part[name].to_pylist() for part in parts]
        if name in firsts:
            wanted = [[at + first for at in own] for own, first in zip(wanted, firsts[name], strict=True)]
        assert joined[name].to_pylist() == wanted[0] + wanted[1], name


def set_at(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        inner = manifest
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to

    return edit


PACKED = {"seq_length": 64, "multiple": 1, "neat": True, "window": 9, "fill": 0.5}
#: What of b's manifest is changed, and what the one line must say beside both prefixes.
REFUSED = [
    (set_at("tokenizer", "sha256", to="0" * 64), ["tokenizer: sha256", '"000']),
    (set_at("tokenizer", "adjustment", to={"eos": "</s>"}), ["tokenizer: adjustment", "</s>"]),
    (set_at("tokenizer", "auto_prefix", to=[1]), ["tokenizer: auto_prefix", "[1]"]),
    (set_at("prompt_type", "user", to=["{{content}}"]), ["chat format", "user", "{{content}}"]),
    (set_at("prompt_type", "default_system", to="Be brief."), ["default_system", "Be brief."]),
    (set_at("chat_template", to={"name": "n"}), ["chat format (chat_template)", "null", '"n"']),
    (lambda manifest: manifest.pop("prompt_type"), ["chat format (prompt_type)", '"chatml"', "null"]),
    (set_at("pad_id", to=77), ["pad_id", "77"]),
    (set_at("ignore_index", to=-7), ["ignore_index", "-100 and -7"]),
    (set_at("fields", to=["x"]), ["fields", '["x"]', "input_ids"]),
    (set_at("objective", to="pairwise"), ["objective", '"sft" and "pairwise"']),
    (set_at("format", to=9), ["format", "1 and 9"]),
    (set_at("settings", "train_on", to="last"), ["--train-on", '"assistant" and "last"']),
    (set_at("settings", "train_on_tools", to=True), ["--train-on-tools", "false and true"]),
    (set_at("settings", "seq_length", to=99), ["--seq-length", "null and 99"]),
    (set_at("settings", "append_eod", to=True), ["--append-eod", "false and true"]),
    (set_at("settings", "enable_thinking", to="true"), ["--enable-thinking", '"none" and "true"']),
    (set_at("settings", "special_tokens_in_text", to="allow"), ["--special-tokens-in-text", '"allow"']),
    (set_at("settings", "a_new_one", to=3), ["--a-new-one", "null and 3"]),
    (set_at("packing", to=PACKED), ["packing", '"not packed" and "packed"']),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "named"), REFUSED, ids=[" ".join(named)[:40] for _, named in REFUSED])
def test_what_does_not_mean_the_same_is_not_joined(
    here: Path, edit: Callable[[dict[str, Any]], Any], named: list[str]
) -> None:
    change(here, "b", edit)
    before = sorted(os.listdir(here))
    with pytest.raises(DatasetError) as caught:
        join([str(here / "a"), str(here / "b")], str(here / "out"))
    message = str(caught.value)
    for part in [str(here / "a"), str(here / "b"), *named]:
        assert part in message
    assert "\n" not in message
    assert sorted(os.listdir(here)) == before


def test_what_says_which_data_may_differ(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path, value in (
        (("settings", "overlong"), "recent"),
        (("settings", "seed"), 5),
        (("tokenizer", "path"), "elsewhere"),
        (("prompt_type", "name"), "another-name"),
        (("version",), "0.0.9"),
    ):
        change(here, "b", set_at(*path, to=value))
    manifest = join([str(here / "a"), str(here / "b")], str(here / "out")).manifest
    assert manifest is not None
    assert not {"overlong", "seed"} & manifest["settings"].keys()
    assert manifest["tokenizer"]["path"] == str(TOKENIZER)
    assert "0.0.9" in caplog.text


def test_a_setting_that_an_earlier_version_lacked_had_its_default(here: Path) -> None:
    change(here, "b", lambda manifest: manifest["settings"].pop("train_on_tools"))
    join([str(here / "a"), str(here / "b")], str(here / "out"))
    change(here, "c", set_at("settings", "train_on_tools", to=True))
    with pytest.raises(DatasetError, match="--train-on-tools: false and true"):
        join([str(here / "b"), str(here / "c")], str(here / "other"))


def test_free_settings_exist() -> None:
    known = {field.name for field in fields(PreprocessConfig)}
    assert known >= {*FREE, *WHERE_UNPACKED}


def test_packed_datasets_are_compared_by_their_packing(here: Path) -> None:
    for name in "abc":
        change(here, name, set_at("packing", to=PACKED))
    change(here, "b", set_at("settings", "seq_length", to=99))
    manifest = join([str(here / "a"), str(here / "b")], str(here / "out")).manifest
    assert manifest is not None
    assert manifest["packing"] == {**PACKED, "fill": manifest["tokens"] / (13 * 64)}
    change(here, "b", set_at("packing", "window", to=None))
    manifest = join([str(here / "a"), str(here / "b")], str(here / "out2")).manifest
    assert manifest is not None
    assert "window" not in manifest["packing"]
    change(here, "c", set_at("packing", "seq_length", to=128))
    with pytest.raises(DatasetError, match=r"packing: seq_length: 64 and 128"):
        join([str(here / "a"), str(here / "c")], str(here / "other"))


def test_sidecars_with_other_columns_are_refused(here: Path) -> None:
    rewrite(here, "b", pq.read_table(here / "b.sources.parquet").drop_columns(["turn"]))
    with pytest.raises(DatasetError, match=r"a\.sources.*b\.sources.*columns differ: turn \(int32\)"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))
    assert not list(here.glob("out[._]*json*"))


def test_the_same_data_twice_are_joined_with_a_warning(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = Path(shutil.copytree(here, here.with_name("again")))
    assert join([str(here / "a"), str(again / "a")], str(here / "out")).items == 18
    assert "same data twice" in caplog.text


def test_inputs_with_and_without_a_manifest_are_refused(here: Path) -> None:
    (here / "b.manifest.json").unlink()
    for order in ("ab", "ba"):
        with pytest.raises(DatasetError, match=r"a has a manifest and .*b has none"):
            join([str(here / name) for name in order], str(here / "out"))


def test_without_manifests_a_warning_says_what_was_not_compared(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        (here / f"{name}.manifest.json").unlink()
    result = join([str(here / "a"), str(here / "b")], str(here / "out"))
    assert (result.manifest, result.items) == (None, 13)
    (entry,) = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "tokenizers" in entry.getMessage()
    assert not list(here.glob("out.*"))


FILES = [
    *(f"_{key}{suffix}" for key in KEYS for suffix in (".bin", ".idx")),
    ".rejected.jsonl",
    ".sources.parquet",
]


@pytest.mark.parametrize("file", FILES)
def test_a_byte_that_changed_is_found(here: Path, file: str) -> None:
    path = here / f"b{file}"
    damaged = bytearray(path.read_bytes())
    damaged[-9] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DatasetError, match=rf"/b{file.replace('.', '[.]')}: "):
        join([str(here / "a"), str(here / "b")], str(here / "out"))
    assert not [name for name in os.listdir(here) if name.startswith("out") and "mtsft-work" not in name]
    damaged[-9] ^= 1
    path.write_bytes(damaged)
    assert join([str(here / "a"), str(here / "b")], str(here / "out")).items == 13
    path.write_bytes(damaged[:-1])
    with pytest.raises(DatasetError, match=rf"/b{file.replace('.', '[.]')}: {len(damaged) - 1} bytes"):
        join([str(here / "a"), str(here / "b")], str(here / "other"))
    path.unlink()
    with pytest.raises(DatasetError, match=rf"/b{file.replace('.', '[.]')}: no such file"):
        join([str(here / "a"), str(here / "b")], str(here / "other"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(here: Path, text: str) -> None:
    (here / "b.manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"b\.manifest\.json: not a manifest"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split", []), ("splits", 1), ("splits", {"a\nb": 1}), ("packing", [1]), ("merged", {}),
        ("prompt_type", "chatml"), ("fields", [1]), ("files", {"b.idx": [1]}),
        ("files", {"../b_packed_labels_document.idx": {"bytes": 1, "sha256": ""}}),
        ("files", {".": {"bytes": 1, "sha256": ""}}), ("files", {"a\0b": {"bytes": 1, "sha256": ""}}),
        ("files", {"b.rejected.jsonl": {"bytes": "1\n2", "sha256": ""}}),
    ],
)  # fmt: skip
def test_a_manifest_with_an_entry_of_another_kind_is_refused(here: Path, name: str, value: Any) -> None:
    path = here / "b.manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {name: value}), "utf-8")
    with pytest.raises(DatasetError, match=r"b\.manifest\.json: not a manifest: expected "):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


def test_a_manifest_that_is_nested_too_deeply_is_refused(here: Path) -> None:
    (here / "b.manifest.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"b\.manifest\.json: not a manifest"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


def test_a_chat_format_without_a_name_is_compared(here: Path) -> None:
    path = here / "b.manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(manifest | {"prompt_type": {"style": "other"}}), "utf-8")
    with pytest.raises(DatasetError, match="don't go together: chat format"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


def test_an_input_whose_publication_was_interrupted_is_refused(here: Path) -> None:
    (here / "b.mtsft-work").mkdir()
    (here / "b.mtsft-work" / "commit.json").write_text("{}")
    with pytest.raises(DatasetError, match="b: its publication was interrupted"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


# What is named.


def test_wrong_names_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, out = str(here / "a"), str(here / "b"), str(here / "out")
    with pytest.raises(SettingsError, match="at least two"):
        join([a], out)
    monkeypatch.chdir(here)
    with pytest.raises(SettingsError, match="a is named twice"):
        join([a, b, "../data/a"], out)
    with pytest.raises(SettingsError, match="a is one of the inputs"):
        join([a, b], "./a", overwrite=True)
    for wrong in (f"{here}/", "..", ""):
        with pytest.raises(SettingsError, match="ends in no name"):
            join([a, b], wrong)
    with pytest.raises(SettingsError, match="ends in no name"):
        join([a, f"{here}/"], out)


def test_an_output_that_would_take_an_input_away_is_refused(here: Path) -> None:
    ids, labels = (str(here / f"a_packed_{field}_document") for field in ("input_ids", "labels"))
    before = content(here, "a")
    with pytest.raises(SettingsError, match=r"labels_document\.bin is an input and would be replaced"):
        # The manifest of a names these pairs as its own.
        join([labels, str(here / "b_packed_labels_document")], str(here / "a"), overwrite=True)
    with pytest.raises(SettingsError, match="is one of the inputs"):
        join([ids, labels], ids, overwrite=True)
    assert content(here, "a") == before


def test_a_finished_output_is_refused_or_replaced_whole(here: Path) -> None:
    prefixes = [str(here / "a"), str(here / "b")]
    with pytest.raises(OutputError, match=r"whole_packed_.*exists already.*--overwrite"):
        join(prefixes, str(here / "whole"))
    with pytest.raises(OutputError, match=r"text_whole\..* exists already"):
        join(prefixes, str(here / "text_whole"))
    join(prefixes, str(here / "text_whole"), overwrite=True)
    # Its own datasets had other names, which a trainer would take for fields of the new one.
    assert sorted(content(here, "text_whole")) == sorted([*FILES, ".manifest.json"])
    for name in "ab":
        (here / f"{name}.manifest.json").unlink()
    join(prefixes, str(here / "text_whole"), overwrite=True)
    wanted = {f"text_whole_{key}{suffix}" for key in KEYS for suffix in (".bin", ".idx")}
    assert {path.name for path in here.glob("text_whole[._]*")} == {"text_whole.jsonl", *wanted}


def test_one_run_at_a_time(here: Path) -> None:
    with OutputLock(here / "out"), pytest.raises(OutputError, match="another run works on this output"):
        join([str(here / "a"), str(here / "b")], str(here / "out"))


def test_the_work_of_another_command_is_not_thrown_away(here: Path) -> None:
    part = here / "out.mtsft-work" / "parts" / "0"
    part.parent.mkdir(parents=True)
    part.write_text("hours")
    prefixes = [str(here / "a"), str(here / "b")]
    with pytest.raises(OutputError, match=r"out\.mtsft-work holds the work of an interrupted run"):
        join(prefixes, str(here / "out"))
    (here / "out.mtsft-work" / "plan.json").write_text('{"fingerprint": "x", "identity": {"version": "0"}}')
    with pytest.raises(OutputError, match="of another command"):
        join(prefixes, str(here / "out"))
    assert part.read_text() == "hours"


# Interruptions.


class Stopped(BaseException):
    """Stands for a death at a certain point."""


#: Of the plan, the commit record, six files, with a manifest it and three sidecars, the work folder.
@pytest.mark.parametrize(("manifests", "renames"), [(True, 13), (False, 9)])
def test_stopped_anywhere_the_same_command_ends_with_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch, manifests: bool, renames: int
) -> None:
    if not manifests:
        for path in here.glob("[ab].*.json"):
            path.unlink()
    prefixes = [str(here / "a"), str(here / "b")]
    join(prefixes, str(here / "calm"))
    calm = content_of(here.glob("calm[._]*"), "calm")
    last = ".manifest.json" if manifests else f"_{KEYS[-1]}.idx"
    real, count = os.replace, 0
    for at in range(renames + 1):
        folder = here / str(at)
        folder.mkdir()
        count = 0

        def counted(source: Any, target: Any, at: int = at) -> None:
            nonlocal count
            if count == at:
                raise Stopped
            count += 1
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted)
            if at < renames:
                with pytest.raises(Stopped):
                    join(prefixes, str(folder / "calm"))
            else:
                join(prefixes, str(folder / "calm"))
        if at < renames - 1:
            assert not (folder / f"calm{last}").exists()
        if at == renames:
            continue
        result = join(prefixes, str(folder / "calm"))
        assert result.items == 13
        assert content_of(folder.iterdir(), "calm") == calm


def test_stopped_while_it_copies_nothing_appears(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    prefixes = [str(here / "a"), str(here / "b")]
    with monkeypatch.context() as patch:
        patch.setattr(run, "join_rejected", stop)
        with pytest.raises(Stopped):
            join(prefixes, str(here / "out"))
    assert sorted(path.name for path in here.glob("out*")) == ["out.mtsft-work"]
    join(prefixes, str(here / "out"))
    assert tokens_of(content(here, "out")).keys() == {name for name in FILES if "_packed_" in name}
    assert not (here / "out.mtsft-work").exists()


def test_another_merge_finishes_what_was_decided_and_is_then_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("mtsft_preproc.publish.finish_commit", stop)
        with pytest.raises(Stopped):
            join([str(here / "a"), str(here / "b")], str(here / "out"))
    with pytest.raises(OutputError, match="exists already"):
        join([str(here / "a"), str(here / "c")], str(here / "out"))
    assert manifest_of(here, "out")["items"] == 13


# The form of MindSpeed-LLM.


def test_keys_take_whole_outputs_with_their_manifests(here: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in here.glob("[abc][._]*"):
        shutil.copy(path, few)
    join([str(few / name) for name in "abc"], str(tmp_path / "joined"))
    result = merge_group_keys(str(few), KEYS, str(few / "out"))
    assert result.manifest is not None
    assert result.items == 24
    assert {name: raw for name, raw in content(few, "out").items() if "manifest" not in name} == {
        name: raw for name, raw in content(tmp_path, "joined").items() if "manifest" not in name
    }
    # Its own output is no input.
    again = merge_group_keys(str(few), KEYS, str(few / "out"), overwrite=True)
    assert again.manifest == result.manifest
    change(few, "b", set_at("tokenizer", "sha256", to="0"))
    with pytest.raises(DatasetError, match="tokenizer: sha256"):
        merge_group_keys(str(few), KEYS, str(tmp_path / "new"))


def test_keys_that_take_a_part_of_our_outputs_write_no_manifest(
    here: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in here.glob("[ab][._]*"):
        shutil.copy(path, few)
    for key in KEYS:  # one after the other, as scripts do
        result = merge_group_keys(str(few), [key], str(tmp_path / "out"))
        assert (result.manifest, result.items) == (None, 13)
    assert "no manifest is written" in caplog.text
    joined = {path.name for path in tmp_path.glob("out*")}
    assert joined == {f"out_{key}{suffix}" for key in KEYS for suffix in (".bin", ".idx")}


def test_keys_join_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name, token in (("b", 2), ("a_2", 12), ("a_10", 110), ("c", 3)):
        write(tmp_path / f"{name}_text_document", [token])
    result = merge_group_keys(str(tmp_path), ["text_document"], str(tmp_path / "all"))
    assert result.inputs == 4
    found = [item.tolist() for item in IndexedDataset(tmp_path / "all_text_document")]
    assert found == [[110], [12], [2], [3]]


def test_keys_that_find_no_whole_inputs_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sft(tmp_path, name, [1, 2])
    write(tmp_path / "c_text_document", [1])
    out = str(tmp_path / "out")
    with pytest.raises(SettingsError, match=r"'packed_label_document'.*packed_input_ids_document"):
        merge_group_keys(str(tmp_path), ["packed_label_document"], out)
    with pytest.raises(SettingsError, match="is no folder"):
        merge_group_keys(str(tmp_path / "none"), KEYS, out)
    with pytest.raises(SettingsError, match="is no key"):
        merge_group_keys(str(tmp_path), [""], out)
    (tmp_path / "b_packed_labels_document.idx").rename(tmp_path / "aside")
    with pytest.raises(DatasetError, match=r"b_packed_labels_document\.bin: there is no .*document\.idx"):
        merge_group_keys(str(tmp_path), KEYS, out)
    (tmp_path / "b_packed_labels_document.bin").unlink()
    for keys in (KEYS, KEYS[::-1]):
        with pytest.raises(DatasetError, match=r"b_packed_.*: there is no b_packed_labels_document"):
            merge_group_keys(str(tmp_path), keys, out)
    with pytest.raises(DatasetError, match=r"b_packed_.*_document: there is no b_packed_labels_document"):
        merge_group_keys(str(tmp_path), KEYS, out)
    assert not list(tmp_path.glob("out*"))


def test_lengths_of_numpy_are_what_the_index_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    parts: list[list[npt.NDArray[np.int32]]] = [
        [rng.integers(0, 1 << 30, size, I32) for size in rng.integers(0, 50, count)]
        for count in (30, 0, 41)
    ]
    for number, part in enumerate(parts):
        write(tmp_path / f"{number}_text_document", *[item.tolist() for item in part])
    join([str(tmp_path / str(number)) for number in range(3)], str(tmp_path / "out"))
    wanted = [item for part in parts for item in part]
    data, index = raw(tmp_path / "out_text_document")
    assert np.array_equal(np.frombuffer(data, "<i4"), np.concatenate(wanted))
    lengths = [len(item) for item in wanted]
    starts = [4 * before for before in [0, *itertools.accumulate(lengths)][:-1]]
    assert by_the_byte_table(index) == (lengths, starts, list(range(72)))
