"""Tools and calls as JSON: what is taken as it is, what is decoded, what is refused."""

from __future__ import annotations

import copy
import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import REASONS, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.tool_json import (
    NULLS_LEFT_OUT,
    json_text,
    parse_json,
    read_calls,
    read_tools,
    without_nulls,
)

TOOL = {"name": "f", "parameters": {"type": "object", "properties": {}}, "description": "d"}
WRAPPED = {"function": TOOL, "type": "function"}


def refusal(function: Any, *args: Any) -> tuple[str, str]:
    with pytest.raises(RecordError) as caught:
        function(*args)
    assert caught.value.reason in REASONS
    assert caught.value.expected
    assert caught.value.got
    return caught.value.reason, caught.value.field


@pytest.mark.parametrize("value", [None, "", "  \n", "[]", "null", []])
def test_no_tools_are_no_tools(value: Any) -> None:
    notes: list[str] = []
    assert read_tools(value, "tools", notes) == []
    assert notes == []


@pytest.mark.parametrize("tools", [[TOOL], [WRAPPED], [TOOL, WRAPPED]])
def test_tools_are_kept_as_they_are_in_all_forms(tools: list[Any]) -> None:
    expected = json.dumps(tools)
    for value in (tools, json.dumps(tools), json.dumps(tools, indent=1)):
        assert json.dumps(read_tools(value, "tools", [])) == expected
    if len(tools) == 1:
        for value in (tools[0], json.dumps(tools[0])):
            assert json.dumps(read_tools(value, "tools", [])) == expected


def test_a_dialogue_can_change_its_list_of_tools_without_changing_the_next_ones() -> None:
    text = json.dumps([TOOL])
    read_tools(text, "tools", []).clear()
    assert read_tools(text, "tools", []) == [TOOL]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("not json", "t"),
        ("{'name': 'f'}", "t"),
        ("7", "t"),
        ('"f"', "t"),
        (7, "t"),
        (True, "t"),
        (["f"], "t[0]"),
        ([TOOL, {}], "t[1]"),
        ([TOOL, None], "t[1]"),
        ('[{"name": null}]', "t[0]"),
        ([{"name": ""}], "t[0]"),
        ([{"name": 3}], "t[0]"),
        ([{"type": "function"}], "t[0]"),
        ([{"type": "function", "function": {"description": "d"}}], "t[0].function"),
        ([{"type": "function", "function": "f"}], "t[0].function"),
        ('[{"name": "f", "default": NaN}]', "t"),
        ('[{"name": "f", "default": 1e999}]', "t"),
        ([{"name": "f", "default": float("nan")}], "t"),
        ([{"name": "f", "since": datetime.date(2020, 1, 1)}], "t"),
        ([{"name": "f", 3: "x"}], "t"),
        ("[" * 100_000, "t"),
    ],
)
def test_what_is_no_list_of_named_objects_is_refused(value: Any, field: str) -> None:
    assert refusal(read_tools, value, "t", []) == ("bad-tool-json", field)


PADDED = {
    "type": "function",
    "function": {
        "name": "f",
        "strict": None,
        "parameters": {
            "properties": {"a": {"enum": ["x", None], "type": "string", "items": None}, "b": None},
            "required": [],
        },
    },
}
BARE = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "properties": {"a": {"enum": ["x", None], "type": "string"}},
            "required": [],
        },
    },
}


def test_null_keys_of_objects_are_left_out_with_a_note() -> None:
    value, notes = [copy.deepcopy(PADDED), copy.deepcopy(PADDED)], []
    found = read_tools(value, "tools", notes)
    assert json.dumps(found) == json.dumps([BARE, BARE])
    assert notes == [NULLS_LEFT_OUT]
    assert value == [PADDED, PADDED]


def test_null_keys_of_json_text_stay() -> None:
    notes: list[str] = []
    assert read_tools(json.dumps([PADDED]), "tools", notes) == [PADDED]
    assert notes == []


def test_a_function_that_parquet_padded_is_no_function() -> None:
    assert read_tools([{"name": "f", "function": None}], "tools", []) == [{"name": "f"}]


@pytest.mark.parametrize(
    "value",
    [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "f", "arguments": '{"x": 1}'},
        {"type": "function", "function": {"name": "f", "arguments": ' {"x":1}\n'}},
        {"id": None, "type": None, "name": "f", "arguments": {"x": 1}, "function": None},
        {"id": "", "name": "f", "arguments": {"x": 1}},
    ],
)
def test_all_forms_of_a_call_give_the_same(value: Any) -> None:
    expected = (ToolCall("f", {"x": 1}),)
    for form in (value, [value], json.dumps(value), json.dumps([value])):
        assert read_calls(form, "c", [], False) == expected


