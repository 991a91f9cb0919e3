"""A dialogue that the assistant opens: its greeting answers no prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_reference import DAY, Model

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.tokenization import Encoder, load_tokenizer, open_encoder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: As many real templates do, it looks at the first message whether there is one or not.
LOOKS = "{% if messages[0].role == 'system' %}{{ 'S' }}{% endif %}" + CHATML
GREETED = Dialogue(
    [
        Message(Role.ASSISTANT, "hello"),
        Message(Role.USER, "b"),
        Message(Role.ASSISTANT, "y"),
    ]
)
FLAGS = [True, False, True]


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return open_encoder(load_tokenizer(str(tokenizer_folder)).save(tmp_path_factory.mktemp("greeting")))


def trained(template: str, encoder: Encoder, times: int) -> tuple[list[str], list[list[str]]]:
    """Return the trained text of each sample, and its notes."""
    made = ChatTemplate(ChatRenderer({"default": template}, {}, DAY), encoder)
    batch = made.encode([GREETED] * times, [FLAGS] * times)
    assert batch.failed == {}
    mask, start, found = batch.mask(), 0, []
    for end in batch.sample_ends.tolist():
        found.append(encoder.decode(batch.ids[start:end][mask[start:end]].tolist()))
        start = end
    return found, batch.notes


@pytest.mark.parametrize("times", [1, 6])  # proven one by one, and by a script for all
def test_it_is_trained_where_there_is_a_prompt_for_it(encoder: Encoder, times: int) -> None:
    found, notes = trained(CHATML, encoder, times)
    assert found == ["hello<|im_end|>y<|im_end|>"] * times
    assert notes == [[]] * times


@pytest.mark.parametrize("times", [1, 6])
def test_it_is_context_where_there_is_none(encoder: Encoder, times: int) -> None:
    found, notes = trained(LOOKS, encoder, times)
    assert found == ["y<|im_end|>"] * times
    assert notes == [["greeting-not-trained"]] * times


def test_real_templates_render_it(shared: Path, tmp_path: Path) -> None:
    for name in ("qwen2.5", "qwen3", "llama3.1"):
        model = Model(shared / "tokenizers" / name, tmp_path)
        spec = model.encoder.spec
        renderer = ChatRenderer(dict(spec.chat_templates), dict(spec.special_tokens_map), DAY)
        batch = ChatTemplate(renderer, model.encoder).encode([GREETED], [FLAGS])
        assert batch.failed == {}
        assert batch.notes == [["greeting-not-trained"]]
        text = model.encoder.decode(batch.ids.tolist())
        assert text.count("hello") == 1
