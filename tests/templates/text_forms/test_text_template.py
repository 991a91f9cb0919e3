"""Text forms, token for token, against the forms written out by hand and encoded by transformers."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from two_tokenizers import Both, harmless, ignored, labels_of, one, replies, talk

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError, TemplateError, TokenizerError
from mtsft_preproc.templates import TextTemplate, text_forms
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization.encoders import RustEncoder

OPENING = (
    "\nBelow is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request. Please note that you need to think through "
    "your response logically and step by step.\n"
)
NAMES = ["alpaca_text", "moss_text", "moss_baichuan", "chatglm_rounds"]
PLAIN = ["alpaca_text", "moss_baichuan", "chatglm_rounds"]

thorough = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
rounds = st.lists(st.tuples(harmless, harmless), min_size=1, max_size=3)


def alpaca(*texts: str) -> str:
    """Write a dialogue out in Alpaca's form."""
    headings = ["### Instruction:\n", "### Response:\n"]
    return OPENING + "".join(f"{headings[number % 2]}{text}\n" for number, text in enumerate(texts))


def flat(pairs: list[tuple[str, str]]) -> list[str]:
    return [text for pair in pairs for text in pair]


def refusal(template: TextTemplate, dialogue: Dialogue, trained: list[bool] | None = None) -> RecordError:
    """Return why a dialogue has no sample."""
    flags = replies(dialogue) if trained is None else trained
    batch = template.encode([dialogue], [flags])
    assert batch.sample_ends.tolist() == []
    assert batch.failed[0].reason in REASONS
    assert batch.failed[0].expected
    assert batch.failed[0].got
    return batch.failed[0]


def test_the_registry_knows_the_forms() -> None:
    assert text_forms.names() == NAMES


def test_alpaca_text_is_one_text(around: Both) -> None:
    dialogue = talk("Add.", "3", "Why?", "So.")
    ids, labels, notes = one(around.template("alpaca_text"), dialogue)
    assert ids == around.around(alpaca("Add.", "3", "Why?", "So."))
    assert notes == []
    first = around.around(alpaca("Add."))[:-1] + around.ids("### Response:\n")
    assert labels[: len(first)] == ignored(first)
    reply = around.ids("3\n")
    assert labels[len(first) : len(first) + len(reply)] == reply
    second = around.ids("### Instruction:\nWhy?\n### Response:\n")
    assert labels[len(first) + len(reply) :] == [
        *ignored(second), *around.ids("So.\n"), around.encoder.spec.eos_id
    ]  # fmt: skip


@thorough
@given(pairs=rounds)
def test_alpaca_text_has_the_ids_of_transformers_and_trains_the_replies(
    bare: Both, around: Both, pairs: list[tuple[str, str]]
) -> None:
    said = flat(pairs)
    for both in (bare, around):
        ids, labels, notes = one(both.template("alpaca_text"), talk(*said))
        assert ids == both.around(alpaca(*said))
        trained = both.encoder.decode([label for label in labels if label >= 0])
        expected = "".join(f"{reply}\n" for _, reply in pairs)
        stop = both.encoder.decode(both.encoder.spec.auto_suffix)
        if "token-across-border" in notes:
            assert len(trained) < len(expected + stop)
        else:
            assert trained == expected + stop


def test_a_token_that_lies_across_the_border_is_not_trained(bare: Both) -> None:
    # The tokenizer makes one token of two line ends.
    both = bare.ids("\n\n")
    assert len(both) == 1
    _, labels, notes = one(bare.template("alpaca_text"), talk("a", "\nb"))
    assert [label for label in labels if label >= 0] == bare.ids("b\n")
    assert notes == ["token-across-border"]
    assert one(bare.template("alpaca_text"), talk("a", "b"))[2] == []


