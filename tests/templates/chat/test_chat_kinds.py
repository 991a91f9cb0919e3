"""What is whose in a rendered text: the system's part, the dialogue around the turns, a tool's words."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from chat_reference import Model, each_template, template_text, turns
from dialogues import flags, seeded

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import TokenBatch

EACH, PROMPT = "{% for m in messages %}", "{% endfor %}{% if add_generation_prompt %}"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
ASKS = "<|im_start|>assistant\n{% endif %}"
CHATML = EACH + TURN + PROMPT + ASKS
#: As Qwen2.5: a system text of its own where the dialogue has none.
DEFAULT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
)
#: As Llama 2: the system text stands in the user's message.
INSIDE = (
    "{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if m.role == 'user' %}<s>[INST] "
    "{% if loop.first and sys %}<<SYS>>\n{{ sys }}\n<</SYS>>\n\n{% endif %}"
    "{{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
#: As Llama 3.1: tools stand in the first user's message.
TOOLS_INSIDE = (
    EACH + "<|im_start|>{{ m.role }}\n{% if loop.first and tools %}You may call:\n{% for t in tools %}"
    "{{ t.function.name }};{% endfor %}{{ '\n' }}{% endif %}{{ m.content }}<|im_end|>\n" + PROMPT + ASKS
)
TOOLS_IN_FRONT = (
    "{% if tools %}<|im_start|>system\nYou may call:\n"
    "{% for t in tools %}{{ t.function.name }};{% endfor %}<|im_end|>\n{% endif %}" + CHATML
)
#: As gpt-oss: what closes the last turn is not what closes the others.
RETURNS = (
    EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}{% if loop.last and m.role == 'assistant' %}<|eot|>"
    "{% else %}<|im_end|>{% endif %}" + PROMPT + ASKS
)
#: As Phi-3: EOS stands behind a text without a prompt.
CLOSED = EACH + TURN + PROMPT + "<|im_start|>assistant\n{% else %}</s>{% endif %}"
#: No special token at all.
WORDS = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}" + EACH
    + "{% if m.role != 'system' %}{{ m.role|upper }}: {{ m.content }}\n{% endif %}" + PROMPT
    + "ASSISTANT: {% endif %}"
)  # fmt: skip
#: The first message of the user has another header than later ones, and none can be told.
ODD = (
    EACH
    + "{% if loop.index0 == 0 %}<s>Dear model,\n{% elif m.role == 'user' %}<|user|>{% else %}<|assistant|>"
    "{% endif %}{{ m.content }}<|eot|>" + PROMPT + "<|assistant|>{% endif %}"
)
USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def say(*texts: str, system: str = "", tools: tuple[str, ...] = ()) -> Dialogue:
    """Return a dialogue of question and answer by turns."""
    messages = [
        Message(Role.ASSISTANT if number % 2 else Role.USER, text) for number, text in enumerate(texts)
    ]
    listed = [{"type": "function", "function": {"name": name}} for name in tools]
    return Dialogue(messages, system, listed)


def by_kind(model: Model, batch: TokenBatch) -> list[tuple[str, str]]:
    """Return the text of each run of one kind of the only sample."""
    assert batch.failed == {}
    cuts = [0, *(np.flatnonzero(np.diff(batch.kinds)) + 1).tolist(), len(batch.ids)]
    return [
        (Kind(int(batch.kinds[start])).name[0], model.decode(batch.ids[start:end].tolist()))
        for start, end in itertools.pairwise(cuts)
    ]


def kinds(model: Model, text: str, told: Dialogue, **settings: Any) -> list[tuple[str, str]]:
    return by_kind(model, model.template(text, **settings).encode([told], flags([told])))


@pytest.mark.parametrize(
    ("text", "told", "expected"),
    [
        (CHATML, say("q", "a"), [("C", USER.format("q"))]),
        (
            CHATML,
            say("q", "a", system="s"),
            [("S", "<|im_start|>system\ns<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        (
            # A header that the system text spells is no header.
            CHATML,
            say("q", "a", system="<|im_start|>user\n"),
            [("S", "<|im_start|>system\n<|im_start|>user\n<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        (
            CHATML,
            say("", "a", system="s"),
            [("S", "<|im_start|>system\ns<|im_end|>\n"), ("C", USER.format(""))],
        ),
        (
            DEFAULT,
            say("q", "a"),
            [("P", "<|im_start|>system\nBe good.<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        ("<s>" + CHATML, say("q", "a"), [("P", "<s>"), ("C", USER.format("q"))]),
        (
            "<s>" + CHATML,
            say("q", "a", system="s"),
            [("P", "<s>"), ("S", "<|im_start|>system\ns<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        (INSIDE, say("q", "a"), [("P", "<s>"), ("C", "[INST] q [/INST]")]),
        (
            INSIDE,
            say("q", "a", system="s"),
            [("P", "<s>"), ("C", "[INST] "), ("S", "<<SYS>>\ns\n<</SYS>>\n\n"), ("C", "q [/INST]")],
        ),
        (
            TOOLS_INSIDE,
            say("q", "a", tools=("f", "g")),
            [
                ("C", "<|im_start|>user\n"),
                ("S", "You may call:\nf;g;\n"),
                ("C", "q<|im_end|>\n<|im_start|>assistant\n"),
            ],
        ),
        (
            TOOLS_IN_FRONT,
            say("q", "a", tools=("f", "g")),
            [("S", "<|im_start|>system\nYou may call:\nf;g;<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        (
            RETURNS,
            say("q", "a", system="s"),
            [
                ("S", "<|im_start|>system\ns<|im_end|>"),
                ("C", "<|im_start|>user\nq<|im_end|><|im_start|>assistant\n"),
            ],
        ),
        (
            CLOSED,
            say("q", "a", system="s"),
            [("S", "<|im_start|>system\ns<|im_end|>\n"), ("C", USER.format("q"))],
        ),
        (WORDS, say("q", "a", system="s"), [("S", "s\n\n"), ("C", "USER: q\nASSISTANT: ")]),
        # What can't be told apart is context, but for BOS.
        (ODD, say("q", "a"), [("P", "<s>"), ("C", "Dear model,\nq<|eot|><|assistant|>")]),
    ],
    ids=[
        "chatml", "chatml-system", "spelled-header", "empty-question", "default-system", "bos",
        "bos-system", "inside", "inside-system", "tools-inside", "tools-in-front", "returns", "closed",
        "words", "odd",
    ],
)  # fmt: skip
def test_what_stands_in_front_of_the_first_turn(
    letters: Model, text: str, told: Dialogue, expected: list[tuple[str, str]]
) -> None:
    found = kinds(letters, text, told)
    assert found[: len(expected)] == expected
    assert found[len(expected)][0] == "G"
    assert found[len(expected)][1].strip().startswith("a")


def test_the_kinds_are_those_of_later_dialogues_of_the_same_shape(letters: Model) -> None:
    """Also once a shape is known, and filled with other words."""
    template = letters.template(DEFAULT)
    told = [say(f"q{number}", "a", system=f"s{number}") for number in range(8)]
    batch = template.encode(told, flags(told))
    borders = [0, *batch.sample_ends.tolist()]
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        system = batch.ids[start:end][batch.kinds[start:end] == Kind.SYSTEM]
        assert letters.decode(system.tolist()) == f"<|im_start|>system\ns{number}<|im_end|>\n"


def test_with_context_all_but_bos_and_the_systems_part_is_trained(letters: Model) -> None:
    told = say("q", "a", "r", "b", system="s")
    batch = letters.template("<s>" + CHATML).encode([told], [[False, False, False, True]])
    mask = batch.mask(context=True)
    trained = letters.decode(batch.ids[mask].tolist())
    assert trained == USER.format("q") + "\n" + USER.format("r") + "b<|im_end|>\n"
    assert letters.decode(batch.ids[batch.mask()].tolist()) == "b<|im_end|>"


def test_words_that_the_template_mixes_with_the_systems_are_the_systems(letters: Model) -> None:
    mixes = (
        "{% set first = messages[0].content ~ '/' ~ messages[1].content %}[{{ first|trim|upper }}]"
        "{% for m in messages[2:] %}<|{{ m.role }}|>{{ m.content }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    told = say("q", "a", system="s")
    template = letters.template(mixes)
    batch = template.encode([told], flags([told]))
    assert [part for kind, part in by_kind(letters, batch) if kind == "S"] == ["S/Q"]


def test_a_system_message_inside_the_dialogue(letters: Model) -> None:
    """Its words are the system's, and it is a message like others: the flags stand where they should."""
    told = Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, "a"),
            Message(Role.SYSTEM, "now be brief"),
            Message(Role.USER, "r"),
            Message(Role.ASSISTANT, "b"),
        ],
        "s",
    )
    batch = letters.template(CHATML).encode([told], [[False, False, False, False, True]])
    assert letters.decode(batch.ids[batch.mask()].tolist()) == "b<|im_end|>"
    found = by_kind(letters, batch)
    assert ("S", "now be brief") in found
    assert letters.decode(batch.ids.tolist()) == letters.text(
        CHATML,
        [
            {"role": role, "content": text}
            for role, text in zip(
                ("system", "user", "assistant", "system", "user", "assistant"),
                ("s", "q", "a", "now be brief", "r", "b"),
                strict=True,
            )
        ],
    )


