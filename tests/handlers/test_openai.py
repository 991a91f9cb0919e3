"""OpenAI's chat messages: contents, calls, results, flags; and the data sets that are written so."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_all, source_of

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.handlers.openai import OpenAIHandler

HANDLER = OpenAIHandler({"system": "system"})
Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
ARGUMENTS = {"x": 1}


def call(identity: str | None = "c1", name: str = "f", **fields: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": '{"x": 1}'}, **fields}
    return made if identity is None else {"id": identity, **made}


def calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(identity: str | None = "c1", content: Any = "r", **fields: Any) -> dict[str, Any]:
    made = {"role": "tool", "content": content, **fields}
    return made if identity is None else {**made, "tool_call_id": identity}


def dialogue(*messages: Any, **fields: Any) -> Dialogue:
    return HANDLER.dialogue({"messages": list(messages), **fields})


def refusal(*messages: Any, **fields: Any) -> tuple[str, str]:
    with pytest.raises(RecordError) as caught:
        dialogue(*messages, **fields)
    error = caught.value
    assert error.reason in REASONS
    assert error.expected
    assert error.got
    return error.reason, error.field


FIRST = ["q", "a"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oa_empty.jsonl", ("empty-dialogue", "messages")),
        ("oa_null_content.jsonl", ("missing-field", "messages[1].content")),
        ("oa_odd.jsonl", ["q", "a", "z"]),
        ("oa_start_asst.jsonl", ["a", "q", "b"]),
        ("oa_sys_only.jsonl", ("no-assistant", "messages")),
        ("oa_tool.jsonl", ("orphan-tool-result", "messages[2]")),
        ("oa_two_asst.jsonl", ["q", "a", "b"]),
        ("oa_two_user.jsonl", ["q", "q1", "a"]),
        ("oa_unknown.jsonl", ["a"]),
    ],
)
def test_the_odd_records_of_the_golden_files(shared: Path, name: str, expected: Any) -> None:
    lines = (shared / "golden" / "inputs" / "edge" / name).read_text("utf-8").splitlines()
    before, odd, after = (json.loads(line)["messages"] for line in lines)
    for plain in (before, after):
        assert [message.content for message in dialogue(*plain).messages] == FIRST
    if isinstance(expected, tuple):
        assert refusal(*odd) == expected
    else:
        assert [message.content for message in dialogue(*odd).messages] == expected


def test_a_developer_in_front_is_the_system(shared: Path) -> None:
    path = shared / "golden" / "inputs" / "edge" / "oa_unknown.jsonl"
    record = json.loads(path.read_text("utf-8").splitlines()[1])
    assert HANDLER.dialogue(record) == Dialogue([Message(Role.ASSISTANT, "a")], "x")


def test_plain_dialogues_are_what_the_data_say(shared: Path) -> None:
    lines = (shared / "golden" / "inputs" / "openai_plain.jsonl").read_text("utf-8").splitlines()
    for line in lines:
        turns = json.loads(line)["messages"]
        system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
        roles = {"user": Role.USER, "assistant": Role.ASSISTANT}
        expected = [Message(roles[turn["role"]], turn["content"]) for turn in turns]
        assert HANDLER.dialogue(json.loads(line)) == Dialogue(expected, system)


def test_a_dialogue_with_parallel_calls() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    found = dialogue(
        {"role": "system", "content": "S"},
        Q,
        {**calling(call("c1"), call("c2", "g"), content="Wait."), "reasoning_content": "Hm."},
        result("c2", "two"),
        result("c1", "one", name="f"),
        A,
        tools=json.dumps(tools),
    )
    calls = (ToolCall("f", ARGUMENTS, "c1"), ToolCall("g", ARGUMENTS, "c2"))
    assert found == Dialogue(
        [
            Message(Role.USER, "q"),
            Message(Role.ASSISTANT, "Wait.", "Hm.", calls),
            Message(Role.OBSERVATION, "two", name="g", call_id="c2"),
            Message(Role.OBSERVATION, "one", name="f", call_id="c1"),
            Message(Role.ASSISTANT, "a"),
        ],
        "S",
        tools,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [{"function": {"name": "f", "arguments": ARGUMENTS}}]},
        {"tool_calls": [{"name": "f", "arguments": ARGUMENTS}]},
        {"tool_calls": [{"name": "f", "arguments": '{"x":1}'}], "function_call": None},
        {"tool_calls": '[{"name": "f", "arguments": {"x": 1}}]'},
        {"tool_calls": [], "function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"tool_calls": None, "function_call": {"name": "f", "arguments": ARGUMENTS}},
        {"tool_calls": "", "function_call": {"name": "f", "arguments": ARGUMENTS}},
    ],
)
@pytest.mark.parametrize("content", [{"content": None}, {}])
def test_all_forms_of_a_call_give_the_same(fields: dict[str, Any], content: dict[str, Any]) -> None:
    message = {"role": "assistant", **content, **fields}
    expected = Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", ARGUMENTS),))
    assert dialogue(Q, message).messages[1] == expected


@pytest.mark.parametrize("role", ["tool", "function", "observation"])
def test_a_result_without_an_id_answers_the_calls_in_front(role: str) -> None:
    found = dialogue(Q, calling(call()), {"role": role, "content": "r", "name": "f"}, A)
    assert found.messages[2] == Message(Role.OBSERVATION, "r", name="f")
    assert dialogue(Q, calling(call()), {"role": role, "content": "r"}, A).messages[2].name is None


def test_the_same_id_in_a_later_message_is_the_later_call() -> None:
    found = dialogue(Q, calling(call("c")), result("c"), calling(call("c", "g")), result("c"), A)
    assert [message.name for message in found.messages] == [None, None, "f", None, "g", None]


def test_a_late_result_of_an_earlier_call_has_its_name() -> None:
    found = dialogue(Q, calling(call("c1")), calling(call("c2", "g")), result("c1"), A)
    assert found.messages[3].name == "f"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([result(), A], ("orphan-tool-result", "messages[0]")),
        ([Q, result(), A], ("orphan-tool-result", "messages[1]")),
        ([Q, A, result(), A], ("orphan-tool-result", "messages[2]")),
        ([Q, calling(call()), Q, result(), A], ("orphan-tool-result", "messages[3]")),
        ([Q, calling(call()), result(), A, result()], ("orphan-tool-result", "messages[4]")),
        ([Q, calling(call()), result("c2"), A], ("orphan-tool-result", "messages[2].tool_call_id")),
        ([Q, calling(call(None)), result("c1"), A], ("orphan-tool-result", "messages[2].tool_call_id")),
        (
            [Q, calling(call("c"), call("c", "g")), result("c"), A],
            ("bad-tool-json", "messages[1]"),
        ),
        ([Q, calling(call(name=""))], ("bad-tool-json", "messages[1].tool_calls[0].function.name")),
        (
            [Q, calling({"function": {"name": "f", "arguments": "x=1"}})],
            ("bad-tool-json", "messages[1].tool_calls[0].function.arguments"),
        ),
        (
            [Q, calling({"function": {"name": "f", "arguments": "[1]"}})],
            ("bad-tool-json", "messages[1].tool_calls[0].function.arguments"),
        ),
        ([Q, {**A, "tool_calls": "x"}], ("bad-tool-json", "messages[1].tool_calls")),
        ([Q, {**A, "tool_calls": 7}], ("bad-tool-json", "messages[1].tool_calls")),
        (
            [Q, {**calling(call()), "function_call": {"name": "f", "arguments": {}}}],
            ("bad-tool-json", "messages[1].function_call"),
        ),
        ([{**Q, "tool_calls": [call()]}, A], ("wrong-type", "messages[0].tool_calls")),
        ([Q, calling(call()), result(7), A], ("wrong-type", "messages[2].tool_call_id")),
        ([Q, calling(call()), result(name=7), A], ("wrong-type", "messages[2].name")),
    ],
)
def test_calls_and_results_that_do_not_fit_are_refused(
    messages: list[Any], expected: tuple[str, str]
) -> None:
    assert refusal(*messages) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], ("empty-dialogue", "messages")),
        ([Q], ("no-assistant", "messages")),
        ([{"role": "system", "content": "S"}, Q, Q], ("no-assistant", "messages")),
        (["q"], ("wrong-type", "messages[0]")),
        ([[Q]], ("wrong-type", "messages[0]")),
        ([{"content": "q"}, A], ("missing-field", "messages[0].role")),
        ([{"role": None, "content": "q"}, A], ("missing-field", "messages[0].role")),
        ([{"role": 1, "content": "q"}, A], ("wrong-type", "messages[0].role")),
        ([{"role": "human", "content": "q"}, A], ("unknown-role", "messages[0].role")),
        ([{"role": "ipython", "content": "q"}, A], ("unknown-role", "messages[0].role")),
        ([{"role": "User", "content": "q"}, A], ("unknown-role", "messages[0].role")),
        ([{"role": "user", "content": None}, A], ("missing-field", "messages[0].content")),
        ([{"role": "user"}, A], ("missing-field", "messages[0].content")),
        ([{"role": "system", "content": None}, A], ("missing-field", "messages[0].content")),
        ([Q, {"role": "assistant"}], ("missing-field", "messages[1].content")),
        ([Q, {"role": "assistant", "tool_calls": []}], ("missing-field", "messages[1].content")),
        (
            [Q, {"role": "assistant", "content": None, "reasoning_content": "Hm."}],
            ("missing-field", "messages[1].content"),
        ),
        ([Q, calling(call()), result(content=None), A], ("missing-field", "messages[2].content")),
        ([Q, {"role": "assistant", "content": []}], ("missing-field", "messages[1].content")),
        ([{"role": "user", "content": 7}, A], ("wrong-type", "messages[0].content")),
        ([{"role": "user", "content": {"text": "q"}}, A], ("wrong-type", "messages[0].content")),
        ([{**Q, "name": 7}, A], ("wrong-type", "messages[0].name")),
        ([Q, {**A, "reasoning_content": ["Hm."]}], ("wrong-type", "messages[1].reasoning_content")),
        ([Q, {**A, "thinking": True}], ("wrong-type", "messages[1].thinking")),
        ([{**Q, "reasoning": "Hm."}, A], ("wrong-type", "messages[0].reasoning")),
        ([Q, {**A, "reasoning": "Hm.", "thinking": "Ah."}], ("wrong-type", "messages[1].thinking")),
    ],
)
def test_what_is_no_message_is_refused(messages: list[Any], expected: tuple[str, str]) -> None:
    assert refusal(*messages) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (None, ("missing-field", "messages")),
        ("", ("missing-field", "messages")),
        ("hello", ("wrong-type", "messages")),
        ({"role": "user"}, ("wrong-type", "messages")),
        ("{}", ("wrong-type", "messages")),
        ('[{"role": "user", "content": NaN}]', ("wrong-type", "messages")),
    ],
)
def test_a_column_that_is_no_list_is_refused(column: Any, expected: tuple[str, str]) -> None:
    with pytest.raises(RecordError) as caught:
        HANDLER.dialogue({"messages": column})
    assert (caught.value.reason, caught.value.field) == expected


def test_no_messages_column_is_a_missing_field() -> None:
    with pytest.raises(RecordError) as caught:
        HANDLER.dialogue({"text": "x"})
    assert (caught.value.reason, caught.value.field) == ("missing-field", "messages")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_found_under_their_names(field: str) -> None:
    assert dialogue(Q, {**A, field: "Hm."}).messages[1] == Message(Role.ASSISTANT, "a", "Hm.")
    assert dialogue(Q, {**A, field: ""}).messages[1].reasoning == ""
    assert dialogue(Q, {**A, field: None}).messages[1].reasoning is None
    assert dialogue({**Q, field: ""}, A).messages[0].reasoning is None


def test_an_empty_reply_is_kept() -> None:
    assert dialogue(Q, {"role": "assistant", "content": ""}).messages[1].content == ""


def test_thoughts_in_two_fields_may_say_the_same() -> None:
    found = dialogue(Q, {**A, "reasoning": "Hm.", "reasoning_content": "Hm."})
    assert found.messages[1].reasoning == "Hm."


def test_a_name_of_a_speaker_is_kept() -> None:
    found = dialogue({**Q, "name": "Ann"}, {**A, "name": ""})
    assert [message.name for message in found.messages] == ["Ann", None]


@pytest.mark.parametrize(
    ("front", "column", "system", "notes"),
    [
        ([], None, "", []),
        ([], "C", "C", []),
        ([("system", "S")], None, "S", []),
        ([("developer", "D")], None, "D", []),
        ([("system", "S"), ("developer", "D")], None, "S\n\nD", []),
        ([("system", ""), ("developer", "D")], None, "D", []),
        ([("system", "")], None, "", []),
        ([("system", "S")], "C", "S", ["system-column-unused"]),
        ([("system", "S")], "S", "S", []),
    ],
)
def test_the_system_text(
    front: list[tuple[str, str]], column: str | None, system: str, notes: list[str]
) -> None:
    leading = [{"role": role, "content": text} for role, text in front]
    found = dialogue(*leading, Q, A, system=column)
    assert (found.system, found.notes) == (system, notes)
    assert [message.role for message in found.messages] == [Role.USER, Role.ASSISTANT]


def test_a_later_system_message_stays_in_its_place() -> None:
    found = dialogue(Q, A, {"role": "developer", "content": "D"}, Q, A)
    assert found.system == ""
    assert found.messages[2] == Message(Role.SYSTEM, "D")


@pytest.mark.parametrize("field", ["train", "weight", "loss", "loss_weight"])
@pytest.mark.parametrize(
    ("value", "train"), [(1, True), (0, False), (1.0, True), (0.0, False), (True, True), (False, False)]
)
def test_flags(field: str, value: Any, train: bool) -> None:
    found = dialogue({**Q, field: value}, {**A, field: value}, Q, {**A, field: None})
    assert [message.train for message in found.messages] == [train, train, None, None]
    assert found.notes == []


@pytest.mark.parametrize("field", ["train", "weight", "loss", "loss_weight"])
@pytest.mark.parametrize("value", [0.5, 2, -1, "1", [1], float("nan")])
def test_a_flag_that_is_neither_0_nor_1_is_refused(field: str, value: Any) -> None:
    assert refusal(Q, {**A, field: value}) == ("wrong-type", f"messages[1].{field}")


def test_flags_that_disagree_are_refused() -> None:
    assert refusal(Q, {**A, "train": True, "weight": 0}) == ("wrong-type", "messages[1].weight")
    assert dialogue(Q, {**A, "train": False, "weight": 0.0}).messages[1].train is False


def test_a_wish_to_train_the_system_text_is_noted() -> None:
    assert dialogue({"role": "system", "content": "S", "weight": 1}, Q, A).notes == ["system-not-trained"]
    assert dialogue({"role": "system", "content": "S", "weight": 0}, Q, A).notes == []


def part(kind: str, value: Any, field: str = "value") -> dict[str, Any]:
    return {"type": kind, field: value}


CALL = '{"name": "f", "arguments": {"x": 1}}'


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part("text", "a")], Message(Role.ASSISTANT, "a")),
        ([part("text", "a", "text")], Message(Role.ASSISTANT, "a")),
        ([{"type": "text", "text": "a", "value": None, "image_url": None}], Message(Role.ASSISTANT, "a")),
        ([part("text", "a"), part("text", "\nb")], Message(Role.ASSISTANT, "a\nb")),
        ([part("text", "")], Message(Role.ASSISTANT, "")),
        ([part("reasoning", "Hm."), part("text", "a")], Message(Role.ASSISTANT, "a", "Hm.")),
        ([part("thinking", "Hm.", "thinking"), part("text", "a")], Message(Role.ASSISTANT, "a", "Hm.")),
        ([part("reasoning", ""), part("text", "a")], Message(Role.ASSISTANT, "a", "")),
        (
            [part("tool_call", CALL)],
            Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", ARGUMENTS),)),
        ),
        (
            [part("reasoning", "Hm."), part("text", "a"), part("tool_call", CALL), part("tool_call", CALL)],
            Message(Role.ASSISTANT, "a", "Hm.", (ToolCall("f", ARGUMENTS),) * 2),
        ),
        (
            [part("tool_call", {"name": "f", "arguments": ARGUMENTS}), part("text", "")],
            Message(Role.ASSISTANT, "", tool_calls=(ToolCall("f", ARGUMENTS),)),
        ),
    ],
)
def test_contents_of_typed_parts(parts: list[Any], expected: Message) -> None:
    assert dialogue(Q, {"role": "assistant", "content": parts}).messages[1] == expected


def test_results_of_typed_parts() -> None:
    parts = [part("text", "r"), part("tool_result", "s"), part("tool_result", {"城": None})]
    found = dialogue(Q, calling(call()), result(content=parts), A)
    assert found.messages[2].content == 'rs{"城": null}'


@pytest.mark.parametrize(
    ("role", "parts", "expected"),
    [
        ("user", ["q"], ("wrong-type", "messages[0].content[0]")),
        ("user", [part("image_url", {"url": "u"})], ("wrong-type", "messages[0].content[0]")),
        ("user", [part("text", "q"), part("input_audio", "x")], ("wrong-type", "messages[0].content[1]")),
        ("user", [{"text": "q"}], ("wrong-type", "messages[0].content[0]")),
        ("user", [{"type": 7, "text": "q"}], ("wrong-type", "messages[0].content[0]")),
        ("user", [part("reasoning", "Hm.")], ("wrong-type", "messages[0].content[0]")),
        ("user", [part("tool_call", CALL)], ("wrong-type", "messages[0].content[0]")),
        ("assistant", [part("tool_result", "r")], ("wrong-type", "messages[0].content[0]")),
        ("assistant", [part("text", None)], ("missing-field", "messages[0].content[0]")),
        ("assistant", [{"type": "text"}], ("missing-field", "messages[0].content[0]")),
        ("assistant", [part("text", 7)], ("wrong-type", "messages[0].content[0]")),
        ("assistant", [part("reasoning", ["Hm."])], ("wrong-type", "messages[0].content[0]")),
        ("assistant", [part("tool_call", "f(x)")], ("bad-tool-json", "messages[0].content[0]")),
        ("assistant", [part("tool_call", "")], ("bad-tool-json", "messages[0].content[0]")),
        (
            "assistant",
            [part("text", "a"), part("reasoning", "b")],
            ("wrong-type", "messages[0].content[1]"),
        ),
        (
            "assistant",
            [part("tool_call", CALL), part("text", "a")],
            ("wrong-type", "messages[0].content[1]"),
        ),
        ("assistant", [part("reasoning", "Hm.")], ("missing-field", "messages[0].content")),
    ],
)
def test_parts_that_a_message_can_not_hold_are_refused(
    role: str, parts: list[Any], expected: tuple[str, str]
) -> None:
    assert refusal({"role": role, "content": parts}, A) == expected


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video", "file"])
def test_the_type_of_a_part_that_is_no_text_is_named(kind: str) -> None:
    with pytest.raises(RecordError) as caught:
        dialogue({"role": "user", "content": [part(kind, "x")]}, A)
    assert kind in caught.value.got


def test_calls_in_parts_and_in_fields_are_refused() -> None:
    message = {"role": "assistant", "content": [part("tool_call", CALL)], "tool_calls": [call()]}
    assert refusal(Q, message) == ("bad-tool-json", "messages[1].tool_calls")


def test_the_parts_of_a_data_set_are_the_fields_of_its_other_form(shared: Path) -> None:
    """One data set in two forms: typed parts, and OpenAI's fields with ids of the calls."""
    folder = shared / "datasets" / "llama-factory"
    in_parts = (folder / "reason_tool_use_demo_50.jsonl").read_text("utf-8").splitlines()
    in_fields = (shared / "golden" / "inputs" / "openai_tools.jsonl").read_text("utf-8").splitlines()
    assert len(in_parts) == len(in_fields) == 50
    for one, other in zip(in_parts, in_fields, strict=True):
        left, right = HANDLER.dialogue(json.loads(one)), HANDLER.dialogue(json.loads(other))
        assert (left.system, left.tools) == (right.system, right.tools)
        assert left.tools == json.loads(json.loads(one)["tools"])
        for a, b in zip(left.messages, right.messages, strict=True):
            assert (a.role, a.text, a.reasoning) == (b.role, b.text, b.reasoning)
            assert [(c.name, c.arguments) for c in a.tool_calls] == [
                (c.name, c.arguments) for c in b.tool_calls
            ]
            assert (a.role is Role.OBSERVATION) == (b.name is not None)