def test_alpaca_text_trains_what_is_asked_for_alone(bare: Both) -> None:
    dialogue = talk("a", "b", "c", "d")
    _, labels, _ = one(bare.template("alpaca_text"), dialogue, [False, True, False, False])
    assert [label for label in labels if label >= 0] == bare.ids("b\n")
    _, labels, _ = one(bare.template("alpaca_text"), dialogue, [False, False, False, True])
    assert [label for label in labels if label >= 0] == bare.ids("d\n")


def test_with_context_all_but_the_opening_is_trained(around: Both) -> None:
    template = around.template("alpaca_text")
    batch = template.encode([talk("a", "b")], [[False, True]])
    labels = labels_of(template, batch, context=True)
    words = around.ids("### Instruction:\na\n### Response:\nb\n")
    assert [label for label in labels if label >= 0] == [*words, around.encoder.spec.eos_id]


def test_moss_baichuan_by_hand(around: Both) -> None:
    template = around.template("moss_baichuan")
    eos = around.encoder.spec.eos_id
    q1, a1, q2, a2 = (around.around(text) for text in ("Add.", "3", "Why?", "So."))
    ids, labels, _ = one(template, talk("Add.", "3", "Why?", "So."))
    assert ids == [195, *q1, 196, *a1, 195, *q2, 196, *a2, eos]
    assert labels == [eos, *ignored(q1), -100, *a1, eos, *ignored(q2), -100, *a2, eos]
    for flags, expected in (
        ([False, True, False, False], [eos, *ignored(q1), -100, *a1, eos, *ignored([*q2, 196, *a2, eos])]),
        ([False, False, False, True], [*ignored([195, *q1, 196, *a1, 195, *q2, 196]), *a2, eos]),
        ([False, False, False, False], ignored(ids)),
    ):
        assert one(template, talk("Add.", "3", "Why?", "So."), flags)[1] == expected


@thorough
@given(pairs=rounds)
def test_moss_baichuan_has_the_ids_of_transformers(around: Both, pairs: list[tuple[str, str]]) -> None:
    template = around.template("moss_baichuan")
    ids, labels, _ = one(template, talk(*flat(pairs)))
    expected, taught = [], []
    for question, reply in pairs:
        asked, said = around.around(question), around.around(reply)
        expected += [195, *asked, 196, *said]
        taught += [around.encoder.spec.eos_id, *ignored(asked), -100, *said]
    assert ids == [*expected, around.encoder.spec.eos_id]
    assert labels == [*taught, around.encoder.spec.eos_id]


def test_moss_baichuan_needs_its_ids(bare: Both) -> None:
    with pytest.raises(TemplateError, match="195 and 196"):
        text_forms.get("moss_baichuan")(replace(bare.encoder.spec, vocab_size=196))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("prefix", ["", "Answer: "])
def test_chatglm_rounds_by_hand(around: Both, first: int, prefix: str) -> None:
    template = around.template("chatglm_rounds", first, prefix)
    ids, labels, notes = one(template, talk("q1", "a1", "q2", "a2"), [False, False, False, True])
    prompt = around.ids(f"{prefix}[Round {first}]\n问：q1\n答：a1\n[Round {first + 1}]\n问：q2\n答：")
    reply = [*around.ids("a2"), around.encoder.spec.eos_id]
    assert (ids, labels, notes) == ([*prompt, *reply], [*ignored(prompt), *reply], [])


@thorough
@given(pairs=rounds)
def test_chatglm_rounds_has_the_ids_of_transformers(bare: Both, pairs: list[tuple[str, str]]) -> None:
    said = flat(pairs)
    flags = [False] * (len(said) - 1) + [True]
    ids, labels, _ = one(bare.template("chatglm_rounds"), talk(*said), flags)
    earlier = [f"[Round {number}]\n问：{q}\n答：{a}\n" for number, (q, a) in enumerate(pairs[:-1])]
    prompt = bare.ids("".join(earlier) + f"[Round {len(pairs) - 1}]\n问：{pairs[-1][0]}\n答：")
    reply = [*bare.ids(pairs[-1][1]), bare.encoder.spec.eos_id]
    assert (ids, labels) == ([*prompt, *reply], [*ignored(prompt), *reply])


