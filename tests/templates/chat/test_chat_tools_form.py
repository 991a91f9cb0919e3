"""Tools reach a chat template in the form in which requests to a serving engine hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_reference import DAY

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.chat.messages import chat_tools
from mtsft_preproc.tokenization import load_tokenizer, open_encoder

BARE = {"name": "f", "parameters": {"b": 1, "a": 2}}
WHOLE = {"type": "function", "function": BARE}
TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}: {{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([BARE, WHOLE], [WHOLE, WHOLE]),
        # What is no function stays what it is.
        ([{"type": "web_search"}, "f"], [{"type": "web_search"}, "f"]),
    ],
    ids=str,
)
def test_a_bare_function_gets_its_type(given: list[Any], expected: list[Any]) -> None:
    assert chat_tools(given) == expected


def test_both_forms_of_a_tool_give_the_same_sample(tokenizer_folder: Path, tmp_path: Path) -> None:
    encoder = open_encoder(load_tokenizer(str(tokenizer_folder)).save(tmp_path))
    template = ChatTemplate(ChatRenderer({"default": TEMPLATE}, {}, DAY), encoder)
    messages = [Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")]
    dialogues = [Dialogue(messages, tools=[BARE]), Dialogue(messages, tools=[WHOLE])]
    batch = template.encode(dialogues, [[False, True]] * 2)
    assert batch.failed == {}
    bare, whole = batch.ids[: batch.sample_ends[0]], batch.ids[batch.sample_ends[0] :]
    assert bare.tolist() == whole.tolist()
    assert encoder.decode(bare.tolist()).startswith('f: {"type": "function", "function": {"name": "f"')
