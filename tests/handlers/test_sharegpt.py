"""ShareGPT records: turns, roles, calls, tools; and the data sets that are written so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.sharegpt import BelleChatHandler, HunyuanHandler, SharegptHandler
from mtsft_preproc.templates import PromptTemplate, prompt_types
from mtsft_preproc.tokenization import load_tokenizer, open_encoder

HANDLER = SharegptHandler({"tools": "tools", "system": "system"})
CALL = '{"name": "f", "arguments": {"x": 1}}'
FULL_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "system_tag": "system", "observation_tag": "observation", "function_tag": "function_call",
}  # fmt: skip


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": value} for role, value in pairs]}


def said(dialogue: Dialogue) -> list[tuple[Role, str | None]]:
    return [(message.role, message.content) for message in dialogue.messages]


def outcome(record: dict[str, Any], handler: SharegptHandler = HANDLER) -> Any:
    """Return the texts of a record's dialogue, or the reason and the field of its rejection."""
    try:
        return [message.content for message in handler.dialogue(record).messages]
    except RecordError as error:
        found = error
    assert found.reason in REASONS
    assert found.expected
    assert found.got
    return found.reason, found.field


FIRST, LAST = ["q", "a"], ["last", "one"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sg_ok.jsonl", [FIRST, FIRST, LAST]),
        ("sg_bad_fc.jsonl", [FIRST, ("bad-tool-json", "conversations[1].value"), LAST]),
        ("sg_empty.jsonl", [FIRST, ("empty-dialogue", "conversations"), LAST]),
        ("sg_empty_value.jsonl", [FIRST, ["q", ""], LAST]),
        ("sg_fc_end.jsonl", [FIRST, ["q", None], LAST]),
        ("sg_fc_list.jsonl", [FIRST, ["q", None, "r", "a"], LAST]),
        ("sg_first_empty.jsonl", [("empty-dialogue", "conversations"), FIRST]),
        ("sg_null_conv.jsonl", [FIRST, ("missing-field", "conversations"), LAST]),
        ("sg_null_mid.jsonl", [FIRST, ("missing-field", "conversations[1].value"), LAST]),
        ("sg_null_value.jsonl", [FIRST, ("missing-field", "conversations[1].value"), LAST]),
        ("sg_obs.jsonl", [FIRST, ["q", None, "r", "a"], LAST]),
        ("sg_odd.jsonl", [FIRST, ["q", "a", "q2"], LAST]),
        ("sg_one_msg.jsonl", [FIRST, ("no-assistant", "conversations"), LAST]),
        ("sg_start_gpt.jsonl", [FIRST, ("role-order", "conversations[0]"), LAST]),
        ("sg_system_first.jsonl", [FIRST, FIRST, LAST]),
        ("sg_system_mid.jsonl", [FIRST, ("role-order", "conversations[2]"), LAST]),
        ("sg_system_only.jsonl", [FIRST, ("no-assistant", "conversations"), LAST]),
        ("sg_tools_bad.jsonl", [("bad-tool-json", "tools"), *[FIRST] * 5]),
        ("sg_tools_null.jsonl", [FIRST, FIRST]),
        ("sg_two_human.jsonl", [FIRST, ("role-order", "conversations[1]"), LAST]),
        ("sg_unknown_role.jsonl", [FIRST, ("unknown-role", "conversations[0].from"), LAST]),
    ],
)
def test_the_odd_records_of_the_golden_files(shared: Path, name: str, expected: list[Any]) -> None:
    lines = (shared / "golden" / "inputs" / "edge" / name).read_text("utf-8").splitlines()
    assert [outcome(json.loads(line)) for line in lines] == expected