def test_chatglm_rounds_train_the_last_reply_alone(bare: Both) -> None:
    error = refusal(bare.template("chatglm_rounds"), talk("q1", "a1", "q2", "a2"))
    assert (error.reason, error.field) == ("unsupported-message", "messages[1]")
    assert "--train-on split or last" in error.expected


def moss_turn() -> list[Message]:
    return [
        Message(Role.USER, "<|Human|>: Hi<eoh>\n"),
        Message(Role.ASSISTANT, "<|Commands|>: None<eoc>\n", reasoning="<|Inner Thoughts|>: hm<eot>\n"),
        Message(Role.OBSERVATION, "<|Results|>: None\n<eor>\n"),
        Message(Role.ASSISTANT, "<|MOSS|>: Hello<eom>\n"),
    ]


def test_moss_text_by_hand(around: Both) -> None:
    template = around.template("moss_text")
    dialogue = Dialogue(moss_turn(), "You are MOSS.\n")
    meta, human = around.ids("You are MOSS.\n"), around.ids("<|Human|>: Hi<eoh>\n")
    inner = around.ids("<|Inner Thoughts|>: hm<eot>\n") + around.ids("<|Commands|>: None<eoc>\n")
    results, answer = around.ids("<|Results|>: None\n<eor>\n"), around.ids("<|MOSS|>: Hello<eom>\n")
    opening, closing = around.ids("<|Results|>:"), around.ids("<eor>\n")
    assert results[: len(opening)] == opening
    assert results[-len(closing) :] == closing
    inside = results[len(opening) : -len(closing)]
    ids, labels, notes = one(template, dialogue)
    assert ids == meta + human + inner + results + answer
    marked = opening + ignored(inside) + closing
    assert labels == ignored(meta + human) + inner + marked + answer
    assert notes == []
    _, labels, _ = one(template, dialogue, [False, False, False, True])
    assert labels == ignored(meta + human + inner + results) + answer
    _, labels, _ = one(template, dialogue, [False, True, False, False])
    assert labels == ignored(meta + human) + inner + marked + ignored(answer)


def test_moss_text_trains_results_where_that_is_asked_for(around: Both) -> None:
    template = around.template("moss_text", train_on_tools=True)
    batch = template.encode([Dialogue(moss_turn())], [[False, False, True, False]])
    trained = around.encoder.decode([label for label in labels_of(template, batch) if label >= 0])
    assert trained == " None\n"
    assert Kind.OBSERVED in batch.kinds.tolist()
    batch = around.template("moss_text").encode([Dialogue(moss_turn())], [[False, True, False, True]])
    assert Kind.OBSERVED not in batch.kinds.tolist()


def test_moss_text_gives_marks_to_text_that_has_none(around: Both) -> None:
    messages = [
        Message(Role.USER, "Hi"),
        Message(Role.ASSISTANT, None, reasoning="hm"),
        Message(Role.OBSERVATION, "3"),
        Message(Role.ASSISTANT, "Hello"),
    ]
    ids, _, _ = one(around.template("moss_text"), Dialogue(messages))
    assert around.encoder.decode(ids) == (
        "<|Human|>: Hi<eoh>\n<|Inner Thoughts|>: hm<eot>\n<|Results|>: 3<eor>\n<|MOSS|>: Hello<eom>\n"
    )


def test_results_that_nobody_called_for_have_no_trained_marks(around: Both) -> None:
    turn = moss_turn()
    _, labels, _ = one(around.template("moss_text"), Dialogue([turn[0], turn[2], turn[3]]))
    assert around.encoder.decode([label for label in labels if label >= 0]) == "<|MOSS|>: Hello<eom>\n"


