"""JSON inside records: tools, the calls of them, and values that stand as JSON text.

JSON text is read with the standard library's ``json``, which keeps integers of any size; what it accepts
beyond JSON (NaN, numbers too large for a float) is refused. Of a key that an object holds twice, the last
value counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from mtsft_preproc.dialogue import ToolCall, shorten
from mtsft_preproc.errors import RecordError

__all__ = [
    "NULLS_LEFT_OUT",
    "SharedTools",
    "json_text",
    "parse_json",
    "read_calls",
    "read_tools",
    "without_nulls",
]

#: Note of a dialogue in which keys of objects were left out because their value is null.
NULLS_LEFT_OUT = "nulls-left-out"

_TOOLS = "a list of tools, each an object with a name, or JSON text of it"
_CALL = '{"name": text, "arguments": an object}, or JSON text of it'
_ARGUMENTS = "an object of JSON, or JSON text of one"
_PLAIN = (str, int, type(None))
_TEXT = frozenset({str})
#: Different lists of tools that are kept, and the most characters of one.
_KEPT, _LONGEST = 256, 1 << 18


class SharedTools:
    """The tools of many dialogues, read once. What is made of them can be found again by its identity.

    Args:
        tools: The tools; neither the list nor what it holds is changed from now on.
        size: Characters of their JSON text, about.

    Attributes:
        tools: The tools.
        size: As given.
        canonical: What digests make of them; None before they do.
    """

    __slots__ = ("canonical", "size", "tools")

    def __init__(self, tools: list[Any], size: int) -> None:
        self.tools = tools
        self.size = size
        self.canonical: bytes | None = None

    @classmethod
    def of(cls, tools: list[Any]) -> SharedTools | None:
        """Return what a dialogue's list of tools was copied from, if it still is the same."""
        if type(tools) is not _Copy:
            return None
        # Quick where nothing was changed: what the lists hold is the same, not only equal.
        return tools.shared if tools == tools.shared.tools else None

    def copy(self) -> list[Any]:
        """Return a list for a dialogue of its own."""
        found = _Copy(self.tools)
        found.shared = self
        return found


class _Copy(list[Any]):
    """A copy that knows where it comes from."""

    __slots__ = ("shared",)
    shared: SharedTools


#: Tools by their JSON text, such as came as objects and are taken as they are.
_shared: dict[bytes, SharedTools] = {}


def _finite(text: str) -> float:
    number = float(text)
    if math.isfinite(number):
        return number
    raise ValueError(f"{text} is too large")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def parse_json(text: str, place: str) -> Any:
    """Return the value of JSON text.

    Raises:
        ValueError: It is not JSON.
        RecordError: ``lone-surrogate``.
    """
    try:
        value = _DECODER.decode(text)
        # An escape can spell half a character, which no tokenizer takes.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        got = shorten(error.object[max(0, error.start - 20) : error.end + 20])
        raise RecordError("lone-surrogate", place, "text that UTF-8 can encode", got) from None
    return value


def json_text(value: Any, place: str) -> str:
    """Return the JSON text of an object or a list, letters as they are and keys in their order.

    Raises:
        RecordError: ``wrong-type``: it holds what JSON has no form for.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise RecordError("wrong-type", place, "values of JSON", shorten(value)) from None


def read_tools(value: Any, column: str, notes: list[str]) -> list[Any]:
    """Return the tools that a column holds, exactly as the data has them.

    Args:
        value: A list of tools or a single one, or JSON text of it; null, ``""`` and ``[]`` are no tools.
        column: Its name, for errors.
        notes: Takes :data:`NULLS_LEFT_OUT`.

    Raises:
        RecordError: ``bad-tool-json``.
    """
    if isinstance(value, str):
        found = _tools_of_text(value, column)
        return found.copy() if found.tools else []
    return _tools_of_object(value, column, notes) if value is not None else []


@lru_cache(maxsize=_KEPT)
def _tools_of_text(text: str, column: str) -> SharedTools:
    # Most records of a data set share their tools; they are parsed once.
    if not text.strip():
        return SharedTools([], 0)
    try:
        value = parse_json(text, column)
    except ValueError:
        raise RecordError("bad-tool-json", column, _TOOLS, shorten(text)) from None
    return SharedTools(_named(value, column) if value is not None else [], len(text))


def _tools_of_object(value: Any, column: str, notes: list[str]) -> list[Any]:
    """Return tools that came as objects; equal ones are looked through once."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    found = _shared.get(text)
    # Some values that are no JSON, such as tuples, look like JSON in the text.
    if found is not None and found.tools == value:
        return found.copy()
    tools = _named(without_nulls(value, column, notes), column)
    if not text or len(text) > _LONGEST or tools is not value:
        return tools
    if len(_shared) >= _KEPT:
        _shared.clear()
    found = _shared[text] = SharedTools(tools, len(text))
    return found.copy()