def by_hand(record: list[dict[str, str]], tools: str, role: str, text: str) -> Dialogue:
    """Return the dialogue of a record of the golden files, whose calls are single objects."""
    roles = {"human": 0, "user": 0, "gpt": 1, "assistant": 1, "observation": 2}
    messages, system = [], ""
    for turn in record:
        if turn[role] == "system":
            system = turn[text]
        elif turn[role] == "function_call":
            call = json.loads(turn[text])
            calls = (ToolCall(call["name"], call["arguments"]),)
            messages.append(Message(Role.ASSISTANT, None, tool_calls=calls))
        else:
            messages.append(Message(Role(roles[turn[role]]), turn[text]))
    return Dialogue(messages, system, json.loads(tools))


@pytest.mark.parametrize(
    ("case", "source", "tokenizer", "map_keys"),
    [
        ("sharegpt_tools_qwen", "sharegpt_tools.json", "qwen_base",
         {"messages": "conversations", "tools": "tools"}),
        ("sharegpt_role_qwen_fulltags", "sharegpt_role.json", "qwen",
         {"messages": "messages", "tags": FULL_TAGS}),
    ],
)  # fmt: skip
def test_tokens_and_labels_are_those_of_the_original(
    shared: Path, tmp_path: Path, case: str, source: str, tokenizer: str, map_keys: dict[str, Any]
) -> None:
    handler = SharegptHandler(map_keys)
    records: list[Any] = json.loads((shared / "golden" / "inputs" / source).read_text("utf-8"))
    dialogues = [handler.dialogue(record) for record in records]
    fields = (handler.tag["role_tag"], handler.tag["content_tag"])
    assert dialogues == [
        by_hand(record[map_keys["messages"]], record.get("tools") or "[]", *fields) for record in records
    ]
    prompt_type = prompt_types.get("qwen")
    folder = shared / "golden" / "tokenizers" / tokenizer
    encoder = open_encoder(load_tokenizer(str(folder), prompt_type.adjustment()).save(tmp_path))
    batch = PromptTemplate(prompt_type, encoder).encode(
        dialogues, [[message.role.is_target for message in item.messages] for item in dialogues]
    )
    assert batch.failed == {}
    expected = np.load(shared / "golden" / "expected" / f"{case}.npz")
    np.testing.assert_array_equal(batch.ids, expected["packed_input_ids_document.tokens"])
    labels = np.where(batch.mask(), batch.ids, -100)
    np.testing.assert_array_equal(labels, expected["packed_labels_document.tokens"])


def test_a_dialogue_with_a_call() -> None:
    record = turns(
        ("system", "S"), ("human", "q"), ("function_call", CALL), ("observation", "r"), ("gpt", "a")
    )
    tools = [{"name": "f", "parameters": {}}]
    assert HANDLER.dialogue({**record, "tools": json.dumps(tools)}) == Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", {"x": 1}),)),
            Message(Role.OBSERVATION, "r"),
            Message(Role.ASSISTANT, "a"),
        ],
        "S",
        tools,
    )


@pytest.mark.parametrize(
    "value",
    [
        CALL,
        f"[{CALL}]",
        {"name": "f", "arguments": {"x": 1}},
        [{"name": "f", "arguments": '{"x": 1}'}],
        '{"name": "f", "arguments": "{\\"x\\": 1}"}',
    ],
)
def test_all_forms_of_a_call_give_the_same(value: Any) -> None:
    message = HANDLER.dialogue(turns(("human", "q"), ("function_call", value))).messages[1]
    assert message == Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", {"x": 1}),))


def test_parallel_calls() -> None:
    value = '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]'
    message = HANDLER.dialogue(turns(("human", "q"), ("function_call", value))).messages[1]
    assert message.tool_calls == (ToolCall("f", {}), ToolCall("g", {}))