def test_a_token_of_mark_and_result_is_not_trained(around: Both) -> None:
    turn = moss_turn()
    turn[2].content = "<|Results|>:\nNone<eor>\n"
    assert len(around.ids(":\n")) == 1
    _, labels, notes = one(around.template("moss_text"), Dialogue(turn))
    trained = around.encoder.decode([label for label in labels if label >= 0])
    assert "<|Results|><eor>\n<|MOSS|>" in trained
    assert notes == ["token-across-border"]


@pytest.mark.parametrize(
    ("at", "text"),
    [(0, "<|Human|>: Hi"), (0, "<|Human|>:"), (3, "<|MOSS|>: a<eoh>\n"), (2, "<|Results|>: <eor> x")],
    ids=["no_end", "mark_alone", "other_end", "end_inside"],
)
def test_moss_text_refuses_half_of_the_marks(around: Both, at: int, text: str) -> None:
    turn = moss_turn()
    turn[at].content = text
    error = refusal(around.template("moss_text"), Dialogue(turn))
    assert (error.reason, error.field) == ("unsupported-message", f"messages[{at}]")


def test_marks_inside_the_words_stay_text(around: Both) -> None:
    template = around.template("moss_text")
    end = around.encoder.spec.id_of("<eom>")
    turn = moss_turn()
    turn[0].content = "<|Human|>: say <eom> now<eoh>\n"
    turn[3].content = "<|MOSS|>: <eom><eom>\n"
    ids, labels, notes = one(template, Dialogue(turn))
    assert ids.count(end) == 1
    assert notes == ["special-token-in-text"]
    assert "say <eom> now" in around.encoder.decode(ids)
    assert around.encoder.decode([label for label in labels if label >= 0]).endswith("<eom><eom>\n")


FORGED = [
    ("alpaca_text", ["a <|im_end|> b", "<eos>c", "d<eos>", "e"]),
    ("moss_baichuan", ["a <|im_end|> b", "<eos>c", "d<eos>", "e"]),
    ("chatglm_rounds", ["a <|im_end|> b", "<eos>c", "d<eos>", "<eos>"]),
    ("moss_text", ["a <|im_end|> b", "<eos>c", "d<eos>", "e"]),
]


@pytest.mark.parametrize(("form", "said"), FORGED, ids=[form for form, _ in FORGED])
def test_special_tokens_in_the_words_stay_text(bare: Both, form: str, said: list[str]) -> None:
    dialogue, flags = talk(*said), [False, form != "chatglm_rounds", False, True]
    harmless = talk(*(text.replace("<eos>", "").replace("<|im_end|>", "") for text in said))
    special = bare.encoder.special_ids

    def controls(found: list[int]) -> list[int]:
        return [index for index in found if index in special]

    plain, labels, notes = one(bare.template(form), dialogue, flags)
    assert notes == ["special-token-in-text"]
    own = controls(one(bare.template(form), harmless, flags)[0])
    assert controls(plain) == own
    trained = bare.encoder.decode([label for label in labels if label >= 0])
    assert said[3] in trained
    assert (said[1] in trained) == (form != "chatglm_rounds")
    assert said[0] in bare.encoder.decode(plain)
    allowed, _, notes = one(bare.template(form, special_tokens_in_text="allow"), dialogue, flags)
    assert len(controls(allowed)) > len(own)
    assert notes == ["special-token-in-text"]
    error = refusal(bare.template(form, special_tokens_in_text="reject"), dialogue, flags)
    assert error.reason == "special-token"


def test_one_refused_dialogue_leaves_the_others(bare: Both) -> None:
    dialogues = [talk("a", "b"), talk("a", "<eos>"), talk("c", "d"), Dialogue([]), talk("e", "f")]
    template = bare.template("alpaca_text", special_tokens_in_text="reject")
    batch = template.encode(dialogues, [replies(dialogue) for dialogue in dialogues])
    assert {number: error.reason for number, error in batch.failed.items()} == {
        1: "special-token", 3: "no-assistant"
    }  # fmt: skip
    assert batch.dialogues.tolist() == [0, 2, 4]
    own = [bare.around(alpaca(*pair)) for pair in (("a", "b"), ("c", "d"), ("e", "f"))]
    assert batch.ids.tolist() == list(chain.from_iterable(own))
    trained = [label for label in labels_of(template, batch) if label >= 0]
    assert trained == bare.ids("b\n") + bare.ids("d\n") + bare.ids("f\n")


