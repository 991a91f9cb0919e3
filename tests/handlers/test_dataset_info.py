"""LLaMA-Factory's dataset_info.json: what its entries stand for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.errors import InputError, RecordError, SettingsError
from mtsft_preproc.handlers import (
    DatasetEntry,
    DialogueHandler,
    PairHandler,
    check_columns,
    first_records,
    handlers,
    read_dataset_info,
)
from mtsft_preproc.readers import find_inputs

ALPACA = "AlpacaStyleInstructionHandler"
ALPACA_PAIR = "AlpacaStylePairwiseHandler"
SHAREGPT = "SharegptStyleInstructionHandler"
SHAREGPT_PAIR = "SharegptStylePairwiseHandler"
OPENAI = "OpenAIInstructionHandler"

ROW = {"prompt": "instruction", "query": "input", "response": "output", "history": "", "system": ""}
CHAT = {"messages": "conversations", "system": "", "tools": ""}
ROLE_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.json").write_text("[]", "utf-8")
    return tmp_path


def read(folder: Path, entry: Any, names: str = "mine") -> DatasetEntry:
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}), "utf-8")
    (found,) = read_dataset_info(str(folder), names)
    return found


def entry(**fields: Any) -> dict[str, Any]:
    return {"file_name": "data.json", **fields}


MAPPED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "defaults": ({}, ALPACA, ROW),
    "null-is-not-given": (dict.fromkeys(["columns", "tags", "ranking", "formatting"]), ALPACA, ROW),
    "unnamed-columns-are-not-read": (
        {"columns": {"prompt": "input", "response": "target"}},
        ALPACA,
        {"prompt": "input", "query": "", "response": "target", "history": "", "system": ""},
    ),
    "all-columns": (
        {"columns": {"prompt": "a", "query": "b", "response": "c", "history": "d", "system": "e"}},
        ALPACA,
        {"prompt": "a", "query": "b", "response": "c", "history": "d", "system": "e"},
    ),
    "null-column": (
        {"columns": {"prompt": "a", "query": None, "response": "c"}},
        ALPACA,
        {"prompt": "a", "query": "", "response": "c", "history": "", "system": ""},
    ),
    "alpaca-pair": (
        {"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad", "system": "s"}},
        ALPACA_PAIR,
        {"prompt": "q", "query": "", "chosen": "good", "rejected": "bad", "history": "", "system": "s"},
    ),
    "alpaca-pair-defaults": (
        {"ranking": True},
        ALPACA_PAIR,
        {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected",
         "history": "", "system": ""},
    ),
    "sharegpt": ({"formatting": "sharegpt"}, SHAREGPT, CHAT),
    "sharegpt-columns": (
        {"formatting": "sharegpt", "columns": {"messages": "talk", "tools": "t", "system": "s"}},
        SHAREGPT,
        {"messages": "talk", "tools": "t", "system": "s"},
    ),
    "sharegpt-messages-unnamed": ({"formatting": "sharegpt", "columns": {"tools": "t"}}, SHAREGPT,
                                  {**CHAT, "tools": "t"}),
    "sharegpt-tags": (
        {"formatting": "sharegpt", "columns": {"messages": "messages"},
         "tags": {**ROLE_TAGS, "system_tag": "system", "function_tag": None}},
        SHAREGPT,
        {**CHAT, "messages": "messages", "tags": ROLE_TAGS},
    ),
    "sharegpt-default-tags": ({"formatting": "sharegpt", "tags": {"role_tag": "from"}}, SHAREGPT, CHAT),
    "sharegpt-pair": (
        {"formatting": "sharegpt", "ranking": True,
         "columns": {"messages": "conversations", "chosen": "c", "rejected": "r"}},
        SHAREGPT_PAIR,
        {**CHAT, "chosen": "c", "rejected": "r"},
    ),
    "openai": (
        {"formatting": "openai", "columns": {"messages": "messages", "tools": "tools"},
         "tags": {**ROLE_TAGS, "observation_tag": "tool", "system_tag": "system"}},
        OPENAI,
        {"messages": "messages", "system": "", "tools": "tools"},
    ),
    "train-split": ({"split": "train"}, ALPACA, ROW),
    "comments": ({"file_sha1": "0", "about": "x"}, ALPACA, ROW),
}  # fmt: skip


@pytest.mark.parametrize("case", MAPPED)
def test_what_an_entry_stands_for(folder: Path, case: str) -> None:
    fields, handler, map_keys = MAPPED[case]
    found = read(folder, entry(**fields))
    assert found == DatasetEntry("mine", str(folder / "data.json"), handler, map_keys, None)
    handlers.get(handler)(found.map_keys)


def test_a_number_of_samples_is_handed_on(folder: Path) -> None:
    assert read(folder, entry(num_samples=5)).max_samples == 5
    assert read(folder, entry(num_samples=None)).max_samples is None


def test_a_folder_is_as_good_as_a_file(folder: Path) -> None:
    (folder / "parts").mkdir()
    assert read(folder, {"file_name": "parts"}).path == str(folder / "parts")


@pytest.mark.parametrize("names", ["b,a", " b , a ", "dir/b,/x/y/a"])
def test_datasets_come_in_the_order_of_their_names(folder: Path, names: str) -> None:
    info = {"a": entry(), "b": entry(formatting="sharegpt"), "broken": 5}
    (folder / "dataset_info.json").write_text(json.dumps(info), "utf-8-sig")
    found = read_dataset_info(str(folder), names)
    assert [(each.name, each.handler) for each in found] == [("b", SHAREGPT), ("a", ALPACA)]


REFUSED: dict[str, tuple[Any, str]] = {
    "no-object": ([], r"expected an object, got \[\]"),
    "no-file": ({}, '"file_name": expected the name of a file or folder, got None'),
    "empty-file-name": ({"file_name": ""}, '"file_name": expected'),
    "file-name-of-a-list": ({"file_name": ["data.json"]}, '"file_name": expected'),
    "missing-file": ({"file_name": "gone.json"}, '"file_name": there is no .*gone.json'),
    "missing-file-of-two-lines": ({"file_name": "a\nb"}, r'"file_name": there is no .*a\\nb'),
    "hub": ({"hf_hub_url": "a/b", "file_name": "data.json"}, '"hf_hub_url": nothing is downloaded'),
    "modelscope": ({"ms_hub_url": "a/b"}, '"ms_hub_url": nothing is downloaded'),
    "openmind": ({"om_hub_url": "a/b"}, '"om_hub_url": nothing is downloaded'),
    "script": ({"script_url": "a"}, '"script_url": nothing is downloaded, and no script'),
    "cloud": ({"cloud_file_name": "s3://a"}, '"cloud_file_name": nothing is downloaded'),
    "subset": (entry(subset="en"), "\"subset\": 'en' is a part of a dataset on a hub"),
    "folder": (entry(folder="python"), "\"folder\": 'python' is a part"),
    "split": (entry(split="validation"), "\"split\": 'validation' is a part"),
    "formatting": (entry(formatting="sharegtp"), "unknown 'sharegtp'; did you mean 'sharegpt'"),
    "formatting-of-a-number": (entry(formatting=1), '"formatting": expected text'),
    "ranking-of-a-text": (entry(ranking="true"), '"ranking": expected true or false'),
    "openai-ranking": (entry(formatting="openai", ranking=True), "available: alpaca, sharegpt"),
    "misspelt-field": (entry(colums={}), "unknown field 'colums'; did you mean 'columns'"),
    "misspelt-formatting": (entry(formating="sharegpt"), "did you mean 'formatting'"),
    "columns-of-a-list": (entry(columns=["prompt"]), '"columns": expected an object'),
    "unknown-column": (entry(columns={"promt": "a"}), "reads no 'promt'; did you mean 'prompt'"),
    "column-of-a-number": (entry(columns={"prompt": 1}), '"columns": "prompt": expected the name'),
    "column-of-nothing": (entry(columns={"prompt": ""}), '"columns": "prompt": expected the name'),
    "images": (entry(formatting="sharegpt", columns={"images": "images"}), '"images": images can\'t'),
    "videos": (entry(columns={"videos": "v"}), '"columns": "videos": videos'),
    "audios": (entry(columns={"audios": "a"}), '"columns": "audios": audio'),
    "kto": (entry(columns={"kto_tag": "label"}), '"columns": "kto_tag": KTO'),
    "tools-of-alpaca": (entry(columns={"tools": "tools"}), "alpaca without \"ranking\" reads no 'tools'"),
    "prompt-of-sharegpt": (
        entry(formatting="sharegpt", columns={"prompt": "p"}),
        "sharegpt .* no 'prompt'",
    ),
    "chosen-without-ranking": (entry(columns={"chosen": "c"}), "without \"ranking\" reads no 'chosen'"),
    "response-with-ranking": (entry(ranking=True, columns={"response": "r"}), 'with "ranking" reads no'),
    "tags-of-alpaca": (entry(tags={"role_tag": "role"}), '"tags": the formatting alpaca has none'),
    "tags-of-a-list": (entry(formatting="sharegpt", tags=[1]), '"tags": expected an object'),
    "unknown-tag": (entry(formatting="sharegpt", tags={"user": "u"}), "unknown tag 'user'; did you mean"),
    "tag-of-a-number": (entry(formatting="sharegpt", tags={"user_tag": 1}), '"user_tag": expected text'),
    "openai-tag": (entry(formatting="openai", tags={"role_tag": "from"}), "openai has 'role', got 'from'"),
    "no-samples": (entry(num_samples=0), '"num_samples": expected a positive integer'),
    "samples-of-a-bool": (entry(num_samples=True), '"num_samples": expected a positive integer'),
    "samples-of-a-text": (entry(num_samples="5"), '"num_samples": expected a positive integer'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_entry_that_cannot_be_followed_is_refused(folder: Path, case: str) -> None:
    given, reason = REFUSED[case]
    with pytest.raises(SettingsError, match=reason) as caught:
        read(folder, given)
    where = folder / "dataset_info.json"
    assert str(caught.value).startswith(f"--dataset-dir: {where}, dataset 'mine': ")


def test_an_unknown_name_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"has no dataset 'mime'; did you mean 'mine'\? available: mine"
    ):
        read(folder, entry(), "mime")


@pytest.mark.parametrize("names", ["", " ", "mine,", ",mine", "mine,,mine", "mine/"])
def test_an_empty_name_is_refused(folder: Path, names: str) -> None:
    with pytest.raises(SettingsError, match="expected names of datasets with commas between them"):
        read(folder, entry(), names)


def test_no_folder_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        read_dataset_info(None, "mine")
    assert str(caught.value) == (
        "--dataset-dir: LlamaFactoryInstructionHandler needs the folder of dataset_info.json"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory; expected LLaMA-Factory's dataset_info.json"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["a"]', "expected an object, by name of dataset"),
    ],
    ids=["missing", "broken", "deep", "list"],
)
def test_a_file_that_is_none_is_refused(folder: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (folder / "dataset_info.json").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=f"^--dataset-dir: .*dataset_info.json: .*{reason}"):
        read_dataset_info(str(folder), "mine")


def test_bytes_that_are_no_utf8_are_refused(folder: Path) -> None:
    (folder / "dataset_info.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(SettingsError, match="not JSON"):
        read_dataset_info(str(folder), "a")


#: Of golden/inputs/edge/lf: handler and number of records that the file holds.
GOLDEN = {
    "alp": (ALPACA, 200), "alpns": (ALPACA, 200), "alpmin": (ALPACA, 200), "en": (ALPACA, 300),
    "think": (ALPACA, 39), "long": (ALPACA, 80), "oaast": (ALPACA, 200), "lft": (ALPACA, 5),
    "sg": (SHAREGPT, 200), "sgp": (SHAREGPT, 100), "pair": (SHAREGPT_PAIR, 100), "oa": (SHAREGPT, 100),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_datasets_are_read_by_their_entries(shared: Path, name: str) -> None:
    handler_name, count = GOLDEN[name]
    (found,) = read_dataset_info(str(shared / "golden" / "inputs" / "edge" / "lf"), name)
    assert found.handler == handler_name
    handler = handlers.get(found.handler)(found.map_keys)
    files = find_inputs([found.path])
    check_columns(handler, files)
    records = first_records(files[0])
    assert len(records) == count
    kept = 0
    for record in records:
        try:
            handler.pair(record) if isinstance(handler, PairHandler) else _dialogue(handler, record)
        except RecordError:
            continue
        kept += 1
    assert kept == count


def _dialogue(handler: Any, record: Any) -> None:
    assert isinstance(handler, DialogueHandler)
    handler.dialogue(record)


def test_columns_that_an_entry_does_not_name_are_not_read(shared: Path) -> None:
    """The file of ``alp`` and ``alpmin`` has a history and a system text; only ``alp`` names them."""
    folder = shared / "golden" / "inputs" / "edge" / "lf"
    records = json.loads((folder / "alpaca_hist_sys.json").read_text("utf-8"))
    full, least = (
        handlers.get(found.handler)(found.map_keys)
        for found in read_dataset_info(str(folder), "alp,alpmin")
    )
    assert isinstance(full, DialogueHandler)
    assert isinstance(least, DialogueHandler)
    rounds = sum(len(record["history"]) for record in records)
    assert rounds
    assert sum(len(full.dialogue(record).messages) for record in records) == 2 * (rounds + len(records))
    assert sum(len(least.dialogue(record).messages) for record in records) == 2 * len(records)
    assert any(full.dialogue(record).system for record in records)
    assert not any(least.dialogue(record).system for record in records)


def test_text_for_pretraining_is_refused_by_its_columns(shared: Path) -> None:
    (found,) = read_dataset_info(str(shared / "golden" / "inputs" / "edge" / "lf"), "c4")
    assert (found.handler, found.map_keys["prompt"]) == (ALPACA, "text")
    with pytest.raises(InputError, match="no column 'response'"):
        check_columns(handlers.get(found.handler)(found.map_keys), find_inputs([found.path]))


def test_the_entries_of_llama_factory_itself(shared: Path) -> None:
    """All local ones whose file is here are read; each other one is refused, for what it says."""
    folder = shared / "datasets" / "llama-factory"
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    here = {"identity", "alpaca_en_demo", "alpaca_zh_demo", "dpo_zh_demo"}
    here |= {f"glaive_toolcall_{language}_demo" for language in ("en", "zh")}
    for name, fields in info.items():
        if name in here:
            (found,) = read_dataset_info(str(folder), name)
            assert found.path == str(folder / fields["file_name"])
            continue
        remote = any(field.endswith("_hub_url") for field in fields)
        with pytest.raises(SettingsError, match="nothing is downloaded" if remote else "there is no"):
            read_dataset_info(str(folder), name)
