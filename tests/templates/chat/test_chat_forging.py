"""Text can't forge control tokens: not in a message, a call, a tool or a result, and not in halves."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_reference import Model, conversation, each_template, samples, template_text
from dialogues import dialogue, flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall

#: Writes everything that a dialogue has, some of it between what could be halves of a control token.
EVERYTHING = (
    "<s>{% if tools %}<|im_start|>tools\n{% for t in tools %}{{ t|tojson }}\n{{ t.function.name }}: "
    "{{ t.function.description }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<|call|><{{ c.function.name }}>{{ c.function.arguments|tojson }}"
    "{% for k, v in c.function.arguments.items() %}<|{{ k }}={{ v }}|>{% endfor %}{% endfor %}"
    "{% else %}<|{{ m.content }}|>{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPELLED = ["<|im_end|>", "<|im_start|>", "<|call|>", "<s>", "</s>", "<unk>"]
PIECES = [
    *SPELLED, "im_end", "im_start|><|im_end", "<|", "|>", "<", "|im_end|>", "call", "s>", "{{ content }}",
    "{% raw %}", "\ufdd0", "\ufdd1", "\ufdd057\ufdd1", "\U000f0000", "a", " ", "\n", "é", "0",
]  # fmt: skip
forged = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


def told(word: Callable[[], str]) -> Dialogue:
    """Return a dialogue with a word in every place that takes one."""
    description = {"type": "function", "function": {"name": word(), "description": word()}}
    call = ToolCall(word(), {"k" + word(): word(), "x": [word()]})
    messages = [
        Message(Role.USER, word()),
        Message(Role.ASSISTANT, "o" + word(), None, (call,)),
        Message(Role.OBSERVATION, word()),
        Message(Role.ASSISTANT, "p" + word()),
    ]
    return Dialogue(messages, "q" + word(), [description])


def turns_trained(mask: list[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *mask], mask, strict=False))


def test_nothing_in_a_dialogue_changes_its_control_tokens(tiny: Model) -> None:
    template = tiny.template(EVERYTHING)
    harmless = told(lambda: "w")
    [(ids, mask)] = samples(template.encode([harmless], flags([harmless]))).values()
    control, trained = tiny.special(ids), turns_trained(mask)
    assert (len(control), trained) == (14, 2)

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        item = told(lambda: data.draw(forged))
        batch = template.encode([item], flags([item]))
        if batch.failed:
            # Marks of our own beside a spelled token are the one thing that is refused.
            assert batch.failed[0].reason == "special-token"
            assert re.search("\ufdd0[0-9]+\ufdd1", tiny.text(EVERYTHING, *conversation(item)))
            return
        [(ids, mask)] = samples(batch).values()
        assert tiny.special(ids) == control
        assert turns_trained(mask) == trained
        assert tiny.decode(ids) == tiny.text(EVERYTHING, *conversation(item))

    run()


def test_halves_of_a_token_on_both_sides_of_a_border(tiny: Model) -> None:
    item = Dialogue([Message(Role.USER, "im_end"), Message(Role.ASSISTANT, "yes")])
    batch = tiny.template(EVERYTHING).encode([item], flags([item]))
    ids = batch.ids.tolist()
    assert tiny.decode(ids).startswith("<s><|im_start|>user\n<|im_end|>im_end<|im_end|>")
    assert tiny.decode(tiny.special(ids)) == "<s><|im_start|><|im_end|><|im_start|><|im_end|>"
    assert batch.notes == [["special-token-in-text"]]


def test_reject_of_one_dialogue_leaves_the_others_alone(tiny: Model) -> None:
    """A mark in the text beside the token is a reason to reject the dialogue, not to fail on the batch."""
    bad = Dialogue([Message(Role.USER, "\ufdd07\ufdd1 <|im_end|>"), Message(Role.ASSISTANT, "<|im_end|>")])
    good = Dialogue([Message(Role.USER, "hi"), Message(Role.ASSISTANT, "yo")])
    template = tiny.template(EVERYTHING, special_tokens_in_text="reject")
    batch = template.encode([bad, good], [flags([bad])[0], flags([good])[0]])
    assert {number: error.reason for number, error in batch.failed.items()} == {0: "special-token"}


@pytest.mark.parametrize(
    "place", ["user", "assistant", "system", "observation", "name", "argument", "key", "tool"]
)
def test_reject_refuses_text_that_spells_a_token(tiny: Model, place: str) -> None:
    word = {place: "a <|im_end|> b"}
    function = {"name": "f", "description": word.get("tool", "d")}
    call = ToolCall(word.get("name", "f"), {word.get("key", "k"): word.get("argument", "v")})
    item = Dialogue(
        [
            Message(Role.USER, word.get("user", "u")),
            Message(Role.ASSISTANT, word.get("assistant", "a"), None, (call,)),
            Message(Role.OBSERVATION, word.get("observation", "o")),
            Message(Role.ASSISTANT, "done"),
        ],
        word.get("system", "s"),
        [{"type": "function", "function": function}],
    )
    batch = tiny.template(EVERYTHING, special_tokens_in_text="reject").encode([item], flags([item]))
    assert batch.failed[0].reason == "special-token"
    assert batch.failed[0].got == "'<|im_end|>'"
    allowed = tiny.template(EVERYTHING, special_tokens_in_text="allow").encode([item], flags([item]))
    assert allowed.ids.tolist() == tiny.ids(EVERYTHING, *conversation(item))
    assert allowed.notes[0] == ["special-token-in-text"]


def test_marks_of_our_own_are_refused_only_beside_a_spelled_token(tiny: Model) -> None:
    items = [
        Dialogue([Message(Role.USER, text), Message(Role.ASSISTANT, "ok")])
        for text in ("\ufdd03\ufdd1", "\ufdd03\ufdd1 <|im_end|>", "\ufdd0 <|im_end|> \ufdd1")
    ]
    batch = tiny.template(EVERYTHING).encode(items, flags(items))
    assert {number: error.reason for number, error in batch.failed.items()} == {1: "special-token"}
    for number, (ids, _) in samples(batch).items():
        assert tiny.decode(ids) == tiny.text(EVERYTHING, *conversation(items[number]))


@pytest.mark.parametrize(("folder", "token"), [("minimind", "<|endoftext|>"), ("llama2", "<unk>")])
def test_the_unknown_token_is_no_exception(shared: Path, tmp_path: Path, folder: str, token: str) -> None:
    model = Model(shared / "tokenizers" / folder, tmp_path)
    text = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}"
    item = Dialogue([Message(Role.USER, f"a{token}b"), Message(Role.ASSISTANT, "c")])
    ids = model.template(text).encode([item], flags([item])).ids.tolist()
    assert model.encoder.spec.id_of(token) not in ids
    assert token in model.decode(ids)
    refused = model.template(text, special_tokens_in_text="reject").encode([item], flags([item]))
    assert refused.failed[0].reason == "special-token"


def spelling(rng: random.Random, item: Dialogue, tokens: list[str], keys: bool = False) -> Dialogue:
    """Return a dialogue in which each text spells some of the tokens."""

    def spelled(value: Any) -> Any:
        if isinstance(value, str):
            place = rng.choice([0, len(value), len(value) // 2])
            return value[:place] + rng.choice(tokens) + value[place:]
        if isinstance(value, dict):
            return {spelled(key) if keys else key: spelled(inner) for key, inner in value.items()}
        return [spelled(inner) for inner in value] if isinstance(value, list) else value

    messages = [
        Message(
            message.role,
            spelled(message.content),
            spelled(message.reasoning),
            tuple(
                ToolCall(spelled(call.name), spelled(call.arguments), call.id)
                for call in message.tool_calls
            ),
            spelled(message.name),
            message.call_id,
        )
        for message in item.messages
    ]
    return Dialogue(messages, item.system and spelled(item.system), item.tools)


@each_template()
def test_foreign_tokens_change_nothing(letters: Model, name: str) -> None:
    """Tokens that the template doesn't know, in every text and every key: the same structure and turns."""
    text = template_text(name)
    foreign = [
        word
        for word in ("<|observation|>", "<|call|>", "[gMASK]", "<seed:eos>", "<|eom|>")
        if word not in text
    ]
    rng = random.Random(f"{name}/foreign")
    template = letters.template(text)
    for _ in range(2):
        plain = dialogue(rng, 0.0)
        del plain.messages[6:]
        items = [spelling(rng, plain, ["zz"], True), spelling(rng, plain, foreign, True)]
        batch = template.encode(items, flags(items))
        assert {error.reason for error in batch.failed.values()} <= {
            "template-refused",
            "not-rendered",
            "mask-unproven",
        }
        kept = samples(batch)
        assert len(kept) in (0, 2)
        if kept:
            (one, trained), (other, also) = kept.values()
            assert letters.special(one) == letters.special(other)
            assert turns_trained(trained) == turns_trained(also)


@each_template()
def test_its_own_tokens_are_sanitized_as_transformers_does(letters: Model, name: str) -> None:
    """Beside keys, which transformers leaves alone: the same control tokens, the same text."""
    text = template_text(name)
    own = [token.text for token in letters.encoder.spec.added if token.text in text] or ["<|im_end|>"]
    rng = random.Random(f"{name}/own")
    letters.tokenizer.chat_control_tokens = []
    template = letters.template(text)
    for _ in range(2):
        item = spelling(rng, dialogue(rng, 0.0), own)
        batch = template.encode([item], flags([item]))
        if batch.failed:
            assert batch.failed[0].reason in ("template-refused", "not-rendered", "mask-unproven")
            continue
        [(ids, _)] = samples(batch).values()
        messages, tools = conversation(item)
        try:
            expected = letters.ids(text, messages, tools, sanitize_control_tokens=True)
        except NotImplementedError:
            continue
        assert letters.special(ids) == letters.special(expected)
        assert letters.decode(ids) == letters.decode(expected)
