"""What of a prompt type is trained: by message, with context, and what tools return."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import TemplateError, TokenizerError
from mtsft_preproc.templates import Kind, PromptTemplate, TokenBatch, prompt_types
from mtsft_preproc.tokenization import (
    Adjustment,
    Encoder,
    FlatIds,
    SpannedIds,
    load_tokenizer,
    open_encoder,
)

LETTERS = "UARS"


class Opened:
    """Prompt types over the bundled tokenizer."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._encoders: dict[Adjustment, Encoder] = {}

    def encoder(self, name: str) -> Encoder:
        adjustment = prompt_types.get(name).adjustment()
        if adjustment not in self._encoders:
            resolved = load_tokenizer(str(self._folder), adjustment)
            self._encoders[adjustment] = open_encoder(resolved.save(self._scratch))
        return self._encoders[adjustment]

    def template(self, name: str, **settings: Any) -> PromptTemplate:
        return PromptTemplate(prompt_types.get(name), self.encoder(name), **settings)

    def decode(self, name: str, ids: Iterable[int]) -> str:
        return self.encoder(name).decode(list(ids))


@pytest.fixture(scope="module")
def opened(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tokenizer_folder, tmp_path_factory.mktemp("tokenizer"))


def told(roles: str, system: str = "", text: str = "{}{}") -> Dialogue:
    """Return a dialogue of messages by letter: user, assistant, result, system; each says what it is."""
    messages = [
        Message(Role(LETTERS.index(letter)), text.format(letter.lower(), number))
        for number, letter in enumerate(roles)
    ]
    return Dialogue(messages, system)


def parts(opened: Opened, name: str, batch: TokenBatch, mask: Any) -> list[str]:
    """Return the text of each run of positions that are trained."""
    borders = np.flatnonzero(np.diff([0, *mask.astype(int), 0])).tolist()
    runs = zip(borders[::2], borders[1::2], strict=True)
    return [opened.decode(name, batch.ids[start:end].tolist()) for start, end in runs]


def by_kind(opened: Opened, name: str, batch: TokenBatch) -> list[tuple[Kind, str]]:
    """Return the text of each run of one kind."""
    cuts = [0, *(np.flatnonzero(np.diff(batch.kinds)) + 1).tolist(), len(batch.ids)]
    return [
        (Kind(int(batch.kinds[start])), opened.decode(name, batch.ids[start:end].tolist()))
        for start, end in itertools.pairwise(cuts)
    ]


# ---- flags of messages ----


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([0, 1, 0, 1, 0, 1], ["a1<|eot_id|>", "a3<|eot_id|>", "a5<|eot_id|>"]),
        ([0, 1, 0, 0, 0, 1], ["a1<|eot_id|>", "a5<|eot_id|>"]),
        ([0, 0, 0, 1, 0, 0], ["a3<|eot_id|>"]),
    ],
)
def test_a_flag_of_false_leaves_a_turn_out(opened: Opened, flags: list[int], expected: list[str]) -> None:
    batch = opened.template("llama3").encode([told("UAUAUA")], [list(map(bool, flags))])
    assert parts(opened, "llama3", batch, batch.mask()) == expected


@pytest.mark.parametrize(
    ("flags", "late", "closes"),
    [
        ([0, 1, 0, 1, 0, 1], [2, 4], True),
        ([0, 0, 0, 1, 0, 1], [4], True),
        ([0, 1, 0, 0, 0, 1], [2], True),
        ([0, 1, 0, 1, 0, 0], [2, 4], False),
        ([0, 0, 0, 0, 0, 0], [], False),
    ],
)
def test_a_turn_that_is_not_trained_teaches_no_stop(
    opened: Opened, flags: list[int], late: list[int], closes: bool
) -> None:
    """Neither at the next header, nor with the EOS that closes the sample."""
    trained = [list(map(bool, flags))]
    for settings_ in ({}, {"append_eod": True}):
        batch = opened.template("gemma", **settings_).encode([told("UAUAUA")], trained)
        assert batch.messages[batch.late_stops].tolist() == late
        firsts = [int(np.flatnonzero(batch.messages == number)[0]) for number in late]
        assert batch.late_stops.tolist() == firsts
        ending = 2 if settings_ else 1
        assert batch.mask()[-ending:].tolist() == [closes] * ending


def test_a_result_that_is_trained_has_the_late_stop_of_the_turn_before(opened: Opened) -> None:
    """A flag of True at a source takes nothing from the target in front of it."""
    template = opened.template("gemma", train_on_tools=True)
    batch = template.encode([told("UARA")], [[False, True, True, True]])
    assert batch.messages[batch.late_stops].tolist() == [2]


# ---- what nobody answers ----


