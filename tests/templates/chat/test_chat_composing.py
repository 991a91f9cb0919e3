"""Dialogues of known shapes are written without the template, and are what the template writes."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
from chat_reference import Model, conversation, each_template, samples, template_text
from dialogues import HARMLESS, NAMES, flags, retold, seeded
from dialogues import tools as some_tools
from test_chat_shared import CHATML, same

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat import ChatTemplate, ShapeDiffers, composing, shapes, speakers
from mtsft_preproc.templates.chat.messages import chat_messages, chat_tools
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.templates.chat.speakers import Source, ToolBox, spoken


def ordinary(rng: random.Random) -> Dialogue:
    """Return a dialogue with nothing odd in it, of one of a few hundred shapes."""

    def words() -> str:
        return " ".join(rng.choices([HARMLESS[0], "Hello", "fine", "yes please", "42 of"], k=3))

    uses_tools = rng.random() < 0.4
    messages: list[Message] = []
    for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6])):
        messages.append(Message(Role.USER, words()))
        while uses_tools and rng.random() < 0.4:
            calls = (ToolCall(rng.choice(NAMES), {"city": words()}, "call00001"),)
            messages.append(Message(Role.ASSISTANT, rng.choice([None, words()]), None, calls))
            messages.append(Message(Role.OBSERVATION, words(), name=calls[0].name, call_id="call00001"))
        messages.append(Message(Role.ASSISTANT, words()))
    tools = some_tools(random.Random(rng.randint(0, 3)), 0) if uses_tools else []
    return Dialogue(messages, words() if rng.random() < 0.5 else "", tools)


def mixed(name: str, count: int) -> list[Dialogue]:
    """Return dialogues of which many have a shape in common, and some are odd."""
    told = [ordinary(random.Random(f"{name}/{number}")) for number in range(count)]
    for number, odd in enumerate(seeded(name, count // 8)):
        told += [odd, *(retold(random.Random(f"{name}/{number}/{again}"), odd) for again in range(2))]
    random.Random(name).shuffle(told)
    return told


def rendering_all(template: ChatTemplate) -> ChatTemplate:
    """Return a template that asks Jinja for every dialogue."""
    template.composes = False
    return template


def counting(template: ChatTemplate) -> list[str]:
    """Return a list that tells what the template is asked to render from now on."""
    asked: list[str] = []
    render = template._renderer._render

    def counted(compiled: Any, messages: Any, *rest: Any) -> str:
        asked.append(messages[-1]["role"])
        return render(compiled, messages, *rest)

    template._renderer._render = counted  # type: ignore[method-assign]
    return asked


def rounds(count: int, what: str = "say", system: str = "") -> Dialogue:
    """Return a dialogue of ``count`` rounds."""
    roles = [Role.USER, Role.ASSISTANT] * count
    return Dialogue([Message(role, f"{what} {place}") for place, role in enumerate(roles)], system)


@each_template()
def test_what_is_composed_is_what_is_proven(letters: Model, name: str) -> None:
    """Tokens, kinds, messages, notes, refusals and parity, of every template."""
    told = mixed(name, 40)
    template = letters.template(template_text(name), train_on_tools=True)
    reference = rendering_all(letters.template(template_text(name), train_on_tools=True))
    for start in range(0, len(told), 20):
        part = told[start : start + 20]
        one, other = (each.encode(part, flags(part)) for each in (template, reference))
        same(one, other)
        np.testing.assert_array_equal(one.kinds, other.kinds)
        np.testing.assert_array_equal(one.messages, other.messages)


@each_template()
def test_source_evaluates_as_expressions_do(letters: Model, name: str) -> None:
    """Every piece and every question of traced renderings, read from the messages themselves."""
    renderer = letters.renderer(template_text(name))
    source, box = Source(renderer.call_filter), ToolBox()
    for told in seeded(f"{name}/source", 8):
        messages, tools = spoken(told), box.of(told.tools)
        try:
            trace = renderer.trace(Conversation.of(chat_messages(told), chat_tools(told.tools)), keep=False)
        except RecordError:
            continue
        leaves = [piece for piece in trace.pieces if hasattr(piece, "expression")]
        for leaf in leaves:
            assert source.function([leaf.expression])(messages, 0, tools) == (leaf.text,)
        questions = [guard.question for guard in trace.guards]
        answers = [guard.answer for guard in trace.guards]
        assert list(source.answers(questions)(messages, 0, tools)) == answers


def test_a_known_shape_is_written_without_the_template(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "_RENDERED", 1 << 40)
    template = tiny.template(CHATML)
    learnt = [rounds(count, system=system) for count in (1, 2, 5, 6, 7) for system in ("", "be brief")]
    template.encode(learnt, flags(learnt))
    template.encode(learnt, flags(learnt))
    asked = counting(template)
    told = [
        rounds(count, f"tell <b> {number}", "be long" * (number % 2))
        for count in (1, 5, 7)
        for number in range(9)
    ]
    batch = template.encode(told, flags(told))
    assert asked == []
    for number, (ids, _) in samples(batch).items():
        assert ids == tiny.ids(CHATML, *conversation(told[number]))
    assert sum(batch.parity.values()) == sum(len(item.messages) // 2 for item in told)
    assert batch.parity["same"] == batch.parity.total()
    # Of a new shape, made of what is known, the first dialogue is proven, and the second is not rendered.
    for what, is_rendered in (("new", True), ("newer", False)):
        asked.clear()
        template.encode([rounds(9, what)], flags([rounds(9, what)]))
        assert bool(asked) == is_rendered


def test_a_share_is_rendered_all_the_same(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on the text alone, so that it is the same share in whatever order dialogues come."""
    monkeypatch.setattr(composing, "_RENDERED", 4)
    told = [rounds(1, f"tell {number}") for number in range(200)]
    counts = []
    for order in (told, told[::-1]):
        template = tiny.template(CHATML)
        template.encode(told[:3], flags(told[:3]))
        asked = counting(template)
        template.encode(order, flags(order))
        counts.append(len(asked))
    assert 20 < counts[0] < 90
    assert counts[0] == counts[1]