def test_several_calls_keep_their_order_and_ids() -> None:
    calls = [{"id": "b", "name": "g", "arguments": {}}, {"id": "a", "name": "f", "arguments": {}}]
    assert read_calls(calls, "c", [], False) == (ToolCall("g", {}, "b"), ToolCall("f", {}, "a"))
    assert read_calls([], "c", [], False) == ()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("not json", "c"),
        ("7", "c"),
        (7, "c"),
        (["f"], "c[0]"),
        ({"arguments": {}}, "c.name"),
        ({"name": "", "arguments": {}}, "c.name"),
        ({"name": ["f"], "arguments": {}}, "c.name"),
        ({"name": "f"}, "c.arguments"),
        ({"name": "f", "arguments": None}, "c.arguments"),
        ({"name": "f", "arguments": ""}, "c.arguments"),
        ({"name": "f", "arguments": "x"}, "c.arguments"),
        ({"name": "f", "arguments": "[1]"}, "c.arguments"),
        ({"name": "f", "arguments": '"{}"'}, "c.arguments"),
        ({"name": "f", "arguments": '{"x": NaN}'}, "c.arguments"),
        ({"name": "f", "arguments": '{"x": -Infinity}'}, "c.arguments"),
        ({"name": "f", "arguments": '{"x": 1e400}'}, "c.arguments"),
        ({"name": "f", "arguments": {"x": float("inf")}}, "c.arguments"),
        ({"name": "f", "arguments": {"x": b"y"}}, "c.arguments"),
        ({"name": "f", "arguments": {"a": None, "x": {"y": b"y"}}}, "c.arguments"),
        ({"name": "f", "arguments": [1]}, "c.arguments"),
        ({"name": "f", "arguments": 1}, "c.arguments"),
        ({"function": "f"}, "c.function"),
        ({"function": {"name": "f"}}, "c.function.arguments"),
        ([{"name": "f", "arguments": {}}, {"function": {"arguments": {}}}], "c[1].function.name"),
        ({"name": "f", "arguments": {}, "type": "custom"}, "c.type"),
        ({"name": "f", "arguments": {}, "id": 7}, "c.id"),
    ],
)
def test_what_is_no_call_is_refused(value: Any, field: str) -> None:
    assert refusal(read_calls, value, "c", [], False) == ("bad-tool-json", field)


def test_nulls_of_arguments_stay_where_they_came_as_text() -> None:
    padded, bare = {"x": None, "y": {"z": None, "l": [None]}}, {"y": {"l": [None]}}

    def arguments(value: Any, from_text: bool) -> tuple[Any, list[str]]:
        notes: list[str] = []
        (call,) = read_calls(value, "c", notes, from_text)
        return call.arguments, notes

    assert arguments({"name": "f", "arguments": padded}, False) == (bare, [NULLS_LEFT_OUT])
    assert arguments({"name": "f", "arguments": padded}, True) == (padded, [])
    assert arguments({"name": "f", "arguments": json.dumps(padded)}, False) == (padded, [])
    assert arguments(json.dumps({"name": "f", "arguments": padded}), False) == (padded, [])


def test_whole_numbers_of_any_size_keep_their_digits() -> None:
    text = '{"name": "f", "arguments": {"x": 123456789012345678901234567890, "y": -18446744073709551617}}'
    (call,) = read_calls(text, "c", [], False)
    assert call.arguments == {"x": 123456789012345678901234567890, "y": -18446744073709551617}
    assert all(isinstance(value, int) for value in call.arguments.values())


def test_of_a_key_that_stands_twice_the_last_value_counts() -> None:
    (call,) = read_calls('{"name": "f", "arguments": {"x": 1, "x": 2}}', "c", [], False)
    assert call.arguments == {"x": 2}


@pytest.mark.parametrize("escape", ["\\ud800", "\\uDC00", "\\ude00\\ud83d"])
@pytest.mark.parametrize(
    "form", ['{"name": "f", "arguments": {"x": "%s"}}', '{"name": "%s", "arguments": {}}']
)
def test_half_a_character_is_refused(escape: str, form: str) -> None:
    assert refusal(read_calls, form % escape, "c", [], False) == ("lone-surrogate", "c")
    assert refusal(read_tools, f'[{{"name": "{escape}"}}]', "t", []) == ("lone-surrogate", "t")