@pytest.mark.parametrize("name", ["gemma", "llama3", "qwen3", "llama2"])
@pytest.mark.parametrize("tail", ["U", "UU", "R", "RRU"])
def test_what_nobody_answers_at_the_end_is_left_out(opened: Opened, name: str, tail: str) -> None:
    both = [told("UAUA" + tail), told("UA")]
    flags = [[False, True, False, True] + [True] * len(tail), [False, True]]
    for settings_ in ({}, {"append_eod": True}, {"train_on_tools": True}):
        template = opened.template(name, **settings_)
        batch = template.encode(both, flags)
        whole = template.encode([told("UAUA"), told("UA")], [flags[0][:4], flags[1]])
        assert batch.ids.tolist() == whole.ids.tolist()
        assert batch.mask().tolist() == whole.mask().tolist()
        assert batch.late_stops.tolist() == whole.late_stops.tolist()
        assert batch.sample_ends.tolist() == whole.sample_ends.tolist()
        assert batch.notes == [["unanswered-ending"], []]
        assert batch.trained.tolist() == [*flags[0], *flags[1]]
        second = int(batch.sample_ends[0])
        assert set(batch.messages[second:].tolist()) == {4 + len(tail), 5 + len(tail)}


# ---- context ----


@pytest.mark.parametrize(
    ("name", "system", "expected"),
    [
        (
            "llama3",
            "be brief",
            [
                "<|start_header_id|>user<|end_header_id|>\n\nu0<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\na1<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nu2<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\na3<|eot_id|>"
            ],
        ),
        (
            "qwen",
            "",
            [
                "<|im_start|>user\nu0<|im_end|>\n<|im_start|>assistant\na1<|im_end|>"
                "\n<|im_start|>user\nu2<|im_end|>\n<|im_start|>assistant\na3<|im_end|>"
            ],
        ),
        (
            "llama2",
            "be brief",
            # The space is one token with the first letter of the system format.
            ["[INST]", "u0 [/INST]a1<eos>", "[INST] u2 [/INST]a3<eos>"],
        ),
        ("llama2", "", ["[INST] u0 [/INST]a1<eos>", "[INST] u2 [/INST]a3<eos>"]),
    ],
)  # fmt: skip
def test_with_context_everything_is_trained_but_bos_and_the_system_text(
    opened: Opened, name: str, system: str, expected: list[str]
) -> None:
    batch = opened.template(name).encode([told("UAUA", system)], [[False, True, False, True]])
    assert parts(opened, name, batch, batch.mask(context=True)) == expected


def test_with_context_no_label_is_another_token(opened: Opened) -> None:
    """The first position of a later source has its own token as its label, not an EOS."""
    batch = opened.template("gemma").encode([told("UAUA", "s")], [[False, True, False, True]])
    assert len(batch.late_stops) == 1
    mask = batch.mask(context=True)
    text = "".join(parts(opened, "gemma", batch, mask))
    assert text == (
        "<start_of_turn>user\nu0<end_of_turn>\n<start_of_turn>model\na1"
        "<end_of_turn>\n<start_of_turn>user\nu2<end_of_turn>\n<start_of_turn>model\na3<eos>"
    )


def test_a_turn_that_is_left_out_stays_out_with_context(opened: Opened) -> None:
    batch = opened.template("llama3").encode([told("UAUA")], [[False, False, False, True]])
    first, second = parts(opened, "llama3", batch, batch.mask(context=True))
    assert first.endswith("assistant<|end_header_id|>\n\n")
    assert second.startswith("<|start_header_id|>user<|end_header_id|>\n\nu2")


@pytest.mark.parametrize("text", ["s", "<eos> s", "\n\ns \n"])
def test_the_system_text_in_the_users_element_is_told_apart(opened: Opened, text: str) -> None:
    item = told("UA", text)
    batch = opened.template("llama2").encode([item], [[False, True]])
    kinds = by_kind(opened, "llama2", batch)
    system = f"<<SYS>>\n{text}\n<</SYS>>\n\n"
    assert [kind for kind, _ in kinds] == [
        Kind.PREFIX, Kind.CONTEXT, Kind.SYSTEM, Kind.CONTEXT, Kind.GENERATED,
    ]  # fmt: skip
    # A token that holds a letter of it is its.
    assert system in kinds[2][1]
    assert "".join(part for _, part in kinds[1:4]) == f"[INST] {system}u0 [/INST]"


# ---- what tools return ----


@pytest.mark.parametrize("name", ["llama3", "gemma", "qwen3", "qwen", "intern2", "llama2"])
@pytest.mark.parametrize("text", ["{}{}", " {} <eos> <|im_end|> {}\n", "\n7°C {} {}", ""])
def test_only_the_words_of_a_result_are_observed(opened: Opened, name: str, text: str) -> None:
    item = told("UARA", "sys", text)
    flags = [[False, True, True, True]]
    plain = opened.template(name).encode([item], flags)
    batch = opened.template(name, train_on_tools=True).encode([item], flags)
    assert batch.ids.tolist() == plain.ids.tolist()
    assert (plain.kinds != Kind.OBSERVED).all()
    assert ((batch.kinds == plain.kinds) | (batch.kinds == Kind.OBSERVED)).all()
    assert (plain.kinds[batch.kinds == Kind.OBSERVED] == Kind.CONTEXT).all()
    said = item.messages[2].text
    found = [part for kind, part in by_kind(opened, name, batch) if kind is Kind.OBSERVED]
    # A token that the format has a part in is the format's.
    assert len(found) == bool(said)
    assert all(part and part in said and len(part) >= len(said.strip()) - 1 for part in found)
    trained = [*flags[0]]
    assert (batch.mask() & (batch.kinds == Kind.OBSERVED)).sum() == (batch.kinds == Kind.OBSERVED).sum()
    trained[2] = False
    silent = opened.template(name, train_on_tools=True).encode([item], [trained])
    assert not (silent.mask() & (silent.kinds == Kind.OBSERVED)).any()