def test_the_weights_of_a_data_set_are_its_roles(shared: Path) -> None:
    path = shared / "datasets" / "llama-factory" / "v1_sft_demo.jsonl"
    for line in path.read_text("utf-8").splitlines():
        found = HANDLER.dialogue(json.loads(line))
        assert [message.train for message in found.messages] == [
            message.role is Role.ASSISTANT for message in found.messages
        ]


def test_null_padding_of_objects_is_left_out_and_noted() -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": None}}]
    message = {**A, "content": None, "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": None}}]}
    found = dialogue(Q, message, tools=tools)
    assert found.tools == [{"type": "function", "function": {"name": "f"}}]
    assert found.messages[1].tool_calls == (ToolCall("f", ARGUMENTS),)
    assert found.notes == ["nulls-left-out"]


def test_nulls_in_json_text_of_messages_stay() -> None:
    message = {**A, "tool_calls": [{"name": "f", "arguments": {"y": None}}]}
    found = HANDLER.dialogue({"messages": json.dumps([Q, message])})
    assert found.messages[1].tool_calls == (ToolCall("f", {"y": None}),)
    assert found.notes == []


RECORDS = [
    {
        "messages": [Q, calling({"id": None, "function": {"name": "f", "arguments": {"city": "北京"}}})],
        "tools": [{"name": "f", "parameters": {"properties": {"city": {"type": "string"}}}}],
    },
    {
        "messages": [{**Q, "weight": 0}, {**calling(call("c2", "g")), "weight": 1}, result("c2"), A],
        "tools": [{"name": "g", "parameters": {"properties": {"x": {"type": "integer", "enum": [1]}}}}],
    },
    {"messages": [Q, {**A, "reasoning_content": "Hm."}], "tools": []},
]


