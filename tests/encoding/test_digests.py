"""The identity of a dialogue: the same through every handler, and never that of another one."""

from __future__ import annotations

import datetime
import decimal
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import encoded, opened, samples_of
from test_documents import encoded as encoded_documents
from test_pairwise_samples import encoded as encoded_pairs
from test_pairwise_samples import pair_of
from test_prompt_samples import encoded as encoded_prompts

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.encoding import EncodedBatch
from mtsft_preproc.encoding.digests import dialogue_digest, text_digest
from mtsft_preproc.handlers import DialogueHandler, handlers


def told(*texts: str, **given: Any) -> Dialogue:
    """Return a dialogue in which the user and the assistant take turns."""
    roles = (Role.USER, Role.ASSISTANT)
    return Dialogue([Message(roles[n % 2], text) for n, text in enumerate(texts)], **given)


def calling(arguments: Any, **given: Any) -> Dialogue:
    """Return a dialogue in which the assistant calls a tool."""
    call = ToolCall("find", arguments, **given)
    return Dialogue([Message(Role.USER, "q"), Message(Role.ASSISTANT, None, tool_calls=(call,))])


def halves(*parts: bytes) -> list[tuple[int, int]]:
    """Return the two numbers of blake2b over the first part, over the first two, ..."""
    digest, found = blake2b(digest_size=16), []
    for part in parts:
        digest.update(part)
        own = digest.digest()
        found.append((int.from_bytes(own[:8], "little"), int.from_bytes(own[8:], "little")))
    return found


# What is digested


def test_a_digest_stays_the_same_for_ever() -> None:
    """Splits rest on it, and datasets that are joined."""
    plain = told("hé", "yo", system="s")
    assert [dialogue_digest(plain)] == halves('["s",0,"hé",1,"yo"]'.encode())
    whole, flagged = halves(
        b'["",[{"a":1,"b":[]}],0,"q",1,"",["t",null,null,[["f",{"x":1.5},"c"]]],2,"",["","f","c",[]]]',
        b'[[true,"sum",[[null,false,true],[true,true,false],[false,false,true]]],"more"]',
    )
    messages = [
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, None, "t", (ToolCall("f", {"x": 1.5}, "c"),), train=True),
        Message(Role.OBSERVATION, "", name="f", call_id="c", train=False),
    ]
    rich = Dialogue(messages, tools=[{"b": [], "a": 1}], summary="sum", one_turn=True)
    assert dialogue_digest(rich, beside=["more"]) == (whole[0], flagged[1])
    assert dialogue_digest(plain, told("a")) == halves('["s",0,"hé",1,"yo","",0,"a"]'.encode())[0]
    assert [text_digest(["a", "ß"])] == halves('["a","ß"]'.encode())


FULL = Dialogue(
    [
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, "a", "because", (ToolCall("f", {"x": [1, "y"]}, "c1"),)),
        Message(Role.OBSERVATION, "r", name="f", call_id="c1"),
        Message(Role.ASSISTANT, "b"),
    ],
    system="s",
    tools=[{"name": "f"}],
)


def changed(number: int, **changes: Any) -> Dialogue:
    messages = list(FULL.messages)
    messages[number] = replace(messages[number], **changes)
    return FULL.but(messages=messages)


SAID_ELSE = {
    "system": FULL.but(system="t"),
    "no system": FULL.but(system=""),
    "tools": FULL.but(tools=[{"name": "g"}]),
    "no tools": FULL.but(tools=[]),
    "role": changed(0, role=Role.SYSTEM),
    "text": changed(3, content="c"),
    "no text": changed(3, content=None),
    "reasoning": changed(1, reasoning="so"),
    "no reasoning": changed(1, reasoning=None),
    "call": changed(1, tool_calls=(ToolCall("g", {"x": [1, "y"]}, "c1"),)),
    "arguments": changed(1, tool_calls=(ToolCall("f", {"x": [1, "z"]}, "c1"),)),
    "arguments as text": changed(1, tool_calls=(ToolCall("f", '{"x":[1,"y"]}', "c1"),)),
    "call's id": changed(1, tool_calls=(ToolCall("f", {"x": [1, "y"]}, None),)),
    "no call": changed(1, tool_calls=()),
    "calls": changed(1, tool_calls=FULL.messages[1].tool_calls * 2),
    "name": changed(2, name="g"),
    "no name": changed(2, name=None),
    "call_id": changed(2, call_id="c2"),
    "less": FULL.but(messages=FULL.messages[:-1]),
    "order": FULL.but(messages=[FULL.messages[n] for n in (0, 2, 1, 3)]),
}