def _named(value: Any, column: str) -> list[Any]:
    """Return tools as a list; each must have a name."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RecordError("bad-tool-json", column, _TOOLS, shorten(value))
    for number, tool in enumerate(value):
        wrapped = isinstance(tool, dict) and "function" in tool
        function = tool["function"] if wrapped else tool
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            place = f"{column}[{number}]" + (".function" if wrapped else "")
            raise RecordError("bad-tool-json", place, "an object with a name", shorten(function))
    return value


def read_calls(value: Any, place: str, notes: list[str], from_text: bool) -> tuple[ToolCall, ...]:
    """Return the calls that a field holds.

    Args:
        value: A call or a list of them, or JSON text of it. A call is ``{"name", "arguments"}``, also as
            ``{"id", "type", "function": {"name", "arguments"}}``; ``arguments`` is an object or JSON text
            of one, and an object in the end.
        place: The field, for errors.
        notes: Takes :data:`NULLS_LEFT_OUT`.
        from_text: Whether the value comes out of JSON text, in which a null is meant.

    Raises:
        RecordError: ``bad-tool-json``.
    """
    if isinstance(value, str):
        try:
            value, from_text = parse_json(value, place), True
        except ValueError:
            raise RecordError("bad-tool-json", place, _CALL, shorten(value)) from None
    if isinstance(value, list):
        return tuple(
            _call(call, f"{place}[{number}]", notes, from_text) for number, call in enumerate(value)
        )
    return (_call(value, place, notes, from_text),)


def _call(call: Any, place: str, notes: list[str], from_text: bool) -> ToolCall:
    if not isinstance(call, Mapping):
        raise RecordError("bad-tool-json", place, _CALL, shorten(call))
    kind, identity, function = call.get("type"), call.get("id"), call.get("function")
    if kind not in (None, "function"):
        raise RecordError("bad-tool-json", f"{place}.type", "'function'", shorten(kind))
    if identity is not None and not isinstance(identity, str):
        raise RecordError("bad-tool-json", f"{place}.id", "text", shorten(identity))
    if function is None:
        function = call
    else:
        place = f"{place}.function"
        if not isinstance(function, Mapping):
            raise RecordError("bad-tool-json", place, _CALL, shorten(function))
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RecordError("bad-tool-json", f"{place}.name", "the name of a tool", shorten(name))
    arguments = _arguments(function.get("arguments"), f"{place}.arguments", notes, from_text)
    return ToolCall(name, arguments, identity or None)


def _texts_object(text: str) -> dict[str, Any] | None:
    """Return the object that JSON text holds if all of its values are texts, as those of most calls are.

    orjson reads it several times as fast as :func:`parse_json`, and without numbers or nesting it reads the
    same; what it refuses, and all else, is for that to judge.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(value) is dict and _TEXT.issuperset(map(type, value.values())):
        return value
    return None


def _arguments(value: Any, place: str, notes: list[str], from_text: bool) -> dict[str, Any]:
    given = value
    if isinstance(value, str):
        texts = _texts_object(value)
        if texts is not None:
            return texts
        try:
            value, from_text = parse_json(value, place), True
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise RecordError("bad-tool-json", place, _ARGUMENTS, shorten(given))
    kept: dict[str, Any] = value if from_text else without_nulls(value, place, notes)
    return kept


def without_nulls(value: Any, place: str, notes: list[str]) -> Any:
    """Return a value without the keys whose value is null; a null in a list stays.

    Parquet holds objects as structs: each gets the keys of all others, null where it lacks them. In objects
    that come as such a null is taken for that, and noted; one that is meant has to come as JSON text.

    Raises:
        RecordError: ``bad-tool-json``: it holds what JSON has no form for.
    """
    try:
        if not _holds_nulls(value):
            return value
        if NULLS_LEFT_OUT not in notes:
            notes.append(NULLS_LEFT_OUT)
        return _stripped(value)
    except (TypeError, RecursionError):
        raise RecordError("bad-tool-json", place, "values of JSON", shorten(value)) from None


def _holds_nulls(value: Any) -> bool:
    """Return whether an object anywhere in a value has a key with null; TypeError: it is not JSON."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(value)
        # All of it is looked at, so that nothing behind a null escapes the check.
        return sum(item is None or _holds_nulls(item) for item in value.values()) > 0
    if isinstance(value, list):
        return sum(map(_holds_nulls, value)) > 0
    if isinstance(value, _PLAIN) or (isinstance(value, float) and math.isfinite(value)):
        return False
    raise TypeError(value)


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value
