"""What is trained, against what the templates' own marks say and against two renderings of transformers."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from chat_reference import (
    SHARED,
    Model,
    conversation,
    each_template,
    fixed_day,
    regions,
    samples,
    template_names,
    template_text,
    turns,
)
from dialogues import flags, seeded
from transformers.utils import chat_template_utils

from mtsft_preproc.dialogue import Dialogue, Message, Role

TWO_TURNS = Dialogue(
    [
        Message(Role.USER, "UU1"),
        Message(Role.ASSISTANT, "AA1"),
        Message(Role.USER, "UU2"),
        Message(Role.ASSISTANT, "AA2"),
    ]
)
#: What is trained of the replies AA1 and AA2, for each template that marks what the model generates.
TRAINED = {
    "axolotl/llava": ("AA1", "AA2"),
    "axolotl/phi_4": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/cohere2_training": (
        "AA1<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "AA2<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    "trl/cohere_training": ("AA1<|END_OF_TURN_TOKEN|>", "AA2<|END_OF_TURN_TOKEN|>"),
    "trl/deepseekv3_training": ("AA1<｜end▁of▁sentence｜>", "AA2<｜end▁of▁sentence｜>"),
    "trl/diffusion_gemma_training": ("AA1<turn|>", "AA2<turn|>"),
    "trl/gemma3_training": ("AA1<end_of_turn>", "AA2<end_of_turn>"),
    "trl/gemma_training": ("AA1<end_of_turn>", "AA2<end_of_turn>"),
    "trl/glm4moe_training": ("\n<think></think>\nAA1<|user|>", "\n<think></think>\nAA2<|user|>"),
    "trl/gptoss_training": (
        "<|channel|>final<|message|>AA1<|end|>", "<|channel|>final<|message|>AA2<|return|>",
    ),
    "trl/idefics3_training": None,  # writes the text of lists of parts alone
    "trl/lfm2_2_5": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/lfm2_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/llama3_training": ("AA1<|eot_id|>", "AA2<|eot_id|>"),
    "trl/llava_next_training": None,  # fails on text
    "trl/nemotron_3_nano_training": ("</think>AA1<|im_end|>", "</think>AA2<|im_end|>"),
    "trl/nemotron_3_super_training": ("</think>AA1<|im_end|>", "</think>AA2<|im_end|>"),
    "trl/nemotron_3_ultra_training": ("</think>AA1<|im_end|>", "</think>AA2<|im_end|>"),
    "trl/phi3_5_training": ("AA1<|end|>", "AA2<|end|>"),
    "trl/phi3_training": ("AA1<|end|>", "AA2<|end|>"),
    "trl/qwen2_5_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/qwen2_5_vl_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/qwen3_5_nothink_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/qwen3_5_think_training": ("\n</think>\n\nAA1<|im_end|>", "\n</think>\n\nAA2<|im_end|>"),
    "trl/qwen3_6_training": ("\n</think>\n\nAA1<|im_end|>", "\n</think>\n\nAA2<|im_end|>"),
    "trl/qwen3_instruct_2507_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
    "trl/qwen3_training": ("<think>\n\n</think>\n\nAA1<|im_end|>", "<think>\n\n</think>\n\nAA2<|im_end|>"),
    "trl/qwen3_vl_training": ("AA1<|im_end|>", "AA2<|im_end|>"),
}  # fmt: skip


def index_marks() -> dict[str, str]:
    """Return the column of ../shared/templates/INDEX.tsv with the text under transformers' mask."""
    path = SHARED / "templates" / "INDEX.tsv"
    if not path.exists():
        return {}
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    return {row[0].removesuffix(".jinja"): row[10] for row in rows if len(row) > 10 and row[10]}


def test_every_template_with_marks_is_known(shared: Path) -> None:
    assert set(index_marks()) == set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_the_trained_text_is_the_replies(shared: Path, letters: Model, name: str) -> None:
    """And it stands under transformers' mask, but for ends of tokens and what the model is given."""
    text = template_text(name)
    expected = TRAINED[name]
    batch = letters.template(text).encode([TWO_TURNS], flags([TWO_TURNS]))
    if expected is None:
        assert batch.failed[0].reason in ("not-rendered", "template-refused")
        return
    assert batch.failed == {}
    assert tuple(letters.decode(ids) for ids in turns(batch)) == expected
    column = index_marks()[name]
    marked = ast.literal_eval(column.partition(":")[2])
    prompt = letters.text(text, conversation(TWO_TURNS)[0][:1], prompt=True)
    # The column is cut after seventy characters; the mask was taken with Llama 3.1's tokenizer, whose
    # tokens stick out by a bracket, or by the header of a LLaVA turn.
    for reply in expected:
        before, found, marked = marked.partition(reply)
        if not found:
            cuts = range(len(before) + 1)
            assert any(is_given(before[:cut], prompt) and reply.startswith(before[cut:]) for cut in cuts)
            break
        assert is_given(before, prompt)
    else:
        assert marked.strip(" \n<>|") in ("", "eot_id", "USER")


def is_given(text: str, prompt: str) -> bool:
    """Return whether text stands in the generation prompt, but for a bracket or white space around."""
    return text.strip(" \n<>") in prompt