@pytest.mark.parametrize("change", SAID_ELSE)
def test_what_is_said_counts(change: str) -> None:
    content, variant = dialogue_digest(FULL)
    other_content, other_variant = dialogue_digest(SAID_ELSE[change])
    assert content != other_content
    assert variant != other_variant


TRAINED_ELSE = {
    "train": changed(1, train=True),
    "not train": changed(1, train=False),
    "train another": changed(3, train=True),
    "one turn": FULL.but(one_turn=True),
    "summary": FULL.but(summary="x"),
    "another summary": FULL.but(summary="y"),
}


def test_what_is_trained_is_the_second_number_alone() -> None:
    found = [dialogue_digest(dialogue) for dialogue in (FULL, *TRAINED_ELSE.values())]
    found += [dialogue_digest(FULL, beside=texts) for texts in (["a"], ["b"], ["a", "b"], ["ab"])]
    assert len({content for content, _ in found}) == 1
    assert len({variant for _, variant in found}) == len(found)


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_nothing_said_is_as_good_as_an_empty_text(field: str) -> None:
    """But a chat template may write another thing for it."""
    absent, empty = (dialogue_digest(changed(1, **{field: value})) for value in (None, ""))
    assert absent[0] == empty[0]
    assert absent[1] != empty[1]


def test_notes_do_not_count() -> None:
    assert dialogue_digest(FULL.but(notes=["empty-prompt"])) == dialogue_digest(FULL)


def test_nothing_of_a_dialogue_is_forgotten() -> None:
    """A new field has to be put where it belongs, here too."""
    names = {kind: list(inspect.signature(kind).parameters) for kind in (Dialogue, Message, ToolCall)}
    assert names == {
        Dialogue: ["messages", "system", "tools", "notes", "summary", "one_turn"],
        Message: ["role", "content", "reasoning", "tool_calls", "name", "call_id", "train"],
        ToolCall: ["name", "arguments", "id"],
    }


# Values of tools and calls


def nested(depth: int, innermost: Any) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


SAME = [
    ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
    ({"a": 2**70, "b": math.nan}, {"b": math.nan, "a": 2**70}),
    ({1: "a", "b": "c"}, {"b": "c", 1: "a"}),
    (nested(3000, {"a": 1, "b": 2}), nested(3000, {"b": 2, "a": 1})),
]
DIFFERENT = [
    [None, math.nan, math.inf, -math.inf, "null", "NaN", "nan", "None", "", 0, False, [], {}, [None]],
    [1, 1.0, True, "1", "1.0", "true", "True", [1], {"1": 1}, {1: 1}, {True: 1}, {"True": 1}, {1.0: "1"}],
    [2**64, float(2**64), str(2**64), 2**64 + 1, -(2**64), hex(2**64), 10**5000, 10**5000 + 1],
    ["\ud800", "\\ud800", "'\\ud800'", "\ud801", "\ud800'\n'b", "\ud800\nb"],
    [["\ud800", "a"], ["\ud800a"], [["\ud800"], "a"], [["\ud800", "a"]], ["\ud800", ["a"]]],
    [{"\ud800": "a", "b": 1}, {"\ud800": 1, "b": "a"}, {"\ud800": {"a": "b"}}, ["\ud800", "a", "b", 1]],
    [[{"\ud800": ["b"]}, "c"], [["\ud800"], {"b": "c"}], [["\ud800"], ["b"], "c"]],
    [["\ud800", "\\ud801"], ["\\ud800", "\ud801"], ["\ud800", "\ud801"]],
    [["\ud800", 1], ["\ud800", "0x1"], ["\ud800", "1"], ["\ud800", True], ["\ud800", "'bool' 'True'"]],
    [datetime.date(2024, 7, 26), "2024-07-26", datetime.datetime(2024, 7, 26), "2024-07-26T00:00:00"],
    [decimal.Decimal("1.5"), 1.5, "1.5", decimal.Decimal("1.50"), "Decimal('1.5')"],
    [b"a", "a", "b'a'"],
    [nested(depth, innermost) for depth in (1, 200, 300, 5000, 100_000) for innermost in (0, 1)],
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME)
def test_the_order_of_keys_does_not_count(pair: tuple[Any, Any]) -> None:
    one, other = (dialogue_digest(calling(value)) for value in pair)
    assert one == other
    one, other = (dialogue_digest(told("a", "b", tools=[value])) for value in pair)
    assert one == other