ORDER, PLACE = "role-order", "conversations"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, ("missing-field", PLACE)),
        ({"conversations": ""}, ("missing-field", PLACE)),
        ({"conversations": "null"}, ("missing-field", PLACE)),
        ({"conversations": "hello"}, ("wrong-type", PLACE)),
        ({"conversations": {"from": "human"}}, ("wrong-type", PLACE)),
        ({"conversations": 3}, ("wrong-type", PLACE)),
        ({"conversations": "[]"}, ("empty-dialogue", PLACE)),
        ({"conversations": '[{"from": "human", "value": "\\ud800"}]'}, ("lone-surrogate", PLACE)),
        ({"conversations": ["q", "a"]}, ("wrong-type", f"{PLACE}[0]")),
        ({"conversations": [None]}, ("wrong-type", f"{PLACE}[0]")),
        ({"conversations": [{"value": "q"}]}, ("missing-field", f"{PLACE}[0].from")),
        ({"conversations": [{"from": 1, "value": "q"}]}, ("wrong-type", f"{PLACE}[0].from")),
        ({"conversations": [{"from": "human"}]}, ("missing-field", f"{PLACE}[0].value")),
        (turns(("human", 1)), ("wrong-type", f"{PLACE}[0].value")),
        (turns(("human", ["q"])), ("wrong-type", f"{PLACE}[0].value")),
        (turns(("human", "q"), ("gpt", {"a": 1})), ("wrong-type", f"{PLACE}[1].value")),
        (turns(("human", "q"), ("gpt", False)), ("wrong-type", f"{PLACE}[1].value")),
        (turns(("system", None), ("human", "q")), ("missing-field", f"{PLACE}[0].value")),
        (turns(("system", "S"), ("system", "S")), (ORDER, f"{PLACE}[1]")),
        (turns(("system", "S"), ("gpt", "a")), (ORDER, f"{PLACE}[1]")),
        (turns(("function_call", CALL)), (ORDER, f"{PLACE}[0]")),
        (turns(("human", "q"), ("observation", "r")), (ORDER, f"{PLACE}[1]")),
        (turns(("human", "q"), ("gpt", "a"), ("function_call", CALL)), (ORDER, f"{PLACE}[2]")),
        (turns(("human", "q"), ("function_call", CALL), ("gpt", "a")), (ORDER, f"{PLACE}[2]")),
        (turns(("human", "q"), ("function_call", None)), ("missing-field", f"{PLACE}[1].value")),
        (turns(("human", "q"), ("function_call", "[]")), ("bad-tool-json", f"{PLACE}[1].value")),
        (turns(("human", "q"), ("function_call", 7)), ("bad-tool-json", f"{PLACE}[1].value")),
        (
            turns(("human", "q"), ("function_call", [{"name": "f", "arguments": "x"}])),
            ("bad-tool-json", f"{PLACE}[1].value[0].arguments"),
        ),
        (turns(("observation", 7), ("gpt", "a")), ("wrong-type", f"{PLACE}[0].value")),
        (turns(("observation", [{1}]), ("gpt", "a")), ("wrong-type", f"{PLACE}[0].value")),
        ({**turns(("human", "q"), ("gpt", "a")), "system": 1}, ("wrong-type", "system")),
        ({**turns(("human", "q"), ("gpt", "a")), "tools": [{}]}, ("bad-tool-json", "tools[0]")),
        (turns(("observation", "r"), ("gpt", "a")), ["r", "a"]),
    ],
)
def test_what_becomes_of_other_records(record: dict[str, Any], expected: Any) -> None:
    assert outcome(record) == expected


def test_an_unknown_role_is_named_and_the_known_ones_too() -> None:
    with pytest.raises(RecordError) as caught:
        HANDLER.dialogue(turns(("bing", "q")))
    assert caught.value.got == "'bing'"
    for name in ("human", "gpt", "observation", "function_call", "system"):
        assert name in caught.value.expected


def test_a_result_that_is_an_object_becomes_its_json() -> None:
    value = {"城市": "北京", "a": None, "b": [1, 2.5]}
    record = turns(("human", "q"), ("function_call", CALL), ("observation", value), ("gpt", "a"))
    assert outcome(record)[2] == '{"城市": "北京", "a": null, "b": [1, 2.5]}'