#: What a template may look at that is no matter of a message's neighbours.
FAR = [
    "{% if loop.index0 == 6 %}!{% endif %}",
    "{% if messages[0].content == 'say 0' %}!{% endif %}",
    "{% if 'x' in m.content %}!{% endif %}",
    "{% if m.content|length > 8 %}!{% endif %}",
    "{% if m.content|length + 1 > 9 %}!{% endif %}",
    "{% if loop.index > 4 and messages[loop.index0 - 4].content.endswith('3') %}!{% endif %}",
    "{% if m.role == 'user' and m.content == messages[0].content %}!{% endif %}",
    "{% if loop.revindex == 6 %}{{ messages[-1].content }}{% endif %}",
    "{% if loop.index > 12 %}{{ raise_exception('too long') }}{% endif %}",
]


@pytest.mark.parametrize("far", FAR)
def test_what_a_template_looks_at_far_away_is_found(tiny: Model, far: str) -> None:
    """Ids are the template's, whatever was learnt of other dialogues."""
    text = CHATML.replace("{{ m.content }}", "{{ m.content }}" + far)
    template = tiny.template(text)
    rng = random.Random(far)
    told = [
        rounds(rng.randint(1, 8), rng.choice(["say", "xay", "s", "tell it"]), rng.choice(["", "be brief"]))
        for _ in range(150)
    ]
    for start in range(0, len(told), 10):
        part = told[start : start + 10]
        batch = template.encode(part, flags(part))
        expected = rendering_all(tiny.template(text)).encode(part, flags(part))
        same(batch, expected)
        for number, (ids, _) in samples(batch).items():
            assert ids == tiny.ids(text, *conversation(part[number]))


def test_the_text_is_the_templates_even_where_it_counts(tiny: Model) -> None:
    """Fourteen messages are one too many for what was learnt of others: each shape is rendered once."""
    text = CHATML.replace("{{ m.content }}", "{{ m.content }}{% if messages|length == 14 %}!{% endif %}")
    template = tiny.template(text)
    told = [rounds(count, what) for what in ("say", "tell") for count in range(1, 11)]
    for _ in range(2):
        batch = template.encode(told, flags(told))
        for number, (ids, _mask) in samples(batch).items():
            assert ids == tiny.ids(text, *conversation(told[number]))
        assert len(samples(batch)) == len(told)