@pytest.mark.parametrize("values", DIFFERENT)
def test_values_that_json_does_not_tell_apart_are_different(values: list[Any]) -> None:
    for found in (
        [dialogue_digest(calling(value)) for value in values],
        [dialogue_digest(calling({"deep": [value]})) for value in values],
        [dialogue_digest(told("a", "b", tools=[value])) for value in values],
    ):
        for half in range(2):
            assert len({digest[half] for digest in found}) == len(values)


def test_a_list_in_itself_ends() -> None:
    """A handler of the user's own can make one."""
    endless: list[Any] = [1]
    endless.append(endless)
    other: list[Any] = [2]
    other.append(other)
    assert dialogue_digest(calling(endless)) == dialogue_digest(calling(endless))
    assert dialogue_digest(calling(endless)) != dialogue_digest(calling(other))
    # The same list in two places is none.
    nan = math.nan
    inner = [nan]
    assert dialogue_digest(calling([inner, inner])) == dialogue_digest(calling([[nan], [nan]]))


def test_half_a_character_in_any_text() -> None:
    half = "\ud83d"
    places = [
        told(half, ""), told("", half), told("", "", system=half), changed(1, reasoning=half),
        changed(2, name=half), changed(2, call_id=half), changed(1, tool_calls=(ToolCall(half, {}),)),
        FULL.but(summary=half),
    ]  # fmt: skip
    found = [dialogue_digest(dialogue) for dialogue in places]
    found += [text_digest([half]), text_digest([half, ""]), dialogue_digest(FULL, beside=[half])]
    assert len(set(found)) == len(found)


# Held against an identity that is written out here

values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 0.0, math.nan, 2**70, "", "1", "null", "\ud800"])
    | st.dates(datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["", "1", "\ud800", 1, None]), inner, max_size=2)
    ),
    max_leaves=4,
)
texts = st.sampled_from(["", "a", "b", '","', "\ud800"])
few = st.sampled_from([None, "", "a"])
messages_of = st.builds(
    Message,
    st.sampled_from(Role),
    st.none() | texts,
    few,
    st.lists(st.builds(ToolCall, texts, values, few), max_size=2).map(tuple),
    few,
    few,
    st.sampled_from([None, True, False]),
)
found_dialogues = st.builds(
    Dialogue,
    st.lists(messages_of | st.builds(Message, st.sampled_from(Role), texts), max_size=3),
    texts,
    st.lists(values, max_size=2),
    summary=st.sampled_from(["", "", "a"]),
    one_turn=st.booleans(),
)


def frozen(value: Any) -> Any:
    """Return a value that is equal to that of the same JSON value alone."""
    if isinstance(value, list):
        return ("list", tuple(map(frozen, value)))
    if isinstance(value, dict):
        return ("dict", frozenset((frozen(key), frozen(inner)) for key, inner in value.items()))
    return (type(value).__name__, repr(value))


def said(dialogue: Dialogue) -> Any:
    messages = [
        (
            message.role, message.text, message.reasoning or "", message.name, message.call_id,
            tuple((call.name, frozen(call.arguments), call.id) for call in message.tool_calls),
        )
        for message in dialogue.messages
    ]  # fmt: skip
    return dialogue.system, frozen(dialogue.tools), tuple(messages)


def taught(dialogue: Dialogue) -> Any:
    flags = [
        (message.train, message.content is None, message.reasoning is None) for message in dialogue.messages
    ]
    return said(dialogue), dialogue.summary, dialogue.one_turn, tuple(flags)