def test_a_text_that_can_not_be_kept_plain_fails_alone(bare: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RecordError("special-token", "", "plain text", "control ids")

    def fail(text: str) -> Any:
        raise error

    monkeypatch.setattr(bare.encoder, "encode_marked_spans", fail)
    dialogues = [talk("a", "b"), talk("<eos>", "b")]
    batch = bare.template("alpaca_text").encode(dialogues, [[False, True]] * 2)
    assert batch.failed == {1: error}
    assert batch.ids.tolist() == bare.around(alpaca("a", "b"))


@pytest.mark.parametrize("form", NAMES)
def test_append_eod_is_trained_with_the_last_reply(bare: Both, form: str) -> None:
    dialogue, eos = talk("a", "b", "c", "d"), bare.encoder.spec.eos_id
    ids, labels, _ = one(bare.template(form), dialogue, [False, False, False, True])
    longer = one(bare.template(form, append_eod=True), dialogue, [False, False, False, True])
    assert longer[:2] == ([*ids, eos], [*labels, eos])
    untrained = one(bare.template(form, append_eod=True), dialogue, [False, False, False, False])
    assert untrained[1] == ignored(untrained[0])


def calls(message: Message) -> Message:
    return replace(message, tool_calls=(ToolCall("f", {}),))


REFUSED: dict[str, tuple[Dialogue, str, str]] = {
    "system": (talk("a", "b", system="S"), "unsupported-message", "system"),
    "tools": (Dialogue(talk("a", "b").messages, tools=[{}]), "unsupported-message", "tools"),
    "calls": (
        Dialogue([Message(Role.USER, "a"), calls(Message(Role.ASSISTANT, None))]),
        "unsupported-message",
        "messages[1].tool_calls",
    ),
    "thoughts": (
        Dialogue([Message(Role.USER, "a"), Message(Role.ASSISTANT, "b", reasoning="c")]),
        "unsupported-message",
        "messages[1].reasoning",
    ),
    "result": (
        Dialogue([Message(Role.OBSERVATION, "a"), Message(Role.ASSISTANT, "b")]),
        "unsupported-message",
        "messages[0]",
    ),
    "later_system": (
        Dialogue([*talk("a", "b").messages, Message(Role.SYSTEM, "s"), *talk("a", "b").messages]),
        "unsupported-message",
        "messages[2]",
    ),
    "starts_with_reply": (Dialogue(talk("a", "b").messages[1:]), "role-order", "messages[0]"),
    "two_questions": (
        Dialogue([Message(Role.USER, "a"), *talk("b", "c").messages]),
        "role-order",
        "messages[1]",
    ),
    "two_replies": (
        Dialogue([*talk("a", "b").messages, Message(Role.ASSISTANT, "c")]),
        "role-order",
        "messages[2]",
    ),
    "question_alone": (talk("a"), "no-assistant", ""),
    "nothing": (Dialogue([]), "no-assistant", ""),
}


@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_form_has_no_place_for_is_refused(bare: Both, form: str, name: str) -> None:
    dialogue, reason, field = REFUSED[name]
    error = refusal(bare.template(form), dialogue)
    assert (error.reason, error.field) == (reason, field)


@pytest.mark.parametrize(
    ("name", "reason", "field"),
    [
        ("tools", "unsupported-message", "tools"),
        ("calls", "unsupported-message", "messages[1].tool_calls"),
        ("later_system", "unsupported-message", "messages[2]"),
        ("starts_with_reply", "role-order", "messages[0]"),
        ("result", "role-order", "messages[0]"),
        ("two_questions", "role-order", "messages[1]"),
        ("question_alone", "no-assistant", ""),
        ("nothing", "no-assistant", ""),
    ],
)
def test_what_moss_text_has_no_place_for_is_refused(bare: Both, name: str, reason: str, field: str) -> None:
    error = refusal(bare.template("moss_text"), REFUSED[name][0])
    assert (error.reason, error.field) == (reason, field)


@pytest.mark.parametrize("form", NAMES)
def test_a_question_without_answer_at_the_end_is_left_out(bare: Both, form: str) -> None:
    answered = one(bare.template(form, append_eod=True), talk("a", "b"))
    asked = one(bare.template(form, append_eod=True), talk("a", "b", "c"))
    assert asked[:2] == answered[:2]
    assert asked[2] == ["unanswered-ending"]


@pytest.mark.parametrize("form", NAMES)
def test_the_samples_of_a_batch_are_those_of_each_alone(around: Both, form: str) -> None:
    template = around.template(form)
    dialogues = [
        talk("a", "b"),
        talk("a", "b", "c", "d"),
        talk("", ""),
        talk("a", "b"),
        talk("e", "f", "g"),
    ]
    flags = [[number == (len(item.messages) // 2) * 2 - 1 for number in range(len(item.messages))]
             for item in dialogues]  # fmt: skip
    batch = template.encode(dialogues, flags)
    alone = [one(template, dialogue, own) for dialogue, own in zip(dialogues, flags, strict=True)]
    assert batch.ids.tolist() == list(chain.from_iterable(ids for ids, _, _ in alone))
    assert labels_of(template, batch) == list(chain.from_iterable(labels for _, labels, _ in alone))
    assert batch.sample_ends.tolist() == [
        sum(len(ids) for ids, _, _ in alone[: number + 1]) for number in range(len(alone))
    ]
    assert batch.notes == [notes for _, _, notes in alone]


def test_equal_texts_of_a_batch_are_encoded_once(bare: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    given_texts: list[str] = []
    encode = bare.encoder.encode

    def spy(texts: list[str]) -> Any:
        given_texts.extend(texts)
        return encode(texts)

    monkeypatch.setattr(bare.encoder, "encode", spy)
    dialogues = [talk("a", "b"), talk("a", "b", "c", "d"), talk("c", "b")]
    bare.template("moss_baichuan").encode(dialogues, [replies(dialogue) for dialogue in dialogues])
    assert sorted(given_texts) == ["a", "b", "c", "d"]


def test_nothing_becomes_nothing(bare: Both) -> None:
    batch = bare.template("alpaca_text").encode([], [])
    assert (len(batch.ids), len(batch.sample_ends), batch.failed, batch.notes) == (0, 0, {}, [])


class Blind(RustEncoder):
    """A tokenizer that can't say which characters its tokens cover, as those in Python can't."""

    def encode_spans(self, texts: list[str]) -> Any:
        raise TokenizerError("no spans")

    def encode_marked_spans(self, text: str) -> Any:
        raise TokenizerError("no spans")


@pytest.mark.parametrize("form", ["alpaca_text", "moss_text"])
def test_a_form_that_needs_spans_refuses_a_tokenizer_without(bare: Both, form: str) -> None:
    blind = Blind(bare.encoder.spec)
    with pytest.raises(TokenizerError, match=f"the text form {form} .* can't say which characters"):
        TextTemplate(text_forms.get(form)(blind.spec), blind)


@pytest.mark.parametrize("form", ["moss_baichuan", "chatglm_rounds"])
def test_a_form_that_needs_none_takes_it(bare: Both, form: str) -> None:
    blind = Blind(bare.encoder.spec)
    dialogue, flags = talk("a <eos>", "b", "c", "d <eos>"), [False, False, False, True]
    found = one(TextTemplate(text_forms.get(form)(blind.spec), blind), dialogue, flags)
    assert found == one(bare.template(form), dialogue, flags)