def expected_of_records() -> list[Dialogue]:
    user, reply = Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")
    first = Message(Role.ASSISTANT, None, tool_calls=(ToolCall("f", {"city": "北京"}),))
    second = Message(Role.ASSISTANT, None, tool_calls=(ToolCall("g", ARGUMENTS, "c2"),), train=True)
    answer = Message(Role.OBSERVATION, "r", name="g", call_id="c2")
    return [
        Dialogue([user, first], tools=RECORDS[0]["tools"]),
        Dialogue([Message(Role.USER, "q", train=False), second, answer, reply], tools=RECORDS[1]["tools"]),
        Dialogue([user, Message(Role.ASSISTANT, "a", "Hm.")]),
    ]


def test_parquet_gives_what_json_lines_give(tmp_path: Path) -> None:
    """Structs of parquet have the keys of all records; none of them reaches a dialogue."""
    records = copy.deepcopy(RECORDS)
    records[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] = ARGUMENTS
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    found = [HANDLER.dialogue(entry.value) for entry in read_all(source_of(path, "parquet"))]
    assert [found[at].notes for at in range(3)] == [["nulls-left-out"], ["nulls-left-out"], []]
    for dialogue_of_parquet in found:
        dialogue_of_parquet.notes.clear()
    assert found == expected_of_records()
    assert [HANDLER.dialogue(record) for record in RECORDS] == expected_of_records()