@given(found=st.lists(found_dialogues, min_size=2, max_size=6), data=st.data())
def test_digests_are_equal_where_dialogues_are(found: list[Dialogue], data: st.DataObject) -> None:
    """Of many small dialogues, and some that differ from them in one place."""
    for dialogue in list(found):
        change = data.draw(st.sampled_from(["none", "system", "message", "flag", "tools"]))
        messages = list(dialogue.messages)
        if change == "system":
            found.append(dialogue.but(system=data.draw(texts)))
        elif change == "tools":
            found.append(dialogue.but(tools=[*dialogue.tools, data.draw(values)]))
        elif messages and change == "message":
            messages[-1] = replace(messages[-1], content=data.draw(st.none() | texts))
            found.append(dialogue.but(messages=messages))
        elif messages and change == "flag":
            messages[0] = replace(messages[0], train=data.draw(st.sampled_from([None, True, False])))
            found.append(dialogue.but(messages=messages))
        else:
            found.append(dialogue.but(notes=["odd"]))
    digests = [dialogue_digest(dialogue) for dialogue in found]
    for one, digest in zip(found, digests, strict=True):
        for other, its in zip(found, digests, strict=True):
            assert (digest[0] == its[0]) == (said(one) == said(other))
            assert (digest == its) == (taught(one) == taught(other))


@given(one=st.lists(found_dialogues, max_size=2), other=st.lists(found_dialogues, max_size=2))
def test_several_dialogues_are_not_one_with_all_of_their_messages(
    one: list[Dialogue], other: list[Dialogue]
) -> None:
    equal = [said(dialogue) for dialogue in one] == [said(dialogue) for dialogue in other]
    assert (dialogue_digest(*one)[0] == dialogue_digest(*other)[0]) == equal


@given(one=st.lists(texts, max_size=3), other=st.lists(texts, max_size=3))
def test_documents_are_equal_where_their_texts_are(one: list[str], other: list[str]) -> None:
    assert (text_digest(one) == text_digest(other)) == (one == other)
    for half in range(2):
        assert (text_digest(one)[half] == text_digest(other)[half]) == (one == other)


# Through the handlers


def through(name: str, record: Mapping[str, Any], **map_keys: str) -> tuple[int, int]:
    handler = handlers.get(name)(map_keys)
    assert isinstance(handler, DialogueHandler)
    return dialogue_digest(handler.dialogue(record))


ROUNDS = [("Guten Tag", "Hello"), ("Wie geht's?\nGut?", "How are you? 漢字 🙂"), ("und du", "")]


@pytest.mark.parametrize("system", ["", "You translate."])
@pytest.mark.parametrize("count", [1, 3])
def test_formats_that_say_the_same_are_equal(system: str, count: int) -> None:
    rounds = ROUNDS[:count]
    (question, answer), history = rounds[-1], [list(pair) for pair in rounds[:-1]]
    row = {"instruction": question, "input": "", "output": answer, "history": history, "system": system}
    turns = [turn for pair in rounds for turn in pair]
    sharegpt = [{"from": "human" if n % 2 == 0 else "gpt", "value": text} for n, text in enumerate(turns)]
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    alpaca = {"history": "history", "system": "system"}
    found = {
        through("alpaca", row, **alpaca),
        through("alpaca", {**row, "instruction": None, "input": question}, **alpaca),
        through("alpaca", {**row, "history": json.dumps(history)}, **alpaca),
        through("sharegpt", {"conversations": sharegpt, "system": system}, system="system"),
        through("openai", {"messages": messages}),
        through("openai", {"messages": json.dumps(messages)}),
        dialogue_digest(told(*turns, system=system)),
    }
    assert len(found) == 1


def test_formats_that_call_the_same_tools_are_equal() -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    arguments = {"what": "cat", "n": 2}
    shuffled = {"n": 2, "what": "cat"}
    sharegpt = [
        {"from": "human", "value": "find it"},
        {"from": "function_call", "value": json.dumps({"name": "find", "arguments": arguments})},
        {"from": "observation", "value": "found"},
        {"from": "gpt", "value": "there"},
    ]
    call = {"type": "function", "function": {"name": "find", "arguments": json.dumps(shuffled)}}
    messages = [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "there"},
    ]
    assert through(
        "sharegpt", {"conversations": sharegpt, "tools": json.dumps(tools)}, tools="tools"
    ) == through("openai", {"messages": messages, "tools": tools}, tools="tools")


# Through the encoders


def digests_of(batch: EncodedBatch) -> list[tuple[int, int]]:
    assert batch.digests.dtype == np.uint64
    assert batch.digests.shape == (len(batch.rows), 2)
    return [(content, variant) for content, variant in batch.digests.tolist()]


