"""What is in the real data sets: how each file is read, for ``datasets.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

#: Records of a large file that are read where all of them would only take longer.
FIRST = 1000
LIMIT = 1024
#: The settings of each chat format.
FORMATS: dict[str, dict[str, Any]] = {
    "qwen": {"tokenizer": "qwen2.5", "prompt_type": "qwen"},
    "qwen3": {"tokenizer": "qwen3", "chat_template": "tokenizer"},
    "moss": {"tokenizer": "internlm2"},
    "chatglm": {"tokenizer": "chatglm3"},
    "alpaca text": {"tokenizer": "qwen2.5"},
}
CUTS: dict[str, dict[str, Any]] = {
    "split": {"train_on": "split"},
    "window": {"overlong": "window", "seq_length": LIMIT},
    "recent": {"overlong": "recent", "seq_length": LIMIT},
}


@dataclass(frozen=True)
class File:
    """How a file is read.

    Attributes:
        handler: Alias of its own handler; ``""``: there is none.
        map_keys: For it.
        formats: Chat formats, of :data:`FORMATS`.
        replies: How many replies a record holds; None where the rules for several rounds are not tried.
        auto: Alias of the handler that auto takes, where it is another one.
        refused: What auto says where there is no handler.
        large: Whether most runs read the first records only.
    """

    handler: str
    map_keys: dict[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ("qwen",)
    replies: Callable[[Any], int] | None = None
    auto: str = ""
    refused: str = ""
    large: bool = False


def targets(column: str, speaker: str, *names: str) -> Callable[[Any], int]:
    """Return what counts the messages of those with ``names``."""
    return lambda record: sum(message[speaker] in names for message in record[column])


def moss_replies(record: Any) -> int:
    """Count the messages that MOSS writes: of each turn, thoughts with a command, and the answer."""
    turns = record["chat"].values()
    return sum(("Inner Thoughts" in turn or "Commands" in turn) + ("MOSS" in turn) for turn in turns)


ALPACA = File("alpaca")
ROWS = File("alpaca", {"history": "history"}, replies=lambda record: 1 + len(record["history"]))
GPTEACHER = File("alpaca", {"response": "response"})
SHAREGPT = File("sharegpt", replies=targets("conversations", "from", "gpt", "function_call"))
GLAIVE = replace(SHAREGPT, map_keys={"tools": "tools"}, formats=("qwen", "qwen3"))
OPENAI = File("openai", {}, ("qwen", "qwen3"), targets("messages", "role", "assistant"))
MOSS = File("moss", {}, ("moss",), moss_replies)
KDCONV = File(
    "sharegpt",
    {"messages": "messages", "tags": {"role_tag": "", "content_tag": "message"}},
    replies=lambda record: len(record["messages"]) // 2,
)
SGD_TAGS = {
    "role_tag": "speaker",
    "content_tag": "utterance",
    "user_tag": "USER",
    "assistant_tag": "SYSTEM",
}

FILES: dict[str, File] = {
    "alpaca/alpaca_data_en_52k.json": replace(ALPACA, large=True),
    "alpaca/alpaca_data_zh_9k.json": ALPACA,
    "belle/belle_10M_readme_examples.json": File("belle", formats=("alpaca text",)),
    "belle/belle_train_3.5M_chat_readme_examples.json": File(
        "belle-chat", replies=targets("conversations", "from", "assistant")
    ),
    "chatglm/ptuning_chat_example.jsonl": File("chatglm", formats=("chatglm",)),
    "disc-finllm/computing_part.json": ROWS,
    "disc-finllm/consulting_part.json": ROWS,
    "disc-finllm/retrieval_part.json": ROWS,
    "disc-finllm/task_part.json": ROWS,
    "fastchat/dummy_conversation.json": SHAREGPT,
    "gpteacher/roleplay-simple-deduped-roleplay-instruct.json": GPTEACHER,
    "gpteacher/toolformer-dedupe-only-dataset.json": GPTEACHER,
    "kdconv/film_dev.json": KDCONV,
    "kdconv/film_test.json": KDCONV,
    "kdconv/kdconv_sharegpt.json": SHAREGPT,
    "kdconv/music_dev.json": KDCONV,
    "kdconv/music_test.json": KDCONV,
    "llama-factory/alpaca_en_demo.json": ALPACA,
    "llama-factory/alpaca_zh_demo.json": ALPACA,
    "llama-factory/dataset_info.json": File("", refused="neither a list of records nor one record a line"),
    "llama-factory/dpo_zh_demo.json": File("sharegpt-pairwise"),
    "llama-factory/glaive_toolcall_en_demo.json": GLAIVE,
    "llama-factory/glaive_toolcall_zh_demo.json": GLAIVE,
    "llama-factory/identity.json": ALPACA,
    "llama-factory/oaast_sft_zh.json": ROWS,
    # Thoughts, of which the plain run leaves out those of earlier rounds: other runs of tokens than split.
    "llama-factory/reason_tool_use_demo_50.jsonl": replace(OPENAI, replies=None),
    "llama-factory/v1_sft_demo.jsonl": OPENAI,
    "medicalgpt/sharegpt_zh_1K_format.jsonl": SHAREGPT,
    "moss/moss_sample_with_plugins.jsonl": MOSS,
    "moss/moss_sample_without_plugins.jsonl": MOSS,
    "mtbench101/mtbench101.jsonl": File(
        "firefly", {"conversation": "history"}, replies=lambda record: len(record["history"])
    ),
    "sgd/raw/dialogues_001.json": File(
        "sharegpt", {"messages": "turns", "tags": SGD_TAGS}, replies=targets("turns", "speaker", "SYSTEM")
    ),
    "sgd/raw/schema.json": File("", refused="no data format fits"),
    "sgd/sgd_train_alpaca_history.json": replace(ROWS, large=True),
    "sgd/sgd_train_alpaca_history.parquet": replace(ROWS, large=True),
    "sgd/sgd_train_openai_tools.jsonl": replace(OPENAI, large=True),
}


def records(path: Path) -> list[Any]:
    """Return the records of a file, read by other means than the program's."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    text = path.read_text("utf-8")
    return list(json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines()))