def test_csv_holds_messages_and_tools_as_json_text(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["messages", "tools"])
        writer.writeheader()
        writer.writerows({name: json.dumps(value) for name, value in row.items()} for row in RECORDS)
    found = [HANDLER.dialogue(entry.value) for entry in read_all(source_of(path, "csv"))]
    assert found == expected_of_records()


def test_columns_are_read_under_the_names_that_the_mapping_gives() -> None:
    handler = OpenAIHandler({"messages": "chat", "tools": "functions", "summary": "short"})
    record = {
        "chat": [Q, A], "messages": [], "functions": '[{"name": "f"}]', "tools": "x", "short": "s",
    }  # fmt: skip
    found = handler.dialogue(record)
    assert (found.tools, found.summary, len(found.messages)) == ([{"name": "f"}], "s", 2)
    assert OpenAIHandler({"tools": ""}).dialogue({"messages": [Q, A], "tools": "x"}).tools == []
    assert set(OpenAIHandler.usual) == {"system"}


@pytest.mark.parametrize("name", ["openai", "messages", "OpenAIInstructionHandler"])
def test_the_handler_is_known_under_its_names(name: str) -> None:
    assert handlers.get(name) is OpenAIHandler


texts = st.text(st.characters(codec="utf-8"), max_size=6)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
messages_of_users = st.builds(lambda text: [Message(Role.USER, text)], texts)
messages_of_systems = st.builds(lambda text: [Message(Role.SYSTEM, text)], texts)
replies = st.builds(
    lambda text, thought, train: [Message(Role.ASSISTANT, text, thought, train=train)],
    texts, st.none() | texts, st.none() | st.booleans(),
)  # fmt: skip


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """A message with calls, and results of some of them; ids are given by number afterwards."""
    arguments = st.dictionaries(texts, values, max_size=3)
    calls = draw(st.lists(st.builds(ToolCall, names, arguments), min_size=1, max_size=3))
    made = [Message(Role.ASSISTANT, draw(st.none() | texts), draw(st.none() | texts), tuple(calls))]
    for _ in range(draw(st.integers(0, 3))):
        answered = draw(st.integers(0, len(calls) - 1))
        made.append(
            Message(Role.OBSERVATION, draw(texts), name=calls[answered].name, call_id=str(answered))
        )
    return made


