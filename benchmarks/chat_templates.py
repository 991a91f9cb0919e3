"""What rendering and proving cost beside encoding, and what transformers' own loop costs, in one run.

    python benchmarks/chat_templates.py --tokenizer FOLDER --data FILE.jsonl [--limit 3000]

The data are chat messages, one dialogue a line ({"messages": [...], "tools": [...]}), or Alpaca rows with
history.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.chat.messages import chat_messages
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.tokenization import load_tokenizer, open_encoder

ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.OBSERVATION}
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=3000)
    arguments = parser.parse_args()
    dialogues = read(Path(arguments.data), arguments.limit)
    flags = [[message.role.is_target for message in dialogue.messages] for dialogue in dialogues]
    resolved = load_tokenizer(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        encoder = open_encoder(resolved.save(Path(folder)))
    spec = resolved.spec
    template = ChatTemplate(
        ChatRenderer(dict(spec.chat_templates), dict(spec.special_tokens_map), datetime.date(2026, 1, 1)),
        encoder,
    )
    texts: list[str] = []
    plain = ChatRenderer(
        dict(spec.chat_templates), dict(spec.special_tokens_map), datetime.date(2026, 1, 1)
    )

    def ours() -> None:
        for start in range(0, len(dialogues), BATCH):
            template.encode(dialogues[start : start + BATCH], flags[start : start + BATCH])

    def render() -> None:
        for dialogue in dialogues:
            texts.append(plain.text(Conversation.of(chat_messages(dialogue), dialogue.tools)))

    def encode() -> None:
        for start in range(0, len(texts), BATCH):
            encoder.encode(texts[start : start + BATCH])

    def reference() -> None:
        for dialogue in dialogues:
            tokenizer.apply_chat_template(chat_messages(dialogue), tools=dialogue.tools or None)

    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(arguments.tokenizer)
    rows = [
        ("one plain rendering per dialogue", timed(render)),
        ("encoding of these texts alone", timed(encode)),
        ("ChatTemplate.encode, first time", timed(ours)),
        ("ChatTemplate.encode, shapes known", timed(ours)),
        ("transformers, apply_chat_template", timed(reference)),
    ]
    base = rows[1][1]
    turns = sum(len(dialogue.messages) for dialogue in dialogues) / len(dialogues)
    size = sum(map(len, texts)) / 1e6
    print(f"{len(dialogues)} dialogues of {turns:.1f} messages, {size:.1f} M characters\n")
    print("| what | seconds | ratio to encoding |\n| --- | ---: | ---: |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.2f} | {seconds / base:.2f} |")


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read(path: Path, limit: int) -> list[Dialogue]:
    """Return the first dialogues of a file."""
    text = path.read_text("utf-8")
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [dialogue(row) for row, _ in zip(rows, range(limit), strict=False)]


def dialogue(row: dict[str, Any]) -> Dialogue:
    if "messages" not in row:
        pairs = [*(row.get("history") or []), (row["instruction"], row["output"])]
        return Dialogue(
            [
                Message(role, text)
                for pair in pairs
                for role, text in zip(ROLES.values(), pair, strict=False)
            ]
        )
    system = "".join(item["content"] for item in row["messages"] if item["role"] == "system")
    messages = [message(item) for item in row["messages"] if item["role"] != "system"]
    return Dialogue(messages, system, row.get("tools") or [])


def message(item: dict[str, Any]) -> Message:
    calls = []
    for call in item.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append(ToolCall(call["function"]["name"], parsed, call.get("id")))
    return Message(
        ROLES[item["role"]],
        item.get("content"),
        None,
        tuple(calls),
        item.get("name"),
        item.get("tool_call_id"),
    )


if __name__ == "__main__":
    main()
