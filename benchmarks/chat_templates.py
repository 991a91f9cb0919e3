"""What rendering and proving cost beside encoding, and what transformers' own loop costs, in one run.

    python benchmarks/chat_templates.py --tokenizer FOLDER --data FILE [--limit 3000] [--prompt-type qwen]

The data are chat messages, one dialogue a line ({"messages": [...], "tools": [...]}), ShareGPT's
conversations, or Alpaca rows with history. The first table holds CPU time with the encoder in it. The
second one is without: an encoder that has seen all texts before gives them back, and its time is taken off,
so that what is left is the Python around it. A prompt type of the same format stands beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates import ChatRenderer, ChatTemplate, PromptTemplate, Template, prompt_types
from mtsft_preproc.templates.chat.messages import chat_messages
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.tokenization import Encoder, FlatIds, SpannedIds, load_tokenizer, open_encoder

ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.OBSERVATION}
SPEAKERS = {"human": Role.USER, "gpt": Role.ASSISTANT}
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--prompt-type", help="a prompt type of the same format")
    arguments = parser.parse_args()
    dialogues = read(Path(arguments.data), arguments.limit)
    flags = [[message.role.is_target for message in dialogue.messages] for dialogue in dialogues]
    resolved = load_tokenizer(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        encoder = open_encoder(resolved.save(Path(folder)))
    spec = resolved.spec

    def opened(encoder: Encoder, composes: bool = True) -> ChatTemplate:
        day = datetime.date(2026, 1, 1)
        renderer = ChatRenderer(dict(spec.chat_templates), dict(spec.special_tokens_map), day)
        template = ChatTemplate(renderer, encoder)
        template.composes = composes
        return template

    template, rendering = opened(encoder), opened(encoder, composes=False)
    texts: list[str] = []
    plain = ChatRenderer(
        dict(spec.chat_templates), dict(spec.special_tokens_map), datetime.date(2026, 1, 1)
    )

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
        ("ChatTemplate.encode, all rendered", timed(lambda: encoded(rendering, dialogues, flags))),
        ("ChatTemplate.encode, first time", timed(lambda: encoded(template, dialogues, flags))),
        ("ChatTemplate.encode, shapes known", timed(lambda: encoded(template, dialogues, flags))),
        ("transformers, apply_chat_template", timed(reference)),
    ]
    base = rows[1][1]
    turns = sum(len(dialogue.messages) for dialogue in dialogues) / len(dialogues)
    size = sum(map(len, texts)) / 1e6
    print(f"{len(dialogues)} dialogues of {turns:.1f} messages, {size:.1f} M characters\n")
    print("| what | seconds | ratio to encoding |\n| --- | ---: | ---: |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.2f} | {seconds / base:.2f} |")
    print("\n| without the encoder | ns a token |\n| --- | ---: |")
    around = Replaying(encoder)
    template = opened(around)
    for what in ("first time", "shapes known", "once more"):
        print(f"| ChatTemplate.encode, {what} | {beside(template, around, dialogues, flags):.0f} |")
    if arguments.prompt_type:
        prompts = PromptTemplate(prompt_types.get(arguments.prompt_type), around)
        for what in ("first time", "once more"):
            print(f"| {arguments.prompt_type}, {what} | {beside(prompts, around, dialogues, flags):.0f} |")


class Replaying(Encoder):
    """Gives back what it has encoded before, and takes the time that it is at work."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.spec)
        self._inner = inner
        self._known: dict[Any, Any] = {}
        self.seconds = 0.0

    def encode(self, texts: list[str]) -> FlatIds:
        """As :meth:`Encoder.encode`."""
        return self._replay(self._inner.encode, texts)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        """As :meth:`Encoder.encode_spans`."""
        return self._replay(self._inner.encode_spans, texts)

    def encode_marked(self, text: str) -> list[int]:
        """As :meth:`Encoder.encode_marked`."""
        return self._replay(self._inner.encode_marked, text)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        """As :meth:`Encoder.encode_marked_spans`."""
        return self._replay(self._inner.encode_marked_spans, text)

    def decode(self, ids: Sequence[int]) -> str:
        """As :meth:`Encoder.decode`."""
        return self._inner.decode(ids)

    def _replay(self, work: Callable[[Any], Any], given: Any) -> Any:
        start = time.process_time()
        key = (work.__name__, tuple(given) if isinstance(given, list) else given)
        if key not in self._known:
            self._known[key] = work(given)
        self.seconds += time.process_time() - start
        return self._known[key]


def encoded(template: Template, dialogues: list[Dialogue], flags: list[list[bool]]) -> int:
    """Encode all dialogues; return the number of tokens."""
    return sum(
        len(template.encode(dialogues[start : start + BATCH], flags[start : start + BATCH]).ids)
        for start in range(0, len(dialogues), BATCH)
    )


def beside(
    template: Template, encoder: Replaying, dialogues: list[Dialogue], flags: list[list[bool]]
) -> float:
    """Return the nanoseconds of CPU that a token costs without the encoder."""
    encoder.seconds, start = 0.0, time.process_time()
    tokens = encoded(template, dialogues, flags)
    return (time.process_time() - start - encoder.seconds) / tokens * 1e9


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def read(path: Path, limit: int) -> list[Dialogue]:
    """Return the first dialogues of a file."""
    text = path.read_text("utf-8")
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [dialogue(row) for row, _ in zip(rows, range(limit), strict=False)]


def dialogue(row: dict[str, Any]) -> Dialogue:
    if "conversations" in row:
        return Dialogue([Message(SPEAKERS[item["from"]], item["value"]) for item in row["conversations"]])
    if "messages" not in row:
        pairs = [
            *(row.get("history") or []),
            ("\n".join(filter(None, (row["instruction"], row.get("input")))), row["output"]),
        ]
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