def control(model: Model) -> re.Pattern[str]:
    """Return what finds control tokens."""
    longest = sorted((token.text for token in model.encoder.spec.added), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)))


def common(one: str, other: str) -> str:
    """Return what two texts start with."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[
        : next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
    ]


def trained_text(model: Model, ids: list[int], mask: list[bool]) -> list[tuple[int, int]]:
    """Return where the trained stretches start and end, in characters."""
    raw, pairs = regions(model, ids, mask)
    return [(len(raw[:start].decode()), len(raw[:end].decode())) for start, end in pairs]


@each_template()
def test_each_turn_is_what_a_serving_engine_would_have_generated(letters: Model, name: str) -> None:
    """Where history and prompt are prefixes: by transformers alone, what stands behind the prompt."""
    text = template_text(name)
    marked = "generation %}" in text or "generation -%}" in text
    told = seeded(f"{name}/mask", 3, 0.0)
    batch = letters.template(text, special_tokens_in_text="allow").encode(told, flags(told))
    tokens = control(letters)
    closing = re.compile(rf"(?:(?:{tokens.pattern})\s*)+$")
    for number, (ids, mask) in samples(batch).items():
        messages, tools = conversation(told[number])
        whole = letters.text(text, messages, tools)
        trained = dict(trained_text(letters, ids, mask))
        for place, message in enumerate(messages):
            said = [message.get("content"), message.get("reasoning_content")]
            if message["role"] != "assistant" or (message.get("content", "x") or "x").strip() == "":
                continue
            try:
                prompt = letters.text(text, messages[:place], tools, prompt=True)
                alone = letters.text(text, messages[: place + 1], tools)
            except Exception:
                continue  # a history that the template refuses
            if not (whole.startswith(prompt) and alone.startswith(prompt)):
                continue
            region = common(alone[len(prompt) :], whole[len(prompt) :])
            half = re.search(r"[<\[][^<>\[\]\s]*$", region)
            if half and len(prompt) + len(region) < len(whole):
                region = region[: half.start()]
            rest = alone[len(prompt) + len(region) :]
            if rest.strip() and not tokens.match(rest):
                continue  # it reads differently in hindsight
            if any(part and part.strip() in rest for part in said if part and part.strip() not in region):
                continue
            allowed = {region, region.rstrip()}
            stop = tokens.match(whole, len(prompt) + len(region))
            if stop:
                allowed.add(region + stop.group())
            ends = closing.search(region)
            if ends:
                end = ends.start()
                while found := tokens.match(region, end):
                    end = found.end()
                allowed = {region[:end]}
                if marked:  # a block may end in front of the last of several stops
                    allowed |= {
                        region[: found.end()] for found in tokens.finditer(region, ends.start(), end)
                    }
            # Not trained: a thought without a thought in it, and headers in front of the mark.
            skipped = re.match(
                r"\s*(?:<think>)?\s*</think>\n*" if not marked else r"(?: |<[|]turn>model\n)?", region
            )
            starts = range(len(prompt), len(prompt) + (skipped.end() if skipped else 0) + 1)
            found_at = [start for start in starts if start in trained]
            assert found_at, (place, region)
            said_here = whole[found_at[0] : trained[found_at[0]]]
            due = {one[found_at[0] - len(prompt) :] for one in allowed}
            assert said_here in due or (not ends and said_here.rstrip() in {one.rstrip() for one in due})
            if skipped is None or not skipped.group():
                assert found_at[0] == len(prompt)


@pytest.mark.parametrize("name", [name for name, said in TRAINED.items() if said])
def test_nothing_is_trained_that_the_template_does_not_mark(
    shared: Path, letters: Model, name: str
) -> None:
    """And of what it marks nothing is left but white space, headers, empty thoughts and further stops."""
    text = template_text(name)
    told = seeded(f"{name}/marks", 10, 0.0)
    batch = letters.template(text).encode(told, flags(told))
    tokens = control(letters)
    for number, (ids, mask) in samples(batch).items():
        messages, tools = conversation(told[number])
        marked = marks_of(letters, text, messages, tools)
        whole = letters.decode(ids)
        trained = trained_text(letters, ids, mask)
        for start, end in trained:
            assert any(low <= start and end <= high for low, high in marked)
        for low, high in marked:
            inside = [(start, end) for start, end in trained if low <= start and end <= high]
            left, place = "", low
            for start, end in inside:
                left += whole[place:start]
                place = end
            left += whole[place:high]
            left = tokens.sub("", left)
            left = re.sub(r"</?think>|assistant|final|analysis|thought", "", left)
            assert left.strip() == ""


def marks_of(model: Model, text: str, messages: list[Any], tools: Any) -> list[tuple[int, int]]:
    """Return where transformers has the generation blocks, in characters; those that touch are one."""
    compiled = chat_template_utils._compile_jinja_template(text)
    with fixed_day():
        _, found = chat_template_utils._render_with_assistant_indices(
            compiled, messages, tools or None, None, False, **model.variables
        )
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


def test_names_are_complete(shared: Path) -> None:
    assert len(template_names()) == 190
