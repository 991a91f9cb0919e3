"""``SFTDataset`` and ``collate``, against the files read by hand and against hand-made batches."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import DataLoader

from mtsft_preproc import PreprocessConfig, SFTDataset, preprocess
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.torch_data import collate

ROOT = Path(__file__).parents[2]
FIELDS = ("input_ids", "labels", "attention_mask")
PROMPT_TYPES = ("chatml", "gemma")
#: Only one prompt type, for tests that start processes or don't depend on the tokens.
only_chatml = pytest.mark.parametrize("prefix", ["chatml"], indirect=True)

Items = list[npt.NDArray[np.int32]]
Batch = dict[str, torch.Tensor]


def file_of(prefix: Path, field: str, suffix: str) -> Path:
    return prefix.with_name(f"{prefix.name}_packed_{field}_document{suffix}")


def read_by_hand(prefix: Path, field: str) -> Items:
    """Read one pair by the byte table of Megatron's format."""
    raw = file_of(prefix, field, ".idx").read_bytes()
    magic, version, code, count, borders = struct.unpack("<9sQBQQ", raw[:34])
    assert (magic, version, code, borders) == (b"MMIDIDX\0\0", 1, 4, count + 1)
    lengths = struct.unpack(f"<{count}i", raw[34 : 34 + 4 * count])
    offsets = struct.unpack(f"<{count}q", raw[34 + 4 * count : 34 + 12 * count])
    tokens = np.fromfile(file_of(prefix, field, ".bin"), "<i4")
    assert sum(lengths) == len(tokens)
    return [tokens[at // 4 : at // 4 + length] for at, length in zip(offsets, lengths, strict=True)]


def pad_by_hand(columns: dict[str, Items], rows: list[int], pad_id: int) -> dict[str, list[list[int]]]:
    """Return the batch of ``rows``, padded on the right to the longest."""
    width = max(len(columns["input_ids"][row]) for row in rows)
    fills = {"input_ids": pad_id, "labels": -100, "attention_mask": 0}
    return {
        field: [
            [*columns[field][row].tolist(), *[fill] * (width - len(columns[field][row]))] for row in rows
        ]
        for field, fill in fills.items()
    }


def as_lists(batch: Batch) -> dict[str, list[Any]]:
    return {field: tensor.tolist() for field, tensor in batch.items()}


def sample(*tokens: int, labels: list[int] | None = None) -> Batch:
    """Return a hand-made sample; every token is trained unless told otherwise."""
    return {
        "input_ids": torch.tensor(tokens),
        "labels": torch.tensor(list(tokens) if labels is None else labels),
        "attention_mask": torch.tensor([1] * len(tokens)),
    }


def run_python(code: str, *arguments: str, blocked: tuple[str, ...] = ()) -> Any:
    """Run code in a fresh Python in which the ``blocked`` packages can't be imported; return its JSON."""
    prelude = f"import sys\nsys.modules.update(dict.fromkeys({list(blocked)!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example dialogues as datasets, by prompt type."""
    folder = tmp_path_factory.mktemp("built")
    for name in PROMPT_TYPES:
        config = PreprocessConfig(
            input=(str(ROOT / "examples" / "data" / "alpaca_history.json"),),
            output_prefix=str(folder / name),
            tokenizer=str(ROOT / "examples" / "tokenizer"),
            handler_name="alpaca",
            prompt_type=name,
            map_keys='{"history":"history","system":"system"}',
            workers=1,
        )
        preprocess(config)
    return {name: folder / name for name in PROMPT_TYPES}


@pytest.fixture(scope="module", params=PROMPT_TYPES)
def prefix(request: pytest.FixtureRequest, built: dict[str, Path]) -> Path:
    return built[request.param]


@pytest.fixture(scope="module")
def columns(prefix: Path) -> dict[str, Items]:
    """The items of each field, read without the package."""
    return {field: read_by_hand(prefix, field) for field in FIELDS}


@pytest.fixture(scope="module")
def token_ids() -> dict[str, int]:
    """The ids of the added tokens, from the tokenizer's own file."""
    content = json.loads((ROOT / "examples" / "tokenizer" / "tokenizer.json").read_text("utf-8"))
    return {token["content"]: token["id"] for token in content["added_tokens"]}


@pytest.fixture(scope="module")
def pad_token(token_ids: dict[str, int]) -> int:
    return token_ids["<pad>"]


@pytest.fixture
def copy(built: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the ChatML dataset, to damage."""
    for file in built["chatml"].parent.glob("chatml*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "chatml"


def edit_manifest(prefix: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = prefix.with_name(prefix.name + ".manifest.json")
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def drop_manifest(prefix: Path) -> None:
    prefix.with_name(prefix.name + ".manifest.json").unlink()


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Two threads that wait for each other crawl on a shared machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Items


def test_items_are_what_the_files_hold(prefix: Path, columns: dict[str, Items]) -> None:
    dataset = SFTDataset(prefix)
    rows = json.loads((ROOT / "examples" / "data" / "alpaca_history.json").read_text("utf-8"))
    assert len(dataset) == len(columns["input_ids"]) == len(rows) == 60
    assert dataset.lengths.tolist() == [len(item) for item in columns["input_ids"]]
    for row in range(60):
        item = dataset[row]
        assert tuple(item) == FIELDS
        for field, tensor in item.items():
            expected = columns[field][row]
            assert tensor.dtype == torch.int64
            assert tensor.shape == (len(expected),)
            assert tensor.tolist() == expected.tolist()


def test_labels_stand_at_their_tokens_and_nothing_real_is_masked_from_attention(
    prefix: Path, token_ids: dict[str, int]
) -> None:
    trained, different = 0, set()
    for item in SFTDataset(prefix)[:]:
        known = item["labels"] != -100
        pairs = zip(item["input_ids"][known].tolist(), item["labels"][known].tolist(), strict=True)
        different |= {(token, label) for token, label in pairs if token != label}
        assert item["attention_mask"].tolist() == [1] * len(item["input_ids"])
        trained += int(known.sum())
    assert trained > 0
    # A format with "efficient_eos" trains the end of a sequence where an earlier answer's turn ends.
    end_of_turn = {(token_ids["<end_of_turn>"], token_ids["<eos>"])}
    assert different == {"chatml": set(), "gemma": end_of_turn}[prefix.name]


@only_chatml
@pytest.mark.parametrize("index", [-1, -60, 59])
def test_negative_and_last_index(prefix: Path, columns: dict[str, Items], index: int) -> None:
    assert SFTDataset(prefix)[index]["input_ids"].tolist() == columns["input_ids"][index].tolist()


@only_chatml
@pytest.mark.parametrize(
    "part",
    [slice(2, 5), slice(None, None, 25), slice(-3, None), slice(5, 2), slice(58, 99), slice(3, 0, -1)],
)
def test_slice_is_a_list_of_items(prefix: Path, columns: dict[str, Items], part: slice) -> None:
    found = SFTDataset(prefix)[part]
    assert isinstance(found, list)
    for field in FIELDS:
        assert [item[field].tolist() for item in found] == [item.tolist() for item in columns[field][part]]


@only_chatml
@pytest.mark.parametrize("index", [60, 1000, -61])
def test_index_beyond_the_end(prefix: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"{index} of 60"):
        SFTDataset(prefix)[index]


@only_chatml
def test_items_are_copies(prefix: Path, columns: dict[str, Items]) -> None:
    dataset = SFTDataset(str(prefix))
    dataset[0]["input_ids"].zero_()
    assert dataset[0]["input_ids"].tolist() == columns["input_ids"][0].tolist()


def test_pickles_as_its_path(prefix: Path, columns: dict[str, Items]) -> None:
    dataset = SFTDataset(prefix, pad_id=11)
    dataset[0]  # What was mapped must not travel.
    content = pickle.dumps(dataset)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again.pad_id == 11
    assert len(again) == 60
    for field in FIELDS:
        assert [item[field].tolist() for item in again] == [item.tolist() for item in columns[field]]


# Batches


@only_chatml
# Python 3.12 warns of every fork beside threads, and torch has threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_workers_give_the_batches(
    prefix: Path, columns: dict[str, Items], pad_token: int, workers: int, context: str | None
) -> None:
    dataset = SFTDataset(prefix)
    loader = DataLoader(
        dataset,
        batch_size=16,
        num_workers=workers,
        multiprocessing_context=context,
        collate_fn=dataset.collate,
    )
    rows = [list(range(start, min(start + 16, 60))) for start in (0, 16, 32, 48)]
    expected = [pad_by_hand(columns, batch, pad_token) for batch in rows]
    assert [as_lists(batch) for batch in loader] == expected


@only_chatml
def test_shuffled_epoch_has_every_item_once(prefix: Path, columns: dict[str, Items]) -> None:
    dataset = SFTDataset(prefix)
    order = torch.Generator().manual_seed(3)
    loader = DataLoader(dataset, batch_size=7, shuffle=True, generator=order, collate_fn=dataset.collate)
    found = [
        row[mask.bool()].tolist()
        for batch in loader
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    wanted = [item.tolist() for item in columns["input_ids"]]
    assert found != wanted
    assert sorted(found) == sorted(wanted)


def test_collate_pads_to_the_longest_on_the_right() -> None:
    batch = collate([sample(5, 6), sample(1, 2, 3, labels=[-100, 2, 3]), sample(4)], pad_id=9)
    assert as_lists(batch) == {
        "input_ids": [[5, 6, 9], [1, 2, 3], [4, 9, 9]],
        "labels": [[5, 6, -100], [-100, 2, 3], [4, -100, -100]],
        "attention_mask": [[1, 1, 0], [1, 1, 1], [1, 0, 0]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_collate_keeps_a_real_token_that_equals_the_padding() -> None:
    samples = [sample(5, 9), sample(9, 1, 9, 2, labels=[-100, 1, 9, 2])]
    assert as_lists(collate(samples, pad_id=9)) == {
        "input_ids": [[5, 9, 9, 9], [9, 1, 9, 2]],
        "labels": [[5, 9, -100, -100], [-100, 1, 9, 2]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
    }


@pytest.mark.parametrize(
    ("lengths", "multiple", "width"),
    [([3, 5], 8, 8), ([8, 2], 8, 8), ([9], 8, 16), ([3, 5], 64, 64), ([64], 64, 64), ([65, 1], 64, 128)],
)
def test_collate_pads_to_a_multiple(lengths: list[int], multiple: int, width: int) -> None:
    samples = [sample(*range(1, length + 1)) for length in lengths]
    batch = collate(samples, pad_id=0, ignore_index=-1, pad_to_multiple_of=multiple)
    for row, length in enumerate(lengths):
        real, padding = list(range(1, length + 1)), width - length
        assert batch["input_ids"][row].tolist() == real + [0] * padding
        assert batch["labels"][row].tolist() == real + [-1] * padding
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * padding


@pytest.mark.parametrize(("samples", "multiple"), [([], 1), ([sample(1)], 0), ([sample(1)], -8)])
def test_collate_refuses_what_makes_no_batch(samples: list[Batch], multiple: int) -> None:
    with pytest.raises(ValueError, match=f"got {len(samples)} samples and pad_to_multiple_of={multiple}"):
        collate(samples, pad_id=0, pad_to_multiple_of=multiple)


def test_dataset_pads_with_the_tokenizers_padding(
    prefix: Path, columns: dict[str, Items], pad_token: int
) -> None:
    dataset = SFTDataset(prefix)
    assert dataset.pad_id == pad_token
    assert dataset.ignore_index == -100
    assert as_lists(dataset.collate(dataset[4:9])) == pad_by_hand(columns, [4, 5, 6, 7, 8], pad_token)
    wide = partial(dataset.collate, pad_to_multiple_of=64)([dataset[0], dataset[1]])
    longest = max(len(columns["input_ids"][row]) for row in (0, 1))
    assert wide["labels"].shape == (2, 64 * ((longest + 63) // 64))


def test_dataset_pads_with_what_its_manifest_says(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(pad_id=17, ignore_index=-7))
    batch = SFTDataset(copy).collate([sample(1, 2), sample(3)])
    assert as_lists(batch) == {
        "input_ids": [[1, 2], [3, 17]],
        "labels": [[1, 2], [3, -7]],
        "attention_mask": [[1, 1], [1, 0]],
    }
    assert SFTDataset(copy, pad_id=0).collate([sample(1, 2), sample(3)])["input_ids"].tolist()[1] == [3, 0]


def test_without_a_manifest_the_padding_must_be_given(copy: Path, columns: dict[str, Items]) -> None:
    drop_manifest(copy)
    dataset = SFTDataset(copy)
    assert dataset.manifest is None
    assert len(dataset[:3]) == 3
    with pytest.raises(DatasetError, match=r"no manifest.*pad_id=") as error:
        dataset.collate(dataset[:2])
    assert str(copy) in str(error.value)
    batch = SFTDataset(copy, pad_id=0).collate([sample(1, 2), sample(3)])
    assert batch["input_ids"].tolist() == [[1, 2], [3, 0]]
    assert batch["labels"].tolist() == [[1, 2], [3, -100]]


@only_chatml
@pytest.mark.usefixtures("_one_thread")
def test_loss_of_a_batch(prefix: Path, columns: dict[str, Items], pad_token: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = LlamaConfig(
            vocab_size=4000,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=1024,
        )
        model = LlamaForCausalLM(config).double().eval()
    dataset = SFTDataset(prefix)
    rows = sorted(range(60), key=lambda row: len(columns["input_ids"][row]))[:40:13]
    by_hand = {
        field: torch.tensor(values) for field, values in pad_by_hand(columns, rows, pad_token).items()
    }
    with torch.no_grad():
        loss = model(**dataset.collate([dataset[row] for row in rows])).loss.item()
        padded = model(**by_hand).loss.item()
        # And without any padding: each sample by itself, the labels shifted here and not by the model.
        total, count = 0.0, 0
        for row in rows:
            ids, labels = (torch.tensor(columns[field][row].tolist()) for field in FIELDS[:2])
            logits = model(input_ids=ids[None]).logits[0]
            total += torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
            count += int((labels[1:] != -100).sum())
    assert loss == pytest.approx(padded, abs=1e-6)
    assert loss == pytest.approx(total / count, abs=1e-6)


# Damage


def refused(prefix: Path, *parts: str) -> None:
    """Check that opening is refused, in one line that has these parts."""
    with pytest.raises(DatasetError) as error:
        SFTDataset(prefix)
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("cut", [1, 4, 4000, -4])
def test_bin_cut_or_grown(copy: Path, field: str, cut: int) -> None:
    path = file_of(copy, field, ".bin")
    size = path.stat().st_size
    os.truncate(path, size - cut)
    drop_manifest(copy)
    refused(copy, f"{path}: {size - cut} bytes", f" {size}")


@pytest.mark.parametrize("left", [0, 33, 34, 500])
def test_truncated_idx(copy: Path, left: int) -> None:
    path = file_of(copy, "labels", ".idx")
    os.truncate(path, left)
    refused(copy, f"{path}: {left} bytes")


@pytest.mark.parametrize("suffixes", [(".bin",), (".idx",), (".bin", ".idx")])
@pytest.mark.parametrize("field", FIELDS)
def test_files_of_another_dataset(
    copy: Path, built: dict[str, Path], field: str, suffixes: tuple[str, ...]
) -> None:
    """The other one has as many items, of other lengths."""
    for suffix in suffixes:
        shutil.copy(file_of(built["gemma"], field, suffix), file_of(copy, field, suffix))
    refused(copy, str(copy))
    drop_manifest(copy)
    refused(copy, "lengths are not those of" if len(suffixes) == 2 else f"{file_of(copy, field, '.bin')}: ")


def test_all_pairs_of_another_dataset_under_this_manifest(copy: Path, built: dict[str, Path]) -> None:
    for field in FIELDS:
        for suffix in (".bin", ".idx"):
            shutil.copy(file_of(built["gemma"], field, suffix), file_of(copy, field, suffix))
    ours, theirs = (file_of(at, FIELDS[0], ".bin").stat().st_size for at in (built["chatml"], copy))
    assert ours != theirs
    refused(copy, f".bin: {theirs} bytes, but the manifest says {ours}")


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@pytest.mark.parametrize("field", FIELDS)
def test_missing_file(copy: Path, field: str, suffix: str) -> None:
    path = file_of(copy, field, suffix)
    path.unlink()
    refused(copy, f"{path}: no such file")


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["labels_document.bin", "input_ids_document.idx"])
def test_manifest_with_other_sizes(copy: Path, name: str) -> None:
    name = f"chatml_packed_{name}"
    size = (copy.parent / name).stat().st_size

    def grow(manifest: dict[str, Any]) -> None:
        manifest["files"][name]["bytes"] += 1

    edit_manifest(copy, grow)
    refused(copy, f"{copy.parent / name}: {size} bytes, but the manifest says {size + 1}")


@pytest.mark.parametrize(
    "text", ["", '{"files": {', "[]", "{}", '{"files": []}', '{"files": {"a.bin": {}}}', "\x00"]
)
def test_damaged_manifest(copy: Path, text: str) -> None:
    copy.with_name("chatml.manifest.json").write_text(text, "utf-8")
    refused(copy, f"{copy}.manifest.json: not a manifest")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objective", None), ("objective", ["sft"]), ("fields", "ids"), ("fields", [{"a": 1}]),
        ("fields", ["input_ids\n"]), ("objective", "a\nb"),
        ("split", []), ("split", {"of": 3}), ("split", {"of": "../x"}), ("split", {"of": "."}),
        ("splits", 7), ("splits", {"a\nb": 1}), ("pad_id", float("inf")),
        ("files", {"../x": {"bytes": 0}}), ("files", {"": {"bytes": 0}}),
        ("files", {"a\n.bin": {"bytes": 0}}), ("files", {"a.bin": {"bytes": [1]}}),
    ],
)  # fmt: skip
def test_a_manifest_with_an_entry_of_another_kind(copy: Path, name: str, value: Any) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest[name] = value

    edit_manifest(copy, edit)
    refused(copy, f"{copy}.manifest.json: not a manifest")


def test_a_manifest_that_is_nested_too_deeply(copy: Path) -> None:
    copy.with_name("chatml.manifest.json").write_text("[" * 100_000, "utf-8")
    refused(copy, f"{copy}.manifest.json: not a manifest")


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"files": 1}', "\x00", "[" * 100_000])
def test_a_side_of_a_run_whose_commit_record_is_damaged(copy: Path, record: str) -> None:
    side = copy.with_name("run_train")
    for field in FIELDS:
        for suffix in (".bin", ".idx"):
            shutil.copy(file_of(copy, field, suffix), file_of(side, field, suffix))
    assert len(SFTDataset(str(side))) > 0
    (copy.parent / "run.mtsft-work").mkdir()
    (copy.parent / "run.mtsft-work" / "commit.json").write_text(record)
    refused(side, "its publication was interrupted")


def test_another_objective_without_fields(copy: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["objective"] = "text"
        del manifest["fields"]

    edit_manifest(copy, edit)
    refused(copy, "not samples to fine-tune on")


def test_interrupted_publication(copy: Path) -> None:
    work = copy.with_name("chatml.mtsft-work")
    work.mkdir()
    assert len(SFTDataset(copy)) == 60  # A run that has decided nothing yet leaves what is there alone.
    (work / "commit.json").write_text('{"files": []}', "utf-8")
    refused(copy, f"{copy}: ", "interrupted", "run the same command again")


def test_damage_after_pickling_is_found_when_the_copy_opens(copy: Path) -> None:
    content = pickle.dumps(SFTDataset(copy))
    os.truncate(file_of(copy, "labels", ".bin"), 8)
    with pytest.raises(DatasetError, match="8 bytes"):
        pickle.loads(content)


# What it needs, and who else can read it


@only_chatml
def test_opening_imports_torch_and_numpy_alone(prefix: Path, columns: dict[str, Items]) -> None:
    code = """
import json
from mtsft_preproc.torch_data import SFTDataset
dataset = SFTDataset(sys.argv[1])
batch = dataset.collate(dataset[:2])
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([loaded, dataset[1]["labels"].tolist(), len(batch["labels"])]))
"""
    loaded, labels, rows = run_python(code, str(prefix))
    assert labels == columns["labels"][1].tolist()
    assert rows == 2
    assert {"torch", "numpy", "mtsft_preproc"} <= set(loaded)
    others = {"transformers", "pyarrow", "tokenizers", "sentencepiece", "pandas", "orjson", "rich"}
    assert not others & set(loaded)


@only_chatml
def test_plain_reader_needs_no_torch(prefix: Path, columns: dict[str, Items]) -> None:
    code = """
import json
from mtsft_preproc import IndexedDataset
found = {f: IndexedDataset(f"{sys.argv[1]}_packed_{f}_document") for f in sys.argv[2:]}
try:
    from mtsft_preproc import SFTDataset
except ImportError as error:
    refused = str(error)
print(json.dumps([{f: [item.tolist() for item in items] for f, items in found.items()}, refused]))
"""
    others = ("torch", "transformers", "pyarrow", "tokenizers", "pandas")
    items, refused = run_python(code, str(prefix), *FIELDS, blocked=others)
    assert items == {field: [item.tolist() for item in columns[field]] for field in FIELDS}
    assert "torch" in refused


# What Megatron-core says about absent optional packages while it is imported.
@pytest.mark.filterwarnings("ignore:Transformer Engine and Apex are not installed:UserWarning")
def test_megatron_core_reads_the_same_items(prefix: Path, columns: dict[str, Items]) -> None:
    pytest.importorskip("megatron.core")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = SFTDataset(prefix)
    for field in FIELDS:
        theirs = IndexedDataset(str(prefix.with_name(f"{prefix.name}_packed_{field}_document")))
        assert len(theirs) == len(dataset) == len(columns[field])
        assert theirs.document_indices.tolist() == list(range(61))
        for row, expected in enumerate(columns[field]):
            assert theirs[row].dtype == np.int32
            assert theirs[row].tolist() == expected.tolist() == dataset[row][field].tolist()