def test_all_samples_of_a_record_have_its_digest() -> None:
    records = [told("a", "b", "c", "d"), told("x", "y"), told("a", "b", "c", "d", "e", "f")]
    batch = encoded(opened("qwen"), records, train_on="split")
    assert [sample.row for sample in samples_of(batch)] == [0, 0, 1, 2, 2, 2]
    whole = [dialogue_digest(records[row]) for row in (0, 0, 1, 2, 2, 2)]
    assert digests_of(batch) == whole
    assert digests_of(encoded(opened("qwen"), records)) == [whole[0], whole[2], whole[3]]


@pytest.mark.parametrize("overlong", ["drop", "recent", "window", "left"])
def test_what_is_cut_keeps_the_digest_of_all(overlong: str) -> None:
    """And what is rejected has none."""
    long = told(*(f"some words {n}" for n in range(12)), summary="so far")
    records = [told("no answer at all" * 20, "x" * 300), told("a", "b"), long]
    batch = encoded(opened("qwen"), records, seq_length=120, overlong=overlong)
    assert digests_of(batch) == [dialogue_digest(records[row]) for row in batch.rows.tolist()]
    assert set(batch.rows.tolist()) >= {1}
    if overlong in ("recent", "window"):
        assert set(batch.rows.tolist()) == {1, 2}


def test_replies_that_are_left_out_are_flags() -> None:
    """What the settings make of empty replies counts as what the data say of them."""
    empty, flagged = told("a", ""), told("a", "")
    flagged.messages[1].train = False
    told_more = [
        dialogue.but(messages=[*dialogue.messages, *told("b", "c").messages])
        for dialogue in (empty, flagged)
    ]
    one, other = digests_of(encoded(opened("qwen"), told_more, empty_reply="untrained"))
    assert one == other
    one, other = digests_of(encoded(opened("qwen"), told_more))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_pair_has_the_digest_of_both_sides() -> None:
    asked = told("a", "b", "c", "d")
    replies = [("x", "y"), ("x", "z"), ("y", "x"), ("", "y"), ("x", "y")]
    pairs = [pair_of(asked, *own) for own in replies]
    batch = encoded_pairs(opened("qwen"), pairs, seq_length=10**6)
    expected = [dialogue_digest(*(side.but(one_turn=True) for side in pair)) for pair in pairs]
    assert digests_of(batch) == [expected[row] for row in batch.rows.tolist()]
    assert len({content for content, _ in digests_of(batch)}) == len(batch.rows) - 1
    long = pair_of(asked, "x" * 1000, "y")
    batch = encoded_pairs(opened("qwen"), [long, *pairs], seq_length=200)
    assert batch.rows.tolist()[0] == 1
    assert digests_of(batch) == [expected[row - 1] for row in batch.rows.tolist()]


def test_a_prompt_has_the_digest_of_the_dialogue_and_what_stands_beside_it() -> None:
    records = [told("a" * 1000, "b"), told("a", "b"), told("a", "c")]

    def prompts(**changes: Any) -> list[tuple[int, int]]:
        fields = {"solution": "s"}
        batch = encoded_prompts("r1", opened("qwen"), records, fields, seq_length=200, **changes)
        assert batch.rows.tolist() == [1, 2]
        return digests_of(batch)

    assert prompts() == [dialogue_digest(dialogue) for dialogue in records[1:]]
    beside = prompts(dataset_additional_keys=("solution",))
    assert beside == [dialogue_digest(dialogue, beside=["s"]) for dialogue in records[1:]]


def test_a_document_has_the_digest_of_its_texts() -> None:
    records: Sequence[dict[str, Any]] = [
        {"text": "a" * 1000, "more": "b"}, {"text": "a", "more": "b"}, {"text": "", "more": ""},
        {"text": "ab", "more": ""}, {"text": "", "more": "ab"}, {"text": "a", "more": "b"},
    ]  # fmt: skip
    batch = encoded_documents("plain", records, json_keys=("text", "more"), seq_length=100)
    assert batch.rows.tolist() == [1, 3, 4, 5]
    expected = [text_digest(own) for own in (["a", "b"], ["ab", ""], ["", "ab"], ["a", "b"])]
    assert digests_of(batch) == expected
    assert len(set(expected)) == 3


def test_a_batch_without_samples_has_digests_of_the_same_shape() -> None:
    template = opened("qwen")
    for batch in (
        encoded(template, []),
        encoded(template, [told("a", "b")], seq_length=1),
        encoded_pairs(template, []),
        encoded_prompts("ppo", template, []),
        encoded_documents("plain", []),
        encoded_documents("plain", [{"text": ""}]),
    ):
        assert digests_of(batch) == []
