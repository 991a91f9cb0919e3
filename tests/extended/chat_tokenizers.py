"""Every real tokenizer with its own chat template on real dialogues: rejections, parity, ids, speed.

OpenAssistant (Chinese), SGD with tools and calls, MedicalGPT (real users' chats) and MOSS (thoughts,
commands and results). Ends with exit code 1 where ids differ from transformers',
or where nothing or everything of a sample is trained although the assistant speaks.

    python tests/extended/chat_tokenizers.py [--dialogues 300] [--write docs/chat-template-tokenizers.md]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "templates" / "chat"))

from chat_reference import DAY, SHARED, Model, conversation, samples  # noqa: E402
from dialogues import flags  # noqa: E402

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall  # noqa: E402
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate  # noqa: E402

COMMAND = "python tests/extended/chat_tokenizers.py --write docs/chat-template-tokenizers.md"
HEAD = f"""# Real tokenizers with their own chat templates on real dialogues

Made by `{COMMAND}`, from the first
{{count}} dialogues of each set: OpenAssistant (Chinese), SGD with tools, MedicalGPT, and MOSS with plugins
(its thoughts as thoughts, its commands as calls). No sample has nothing trained, none has everything
trained. *BOS* is the most of one sample; *stop* counts the trained turns that end with a special token;
*same* to *border* are the parity of the trained turns. *ids* are those equal to `apply_chat_template`'s, of
the samples that spell no control token.

| tokenizer | dialogues | samples | rejected | BOS | turns | stop | same | prompt | reply | border | ids |
| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def openassistant() -> Iterator[Dialogue]:
    """Yield records in Alpaca's form with a history."""
    path = SHARED / "datasets" / "llama-factory" / "oaast_sft_zh.json"
    for record in json.loads(path.read_text("utf-8")):
        asked = "\n".join(filter(None, [record["instruction"], record["input"]]))
        messages = []
        for question, answer in [*record["history"], (asked, record["output"])]:
            messages += [Message(Role.USER, question), Message(Role.ASSISTANT, answer)]
        yield Dialogue(messages)