def spoilt(template: ChatTemplate, say: str = "something else") -> list[Dialogue]:
    """Let a template compose a proven shape otherwise; return dialogues of the shape."""
    told = [rounds(1, f"tell {number}") for number in range(8)]
    template.encode(told, flags(told))
    [shape] = template._composer._shapes.values()
    assert shape.proven
    shape.writes[0] = lambda messages, number, tools: ("<|im_start|>user\n", say)
    return told


def test_a_shape_that_differs_is_told(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by the share that is rendered; nothing of the batch is kept."""
    monkeypatch.setattr(composing, "_RENDERED", 1)
    template = tiny.template(CHATML)
    told = spoilt(template)
    with pytest.raises(ShapeDiffers) as caught:
        template.encode(told, flags(told))
    found = pickle.loads(pickle.dumps(caught.value)).difference
    assert found.shape == "user assistant"
    assert found.what == "text"
    assert found.composed.startswith("<|im_start|>user\nsomething else<|im_end|>")
    assert found.rendered.startswith("<|im_start|>user\ntell 0 0<|im_end|>")
    assert str(found) in str(caught.value)


def test_the_share_does_not_depend_on_batches(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which dialogues of a proven shape are rendered follows from their text, however they are cut up."""
    monkeypatch.setattr(composing, "_RENDERED", 4)
    told = [rounds(1, f"tell {number}") for number in range(60)]
    found = []
    for size in (7, 60):
        template = tiny.template(CHATML)
        first = [rounds(1, "first"), rounds(1, "second"), rounds(1, "third")]
        template.encode(first, flags(first))
        drawn: list[str] = []
        template._composer._prove_again = lambda shape, messages, *rest: (  # type: ignore[method-assign]
            drawn.append(messages[0].content)  # noqa: B023 - called before the next one is made
        )
        for start in range(0, 60, size):
            part = told[start : start + size]
            template.encode(part, flags(part))
        found.append(drawn)
    assert found[0] == found[1]
    assert 5 < len(found[0]) < 30


@pytest.mark.parametrize("what", ["kinds", "owners", "turns", "notes"])
def test_more_than_the_text_is_proven_again(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The text is the same, and the mask is not, or what is said about it: the whole proof finds it."""
    template = tiny.template(CHATML)
    told = [rounds(1, f"tell {number}") for number in range(4)]
    template.encode(told, flags(told))
    [shape] = template._composer._shapes.values()
    script = shape.script
    if what in ("kinds", "owners"):
        getattr(script, what)[:] = 3
    elif what == "notes":
        script.notes.append("not-rendered-user")
    else:
        script.turns[0].turn.reply_same = False
    template.encode(told[:1], flags(told[:1]))
    monkeypatch.setattr(composing, "_RENDERED", 1)
    monkeypatch.setattr(composing, "_PROVEN", 1)
    with pytest.raises(ShapeDiffers):
        template.encode(told, flags(told))


@pytest.mark.parametrize("what", ["text", "kinds", "turns", "notes"])
def test_the_first_dialogue_of_a_shape_is_proven_whole(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """However long it is: a fragment that was spoilt is found before anything is composed from it."""
    monkeypatch.setattr(composing, "_RENDERED", 1 << 40)
    template = tiny.template(CHATML)
    learnt = [rounds(count) for count in (1, 2, 5, 6, 7)]
    template.encode(learnt, flags(learnt))
    join = composing.join_script

    def wrong(fragments: Any) -> Any:
        script = join(fragments)
        if what == "kinds":
            script.kinds[-1] = 3
        elif what == "turns":
            script.turns[40].turn.reply_same = False
        elif what == "notes":
            script.notes.append("not-rendered-user")
        return script

    monkeypatch.setattr(composing, "join_script", wrong)
    if what == "text":
        texts = shapes.Shape.texts
        monkeypatch.setattr(
            shapes.Shape, "texts", lambda *given: [*texts(*given)[:-1], "<|im_end|> and more"]
        )
    long = [rounds(60, "tell"), rounds(60, "say"), rounds(60, "ask")]
    batch = template.encode(long, flags(long))
    for number, (ids, _) in samples(batch).items():
        assert ids == tiny.ids(CHATML, *conversation(long[number]))
    same(batch, rendering_all(tiny.template(CHATML)).encode(long, flags(long)))
    assert not any(
        shape.proven and len(shape.writes) > 100 for shape in template._composer._shapes.values()
    )


def test_a_turn_is_rendered_once_for_all_shapes_that_begin_alike(tiny: Model) -> None:
    """A second long shape costs its text and its own turns, not those that it has in common."""
    template = tiny.template(CHATML)
    learnt = [rounds(count) for count in (1, 2, 5, 6, 7)]
    template.encode(learnt, flags(learnt))
    asked = counting(template)
    counts = []
    for count in (20, 20, 21, 40):
        told = [rounds(count, f"tell {len(counts)}")]
        template.encode(told, flags(told))
        counts.append(len(asked))
        asked.clear()
    # One rendering of the whole, traced and plain, and two per turn, of which the last needs but one.
    assert counts[1] == 0
    assert counts[0] <= 2 + 2 * 20
    assert counts[2] <= 2 + 2 * 3
    assert counts[3] <= 2 + 2 * 21


TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}"
)


def test_of_a_shape_with_more_tools_the_text_is_compared(tiny: Model) -> None:
    """What is written behind the tools is proven already; it must be what is written, all the same."""
    template = tiny.template(TOOLS + CHATML)

    def told(count: int, tools: int, what: str) -> list[Dialogue]:
        functions = [{"name": f"tool{number}", "parameters": {}} for number in range(tools)]
        made = [{"type": "function", "function": function} for function in functions]
        return [Dialogue(rounds(count, what).messages, "", made)]

    for tools in (1, 2, 3):
        for count in (1, 2, 5, 6, 7):
            batch = told(count, tools, "say")
            template.encode(batch, flags(batch))
    asked = counting(template)
    counts = []
    for tools, what in ((2, "tell"), (3, "ask"), (1, "answer"), (1, "say")):
        batch = told(20, tools, what)
        encoded = template.encode(batch, flags(batch))
        counts.append(len(asked))
        asked.clear()
        same(encoded, rendering_all(tiny.template(TOOLS + CHATML)).encode(batch, flags(batch)))
        assert samples(encoded)[0][0] == tiny.ids(TOOLS + CHATML, *conversation(batch[0]))
    assert counts[0] > 20
    assert counts[1:] == [1, 1, 0]


def test_beginnings_of_a_long_dialogue_are_rendered_once(tiny: Model) -> None:
    """Of a second dialogue of the same length hardly any is: their number does not matter."""
    template = tiny.template(CHATML)

    def beginnings(what: str) -> tuple[list[Dialogue], list[list[bool]]]:
        whole = rounds(60, what)
        told = [Dialogue(whole.messages[: count + 2]) for count in range(0, 120, 2)]
        return told, [[False] * (len(item.messages) - 1) + [True] for item in told]

    asked = counting(template)
    first = template.encode(*beginnings("say"), shared=True)
    assert len(asked) < 7 * 60
    asked.clear()
    second = template.encode(*beginnings("tell"), shared=True)
    assert len(asked) < 20
    assert not first.failed
    assert not second.failed
    told, trained = beginnings("tell")
    same(second, rendering_all(tiny.template(CHATML)).encode(told, trained, shared=True))


def test_equal_tools_are_one_object() -> None:
    box = ToolBox()
    one, other = ([{"name": "f", "parameters": {"x": number}}] for number in (1, 2))
    assert box.of(one) is box.of([dict(one[0])])
    assert box.of(one) is not box.of(other)
    assert box.of(one) == [{"type": "function", "function": one[0]}]
    # Python takes 1 and True for equal; a template writes them otherwise.
    assert box.of([{"x": 1}]) is not box.of([{"x": True}])
    assert box.of([{"x": 1, "y": 2}]) is not box.of([{"y": 2, "x": 1}])
    assert box.of([]) == []


def test_tools_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakers, "_KEPT", 10)
    box = ToolBox()
    for number in range(50):
        assert box.of([{"x": number}]) == [{"x": number}]
    assert len(box._known) == 10