@pytest.mark.parametrize(
    ("leading", "column", "system", "notes"),
    [
        (None, None, "", []),
        (None, "C", "C", []),
        ("L", None, "L", []),
        ("L", "L", "L", []),
        ("L", "", "L", []),
        ("L", "C", "L", ["system-column-unused"]),
        ("", "C", "", ["system-column-unused"]),
    ],
)
def test_a_leading_system_message_beats_the_column(
    leading: str | None, column: str | None, system: str, notes: list[str]
) -> None:
    front = [] if leading is None else [("system", leading)]
    record = {**turns(*front, ("human", "q"), ("gpt", "a")), "system": column}
    dialogue = HANDLER.dialogue(record)
    assert (dialogue.system, dialogue.notes) == (system, notes)
    assert said(dialogue) == [(Role.USER, "q"), (Role.ASSISTANT, "a")]


def test_tools_system_and_summary_are_read_only_where_they_are_mapped() -> None:
    record = {**turns(("human", "q"), ("gpt", "a")), "tools": "not json", "system": 1, "summary": "s"}
    dialogue = SharegptHandler().dialogue(record)
    assert (dialogue.system, dialogue.tools, dialogue.summary) == ("", [], "")
    assert SharegptHandler({"summary": "summary"}).dialogue(record).summary == "s"
    assert set(SharegptHandler.usual) == {"tools", "system"}


def test_flags_of_messages_are_kept() -> None:
    record = {
        "conversations": [
            {"from": "system", "value": "S", "weight": 1},
            {"from": "human", "value": "q", "train": False},
            {"from": "gpt", "value": "a", "weight": 0},
            {"from": "human", "value": "q", "weight": None},
            {"from": "gpt", "value": "a", "loss": 1.0},
        ]
    }
    dialogue = HANDLER.dialogue(record)
    assert [message.train for message in dialogue.messages] == [False, False, None, True]
    assert dialogue.notes == ["system-not-trained"]
    record["conversations"][2]["weight"] = 0.5
    assert outcome(record) == ("wrong-type", "conversations[2].weight")


def test_messages_without_a_role_take_turns() -> None:
    handler = SharegptHandler({"messages": "messages", "tags": {"role_tag": "", "content_tag": "message"}})
    record = {"messages": [{"message": "q", "attrs": []}, {"message": "a"}, {"message": "q2", "weight": 0}]}
    dialogue = handler.dialogue(record)
    assert said(dialogue) == [(Role.USER, "q"), (Role.ASSISTANT, "a"), (Role.USER, "q2")]
    assert dialogue.messages[2].train is False
    assert handler.dialogue({"messages": record["messages"][:2]}).messages[1].train is None
    record["messages"][0]["weight"] = 2
    assert outcome(record, handler) == ("wrong-type", "messages[0].weight")
    assert outcome({"messages": [{"message": "q"}]}, handler) == ("no-assistant", "messages")
    assert outcome({"messages": ["q", "a"]}, handler) == ("wrong-type", "messages[0]")


