"""Small templates, one for each way in which templates differ, with what is trained written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from chat_reference import Model, samples, turns
from dialogues import flags

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import WHOLE, TokenBatch

#: The two ways in which a template goes through the messages and ends.
EACH, PROMPT = "{% for m in messages %}", "{% endfor %}{% if add_generation_prompt %}"
CHATML = (
    EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    + PROMPT
    + "<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "<s>"
    + EACH
    + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    + PROMPT
    + "<|im_start|>assistant\n{% endif %}"
)
HEADER_MARKED = (
    EACH + "{% if m.role == 'assistant' %}{% generation %}<|assistant|>{{ m.content }}<|eot|>\n"
    "{% endgeneration %}"
    "{% else %}<|user|>{{ m.content }}<|eot|>\n{% endif %}" + PROMPT + "<|assistant|>{% endif %}"
)
TRIMS = (
    "<s>" + EACH + "<|{{ m.role }}|>\n{{ m.content|trim }}<|eot|>\n" + PROMPT + "<|assistant|>\n{% endif %}"
)
NEXT_HEADER = "<s>" + EACH + "<|{{ m.role }}|>\n{{ m.content }}" + PROMPT + "<|assistant|>\n{% endif %}"
#: As Qwen3: thoughts of the last round stay, earlier ones go.
FORGETS = (
    "{% set ns = namespace(last=0) %}" + EACH + "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}" + EACH + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' "
    "and m.reasoning_content and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}"
    "{{ m.content }}<|im_end|>\n" + PROMPT + "<|im_start|>assistant\n{% endif %}"
)  # fmt: skip
#: The prompt opens a thought that the history doesn't have.
OPENS_THOUGHT = (
    EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    + PROMPT
    + "<|im_start|>assistant\n<think>\n{% endif %}"
)
#: The prompt opens a thought, and so does each turn.
KEEPS_THOUGHT = (
    EACH + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n"
    "{% endif %}{{ m.content }}<|im_end|>\n" + PROMPT + "<|im_start|>assistant\n<think>\n{% endif %}"
)
RAISES = (
    EACH + "{% if m.role == 'user' and loop.index0 % 2 %}"
    "{{ raise_exception('Roles must take turns: ' ~ m.content) }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    + PROMPT
    + "<|im_start|>assistant\n{% endif %}"
)
CLOSES_ALL = TRIMS.replace("{% if add", "{% if not add_generation_prompt %}</s>{% endif %}{% if add")
NO_STOP = EACH + "{{ m.role }}: {{ m.content }}\n" + PROMPT + "assistant: {% endif %}"
#: Says how many messages there are, in front of all.
COUNTS = "{{ messages|length }}" + CHATML
CALLS = (
    EACH + "<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments|tojson }}}'
    "\n</tool_call>{% endfor %}"
    "<|im_end|>\n" + PROMPT + "<|im_start|>assistant\n{% endif %}"
)
#: Quotes a value between special tokens, as Gemma 4 does.
QUOTES = (
    EACH + "<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for c in m.tool_calls or [] %}<|call|>"
    "{{ c.function.name }}:<|eot|>{{ c.function.arguments.city }}<|eot|>}<|call|>{% endfor %}<|im_end|>\n"
    + PROMPT + "<|im_start|>assistant\n{% endif %}"
)  # fmt: skip
MIXES = (
    "{% set ns = namespace(t='') %}"
    + EACH
    + "{% set ns.t = ns.t + m.content %}{% endfor %}<|im_start|>{{ ns.t|upper }}"
    "<|im_end|>\n{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def say(*texts: str, thoughts: tuple[str | None, ...] = (), system: str = "") -> Dialogue:
    """Return a dialogue of question and answer by turns."""
    messages = []
    for number, text in enumerate(texts):
        thought = thoughts[number // 2] if number % 2 and thoughts else None
        messages.append(Message(Role.ASSISTANT if number % 2 else Role.USER, text, thought))
    return Dialogue(messages, system)


def encode(model: Model, text: str, *told: Dialogue, **settings: Any) -> TokenBatch:
    return model.template(text, **settings).encode(told, flags(list(told)))


def trained(model: Model, batch: TokenBatch, sample: int = 0) -> list[str]:
    assert batch.failed == {}
    return [model.decode(ids) for ids in turns(batch, sample)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHATML, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
        (MARKED, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
        (HEADER_MARKED, ["  Fine. \n<|eot|>", "Bye<|eot|>"]),
        (TRIMS, ["Fine.<|eot|>", "Bye<|eot|>"]),
        (NEXT_HEADER, ["  Fine. \n<|user|>", "Bye"]),
        (CLOSES_ALL, ["Fine.<|eot|>", "Bye<|eot|>"]),
        (OPENS_THOUGHT, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
        (KEEPS_THOUGHT, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
        (COUNTS, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
        (CALLS, ["  Fine. \n<|im_end|>", "Bye<|im_end|>"]),
    ],
    ids=[
        "chatml",
        "marked",
        "header-marked",
        "trims",
        "next-header",
        "closes-all",
        "opens-thought",
        "keeps-thought",
        "counts",
        "calls",
    ],
)
def test_the_trained_text_of_each_turn(letters: Model, text: str, expected: list[str]) -> None:
    batch = encode(letters, text, say("How are you?", "  Fine. \n", "Well.", "Bye"))
    assert trained(letters, batch) == expected


def test_tokens_of_a_trained_tokenizer(tiny: Model) -> None:
    """No token is trained that lies across the border."""
    batch = encode(tiny, CHATML, say("Hello", "I am fine"), say("Hello", "\nfine"))
    assert trained(tiny, batch) == ["I am fine<|im_end|>"]
    assert trained(tiny, batch, 1) == ["\nfine<|im_end|>"]
    # "assistant: " ends in a space that the tokenizer joins with the word behind it.
    spaced = encode(tiny, NO_STOP, say("Hello", "you are"))
    assert trained(tiny, spaced) == [" are"]
    assert spaced.notes == [["token-across-border", "stop-not-trained"]]
    assert spaced.parity == {"border": 1}


def test_a_thought_is_trained_where_the_prompt_stops(letters: Model) -> None:
    told = say("q", "a", "r", "b", thoughts=("x", "y"))
    assert trained(letters, encode(letters, KEEPS_THOUGHT, told)) == [
        "x\n</think>\na<|im_end|>", "y\n</think>\nb<|im_end|>",
    ]  # fmt: skip
    batch = encode(letters, FORGETS, told)
    assert trained(letters, batch) == ["a<|im_end|>", "<think>\ny\n</think>\n\nb<|im_end|>"]
    assert batch.parity == {"reply": 1, "same": 1}


@pytest.mark.parametrize(
    ("text", "parity"),
    [
        (CHATML, {"same": 2}),
        (MARKED, {"same": 2}),
        (TRIMS, {"same": 2}),
        (NEXT_HEADER, {"same": 2}),
        (OPENS_THOUGHT, {"prompt": 2}),
        (COUNTS, {"prompt": 1, "same": 1}),
        (HEADER_MARKED, {"same": 2}),
    ],
    ids=["chatml", "marked", "trims", "next-header", "opens-thought", "counts", "header-marked"],
)
def test_parity(letters: Model, text: str, parity: dict[str, int]) -> None:
    told = say("q", "a", "r", "b")
    if text == COUNTS:
        # Three messages stand in front of the last answer, and four in the whole.
        parity = {"prompt": 2}
    assert encode(letters, text, told).parity == parity
    assert encode(letters, text, told, parity="off").parity == {}
    required = encode(letters, text, told, parity="require")
    assert required.parity == parity
    assert [error.reason for error in required.failed.values()] == ["parity"] * (set(parity) != {"same"})


def test_a_turn_that_reads_differently_in_hindsight_is_split_off(letters: Model) -> None:
    told = say("q", "a", "r", "b", thoughts=("x", "y"))
    batch = encode(letters, FORGETS, told, parity="split")
    assert batch.failed == {}
    texts = [letters.decode(ids) for ids, _ in by_sample(batch)]
    whole = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert texts == [
        whole + "a<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n"
        "<think>\ny\n</think>\n\nb<|im_end|>\n",
        whole + "<think>\nx\n</think>\n\na<|im_end|>\n",
    ]
    assert batch.turns.tolist() == [WHOLE, 1]
    assert trained(letters, batch, 0) == ["<think>\ny\n</think>\n\nb<|im_end|>"]
    assert trained(letters, batch, 1) == ["<think>\nx\n</think>\n\na<|im_end|>"]
    assert batch.parity == {"same": 2, "split-samples": 1, "split-tokens": len(by_sample(batch)[1][0])}


def by_sample(batch: TokenBatch) -> list[tuple[list[int], list[bool]]]:
    ends = batch.sample_ends.tolist()
    mask = batch.mask()
    pairs = zip([0, *ends], ends, strict=False)
    return [(batch.ids[start:end].tolist(), mask[start:end].tolist()) for start, end in pairs]


def test_the_templates_refusal_is_told(letters: Model) -> None:
    told = Dialogue([Message(Role.USER, "a"), Message(Role.USER, "b"), Message(Role.ASSISTANT, "c")])
    batch = encode(letters, RAISES, told, say("a", "b"))
    assert list(batch.failed) == [0]
    assert batch.failed[0].reason == "template-refused"
    assert batch.failed[0].got == "TemplateError: Roles must take turns: b"
    assert trained(letters, TokenBatch(**{**fields(batch), "failed": {}})) == ["b<|im_end|>"]


def fields(batch: TokenBatch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in TokenBatch.__slots__}


def test_what_the_template_leaves_out(letters: Model) -> None:
    call = ToolCall("f", {"city": "Rome"})
    calls = Dialogue([Message(Role.USER, "q"), Message(Role.ASSISTANT, "", None, (call,))])
    batch = encode(letters, CHATML, calls, say("q", "a", thoughts=("x",)), say("q", "a", system="s"))
    assert {number: (error.reason, error.field) for number, error in batch.failed.items()} == {
        0: ("not-rendered", "messages[1].tool_calls")
    }
    assert batch.notes == [[], ["not-rendered-reasoning_content"], []]
    tools = Dialogue([calls.messages[0], Message(Role.ASSISTANT, "a")], "", [{"name": "f"}])
    assert encode(letters, CHATML, tools).notes == [["not-rendered-tools"]]
    skips = CHATML.replace("{{ m.content }}", "{{ m.content if m.role == 'user' }}")
    assert encode(letters, skips, say("q", "a")).failed[0].reason == "not-rendered"
    assert encode(letters, skips, say("q", " ")).failed == {}


def test_blank_replies_say_nothing_of_others_of_their_shape(letters: Model) -> None:
    """A reply that is left out is refused, though a blank one was not."""
    skips = CHATML.replace("{{ m.content }}", "{{ m.content if m.role == 'user' }}")
    batch = encode(letters, skips, say("q", " "), say("q", "a"))
    assert {number: error.reason for number, error in batch.failed.items()} == {1: "not-rendered"}


def test_calls_are_trained_with_what_closes_them(letters: Model) -> None:
    call = ToolCall("f", {"city": "Rome"})
    told = Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, None, None, (call, call)),
            Message(Role.OBSERVATION, "sun"),
            Message(Role.ASSISTANT, "Sun."),
        ]
    )
    wrapped = '<tool_call>\n{"name": "f", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert trained(letters, encode(letters, CALLS, told)) == [wrapped * 2 + "<|im_end|>", "Sun.<|im_end|>"]
    quoted = "<|call|>f:<|eot|>Rome<|eot|>}<|call|>"
    assert trained(letters, encode(letters, QUOTES, told)) == [quoted * 2 + "<|im_end|>", "Sun.<|im_end|>"]


def test_an_empty_content_behind_the_results_takes_nothing_from_its_calls(letters: Model) -> None:
    """As in Gemma 4, where the content of a message with calls stands behind their results."""
    text = (
        EACH + "{% if m.role != 'tool' %}<|im_start|>{{ m.role }}\n{% for c in m.tool_calls or [] %}"
        "<|call|>{{ c.function.name }}()<|call|>{% endfor %}"
        "{% if m.tool_calls and not loop.last %}<|observation|>"
        "{{ loop.nextitem.content }}<|observation|>{% endif %}{{ m.content }}<|im_end|>\n{% endif %}"
        + PROMPT + "<|im_start|>assistant\n{% endif %}"
    )  # fmt: skip
    told = Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, "", None, (ToolCall("f", {}),)),
            Message(Role.OBSERVATION, "sun"),
            Message(Role.ASSISTANT, "Sun."),
        ]
    )
    assert trained(letters, encode(letters, text, told)) == ["<|call|>f()<|call|>", "Sun.<|im_end|>"]


@pytest.mark.parametrize(
    "turn",
    [
        "{{ ['<|im_start|>' ~ m.role, m.content ~ '<|im_end|>']|join('\n') }}\n",
        "{{ '\n'.join(['<|im_start|>' ~ m.role, m.content ~ '<|im_end|>']) }}\n",
        "{{ (' <|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n')|trim }}\n",
        "{{ (' <|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n').strip() ~ '\n' }}",
        "{{ ('x@<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n').split('@')[1] }}",
        "{% set all %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endset %}{{ all|trim ~ '\n' }}",
    ],
)
def test_the_templates_own_tokens_stay_tokens(letters: Model, turn: str) -> None:
    """Whatever it joins them to and strips from them; and what is spelled stays text."""
    text = EACH + turn + PROMPT + "<|im_start|>assistant\n{% endif %}"
    batch = encode(letters, text, say("q", "a"), say("<s>", "</s>"))
    assert [note for notes in batch.notes for note in notes] == ["special-token-in-text"]
    texts = by_sample(batch)
    assert (
        letters.decode(texts[0][0]) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    )
    for ids, _ in texts:
        assert letters.decode(letters.special(ids)) == "<|im_start|><|im_end|>" * 2
    assert trained(letters, batch, 0) == ["a<|im_end|>"]
    assert trained(letters, batch, 1) == ["</s><|im_end|>"]


def test_words_mixed_with_others_are_refused(letters: Model) -> None:
    batch = encode(letters, MIXES, say("q", "a"))
    assert batch.failed[0].reason == "mask-unproven"


def test_a_turn_without_a_stop_is_noted(letters: Model) -> None:
    told = say("q", "a", "r", "b")
    assert encode(letters, NO_STOP, told).notes == [["stop-not-trained"]]
    assert trained(letters, encode(letters, NO_STOP, told)) == ["a", "b"]
    # The last turn has no header behind it; EOS closes it.
    assert encode(letters, NEXT_HEADER, told).notes == [["stop-not-trained"]]
    closed = encode(letters, NEXT_HEADER, told, append_eod=True)
    assert closed.notes == [[]]
    assert trained(letters, closed) == ["a<|user|>", "b</s>"]
    assert encode(letters, CHATML, told).notes == [[]]


def test_append_eod_closes_each_sample(letters: Model) -> None:
    plain = encode(letters, CHATML, say("q", "a"), say("r", "b"))
    batch = encode(letters, CHATML, say("q", "a"), say("r", "b"), append_eod=True)
    eos = letters.encoder.spec.eos_id
    for (ids, mask), (before, masked) in zip(by_sample(batch), by_sample(plain), strict=True):
        assert ids == [*before, eos]
        assert mask == [*masked, True]
    untrained = letters.template(CHATML, append_eod=True).encode(
        [say("q", "a", "r", "b")], [[False, True, False, False]]
    )
    assert not untrained.mask()[-1]


def test_bos_stands_once(letters: Model) -> None:
    for text in (MARKED, TRIMS, NEXT_HEADER):
        for ids, mask in by_sample(encode(letters, text, say("q", "a", "r", "b"), append_settings())):
            assert ids.count(letters.encoder.spec.bos_id) == 1
            assert ids[0] == letters.encoder.spec.bos_id
            assert not mask[0]


def append_settings() -> Dialogue:
    """Return a dialogue with a system text."""
    return say("q", "a", system="be brief")


def test_a_message_that_the_policy_leaves_is_context(letters: Model) -> None:
    told = say("q", "a", "r", "b")
    batch = letters.template(CHATML).encode([told], [[False, False, False, True]])
    assert trained(letters, batch) == ["b<|im_end|>"]
    assert batch.parity == {"same": 1}
    generated = batch.ids[batch.kinds == Kind.GENERATED].tolist()
    assert letters.decode(generated) == "a<|im_end|>b<|im_end|>"
    shown = letters.template(CHATML).encode([say("q", "a", system="s")], [[False, True]])
    assert trained(letters, shown) == ["a<|im_end|>"]


def test_empty_replies_are_trained_to_stop(letters: Model) -> None:
    batch = encode(letters, CHATML, say("q", "", "r", "b"))
    assert trained(letters, batch) == ["<|im_end|>", "b<|im_end|>"]
    nothing = encode(letters, NO_STOP, say("q", ""))
    assert not nothing.mask().any()


def test_all_fail(letters: Model) -> None:
    batch = encode(letters, RAISES.replace("% 2", "< 9"), say("q", "a"))
    assert (len(batch.ids), len(batch.sample_ends), list(batch.failed)) == (0, 0, [0])
    assert samples(batch) == {}
