"""Ids and refusals against ``apply_chat_template``, rendered text against llama.cpp's own table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_reference import (
    DAY,
    SHARED,
    Model,
    conversation,
    each_template,
    golden_cases,
    samples,
    template_text,
)
from dialogues import flags, seeded

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.templates.token_batch import WHOLE, TokenBatch

#: Real tokenizers of each kind; tests/extended/chat_tokenizers.py takes all. Without a template: ChatML.
TOKENIZERS = [
    "chatglm3", "deepseek-llm", "glm4", "gpt-oss", "gpt2", "llama2", "minimind", "mistral-v3", "phi3",
    "qwen2.5",
]  # fmt: skip
CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def compare(model: Model, text: str | None, batch: TokenBatch, told: Sequence[Dialogue]) -> int:
    """Hold each sample against transformers' ids, each refusal against its exception; count the samples."""
    kept = samples(batch)
    assert (batch.turns == WHOLE).all()
    assert set(kept) | set(batch.failed) == set(range(len(told)))
    for number, dialogue in enumerate(told):
        expected, refused = attempt(model, text, dialogue)
        if refused:
            assert batch.failed[number].reason == "template-refused"
            assert batch.failed[number].got == refused
        elif number in kept:
            ids, mask = kept[number]
            assert ids == expected
            assert not all(mask)
        else:
            assert batch.failed[number].reason in ("template-refused", "not-rendered", "mask-unproven")
    return len(kept)


def attempt(model: Model, text: str | None, dialogue: Dialogue) -> tuple[list[int], str]:
    """Return transformers' ids, or its exception."""
    try:
        return model.ids(text, *conversation(dialogue)), ""
    except Exception as error:
        return [], f"{type(error).__name__}: {error}"


@each_template()
def test_ids_and_refusals_are_those_of_transformers(qwen3: Model, name: str) -> None:
    text = template_text(name)
    told = seeded(name, 3)
    template = qwen3.template(text, special_tokens_in_text="allow")
    compare(qwen3, text, template.encode(told, flags(told)), told)


@each_template()
def test_harmless_text_is_not_taken_for_control_tokens(letters: Model, name: str) -> None:
    """Nor the template's own tokens for the dialogue's, wherever it has put them."""
    text = template_text(name)
    told = seeded(f"{name}/harmless", 3, 0.0)
    batch = letters.template(text, special_tokens_in_text="plain").encode(told, flags(told))
    compare(letters, text, batch, told)
    assert not any("special-token-in-text" in notes for notes in batch.notes)


@pytest.mark.parametrize("folder", TOKENIZERS)
def test_every_tokenizer_with_its_own_template(shared: Path, tmp_path: Path, folder: str) -> None:
    model = Model(shared / "tokenizers" / folder, tmp_path)
    own = dict(model.encoder.spec.chat_templates)
    renderer = ChatRenderer(own or {"default": CHATML}, model.variables, DAY)
    template = ChatTemplate(renderer, model.encoder, special_tokens_in_text="allow")
    told = seeded(folder, 16)
    assert compare(model, None if own else CHATML, template.encode(told, flags(told)), told) > 0


def cases() -> list[Any]:
    """Return llama.cpp's cases that plain Jinja renders alike."""
    if not SHARED.is_dir():
        return [pytest.param({}, id="needs ../shared", marks=pytest.mark.skip(reason="needs ../shared"))]
    found = []
    for number, case in enumerate(golden_cases()):
        if case["hf_jinja_equal"]:
            name = re.sub(r"\W+", "-", case["name"])
            found.append(pytest.param(case, id=f"{number}-{name}"))
    return found


@pytest.mark.parametrize("case", cases())
def test_text_is_llama_cpps(case: dict[str, Any]) -> None:
    variables = {"bos_token": case["bos_token"], "eos_token": case["eos_token"]}
    renderer = ChatRenderer({"default": case["chat_template"]}, variables, DAY)
    rendered = renderer.text(Conversation.of(case["messages"], []), case["add_generation_prompt"])
    assert rendered == case["expected"]


def test_a_template_for_tools_takes_the_conversations_with_tools(tiny: Model) -> None:
    texts = {"default": CHATML, "tool_use": "{{ tools|length }}" + CHATML}
    renderer = ChatRenderer(texts, {}, DAY)
    messages = [{"role": "user", "content": "a"}]
    assert renderer.text(Conversation.of(messages, [])) == "<|im_start|>user\na<|im_end|>\n"
    assert renderer.text(Conversation.of(messages, [{"type": "function"}])).startswith("1<|im_start|>")
