"""The scripts in ``examples/``: each runs as it stands, and trains what its data say."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.inspection import show_item

EXAMPLES = Path(__file__).parents[1] / "examples"
#: It sets up a virtual environment, which takes a network; its command is that of the Gemma script.
LEFT_OUT = {"quickstart"}
#: Several commands, whose items are packs: with tests of their own below.
ARRANGED = ["mix_split_repack", "qwen2.5_packed"]
ALL = sorted(path.stem for path in EXAMPLES.glob("*.sh") if path.stem not in LEFT_OUT)
SCRIPTS = [script for script in ALL if script not in ARRANGED]

EGGS = [
    "For a large egg straight from the fridge, lower it gently into boiling water and cook it for "
    "about six minutes. Move it to a bowl of cold water right away so the yolk stops cooking. You "
    "will get a set white and a liquid yolk.",
    "Give it seven to seven and a half minutes. The edge of the yolk will be set while the middle "
    "stays soft and sticky. Cool it in ice water for at least two minutes, which also makes it easier"
    " to peel.",
    "Yes. At that altitude water boils at roughly 92 °C instead of 100 °C, so eggs cook more slowly. "
    "Add about one to one and a half minutes to each of the times above, then adjust after your first"
    " egg. A lid on the pan keeps the boil steady, but it will not raise the temperature.",
]
RENEW = "Yes, twice, as long as nobody else has reserved the book."
BIN_DAY = "The calendar is right: it is Thursday. Please put the bin out by seven in the morning."
CALCULATED = (
    "<|Inner Thoughts|>: A product of two numbers; I calculate it.<eot>\n"
    '<|Commands|>: Calculate("48*17")<eoc>\n'
    "<|Results|>:<eor>\n"
    "<|MOSS|>: 48 times 17 is 816.<eom>\n"
    "<|Inner Thoughts|>: None<eot>\n<|Commands|>: None<eoc>\n<|Results|>:<eor>\n"
    "<|MOSS|>: You're welcome!<eom>\n"
)
HIKE = (
    "<think>\nThe weather decides, so I look it up.\n</think>\n\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Kandersteg", "day": "2025-05-01"}}\n'
    "</tool_call><|im_end|>\n"
    "<think>\nClear and mild is fine for hiking.\n</think>\n\n"
    "Yes: clear sky and up to 17 degrees.<|im_end|>\n"
)


def ended(stop: str, *replies: str) -> str:
    """Return replies, each closed by its stop token."""
    return "".join(reply + stop for reply in replies)


#: What is trained, written by hand from the data: by script, by dataset, by number of the item.
TRAINED: dict[str, dict[str, dict[int, str]]] = {
    "alpaca_history_gemma2": {"labels": {0: ended("<eos>", *EGGS)}},
    "auto_detection": {
        "labels": {
            0: ended(
                "<|im_end|>",
                'Both "cacti" and "cactuses" are right.',
                "Whichever you like, but stay with it.",
            ),
            2: ended(
                "<|im_end|>", "戴好头盔，检查刹车，夜里开灯。", "骑慢一点，提前刹车，避开路面上的白线。"
            ),
            4: ended("<|im_end|>", "Yes, roasted sunflower seeds do well.", "About a week in the fridge."),
        }
    },
    "belle_rounds": {"labels": {0: "土表干了再浇，夏天大约三四天一次。\n<eos>", 1: "It is French.\n<eos>"}},
    "chatglm_history": {
        "labels": {
            0: "水要多，开了再下锅，用勺背轻轻推动。<eos>",
            1: "加一小勺盐，皮会更有韧性。<eos>",
            2: "水开后煮八分钟，中间点两次凉水。<eos>",
        }
    },
    "deepseek4_messages_thinking": {
        "labels": {
            0: "35 plus 20 is 55, still less than an hour.</think>Then it takes 1 hour and 55 minutes."
            "<｜end▁of▁sentence｜>",
            1: "From 9:40 to 10:40 is one hour, and to 11:15 it is 35 minutes more.</think>"
            "The ride takes 1 hour and 35 minutes.<｜end▁of▁sentence｜>",
        }
    },
    "glm4_sharegpt_tools": {
        "labels": {
            0: ended(
                "<eos>",
                'get_weather\n{"town": "Bergen", "day": "today"}',
                "\nYes, it will rain, at 11 degrees.",
                "\nYou are welcome. Keep dry!",
            ),
            2: "\n早上好 (zǎoshang hǎo).<eos>",
        }
    },
    "llama2_messages": {"labels": {0: f"{RENEW}<eos>", 2: f"{BIN_DAY}<eos>"}},
    "llama3_messages": {
        "labels": {
            0: ended("<|eot_id|>", "Up to ten books, for four weeks.", RENEW),
            2: f"{BIN_DAY}<|eot_id|>",  # the reply before it has the weight 0
        }
    },
    "llama3_sharegpt_pairs": {
        "chosen_labels": {
            0: "That is too often: let the soil dry before you water it again.<|eot_id|>",
            1: "室外有散射光的地方最好，室内就放在窗边。<|eot_id|>",
        },
        "rejected_labels": {0: "Water it more.<|eot_id|>", 1: "都行。<|eot_id|>"},
    },
    "llama_factory_dataset_info": {
        # Ten rows, two long dialogues, three of the library.
        "labels": {0: ended("<|im_end|>", *EGGS), 14: f"{BIN_DAY}<|im_end|>"}
    },
    "mistral_own_handler": {
        "labels": {0: "At nine, from Tuesday to Sunday.<eos>Then it opens an hour later, at ten.<eos>"}
    },
    "moss_plugins": {"labels": {0: CALCULATED}},
    "pretrain_text": {
        "text": {
            0: "A tide table lists when the water is high and when it is low. "
            "Sailors read it before they leave the harbour.<eos>",
            1: "茶叶按发酵程度分为绿茶、白茶、黄茶、青茶、红茶和黑茶。绿茶不发酵，红茶全发酵。<eos>",
        }
    },
    "qwen2.5_alpaca_history": {"labels": {0: ended("<|im_end|>", *EGGS)}},
    "qwen2.5_alpaca_pairs": {
        "chosen_labels": {0: "It lets you borrow books and shows who has them.<|im_end|>"},
        "rejected_labels": {0: "A card is a piece of plastic.<|im_end|>", 1: "不知道。<|im_end|>"},
    },
    "qwen2.5_sharegpt_tools": {
        "labels": {
            0: ended(
                "<|im_end|>",
                'Action: get_weather\nAction Input: {"town": "Bergen", "day": "today"}',
                "Yes, it will rain, at 11 degrees.",
                "You are welcome. Keep dry!",
            )
        }
    },
    "qwen3_long_dialogues_window": {
        "labels": {
            0: ended(
                "<|im_end|>\n",
                "Good: six hours of sun suit most herbs. How deep are the boxes?",
                "That is enough for basil, thyme, chives and lettuce, but not for carrots.",
                "Basil, chives and lettuce like it rich and moist. "
                "Thyme wants it dry and sandy, so give it a box of its own.",
            )
        }
    },
    "qwen3_messages_tools": {"labels": {0: HIKE}},
}
#: Datasets that are written, by the one that holds what is trained.
FIELDS = {
    "labels": ["input_ids", "labels", "attention_mask"],
    "chosen_labels": ["chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"],
    "text": ["text"],
}
FINE_TUNING = [script for script in SCRIPTS if "labels" in TRAINED.get(script, {})]


@dataclass(frozen=True)
class Done:
    """A script that was run."""

    process: subprocess.CompletedProcess[str]
    prefix: Path
    left_behind: list[str]

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(Path(f"{self.prefix}.manifest.json").read_text("utf-8"))
        return manifest

    def items(self, field: str) -> list[list[int]]:
        """Return the items of a dataset, those of labels without what is ignored."""
        named = f"{self.prefix}_packed_{field}_document"
        # Documents are no packs of samples, and Megatron's trainers look for them without that word.
        dataset = IndexedDataset(f"{self.prefix}_text_document" if field == "text" else named)
        ignored = self.manifest["ignore_index"]
        return [[token for token in item.tolist() if token != ignored] for item in dataset]


def run(script: str, folder: Path) -> Done:
    """Run a script as it stands, in an empty folder; only where it writes to is told."""
    here, prefix = folder / script / "here", folder / script / "out" / "data"
    here.mkdir(parents=True)
    process = subprocess.run(
        ["bash", str(EXAMPLES / f"{script}.sh")],
        env={
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "OUTPUT_PREFIX": str(prefix),
            "WORKERS": "1",
        },
        cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Done(process, prefix, [path.name for path in here.iterdir()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Done]]]:
    """All scripts, two at a time."""
    folder = tmp_path_factory.mktemp("examples")
    with ThreadPoolExecutor(2) as pool:
        yield {script: pool.submit(run, script, folder) for script in ALL}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EXAMPLES / "tokenizer" / "tokenizer.json"))


def test_every_script_has_its_trained_text_written_here() -> None:
    assert sorted(TRAINED) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_keeps_all_records(script: str, runs: dict[str, Future[Done]]) -> None:
    done = runs[script].result()
    assert done.process.returncode == 0, done.process.stderr
    assert done.left_behind == []
    records = done.manifest["records"]
    assert records["read"] == records["kept"] > 0
    assert records["rejected"] == 0
    assert records["lost_samples_by_reason"] == {}
    assert Path(f"{done.prefix}.rejected.jsonl").read_text("utf-8") == ""
    # A note would say that an example has something odd about it; that windows are cut is what one is for.
    assert set(records["notes"]) <= {"cut-window"}
    assert done.manifest["tokenizer"]["new_tokens"] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_trains_what_its_data_say(
    script: str, runs: dict[str, Future[Done]], tokenizer: Tokenizer
) -> None:
    done = runs[script].result()
    expected = TRAINED[script]
    assert list(done.manifest["fields"]) == FIELDS[next(iter(expected))]
    for field, texts in expected.items():
        items = done.items(field)
        found = {number: tokenizer.decode(items[number], skip_special_tokens=False) for number in texts}
        assert found == texts
        assert all(items)


@pytest.mark.parametrize("script", FINE_TUNING)
def test_each_sample_has_trained_tokens_and_can_be_shown(
    script: str, runs: dict[str, Future[Done]]
) -> None:
    done = runs[script].result()
    trained = [len(item) for item in done.items("labels")]
    assert pq.read_table(f"{done.prefix}.sources.parquet")["trained"].to_pylist() == trained
    assert min(trained) > 0
    shown = io.StringIO()
    show_item(str(done.prefix), -1, Console(file=shown, width=10_000))
    length = len(done.items("input_ids")[-1])
    last = len(trained) - 1
    heading = f"item {last} of {last + 1}: {length} tokens, {trained[-1]} trained"
    assert shown.getvalue().startswith(heading)


def test_the_windows_of_long_dialogues_train_every_reply_once(
    runs: dict[str, Future[Done]], tokenizer: Tokenizer
) -> None:
    done = runs["qwen3_long_dialogues_window"].result()
    items = done.items("labels")
    lines = (EXAMPLES / "data" / "long_dialogues.jsonl").read_text("utf-8").splitlines()
    assert len(items) > len(lines)
    assert max(map(len, done.items("input_ids"))) <= 240
    replies = [
        message["value"]
        for line in lines
        for message in json.loads(line)["conversations"]
        if message["from"] == "gpt"
    ]
    found = "".join(tokenizer.decode(item, skip_special_tokens=False) for item in items)
    assert found == ended("<|im_end|>\n", *replies)


def packed_texts(prefix: Path, tokenizer: Tokenizer) -> list[str]:
    """Return what is trained in each sample of a packed dataset, in the order of its sidecar."""
    labels, numbers = (
        IndexedDataset(f"{prefix}_packed_{field}_document") for field in ("labels", "attention_mask")
    )
    texts = []
    for row in pq.read_table(f"{prefix}.sources.parquet").to_pylist():
        span = slice(row["offset"], row["offset"] + row["length"])
        item, number = labels[row["item"]], numbers[row["item"]]
        assert set(number[span].tolist()) == {number[row["offset"]]} != {0}
        assert (number == number[row["offset"]]).sum() == row["length"]
        trained = [token for token in item[span].tolist() if token != -100]
        assert len(trained) == row["trained"] > 0
        texts.append(tokenizer.decode(trained, skip_special_tokens=False))
    return texts


def replies(path: str) -> list[str]:
    """Return what the assistant says in each Alpaca row."""
    rows = json.loads((EXAMPLES / "data" / path).read_text("utf-8"))
    return [ended("<|im_end|>", *(reply for _, reply in row["history"]), row["output"]) for row in rows]


@pytest.mark.parametrize("length", [1024, 2048])
def test_packs_train_what_the_data_say(
    length: int, runs: dict[str, Future[Done]], tokenizer: Tokenizer
) -> None:
    done = runs["qwen2.5_packed"].result()
    assert done.process.returncode == 0, done.process.stderr
    assert done.left_behind == []
    prefix = done.prefix if length == 1024 else Path(f"{done.prefix}_{length}")
    assert packed_texts(prefix, tokenizer) == replies("alpaca_history.json")
    manifest = json.loads(Path(f"{prefix}.manifest.json").read_text("utf-8"))
    assert manifest["records"]["kept"] == 60
    assert manifest["packing"]["fill"] > 0.9
    items = IndexedDataset(f"{prefix}_packed_input_ids_document")
    assert items.lengths.tolist() == [length] * manifest["items"]
    offsets = pq.read_table(f"{prefix}.sources.parquet")["offset"].to_pylist()
    assert [offset for offset in offsets if offset % 8] == []


def test_a_mix_is_parted_packed_and_joined(runs: dict[str, Future[Done]], tokenizer: Tokenizer) -> None:
    done = runs["mix_split_repack"].result()
    assert done.process.returncode == 0, done.process.stderr
    assert done.left_behind == []
    mixed = json.loads(Path(f"{done.prefix}_mixed.manifest.json").read_text("utf-8"))
    assert mixed["records"]["rejected_by_reason"] == {"duplicate": 1}
    rejected = Path(f"{done.prefix}_mixed.rejected.jsonl").read_text("utf-8")
    assert json.loads(rejected)["file"].endswith("data/messages_more.jsonl")
    rows = {
        side: pq.read_table(f"{done.prefix}_mixed_{side}.sources.parquet").to_pylist()
        for side in ("train", "valid")
    }
    records = {side: {(row["file"], row["row"]) for row in own} for side, own in rows.items()}
    assert records["valid"]
    assert len(records["train"]) + len(records["valid"]) == len(records["train"] | records["valid"]) == 65
    chats = [row for row in rows["train"] if row["source_name"] == "chats"]
    assert len(chats) / len(rows["train"]) == pytest.approx(0.2, abs=0.02)
    # What is trained in the end: the training side and the earlier dataset.
    found = packed_texts(done.prefix, tokenizer)
    assert len(found) == len(rows["train"]) + 2
    alpaca = [text for text in found if text in replies("alpaca_history.json")]
    assert len(set(alpaca)) == len(alpaca) == len(rows["train"]) - len(chats)
    own = [row["row"] for row in rows["valid"] if row["source_name"] == "alpaca"]
    held_out = {replies("alpaca_history.json")[number] for number in own}
    assert held_out
    assert held_out.isdisjoint(found)


@pytest.mark.parametrize("script", ALL)
def test_the_variables_of_a_script_can_be_set_from_outside(script: str) -> None:
    path = EXAMPLES / f"{script}.sh"
    text = path.read_text("utf-8")
    assert os.access(path, os.X_OK)
    assigned = re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)
    assert assigned[:5] == ["HERE", "INPUT", "TOKENIZER", "OUTPUT_PREFIX", "WORKERS"]
    for name in assigned[1:]:
        assert f'\n{name}="${{{name}:-' in text
        assert f'"${{{name}}}"' in text.partition("preprocess_data.py")[2], f"{name} is not used"


def test_the_readme_lists_every_file() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    files = [path for path in EXAMPLES.iterdir() if path.is_file() and path.name != "README.md"]
    files += (EXAMPLES / "data").iterdir()
    assert [path.name for path in files if path.name not in readme] == []