def test_both_halves_of_a_character_are_one() -> None:
    (call,) = read_calls('{"name": "f", "arguments": {"x": "\\ud83d\\ude00 \\\\ud800"}}', "c", [], False)
    assert call.arguments == {"x": "😀 \\ud800"}


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"x": b""}, {"x": {1}}])
def test_a_value_without_a_form_in_json_is_refused(value: Any) -> None:
    assert refusal(json_text, value, "v") == ("wrong-type", "v")


def test_json_text_has_letters_as_they_are_and_keys_in_their_order() -> None:
    assert json_text({"b": "北京", "a": [None, 1.5, True]}, "v") == '{"b": "北京", "a": [null, 1.5, true]}'


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=6)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=values, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 2]))
def test_json_text_gives_what_it_was_made_of(value: Any, ensure_ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert parse_json(text, "v") == value
    assert json.dumps(parse_json(text, "v")) == json.dumps(value)


def paths_of_nulls(value: Any) -> int:
    """Count the keys with null in all objects of a value."""
    if isinstance(value, dict):
        return sum(item is None for item in value.values()) + sum(map(paths_of_nulls, value.values()))
    return sum(map(paths_of_nulls, value)) if isinstance(value, list) else 0


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_only_null_keys_are_left_out(value: Any) -> None:
    before, notes = json.dumps(value), []
    found = without_nulls(value, "v", notes)
    assert json.dumps(value) == before
    assert paths_of_nulls(found) == 0
    assert (notes == [NULLS_LEFT_OUT]) == (json.dumps(found) != before) == (paths_of_nulls(value) > 0)
    # JSON's own way to leave them out: an object is rebuilt from the pairs that are kept.
    rebuilt = json.loads(
        before, object_pairs_hook=lambda pairs: {key: item for key, item in pairs if item is not None}
    )
    assert json.dumps(found) == json.dumps(rebuilt)


def test_tools_that_only_look_equal_as_json_are_not_taken_for_the_known_ones() -> None:
    tool = {"name": "f", "parameters": {"enum": ["a", "b"]}}
    assert read_tools([tool], "tools", []) == [tool]
    with pytest.raises(RecordError) as caught:
        read_tools([{"name": "f", "parameters": {"enum": ("a", "b")}}], "tools", [])
    assert caught.value.reason == "bad-tool-json"


def test_tools_that_were_changed_inside_are_read_anew() -> None:
    def tool() -> dict[str, Any]:
        return {"name": "f", "parameters": {"title": "changed inside"}}

    read_tools([tool()], "tools", [])[0]["parameters"]["title"] = "x"
    assert read_tools([tool()], "tools", []) == [tool()]


def test_the_nulls_of_equal_tools_are_noted_each_time() -> None:
    for _ in range(2):
        notes: list[str] = []
        assert read_tools([{"name": "f", "description": None}], "tools", notes) == [{"name": "f"}]
        assert notes == ["nulls-left-out"]


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.text(max_size=3),
        st.text(max_size=5) | st.integers() | st.floats() | st.none() | st.lists(st.integers(), max_size=2),
        max_size=3,
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_arguments_are_what_the_standard_library_reads(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    call = {"name": "f", "arguments": text}
    if "NaN" in text or "Infinity" in text:
        numbers = [number for number in value.values() if isinstance(number, float)]
        if not all(map(math.isfinite, numbers)):
            assert refusal(read_calls, call, "c", [], False) == ("bad-tool-json", "c.arguments")
            return
    (found,) = read_calls(call, "c", [], False)
    assert list(found.arguments.items()) == list(json.loads(text).items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "1", "b": "2", "a": "3"}', {"a": "3", "b": "2"}),
        ('{"a": 123456789012345678901}', {"a": 123456789012345678901}),
        (' {"a": "\\ud83d\\ude00"}\n', {"a": "😀"}),
    ],
)
def test_arguments_that_were_written_out(text: str, expected: dict[str, Any]) -> None:
    (found,) = read_calls({"name": "f", "arguments": text}, "c", [], False)
    assert json.dumps(found.arguments) == json.dumps(expected)


def test_arguments_with_half_a_character_are_refused() -> None:
    call = {"name": "f", "arguments": '{"a": "\\ud83d"}'}
    assert refusal(read_calls, call, "c", [], False)[0] == "lone-surrogate"
