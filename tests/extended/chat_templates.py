"""All real chat templates on seeded dialogues: what becomes of them, and whether the ids are transformers'.

The tokenizer is made here: its tokens are bytes, and all control tokens that the templates spell. So each
template finds its own control tokens, and no token lies across the border of what is trained. Ends with
exit code 1 where ids differ from transformers', where a sample has a reply but nothing trained, or where
all of it is trained.

    python tests/extended/chat_templates.py [--dialogues 200] [--write docs/chat-template-outcomes.md]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "templates" / "chat"))

from chat_reference import (  # noqa: E402
    Model,
    control_tokens,
    conversation,
    samples,
    save_tokenizer,
    template_names,
    template_text,
)
from dialogues import flags, seeded  # noqa: E402

COMMAND = "python tests/extended/chat_templates.py --write docs/chat-template-outcomes.md"
HEAD = f"""# What becomes of dialogues in real chat templates

Made by `{COMMAND}`. Each template gets {{count}} seeded
dialogues of its own: a system text in half of them, one to six rounds, tools in three of ten, thoughts in a
quarter, some empty and blank text, some text that spells control tokens (`--special-tokens-in-text allow`).
The tokenizer's tokens are bytes, and all control tokens of the templates.

*rejected* counts dialogues by reason; `template-refused` is the template's own refusal: roles that don't
take turns, tools, a system text. *turns* are those of the assistant that are trained; *stop* says how
many of them end with a control token. *same*, *prompt*, *reply* and *border* are the parity of the
trained turns: training text is serving text, or what differs is the prompt in front, the reply in
hindsight, or the tokens at the border alone. *ids* are those that are equal to `apply_chat_template`'s.

| template | samples | rejected | turns | stop | same | prompt | reply | border | ids | remark |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


def outcome(name: str, model: Model, count: int) -> tuple[str, list[str]]:
    """Return a template's row, and what is wrong."""
    text, wrong = template_text(name), []
    dialogues = seeded(f"outcome/{name}", count)
    batch = model.template(text, special_tokens_in_text="allow").encode(dialogues, flags(dialogues))
    rejected = Counter(error.reason for error in batch.failed.values())
    equal, empty = 0, 0
    kept = samples(batch)
    for number, (ids, mask) in kept.items():
        messages, tools = conversation(dialogues[number])
        equal += ids == model.ids(text, messages, tools)
        if not any(mask):
            empty += 1
            if any(
                message.text.strip() for message in dialogues[number].messages if message.role.is_target
            ):
                wrong.append(f"{name}: dialogue {number}: nothing is trained")
        if all(mask):
            wrong.append(f"{name}: dialogue {number}: everything is trained")
    ends = batch.mask() & ~_next_is_same(batch)
    turns = int(ends.sum())
    # Where a dialogue's words spell control tokens, the last of them may be one of those.
    spelled = [number for number, found in enumerate(batch.notes) if "special-token-in-text" in found]
    lengths = np.diff([0, *batch.sample_ends])
    ends &= ~np.repeat(np.isin(batch.dialogues, spelled), lengths)
    stops = float(np.isin(batch.ids[ends], [*model.encoder.special_ids]).mean()) if ends.any() else None
    for number, dialogue in enumerate(dialogues):
        try:
            model.text(text, *conversation(dialogue))
        except Exception as error:
            refusal = batch.failed.get(number)
            if refusal is None or refusal.reason != "template-refused" or str(error) not in refusal.got:
                wrong.append(f"{name}: dialogue {number}: transformers refuses it: {error}")
    if equal != len(kept):
        wrong.append(f"{name}: {len(kept) - equal} samples have other ids than transformers'")
    rejected["nothing-trained"] += empty
    compared = sum(batch.parity.values())
    shares = [
        f"{100 * batch.parity[kind] / compared:.0f} %" if compared else ""
        for kind in ("same", "prompt", "reply", "border")
    ]
    notes = Counter(note for number in kept for note in batch.notes[number])
    cells = [
        name, len(kept) - empty, ", ".join(f"{why} {many}" for why, many in sorted((+rejected).items())),
        turns,
        "" if stops is None else f"{100 * stops:.0f} %", *shares, f"{equal}/{len(kept)}",
        remark(text, notes, stops),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |", wrong


def _next_is_same(batch: Any) -> Any:
    """Return whether the token behind each is trained, too, in the same message."""
    mask, owner = batch.mask(), batch.messages
    same = mask.copy()
    same[:-1] = mask[1:] & (owner[1:] == owner[:-1])
    same[-1:] = False
    return same


def remark(text: str, notes: Counter[str], stops: float | None) -> str:
    """Return what is worth knowing."""
    said = []
    if "generation %}" in text or "generation -%}" in text:
        said.append("marks")
    left_out = sorted(
        note.removeprefix("not-rendered-") for note in notes if note.startswith("not-rendered-")
    )
    names = {"reasoning_content": "thoughts"}
    if left_out:
        said.append("leaves out: " + ", ".join(names.get(name, name) for name in left_out))
    if stops == 0:
        said.append("no stop token")
    return "; ".join(said)


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=200)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    names, rows, wrong = template_names(), [], []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        model = Model(save_tokenizer(source, control_tokens(map(template_text, names))), Path(folder))
        for name in names:
            row, found = outcome(name, model, arguments.dialogues)
            rows.append(row)
            wrong += found
            print(row, flush=True)
    print(f"\n{len(names)} templates in {time.monotonic() - started:.0f} s")
    print(*wrong, sep="\n")
    if arguments.write:
        arguments.write.write_text(HEAD.format(count=arguments.dialogues) + "\n".join(rows) + "\n", "utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