def sgd() -> Iterator[Dialogue]:
    """Yield records in OpenAI's form."""
    roles = {"user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.OBSERVATION}
    for record in lines("sgd/sgd_train_openai_tools.jsonl"):
        messages = [
            Message(
                roles[message["role"]],
                message["content"],
                None,
                tuple(
                    ToolCall(
                        call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"]
                    )
                    for call in message.get("tool_calls") or ()
                ),
                message.get("name"),
                message.get("tool_call_id"),
            )
            for message in record["messages"]
        ]
        yield Dialogue(messages, "", record["tools"])


def medicalgpt() -> Iterator[Dialogue]:
    """Yield records in ShareGPT's form, but for those in which nobody answers."""
    roles = {"human": Role.USER, "gpt": Role.ASSISTANT}
    for record in lines("medicalgpt/sharegpt_zh_1K_format.jsonl"):
        messages = [Message(roles[turn["from"]], turn["value"]) for turn in record["conversations"]]
        while messages and messages[-1].role is Role.USER:
            messages.pop()
        if messages:
            yield Dialogue(messages)


def moss() -> Iterator[Dialogue]:
    """Yield records of MOSS: thoughts, a command with its result, and the answer."""
    for record in lines("moss/moss_sample_with_plugins.jsonl"):
        messages: list[Message] = []
        for turn in record["chat"].values():
            asked, thought, command, result, answer = (
                re.sub(r"^<\|[^|]*\|>:\s*|\s*<eo[a-z]>\s*$", "", turn[key])
                for key in ("Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS")
            )
            messages.append(Message(Role.USER, asked))
            thoughts = None if thought == "None" else thought
            found = re.match(r"(\w+)\((.*)\)$", command, re.DOTALL)
            if found:
                call = ToolCall(
                    found.group(1), {"input": found.group(2).strip('"')}, f"call{len(messages):05d}"
                )
                messages.append(Message(Role.ASSISTANT, None, thoughts, (call,)))
                messages.append(Message(Role.OBSERVATION, result, None, (), call.name, call.id))
                thoughts = None
            messages.append(Message(Role.ASSISTANT, answer, thoughts))
        yield Dialogue(messages, record["meta_instruction"])


def lines(path: str) -> Iterator[Any]:
    """Yield the records of a JSON lines file."""
    with (SHARED / "datasets" / path).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


SETS: dict[str, Callable[[], Iterator[Dialogue]]] = {
    "OpenAssistant": openassistant,
    "SGD": sgd,
    "MedicalGPT": medicalgpt,
    "MOSS": moss,
}


def row(model: Model, own: dict[str, str], name: str, told: list[Dialogue]) -> tuple[list[Any], list[str]]:
    """Return the cells of a table's row, and what is wrong."""
    template = ChatTemplate(ChatRenderer(own, model.variables, DAY), model.encoder)
    template.composes = True
    started = time.perf_counter()
    batch = template.encode(told, flags(told))
    seconds = time.perf_counter() - started
    kept, wrong = samples(batch), []
    texts = [model.text(None, *conversation(told[number])) for number in kept]
    started = time.perf_counter()
    model.encoder.encode_spans(texts)
    encoding = time.perf_counter() - started
    equal = compared = bos = 0
    rejected = Counter(error.reason for error in batch.failed.values())
    for number, (ids, mask) in kept.items():
        bos = max(bos, ids.count(model.encoder.spec.bos_id))
        if "special-token-in-text" not in batch.notes[number]:
            compared += 1
            equal += ids == model.ids(None, *conversation(told[number]))
        if all(mask):
            wrong.append(f"{name}: dialogue {number}: everything is trained")
        if not any(mask):
            rejected["nothing-trained"] += 1
            if any(item.text.strip() for item in told[number].messages if item.role is Role.ASSISTANT):
                wrong.append(f"{name}: dialogue {number}: nothing is trained")
    if equal != compared:
        wrong.append(f"{name}: {compared - equal} samples have other ids than transformers'")
    mask = batch.mask()
    last = mask.copy()
    last[:-1] &= ~mask[1:] | (batch.messages[1:] != batch.messages[:-1])
    stops = int(np.isin(batch.ids[last], [*model.encoder.special_ids]).sum())
    total = sum(batch.parity.values())
    shares = [
        f"{100 * batch.parity[kind] / total:.1f} %" if total else ""
        for kind in ("same", "prompt", "reply", "border")
    ]
    cells = [
        name, len(kept), ", ".join(f"{why} {many}" for why, many in sorted(rejected.items())), bos,
        int(last.sum()), stops, *shares, f"{equal}/{compared}",
    ]  # fmt: skip
    if kept:
        print(
            f"  {len(told) / seconds:.0f} dialogues/s; {len(kept) / encoding:.0f}/s encoded alone",
            file=sys.stderr,
        )
    return cells, wrong


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=300)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    rows, wrong, without = [], [], []
    told = {name: list(islice(read(), arguments.dialogues)) for name, read in SETS.items()}
    for folder in sorted((SHARED / "tokenizers").iterdir()):
        if folder.name == "chinese-alpaca-2":
            without.append(folder.name)  # and transformers can't open it
            continue
        with tempfile.TemporaryDirectory() as scratch:
            model = Model(folder, Path(scratch))
            own = dict(model.encoder.spec.chat_templates)
            if not own:
                without.append(folder.name)
                continue
            for name, dialogues in told.items():
                cells, found = row(model, own, name, dialogues)
                rows.append("| " + " | ".join(map(str, [folder.name, *cells])) + " |")
                wrong += [f"{folder.name}, {problem}" for problem in found]
                print(rows[-1], flush=True)
    print(*wrong, sep="\n")
    if arguments.write:
        end = (
            f"\nWithout a chat template of their own: {', '.join(without)}.\n"
            "Llama 2's template writes BOS in front of each round, as the model was trained;\n"
            "minimind's BOS is `<|im_start|>`, which opens each message.\n"
        )
        text = HEAD.format(count=arguments.dialogues) + "\n".join(rows) + "\n" + end
        arguments.write.write_text(text, "utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