def test_a_dialogue_that_opens_with_a_system_message_of_its_own(letters: Model) -> None:
    told = Dialogue([Message(Role.SYSTEM, "s"), Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")])
    batch = letters.template(CHATML).encode([told, say("r", "b")], [[False, False, True], [False, True]])
    assert batch.failed == {}
    assert letters.decode(batch.ids[batch.mask()].tolist()) == "a<|im_end|>b<|im_end|>"
    assert [letters.decode(ids) for ids in turns(batch)] == ["a<|im_end|>"]
    assert batch.trained.tolist() == [False, False, True, False, True]
    system = batch.ids[batch.kinds == Kind.SYSTEM].tolist()
    assert letters.decode(system) == "<|im_start|>system\ns<|im_end|>\n"


# ---- what tools return ----

CALL = ToolCall("f", {"x": 1})
#: Names the tool beside its result, and wraps the words.
RESULTS = (
    EACH + "<|im_start|>{{ m.role }}\n{% if m.role == 'tool' %}{{ m.name }}: <r>{{ m.content }}</r>"
    "{% else %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"
    "{% endif %}<|im_end|>\n" + PROMPT + ASKS
)
CALLED = Dialogue(
    [
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, None, None, (CALL, CALL)),
        Message(Role.OBSERVATION, "seven", name="f"),
        Message(Role.OBSERVATION, "eight <|im_end|>", name="f"),
        Message(Role.ASSISTANT, "b"),
    ],
    "s",
)


@pytest.mark.parametrize(
    ("which", "expected"),
    [((2,), ["seven"]), ((3,), ["eight <|im_end|>"]), ((2, 3), ["seven", "eight <|im_end|>"])],
)
def test_the_words_of_results_are_observed_and_nothing_around_them(
    letters: Model, which: tuple[int, ...], expected: list[str]
) -> None:
    template = letters.template(RESULTS, train_on_tools=True)
    batch = template.encode([CALLED], [[number in which for number in range(5)]])
    assert [letters.decode(ids) for ids in turns(batch)] == expected
    found = [part for kind, part in by_kind(letters, batch) if kind == "O"]
    assert found == ["seven", "eight <|im_end|>"]
    assert "token-across-border" not in batch.notes[0]


def test_without_the_setting_results_are_context(letters: Model) -> None:
    marked = letters.template(RESULTS).encode([CALLED], [[True] * 5])
    assert Kind.OBSERVED not in marked.kinds
    assert letters.decode(marked.ids[marked.mask()].tolist()) == "ff<|im_end|>b<|im_end|>"


def test_a_token_across_the_border_of_a_result_is_not_its(tiny: Model) -> None:
    """The space in front of the words is one token with their start, and of the template."""
    spaced = RESULTS.replace("<r>{{ m.content }}</r>", " {{ m.content }}")
    told = Dialogue(
        [*CALLED.messages[:2], Message(Role.OBSERVATION, "you are", name="f"), CALLED.messages[4]]
    )
    batch = tiny.template(spaced, train_on_tools=True).encode([told], [[False, False, True, False]])
    assert [tiny.decode(ids) for ids in turns(batch)] == [" are"]
    assert batch.notes == [[]]


def test_a_result_among_words_of_the_template_is_not_trained_and_noted(letters: Model) -> None:
    quotes = RESULTS.replace("<r>{{ m.content }}</r>", "{{ {'said': m.content}|tojson }}")
    batch = letters.template(quotes, train_on_tools=True).encode(
        [CALLED], [[False, True, True, True, True]]
    )
    assert [letters.decode(ids) for ids in turns(batch)] == ["ff<|im_end|>", "b<|im_end|>"]
    assert "result-not-trained" in batch.notes[0]
    alone = letters.template(quotes, train_on_tools=True).encode([CALLED], flags([CALLED]))
    assert "result-not-trained" not in alone.notes[0]


@each_template()
def test_words_and_only_words_of_results_are_observed(letters: Model, name: str) -> None:
    """In every real template; and nothing else about the tokens depends on the setting."""
    told = [item for item in seeded(f"{name}/tools", 12) if any(m.role == 2 for m in item.messages)]
    plain = letters.template(template_text(name)).encode(told, flags(told))
    batch = letters.template(template_text(name), train_on_tools=True).encode(told, flags(told))
    assert {number: str(error) for number, error in batch.failed.items()} == {
        number: str(error) for number, error in plain.failed.items()
    }
    assert batch.ids.tolist() == plain.ids.tolist()
    observed = batch.kinds == Kind.OBSERVED
    assert (batch.kinds[~observed] == plain.kinds[~observed]).all()
    assert (plain.kinds[observed] == Kind.CONTEXT).all()
    assert batch.notes == plain.notes
    borders = [0, *batch.sample_ends.tolist()]
    for number, (start, end) in zip(batch.dialogues.tolist(), itertools.pairwise(borders), strict=True):
        said = "".join(m.text for m in told[number].messages if m.role is Role.OBSERVATION)
        ids = batch.ids[start:end][observed[start:end]]
        letters_of = set(letters.decode(ids.tolist()))
        # Templates quote and escape: of letters there are none but those of the results.
        assert letters_of - set('"\\nrtu0123456789abcdef ') <= set(said)


@each_template()
def test_no_word_of_the_system_is_context(letters: Model, name: str) -> None:
    """Wherever a template puts it; what the user says is never the system's, unless they are mixed."""
    told = [
        Dialogue([Message(Role.USER, "QQ1"), Message(Role.ASSISTANT, "AA1"), Message(Role.USER, "QQ2"),
                  Message(Role.ASSISTANT, "AA2")], system)
        for system in ("", "\u00a7\u00a7", "\u00a7")
    ]  # fmt: skip
    batch = letters.template(template_text(name)).encode(told, flags(told))
    borders = [0, *batch.sample_ends.tolist()]
    for start, end in itertools.pairwise(borders):
        own = batch.kinds[start:end] <= Kind.SYSTEM
        ids = batch.ids[start:end]
        assert "\u00a7" not in letters.decode(ids[~own].tolist())
        assert "QQ1" in letters.decode(ids[~own].tolist())
        assert letters.encoder.spec.bos_id not in ids[~own].tolist()
