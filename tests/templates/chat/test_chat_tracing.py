"""Traced rendering: text keeps its owner through every operation, and a kept trace is never wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from chat_reference import Model, each_template, template_text
from dialogues import dialogue, flags, retold
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.templates.chat import ChatTemplate
from mtsft_preproc.templates.chat.messages import chat_messages
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.templates.chat.tracing import CLOSE, OPEN, Leaf, Piece

#: What a template may do with a message ``m`` and its content ``c``.
OPERATIONS = [
    '{{ "{}!".format(c) }}',
    '{{ "%s!" % c }}',
    '{{ "%s!"|format(c) }}',
    '{{ "%s-%s" % (c, "x") }}',
    '{{ "%(a)s" % {"a": c} }}',
    '{{ c ~ "!" }}',
    '{{ "a" ~ c ~ 1 }}',
    '{{ [c, "y"]|join(", ") }}',
    '{{ c|replace("a", "b") }}',
    '{{ c.replace("a", "b") }}',
    '{{ "xax".replace("a", c) }}',
    "{{ c|upper }}",
    "{{ c.title() }}",
    "{{ c|indent(2) }}",
    "{{ c|wordwrap(5) }}",
    "{{ c|e }}",
    "{{ c|escape }}",
    "{{ c|forceescape }}",
    "{{ c|tojson }}",
    "{{ [c]|tojson }}",
    '{{ {"a": c}|tojson(indent=2) }}',
    "{{ c[1:] }}",
    "{{ c[::-1] }}",
    "{{ c[:-1] }}",
    "{{ c|first }}",
    "{{ c|last }}",
    '{{ c|list|join("-") }}',
    "{% for x in c %}{{ x }}.{% endfor %}",
    "{{ c|length }}",
    "{{ c|trim }}",
    '{{ c.strip("a") }}',
    '{{ c.split("\n")[0] }}',
    '{{ c.split("\n")|last }}',
    "{% for x in c.splitlines() %}{{ x }};{% endfor %}",
    "{{ c|string }}",
    "{{ c|truncate(5, True) }}",
    '{{ c|default("z") }}',
    '{{ c|default("z", true) }}',
    '{{ c|d("z") }}',
    "{{ c|reverse }}",
    "{{ c|center(30) }}",
    "{{ c|int }}",
    "{{ c|float(0.0) }}",
    "{{ c|urlize }}",
    "{{ c|striptags }}",
    "{{ c|wordcount }}",
    "{{ c|batch(2)|list|tojson }}",
    "{{ c|safe }}",
    '{{ ("<b>"|safe) ~ c }}',
    '{{ ("<b>"|safe) + c }}',
    '{{ c|safe + "<b>" }}',
    "{{ c|urlencode }}",
    '{{ {"k": c}|xmlattr }}',
    "{% set y %}[{{ c }}]{% endset %}{{ y }}",
    "{% set y %}[{{ c }}]{% endset %}{{ y|trim }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(c) }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(c)|upper }}",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}{{ c }}{% endcall %}",
    "{% filter upper %}{{ c }}{% endfilter %}",
    "{{ c * 2 }}",
    "{{ 2 * c }}",
    '{{ c if c else "none" }}',
    '{{ c or "none" }}',
    '{{ c and "some" }}',
    '{{ "y" if "a" in c else "n" }}{{ c }}',
    '{{ "y" if c in "abc" else "n" }}{{ c }}',
    '{{ "y" if c in ["a","b"] else "n" }}{{ c }}',
    '{{ "y" if c == "a" else "n" }}{{ c }}',
    '{{ "y" if "a" == c else "n" }}{{ c }}',
    '{{ "y" if c.startswith("a") else "n" }}{{ c }}',
    '{{ "y" if "abc".startswith(c) else "n" }}{{ c }}',
    '{{ c.find("a") }}',
    '{{ c.count("a") }}',
    '{{ [{"g": c}]|groupby("g")|list|length }}{{ c }}',
    '{% set n = namespace(t="") %}{% for i in [1,2] %}{% set n.t = n.t + c %}{% endfor %}{{ n.t }}',
    "{{ {c: 1}|tojson }}",
    '{{ dict(a=c)["a"] }}',
    '{{ {"a": c}.get("a") }}',
    '{{ {"a": c}|items|list|tojson }}',
    '{{ c|attr("upper")() }}',
    '{{ c.partition("a")|tojson }}',
    '{{ c.partition("a")[2] }}',
    '{{ c.rpartition("a")|last }}',
    '{{ "-".join([c, c]) }}',
    '{{ c.join(["1", "2"]) }}',
    "{{ c|pprint }}",
    '{{ [c, "a"]|sort|join }}',
    '{{ [c, "a"]|unique|join }}',
    '{{ [c, "a"]|max }}',
    '{{ [c, c]|map("upper")|join }}',
    '{{ [c, ""]|select|join }}',
    '{{ [c, "a"]|select("equalto", "a")|join }}',
    '{{ [c]|map("replace", "a", "b")|join }}',
    "{{ c is string }}{{ c }}",
    "{{ c is sequence }}{{ c is iterable }}{{ c }}",
    "{{ c is mapping }}{{ c }}",
    "{{ c is lower }}{{ c }}",
    "{{ c is upper }}",
    '{{ c is eq("a") }}',
    '{{ c is in(["a"]) }}',
    "{{ c is sameas c }}",
    "{{ c is true }}",
    "{{ c is none }}{{ c }}",
    "{{ c is number }}",
    "{{ c is escaped }}",
    "{{ c is callable }}",
    '{{ c < "b" }}',
    '{{ "b" < c }}',
    '{{ c >= "b" }}',
    '{{ "a" <= c <= "z" }}',
    '{{ "b" > c }}',
    '{{ c != "a" }}',
    '{{ c.encode("utf-8")|length }}',
    "{{ c.isdigit() }}",
    "{{ c.zfill(20) }}",
    '{{ c.translate({97: "b"}) }}',
    "{{ c.casefold() }}",
    "{{ c.expandtabs(4) }}",
    "{{ (c|list)[0] }}",
    "{{ c[0] }}",
    "{{ c[-1:] }}",
    "{{ c|filesizeformat }}",
    "{% for k in [c]|sort %}{% if loop.changed(k) %}{{ k }}{% endif %}{% endfor %}",
    "{% for k in [c, c] %}{% if loop.changed(k) %}{{ k }}{% endif %}{% endfor %}",
    '{% for k in [c, "a"] recursive %}{{ k }}{% endfor %}',
    "{% with z = c %}{{ z }}{% endwith %}",
    "{{ c|capitalize }}",
    "{{ c|title }}",
    '{{ c.removeprefix("a") }}',
    '{{ c.lstrip("\n") }}',
    '{{ c.split()|join(" ") }}',
    '{{ c.split("a", 1)|tojson }}',
    '{{ (c + "x").split("x")[0] }}',
    '{{ ("x" + c)[1:] }}',
    "{{ [c]|first }}",
    "{{ [c][0] }}",
    '{{ (c, "b")[0] }}',
    '{{ [c] + ["d"] }}',
    "{{ [c] }}",
    '{{ {"a": c} }}',
    "{{ (c,) }}",
    "{{ [[c]]|sum(start=[])|join }}",
    '{{ [{"a": c}]|map(attribute="a")|join }}',
    '{{ [{"a": c}]|join(",", attribute="a") }}',
    "{{ joiner(c)() }}{{ c }}",
    "{% set j = joiner(c) %}{{ j() }}x{{ j() }}",
    '{% set j = cycler(c, "b") %}{{ j.next() }}',
    '{{ "%d" % c|length }}',
    '{{ "%10s|" % c }}',
    '{{ "{:>10}".format(c) }}',
    '{{ "{0[0]}".format(c) }}',
    '{{ "{a}".format(a=c) }}',
    '{{ "{a}".format_map({"a": c}) }}',
    "{% if c %}{% endif %}{{ c }}",
    "{% if not c %}e{% endif %}{{ c }}",
    '{{ c|replace(c, "q") }}',
    "{{ raise_exception(c) }}",
    "{{ strftime_now(c) }}",
    '{{ strftime_now("%Y " + c) }}',
    '{{ "\\n".join(c.split("\\n")|map("trim")) }}',
    "{{ range(c|length)|list }}",
    "{% for i in range(c|length) %}{{ c[i] }}{% endfor %}",
    "{{ c.upper().lower() }}",
    "{{ (c|trim)|length > 0 }}{{ c }}",
    "{% generation %}{{ c }}{% endgeneration %}",
    "{% set z %}{% generation %}{{ c }}{% endgeneration %}{% endset %}{{ z|trim }}",
    "{% macro f(x) %}{% generation %}{{ x }}{% endgeneration %}{% endmacro %}{{ f(c)|upper }}",
    "{{ m|tojson }}",
    "{{ messages|tojson }}",
    "{{ m }}",
    "{{ m.items()|list }}",
    "{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}",
    "{{ m|length }}",
    '{{ "content" in m }}',
    "{{ m|dictsort|string }}",
    '{{ messages|map(attribute="content")|join("|") }}',
    '{{ messages|selectattr("content", "equalto", "a")|list|length }}',
    '{{ messages|selectattr("content")|list|length }}',
    '{{ messages|groupby("content")|length }}',
    '{{ messages|sort(attribute="content")|map(attribute="content")|join }}',
    '{{ messages|unique(attribute="content")|list|length }}',
    "{{ messages == [] }}",
    '{{ m == {"role": "user", "content": "a"} }}',
    "{{ m.content == messages[-1].content }}",
    "{{ c is eq messages[-1].content }}",
    "{{ c in messages[-1].content }}",
    "{{ m in messages[:1] }}",
    '{{ c|lower|replace(" ", "") }}',
    "{{ dict([(c, 1)])|length }}",
    '{{ dict.fromkeys([c], "v")|tojson }}',
    '{{ {"a":"found"}.get(c, "not") }}',
    '{{ {"a":"found"}[c] }}',
    "{{ namespace(a=c).a }}",
    "{{ c|slice(2)|list|string }}",
    "{{ c.__len__() }}",
    "{{ c.__class__ }}",
    "{{ c|tojson|safe }}",
    '{{ (c|e) ~ "<" }}',
    '{{ (c|e) + "<" }}',
    '{{ ("<"|e) ~ c }}',
    '{{ c|e|string + "<" }}',
    '{{ c|e|replace("&", "+") }}',
    '{{ ("x"|safe)|replace("x", c) }}',
    '{{ ("<i>%s</i>"|safe) % c }}',
    '{{ ("<i>{}</i>"|safe).format(c) }}',
    '{{ ("-"|safe).join([c,c]) }}',
    '{{ [c, "<"|safe]|join }}',
    '{{ [c, "<"|safe]|join(c) }}',
]
#: A letter that no template writes, and how filters spell it.
MARK = ("Ω", "ω", "03a9", "03c9", "%CE")
CONTENTS = ["Ωa", "Ωbanana\n Ω ", "a", "", "ΩΩ<&>'", " ΩA\t{} %s"]


def text_of(pieces: Sequence[Piece]) -> str:
    """Return the text of a trace, in which generation blocks have marks of their own."""
    return "".join(
        piece.text if isinstance(piece, Leaf) else piece for piece in pieces if piece not in (OPEN, CLOSE)
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_keeps_the_owner_and_is_done_again_on_other_text(tiny: Model, operation: str) -> None:
    head = "{% for m in messages %}{% set c = m.content %}<{{ m.role }}>"
    renderer = tiny.renderer(head + operation + "</m>{% endfor %}")
    for one in CONTENTS:
        for other in CONTENTS:
            messages = [{"role": "user", "content": one}, {"role": "assistant", "content": other}]
            conversation = Conversation.of(messages, [])
            try:
                text = renderer.text(conversation)
            except RecordError:
                continue  # text that can't be formatted, say
            pieces = renderer.trace(conversation).pieces
            assert text_of(pieces) == text
            literal = "".join(piece for piece in pieces if isinstance(piece, str))
            assert not any(mark in literal for mark in MARK)


def test_an_index_out_of_range_is_another_rendering(tiny: Model) -> None:
    template = tiny.template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content[0] }}.{{ m.content }}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    told = [
        Dialogue([Message(Role.USER, text), Message(Role.ASSISTANT, "yes")]) for text in ("ab", "", "c")
    ]
    batch = template.encode(told, flags(told))
    assert batch.failed == {}
    ends = [0, *batch.sample_ends.tolist()]
    texts = [tiny.decode(batch.ids[start:end]) for start, end in itertools.pairwise(ends)]
    assert [text.split("<|im_end|>")[0] for text in texts] == [
        "<|im_start|>user\na.ab", "<|im_start|>user\n.", "<|im_start|>user\nc.c",
    ]  # fmt: skip


def test_what_cannot_be_followed_is_refused(tiny: Model) -> None:
    with pytest.raises(TemplateError, match="autoescape"):
        tiny.renderer("{% autoescape true %}{{ messages[0].content }}{% endautoescape %}")
    renderer = tiny.renderer("{% for m in messages %}{{ m.content|random }}{% endfor %}")
    conversation = Conversation.of([{"role": "user", "content": "abcdefghijklmnopqrstuvwxyz" * 9}] * 9, [])
    with pytest.raises(RecordError, match="mask-unproven"):
        renderer.trace(conversation)


def outcome(template: ChatTemplate, told: Dialogue) -> Any:
    """Return all that a template says of one dialogue."""
    batch = template.encode([told], flags([told]))
    failed = {number: (error.reason, error.field, error.got) for number, error in batch.failed.items()}
    trained = batch.mask().tolist()
    return (
        failed,
        batch.ids.tolist(),
        trained,
        batch.kinds.tolist(),
        batch.notes,
        batch.parity,
        batch.differences,
    )


@each_template()
def test_what_is_kept_says_what_is_new(letters: Model, name: str) -> None:
    """Dialogues of one shape, whose words flip the template's conditions, through one template or many."""
    text = template_text(name)
    rng = random.Random(name)
    first = dialogue(rng)
    del first.messages[6:]
    told = [first, *(retold(rng, first, 0.3) for _ in range(3))]
    shared = letters.template(text)
    for item in [*told, first]:
        assert outcome(shared, item) == outcome(letters.template(text), item)
    back = letters.template(text).encode(told[::-1], flags(told))
    forth = letters.template(text).encode(told, flags(told))
    assert {len(told) - 1 - number for number in back.failed} == set(forth.failed)
    assert back.parity == forth.parity
    assert np.diff([0, *back.sample_ends])[::-1].tolist() == np.diff([0, *forth.sample_ends]).tolist()