def written(message: Message, as_text: bool, named: bool) -> dict[str, Any]:
    """Return a message in OpenAI's form."""
    roles = {
        Role.USER: "user",
        Role.ASSISTANT: "assistant",
        Role.OBSERVATION: "tool",
        Role.SYSTEM: "system",
    }
    made: dict[str, Any] = {"role": roles[message.role], "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": one.id,
                "type": "function",
                "function": {
                    "name": one.name,
                    "arguments": json.dumps(one.arguments) if as_text else one.arguments,
                },
            }
            for one in message.tool_calls
        ]
    if message.reasoning is not None:
        made["reasoning_content"] = message.reasoning
    if message.call_id is not None:
        made |= {"tool_call_id": message.call_id} | ({"name": message.name} if named else {})
    if message.train is not None:
        made["train"] = message.train
    return made


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(
        messages_of_users | messages_of_systems | replies | exchanges(), min_size=1, max_size=5
    ),
    named=st.booleans(),
)
def test_what_goes_in_comes_out_in_all_forms(groups: list[list[Message]], named: bool) -> None:
    messages = [copy.deepcopy(message) for group in groups for message in group]
    exchange = 0
    for message in messages:
        if message.tool_calls:
            exchange += 1
            message.tool_calls = tuple(
                ToolCall(one.name, one.arguments, f"{exchange}-{number}")
                for number, one in enumerate(message.tool_calls)
            )
        if message.call_id is not None:
            message.call_id = f"{exchange}-{message.call_id}"
    # What stands in front is the system text; here it begins with a user instead.
    messages.insert(0, Message(Role.USER, "q"))
    messages.append(Message(Role.ASSISTANT, "a"))
    for as_text in (True, False):
        column = [written(message, as_text, named) for message in messages]
        before = json.dumps(column)
        for form in (column, before):
            found = HANDLER.dialogue({"messages": form})
            assert found == Dialogue(messages)
            assert [json.dumps(c.arguments) for m in found.messages for c in m.tool_calls] == [
                json.dumps(c.arguments) for m in messages for c in m.tool_calls
            ]
        assert json.dumps(column) == before