def test_results_that_are_written_as_one_are_trained_one_by_one(opened: Opened) -> None:
    item = Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, "calls"),
            Message(Role.OBSERVATION, "seven"),
            Message(Role.OBSERVATION, "eight <|im_end|>"),
            Message(Role.OBSERVATION, "nine"),
            Message(Role.ASSISTANT, "end"),
        ]
    )
    template = opened.template("qwen3", train_on_tools=True)
    whole = opened.template("qwen3").encode([item], [[False] * 6])
    for number, said in ((2, "seven"), (3, "eight <|im_end|>"), (4, "nine")):
        batch = template.encode([item], [[place == number for place in range(6)]])
        assert batch.ids.tolist() == whole.ids.tolist()
        assert parts(opened, "qwen3", batch, batch.mask()) == [said]


class WithoutSpans(Encoder):
    """An encoder that can't say which characters its tokens cover."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.spec)
        self._inner = inner

    def encode(self, texts: list[str]) -> FlatIds:
        return self._inner.encode(texts)

    def encode_marked(self, text: str) -> list[int]:
        return self._inner.encode_marked(text)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        raise TokenizerError("no spans")

    def encode_marked_spans(self, text: str) -> SpannedIds:
        raise TokenizerError("no spans")

    def decode(self, ids: Any) -> str:
        return self._inner.decode(ids)


def test_a_tokenizer_without_spans_is_refused_where_they_are_needed(opened: Opened) -> None:
    blind = WithoutSpans(opened.encoder("llama2"))
    with pytest.raises(TemplateError, match="--train-on-tools"):
        PromptTemplate(prompt_types.get("llama2"), blind, train_on_tools=True)
    batch = PromptTemplate(prompt_types.get("llama2"), blind).encode([told("UA", "s")], [[False, True]])
    assert batch.ids.tolist() == (
        opened.template("llama2").encode([told("UA", "s")], [[False, True]]).ids.tolist()
    )
    assert Kind.SYSTEM not in batch.kinds


# ---- each text once ----


class Counting(WithoutSpans):
    """Notes what it is given, and what for."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner)
        self.seen: list[tuple[str, str]] = []

    def encode(self, texts: list[str]) -> FlatIds:
        self.seen += [("ids", text) for text in texts]
        return super().encode(texts)

    def encode_marked(self, text: str) -> list[int]:
        self.seen.append(("marked", text))
        return super().encode_marked(text)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        self.seen += [("spans", text) for text in texts]
        return self._inner.encode_spans(texts)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        self.seen.append(("marked spans", text))
        return self._inner.encode_marked_spans(text)


words = st.sampled_from(["a", "b", "<eos>", "<|im_end|> b", "\n", "", "hi there"])


@pytest.mark.parametrize("name", ["qwen", "qwen3", "gemma", "llama2", "chatml"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.tuples(words, st.sampled_from([Role.USER, Role.OBSERVATION]), words), min_size=1),
    system=words,
    observes=st.booleans(),
)
def test_dialogues_that_share_messages_encode_each_text_once(
    opened: Opened, name: str, turns: list[tuple[str, Role, str]], system: str, observes: bool
) -> None:
    messages = [
        message
        for asked, role, said in turns
        for message in (Message(role, asked), Message(Role.ASSISTANT, said))
    ]
    prefixes = [Dialogue(messages[:count], system) for count in range(2, len(messages) + 1, 2)]
    flags = [[number % 2 == 1 for number in range(len(item.messages))] for item in prefixes]
    counting = Counting(opened.encoder(name))
    template = PromptTemplate(prompt_types.get(name), counting, train_on_tools=observes)
    counting.seen.clear()
    batch = template.encode(prefixes, flags, shared=True)
    assert len(set(counting.seen)) == len(counting.seen)
    alone = [
        opened.template(name, train_on_tools=observes).encode([item], [flag])
        for item, flag in zip(prefixes, flags, strict=True)
    ]
    assert batch.failed == {}
    assert batch.ids.tolist() == [index for one in alone for index in one.ids.tolist()]
    assert batch.kinds.tolist() == [kind for one in alone for kind in one.kinds.tolist()]
    assert batch.mask().tolist() == [bit for one in alone for bit in one.mask().tolist()]
    assert batch.notes == [one.notes[0] for one in alone]
