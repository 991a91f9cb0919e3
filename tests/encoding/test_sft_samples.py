"""Samples to fine-tune on: one per dialogue, or with ``split`` one per reply; what is lost and noted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from rendering import (
    FORMATS,
    IGNORE,
    dialogues,
    each_format,
    encoded,
    opened,
    rendered,
    replies_text,
    reply_text,
    samples,
    samples_of,
    several,
    trained_text,
)

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.encoding import EncodedBatch, sft
from mtsft_preproc.templates import Template
from mtsft_preproc.tokenization import Encoder, RememberingEncoder


def told(*texts: str, **fields: Any) -> Dialogue:
    """Return a dialogue in which the user and the assistant take turns."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = [Message(roles[number % 2], text) for number, text in enumerate(texts)]
    return Dialogue(messages, **fields)


LONG = told(*(f"({number}) some words {number}." for number in range(20)), system="(the system)")


def same(one: EncodedBatch, other: EncodedBatch) -> bool:
    columns = [
        (
            batch.tokens
            | batch.lengths
            | {"trained": batch.trained, "rows": batch.rows, "turns": batch.turns}
        )
        for batch in (one, other)
    ]
    assert columns[0].keys() == columns[1].keys()
    assert one.rejections == other.rejections
    assert (one.notes, one.parity, one.differences) == (other.notes, other.parity, other.differences)
    return all(np.array_equal(columns[0][name], columns[1][name]) for name in columns[0])


# split


@each_format
@several
@given(found=dialogues(flagged=True))
def test_split_makes_a_sample_of_each_trained_reply(name: str, found: Dialogue) -> None:
    """With all that was said before as context, just as it stands when the reply is the last message."""
    template = opened(name)
    targets = [
        number
        for number, message in enumerate(found.messages)
        if message.role.is_target and message.train is not False
    ]
    batch = encoded(template, [found], train_on="split")
    if not targets:
        assert [entry.reason for entry in batch.rejections] == ["nothing-trained"]
        return
    made = samples_of(batch)
    assert [sample.turn for sample in made] == targets
    for sample, target in zip(made, targets, strict=True):
        alone = found.but(messages=found.messages[: target + 1])
        expected = rendered(template, alone, [number == target for number in range(target + 1)])
        assert (sample.ids, sample.labels) == (expected.ids, expected.labels)
        assert trained_text(template, sample) == reply_text(name, found.messages[target])
    spelled = "".join(trained_text(template, sample) for sample in made)
    assert spelled == replies_text(name, [found.messages[target] for target in targets])


@pytest.mark.parametrize("name", FORMATS)
def test_split_says_what_no_sample_has(name: str) -> None:
    batch = encoded(opened(name), [told("a", "b", "c"), told("a", "b")], train_on="split")
    assert batch.notes == {"unanswered-ending": 1}
    assert batch.turns.tolist() == [1, 1]


class Counting:
    """An encoder that remembers the texts that it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._encoder, name)
        if not name.startswith("encode"):
            return found

        def counted(given: Any) -> Any:
            texts = [given] if isinstance(given, str) else given
            self.texts += ["".join(text) for text in texts]  # some come in pieces
            return found(given)

        return counted


@pytest.fixture
def counting(request: pytest.FixtureRequest) -> tuple[Template, Counting]:
    template = copy.copy(opened(request.param, **({"parity": "off"} if "jinja" in request.param else {})))
    counter = Counting(template._encoder)  # type: ignore[attr-defined]
    template._encoder = counter  # type: ignore[attr-defined]
    template._remembering = RememberingEncoder(counter)  # type: ignore
    return template, counter


@pytest.mark.parametrize("counting", FORMATS, indirect=True)
def test_split_tokenizes_each_message_once(counting: tuple[Template, Counting]) -> None:
    template, counter = counting
    made = samples_of(encoded(template, [LONG], train_on="split"))
    assert len(made) == 10
    for message in [*LONG.messages, Message(Role.SYSTEM, LONG.system)]:
        assert sum(text.count(message.text) for text in counter.texts) == 1
    plain = len(rendered(template, LONG).ids)
    assert sum(len(sample.ids) for sample in made) > 5 * plain


@pytest.mark.parametrize("counting", FORMATS, indirect=True)
@pytest.mark.parametrize("rule", ["window", "recent", "head"])
def test_cuts_at_rounds_tokenize_each_message_a_few_times(
    counting: tuple[Template, Counting], rule: str
) -> None:
    """Once to see that it is too long, a few times to see what fits, once to write it."""
    template, counter = counting
    whole = rendered(opened("qwen"), LONG)
    samples_of(encoded(template, [LONG], overlong=rule, seq_length=len(whole.ids) // 2))
    for message in LONG.messages:
        assert sum(text.count(message.text) for text in counter.texts) <= 5


@each_format
@pytest.mark.parametrize(
    "changes",
    [
        {"train_on": "split"},
        {"train_on": "split", "seq_length": 80},
        {"train_on": "split", "seq_length": 150, "overlong": "window"},
        {"seq_length": 150, "overlong": "window"},
        {"seq_length": 150, "overlong": "pair"},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_samples_do_not_depend_on_how_much_is_encoded_together(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    several_of = [LONG, told("x", "y"), LONG.but(system=""), told("x", "y" * 300, "z", "z")]
    whole = encoded(opened(name), several_of, **changes)
    monkeypatch.setattr(sft, "_AT_ONCE", 1)
    assert same(whole, encoded(opened(name), several_of, **changes))


# What is lost


def test_what_is_surely_too_long_is_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rejections don't tell: they depend on the data, not on what is encoded together."""
    found, counts = [], []
    for at_once in (1, 1 << 20):
        monkeypatch.setattr(sft, "_AT_ONCE", at_once)
        template = copy.copy(opened("qwen"))
        rendered_now: list[Dialogue] = []
        encode = template.encode

        def counted(
            told: Any, *rest: Any, _encode: Any = encode, _all: Any = rendered_now, **more: Any
        ) -> Any:
            _all.extend(told)
            return _encode(told, *rest, **more)

        template.encode = counted  # type: ignore[method-assign]
        batch = encoded(template, [LONG], train_on="split", seq_length=100)
        found.append(batch.rejections)
        counts.append(len(rendered_now))
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 10
    assert counts == [10 - len(found[0]) + 1, 10]