def test_the_raw_dialogues_of_kdconv_are_those_of_its_sharegpt_form(shared: Path) -> None:
    folder = shared / "datasets" / "kdconv"
    raw = SharegptHandler({"messages": "messages", "tags": {"role_tag": "", "content_tag": "message"}})
    rewritten = {
        record["id"]: SharegptHandler().dialogue(record)
        for record in json.loads((folder / "kdconv_sharegpt.json").read_text("utf-8"))
    }
    for name in ("film_dev", "film_test", "music_dev", "music_test"):
        for number, record in enumerate(json.loads((folder / f"{name}.json").read_text("utf-8"))):
            found = said(raw.dialogue(record))
            # What nobody answers at the end was left out when the data were rewritten.
            answered = found[:-1] if len(found) % 2 else found
            assert answered == said(rewritten.pop(f"{name}_{number}"))
    assert rewritten == {}


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"user_tag": "gpt"}, ["user_tag", "assistant_tag", "'gpt'"]),
        ({"function_tag": "system"}, ["function_tag", "system_tag"]),
        ({"content_tag": ""}, ["content_tag"]),
        ({"role_tag": "x", "content_tag": "x"}, ["content_tag", "'x'"]),
        ({"asistant_tag": "x"}, ["asistant_tag", "assistant_tag"]),
    ],
)
def test_tags_that_can_not_be_told_apart_are_refused(tags: dict[str, str], named: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        SharegptHandler({"tags": tags})
    for word in named:
        assert word in str(caught.value)


def test_a_role_that_the_data_do_not_have_can_be_left_out() -> None:
    handler = SharegptHandler({"tags": {"system_tag": "", "observation_tag": "", "function_tag": ""}})
    assert outcome(turns(("human", "q"), ("gpt", "a")), handler) == ["q", "a"]
    for name in ("system", "observation", ""):
        assert outcome(turns((name, "q")), handler) == ("unknown-role", "conversations[0].from")


def test_belles_chats(shared: Path) -> None:
    path = shared / "datasets" / "belle" / "belle_train_3.5M_chat_readme_examples.json"
    records = json.loads(path.read_text("utf-8"))
    dialogues = [BelleChatHandler().dialogue(record) for record in records]
    assert [len(dialogue.messages) for dialogue in dialogues] == [2, 6]
    assert [message.content for message in dialogues[1].messages] == [
        turn["value"] for turn in records[1]["conversations"]
    ]
    assert outcome(turns(("human", "q"), ("gpt", "a")), BelleChatHandler())[0] == "unknown-role"


def test_hunyuan_brings_its_template() -> None:
    record = turns(("system", "S"), ("human", "q"), ("gpt", "a"), ("human", "q"), ("gpt", "a"))
    assert HunyuanHandler().dialogue(record) == SharegptHandler().dialogue(record)
    assert HunyuanHandler.defaults == {"chat_template": "tokenizer"}
    assert SharegptHandler.defaults == {}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("sharegpt", SharegptHandler),
        ("SharegptStyleInstructionHandler", SharegptHandler),
        ("belle-chat", BelleChatHandler),
        ("BelleChatHandler", BelleChatHandler),
        ("hunyuan", HunyuanHandler),
        ("HunyuanInstructionHandler", HunyuanHandler),
    ],
)
def test_the_handlers_are_known_under_their_names(name: str, entry: type) -> None:
    assert handlers.get(name) is entry


texts = st.text(st.characters(codec="utf-8"), max_size=6)
flags = st.sampled_from([None, 0, 1])


@settings(max_examples=150, deadline=None)
@given(
    system=st.none() | texts,
    rounds=st.lists(st.tuples(st.booleans(), texts, st.booleans(), texts, flags), min_size=1, max_size=4),
    ends=st.none() | texts,
    ensure_ascii=st.booleans(),
)
def test_what_goes_in_comes_out_from_objects_and_from_json_text(
    system: str | None,
    rounds: list[tuple[bool, str, bool, str, int | None]],
    ends: str | None,
    ensure_ascii: bool,
) -> None:
    given_turns: list[dict[str, Any]] = [] if system is None else [{"from": "system", "value": system}]
    expected = []
    for observed, source, calls, target, flag in rounds:
        given_turns.append({"from": "observation" if observed else "human", "value": source})
        expected.append(Message(Role.OBSERVATION if observed else Role.USER, source))
        train = None if flag is None else bool(flag)
        if calls:
            call = {"name": "f", "arguments": {target: target}}
            value = json.dumps(call, ensure_ascii=ensure_ascii)
            given_turns.append({"from": "function_call", "value": value, "weight": flag})
            made = (ToolCall("f", {target: target}),)
            expected.append(Message(Role.ASSISTANT, None, tool_calls=made, train=train))
        else:
            given_turns.append({"from": "gpt", "value": target, "weight": flag})
            expected.append(Message(Role.ASSISTANT, target, train=train))
    if ends is not None:
        given_turns.append({"from": "human", "value": ends})
        expected.append(Message(Role.USER, ends))
    for column in (given_turns, json.dumps(given_turns, ensure_ascii=ensure_ascii)):
        assert HANDLER.dialogue({"conversations": column}) == Dialogue(expected, system or "")