@each_template()
def test_a_kept_trace_writes_what_the_template_writes(letters: Model, name: str) -> None:
    """With and without the generation prompt, for every history: texts that nothing else compares."""
    renderer = letters.renderer(template_text(name))
    rng = random.Random(f"{name}/trace")
    first = dialogue(rng)
    del first.messages[5:]
    for told in [first, *(retold(rng, first, 0.3) for _ in range(3))]:
        whole = Conversation.of(chat_messages(told), told.tools)
        for count, prompt in itertools.product(range(1, len(whole.messages) + 1), (False, True)):
            conversation = whole.first(count)
            try:
                text = renderer.text(conversation, prompt)
            except RecordError:
                continue
            assert text_of(renderer.trace(conversation, prompt).pieces) == text


FLIPPING = {
    "thinking stripped from history": (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set c = m.content %}"
        "{% if m.role == 'assistant' and '</think>' in c and loop.index0 < ns.last %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ c }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "trim and empty": (
        "<s>{% for m in messages %}<|{{ m.role }}|>{% if m.content|trim %}{{ m.content|trim }}"
        "{% else %}(none){% endif %}<|eot|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "one line or more": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if '\n' in m.content %}\n{{ m.content }}\n"
        "{% else %}{{ m.content[:3] ~ m.content[3:] }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}
words = st.text(st.sampled_from("\n abé<|>{"), max_size=4)
spoken = st.lists(
    st.one_of(words, st.sampled_from(["", "</think>", "<think>\na</think>\nb", "<|im_end|>"])), max_size=3
).map("".join)


@pytest.mark.parametrize("kind", FLIPPING)
def test_conditions_that_flip(tiny: Model, kind: str) -> None:
    shared = tiny.template(FLIPPING[kind])

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
    )
    @given(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=3))
    def run(rounds: list[tuple[str, str]]) -> None:
        messages = []
        for asked, answered in rounds:
            messages += [Message(Role.USER, asked), Message(Role.ASSISTANT, answered)]
        told = Dialogue(messages)
        assert outcome(shared, told) == outcome(tiny.template(FLIPPING[kind]), told)

    run()
