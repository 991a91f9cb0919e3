"""Columns that the sources sidecar takes over."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsft_preproc.encoding.columns import kept_columns

RECORD = {
    "id": "x1", "n": 7, "none": None, "obj": {"ä": [1, None]}, "flag": False, "empty": "",
    "metadata": {"source": "web", "id": "inner", "deep": {"a": 1}, "none": "told"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", "x1"),
        ("n", "7"),
        ("flag", "false"),
        ("empty", ""),
        ("obj", '{"ä": [1, null]}'),
        ("source", "web"),
        ("deep", '{"a": 1}'),
        ("absent", None),
        # A column that is there beats a field of the metadata, null too.
        ("none", None),
        ("metadata", json.dumps(RECORD["metadata"])),
    ],
)
def test_a_column_or_a_field_of_the_metadata(name: str, expected: str | None) -> None:
    assert kept_columns(RECORD, [name]) == [expected]
    assert kept_columns(RECORD, ["n", name, "absent"]) == ["7", expected, None]
    as_text = {**RECORD, "metadata": json.dumps(RECORD["metadata"])}
    assert kept_columns(as_text, [name]) == [expected]


@pytest.mark.parametrize("metadata", [None, "", "no JSON", "[1]", "7", 7, ["source"], "[" * 100_000])
def test_other_metadata_has_no_fields(metadata: Any) -> None:
    assert kept_columns({"id": "x", "metadata": metadata}, ["id", "source"]) == ["x", None]


def test_no_names_are_no_columns() -> None:
    assert kept_columns(RECORD, []) == []


def test_values_that_json_has_no_form_for() -> None:
    day = datetime.date(2024, 7, 26)
    assert kept_columns({"a": day, "b": {"c": day}}, ["a", "b"]) == ["2024-07-26", '{"c": "2024-07-26"}']


def test_half_a_character_is_escaped() -> None:
    """JSON text can spell it; no file of text can hold it."""
    record = {"metadata": '{"a": "x\\ud800", "b": {"c": "\\udc00漢"}}'}
    assert kept_columns(record, ["a", "b"]) == ['"x\\ud800"', '{"c": "\\udc00\\u6f22"}']


def test_what_is_nested_too_deeply_is_said() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    (found,) = kept_columns({"a": deep}, ["a"])
    assert found == "nested too deeply to show (list)"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=values)
def test_values_can_be_read_back(value: Any) -> None:
    (found,) = kept_columns({"a": value}, ["a"])
    if value is None or isinstance(value, str):
        assert found == value
    else:
        assert found is not None
        assert json.loads(found) == value