@each_format
def test_a_sample_that_is_too_long_is_lost_alone(name: str) -> None:
    template = opened(name)
    found = told("a", "b", "c", "d", "e", "f" * 40)
    first = len(rendered(template, told("a", "b", "c", "d")).ids)
    batch = encoded(template, [told("x", "y"), found], train_on="split", seq_length=first)
    assert [(sample.row, sample.turn) for sample in samples_of(batch)] == [(0, 1), (1, 1), (1, 3)]
    (lost,) = batch.rejections
    assert (lost.row, lost.turn, lost.reason) == (1, 5, "overlong")
    assert lost.expected == f"at most {first} tokens"
    assert lost.got == f"{len(rendered(template, found).ids)} tokens"


@each_format
def test_a_record_of_which_all_samples_are_lost_is_rejected_whole(name: str) -> None:
    batch = encoded(opened(name), [told("a" * 50, "b", "c", "d")], train_on="split", seq_length=20)
    assert [(entry.turn, entry.reason) for entry in batch.rejections] == [(-1, "overlong")]
    assert samples_of(batch) == []
    assert batch.notes == {}


@each_format
@pytest.mark.parametrize("rule", ["drop", "fail"])
def test_what_is_too_long_is_rejected(name: str, rule: str) -> None:
    length = len(rendered(opened(name), LONG).ids)
    batch = encoded(opened(name), [LONG, told("a", "b")], seq_length=length - 1, overlong=rule)
    assert [(entry.row, entry.turn, entry.reason) for entry in batch.rejections] == [(0, -1, "overlong")]
    assert [sample.row for sample in samples_of(batch)] == [1]


def test_a_dialogue_of_which_nothing_is_trained_is_rejected() -> None:
    found = told("a", "b")
    found.messages[1].train = False
    for policy in ("assistant", "last", "last-round", "split"):
        batch = encoded(opened("qwen"), [found], train_on=policy)
        assert [entry.reason for entry in batch.rejections] == ["nothing-trained"]


def test_an_error_of_the_format_rejects_the_record_and_no_other() -> None:
    odd = Dialogue([Message(Role.USER, "a"), Message(Role.USER, "b"), Message(Role.ASSISTANT, "c")])
    for policy in ("assistant", "split"):
        batch = encoded(opened("qwen"), [told("x", "y"), odd, told("x", "z")], train_on=policy)
        assert [(entry.row, entry.reason) for entry in batch.rejections] == [(1, "role-order")]
        assert batch.rows.tolist() == [0, 2]


# What is said


def test_notes_count_records_not_samples() -> None:
    found = told("a<|im_end|>", "b<|im_end|>", "c<|im_end|>", "d")
    batch = encoded(opened("qwen"), [found, told("a", "b")], train_on="split")
    assert batch.notes == {"special-token-in-text": 1}
    assert len(samples_of(batch)) == 3


@pytest.mark.parametrize("rule", ["recent", "head", "window"])
def test_parity_counts_the_turns_that_are_kept(rule: str) -> None:
    """Not those of the rendering that was too long."""
    template = opened("chatml.jinja")
    length = len(rendered(template, LONG).ids)
    batch = encoded(template, [LONG], seq_length=length * 3 // 4, overlong=rule)
    replies = sum(trained_text(template, sample).count("some words") for sample in samples_of(batch))
    assert batch.parity == {"same": replies}
    assert replies == 10 if rule == "window" else 0 < replies < 10


def test_differences_name_the_message_of_the_record() -> None:
    template = opened("forgetful.jinja")
    found = told("a", "b", "c" * 60, "<think>x</think>d", "e", "f")
    limit = len(rendered(template, found).ids) - 1
    batch = encoded(template, [found], seq_length=limit, overlong="recent")
    assert batch.notes["cut-recent"] == 1
    assert [(item["row"], item["message"]) for item in batch.differences] == [(0, 3)]


# Labels


@pytest.mark.parametrize("ignore", [-100, -1])
def test_what_is_not_trained_has_the_label_that_was_asked_for(ignore: int) -> None:
    (plain,) = samples(opened("qwen"), told("a", "b"))
    batch = encoded(opened("qwen"), [told("a", "b")], ignore_index=ignore)
    expected = [ignore if label == IGNORE else label for label in plain.labels]
    assert batch.tokens["packed_labels"].tolist() == expected
    assert expected.count(ignore) == len(expected) - int(batch.trained[0])


def test_an_end_that_is_taught_late_stands_at_the_next_question() -> None:
    template = opened("gemma")
    (sample,) = samples(template, told("a", "b", "c", "d"))
    eos = template.late_stop_id
    assert [place for place, label in enumerate(sample.labels) if label == eos] == [
        place for place, (token, label) in enumerate(zip(sample.ids, sample.labels, strict=True))
        if label not in (token, IGNORE) or place == len(sample.ids) - 1
    ]  # fmt: skip
    assert sample.labels.count(eos) == 2


def test_no_records_are_no_samples() -> None:
    batch = encoded(opened("qwen"), [])
    assert samples_of(batch) == []
    assert batch.rejections == []