ODD: list[Any] = [
    *(None, 3, "qq", [], ["role", "content"], {}, {"role": "user"}, {"content": "x"}),
    *({"role": role, "content": "x"} for role in (None, ["user"], "judge", "tool", "system")),
    *({"role": "user", "content": content} for content in (None, 1, [{"type": "text", "text": "parts"}])),
    *(calling(call()), calling(call("c2"), content="x"), {"role": "assistant", "tool_calls": [call(None)]}),
    *(result(), result("c2", name="g"), {"role": "assistant", "content": ""}, {"role": "user", "x": "y"}),
    {"role": "developer", "content": "", "train": 1},
    {"role": "assistant", "content": "a", "reasoning": "hm"},
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([Q, A, Q, A, *ODD]), min_size=1, max_size=6))
def test_plain_messages_are_read_as_all_others(messages: list[Any]) -> None:
    """A field that says nothing makes each message one that is more than a role and a content."""
    longer = [{**item, "said_at": 0} if isinstance(item, dict) else item for item in messages]
    found = []
    for given_messages in (messages, longer):
        try:
            made = dialogue(*copy.deepcopy(given_messages))
            found.append((made.outline, made.messages, made.system, made.notes))
        except RecordError as error:
            got = error.got.replace(", 'said_at': 0", "").replace("'said_at': 0", "")
            found.append((error.reason, error.field, error.expected, got))
    assert found[0] == found[1]
