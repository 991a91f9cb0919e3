"""Dialogues without the detour over dicts: expressions as Python source over messages and tools.

:mod:`~mtsft_preproc.templates.chat.expressions` evaluates an expression on what a template is given. Where
thousands of dialogues are written by the same expressions, that is too slow: here they become source code
that reads the messages of a dialogue itself, with places counted from the message that is being written, so
that what was learnt of the third message serves for the ninth.
"""

from __future__ import annotations

import json
import marshal
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.handlers.tool_json import SharedTools
from mtsft_preproc.templates.chat.environment import KeptObject
from mtsft_preproc.templates.chat.expressions import Expression, shape_of
from mtsft_preproc.templates.chat.messages import chat_tools
from mtsft_preproc.templates.chat.tracing import OUTSIDE

__all__ = ["Source", "ToolBox", "Tools", "moved", "owners_of", "spoken"]

#: Tools that are kept, and bytes of them.
_KEPT, _KEPT_BYTES = 1024, 1 << 24
_FIELDS = {
    "content": "content", "reasoning_content": "reasoning", "thinking": "reasoning", "name": "name",
    "tool_call_id": "call_id",
}  # fmt: skip
_OF_CALL = {("function", "name"): "name", ("function", "arguments"): "arguments", ("id",): "id"}


def spoken(dialogue: Dialogue) -> Sequence[Message]:
    """Return the messages as a template sees them: the system text is the first."""
    if dialogue.system:
        return [Message(Role.SYSTEM, dialogue.system), *dialogue.messages]
    return dialogue.messages


class Tools(list[Any]):
    """The tools of a dialogue as a template gets them, with what was made of them already."""

    def __init__(self, tools: list[Any]) -> None:
        super().__init__(tools)
        self.made: dict[Any, Any] = {}
        #: What a template sees of them beside their text; set by whoever looks.
        self.look: tuple[int, Any] | None = None


class ToolBox:
    """Gives equal tools as one object."""

    def __init__(self) -> None:
        #: Tools and their size in bytes, by what tells them.
        self._known: OrderedDict[bytes | SharedTools, tuple[Tools, int]] = OrderedDict()
        #: Single tools, which other dialogues have beside others.
        self._single: dict[bytes, Any] = {}
        self._bytes = 0
        self._none = Tools([])

    def of(self, tools: list[Any]) -> Tools:
        """Return the tools of a dialogue."""
        if not tools:
            return self._none
        shared = SharedTools.of(tools)
        if shared is not None:
            return self._of_key(shared, tools, shared.size)
        try:
            key = marshal.dumps(tools, 2)
        except ValueError:
            return Tools(chat_tools(tools))  # Holds what is no JSON.
        return self._of_key(key, tools, len(key))

    def _of_key(self, key: bytes | SharedTools, tools: list[Any], size: int) -> Tools:
        found = self._known.get(key)
        if found is None:
            made = Tools([self._one(tool) for tool in chat_tools(tools)])
            found = self._known[key] = (made, size)
            self._bytes += size
            while len(self._known) > _KEPT or self._bytes > _KEPT_BYTES:
                self._bytes -= self._known.popitem(last=False)[1][1]
        return found[0]

    def _one(self, tool: Any) -> Any:
        key = marshal.dumps(tool, 2)
        if key not in self._single:
            if len(self._single) >= _KEPT:
                self._single.clear()
            self._single[key] = _kept(tool)
        return self._single[key]


def _kept(tool: Any) -> Any:
    """Return a tool that keeps its text; that of its function, too, which some templates write alone."""
    if not isinstance(tool, dict):
        return tool
    function = tool.get("function")
    return KeptObject(tool | {"function": KeptObject(function)} if isinstance(function, dict) else tool)


def moved(expression: Any, by: int) -> Any:
    """Return an expression with the numbers of its messages moved; the tools stay where they are."""
    if not isinstance(expression, tuple) or not expression or expression[0] == "const":
        return expression
    if expression[0] == "at":
        path = expression[1]
        return (
            expression if path[0] == OUTSIDE and path[1] == "tools" else ("at", (path[0] + by, *path[1:]))
        )
    return tuple(moved(part, by) for part in expression)


class Source:
    """Writes functions ``f(messages, number, tools)``.

    Args:
        call_filter: ``call_filter(name, value, args, kwargs)``, as Jinja's environment has it.
    """

    def __init__(self, call_filter: Callable[..., Any]) -> None:
        self._call_filter = call_filter
        self._names: dict[str, Any] = {"shape_of": shape_of, "told": _told, "NO_ANSWER": "no answer"}

    def function(self, expressions: Iterable[Expression | str]) -> Callable[..., tuple[Any, ...]]:
        """Return a function that gives the values of expressions; a string stands for itself."""
        parts = [
            self._constant(part) if isinstance(part, str) else self._outer(part) for part in expressions
        ]
        # No text of data or of a template stands in the source: it is all constants, by name.
        scope: dict[str, Any] = {}
        # Behind the last message stands none.
        opening = "" if all(part.isalnum() for part in parts) else " m = ms[i] if i < len(ms) else None\n"
        code = f"def written(ms, i, tools):\n{opening} return ({''.join(part + ', ' for part in parts)})"
        exec(code, self._names, scope)
        made: Callable[..., tuple[Any, ...]] = scope["written"]
        return made

    def answers(self, questions: Iterable[Expression]) -> Callable[..., tuple[Any, ...]]:
        """Return a function that asks questions; ``NO_ANSWER`` where one can't be asked of a text."""
        asked = list(questions)
        lines = ["def asked(ms, i, tools):", " m = ms[i]"]
        for number, question in enumerate(asked):
            # An index out of range, for instance: the template gets there only behind another question.
            lines += [
                f" try: a{number} = {self._inner(question)}",
                f" except Exception: a{number} = NO_ANSWER",
            ]
        lines.append(f" return ({''.join(f'a{number}, ' for number in range(len(asked)))})")
        scope: dict[str, Any] = {}
        exec("\n".join(lines), self._names, scope)
        made: Callable[..., tuple[Any, ...]] = scope["asked"]
        return made

    def _constant(self, value: Any) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def _outer(self, expression: Expression) -> str:
        """Return the source of a value; of tools alone it is made once."""
        if owners_of(expression) == {None}:
            key = self._constant(expression)
            return f"told(tools, {key}, lambda: {self._inner(expression)})"
        return self._inner(expression)

    def _inner(self, expression: Expression) -> str:
        kind = expression[0]
        if kind == "at":
            return self._at(expression[1])
        if kind == "const":
            return self._constant(slice(*expression[2]) if expression[1] == "slice" else expression[2])
        if kind == "item":
            return f"{self._inner(expression[1])}[{expression[2]!r}]"
        if kind in ("cat", "list", "tuple"):
            parts = "".join(self._inner(part) + ", " for part in expression[1])
            return (
                f"''.join(({parts}))" if kind == "cat" else f"[{parts}]" if kind == "list" else f"({parts})"
            )
        if kind == "dict":
            pairs = [f"{self._inner(key)}: {self._inner(value)}" for key, value in expression[1]]
            return "{" + ", ".join(pairs) + "}"
        if kind in ("len", "truth", "shape"):
            name = {"len": "len", "truth": "bool", "shape": "shape_of"}[kind]
            return f"{name}({self._inner(expression[1])})"
        if kind == "compare":
            _, name, one, other = expression
            return f"{self._constant(getattr(operator, name))}({self._inner(one)}, {self._inner(other)})"
        return self._call(expression)

    def _at(self, path: tuple[Any, ...]) -> str:
        if path[:2] == (OUTSIDE, "tools") and len(path) > 2:
            return "tools" + self._below(path[2:])
        number, field, *below = path
        message = "m" if number == 0 else f"ms[i + {number!r}]"
        if field == "tool_calls":
            call, *fields = below
            last = 1 if fields[0] == "id" else 2
            name = _OF_CALL[tuple(fields[:last])]
            return f"{message}.tool_calls[{call!r}].{name}" + self._below(fields[last:])
        return f"{message}.{_FIELDS[field]}" + self._below(below)

    def _below(self, keys: Iterable[Any]) -> str:
        return "".join(f"[{key!r}]" if isinstance(key, int) else f"[{self._constant(key)}]" for key in keys)

    def _call(self, expression: Expression) -> str:
        if expression[0] == "filter":
            _, name, args, kwargs = expression
            first, *rest = map(self._inner, args)
            named = dict(kwargs)
            if name == "tojson" and not rest and all(value[0] == "const" for value in named.values()):
                return f"{self._json({key: value[2] for key, value in named.items()})}({first})"
            if name == "trim" and not rest and not named:
                return f"{first}.strip()"
            pairs = ", ".join(f"{key!r}: {self._inner(value)}" for key, value in named.items())
            call = self._constant(self._call_filter)
            return f"{call}({name!r}, {first}, [{', '.join(rest)}], {{{pairs}}})"
        _, method, own, args, kwargs = expression
        given = [*map(self._inner, (own, *args)), *(f"{key}={self._inner(value)}" for key, value in kwargs)]
        return f"{self._constant(getattr(str, method))}({', '.join(given)})"

    def _json(self, settings: dict[str, Any]) -> str:
        """Return the name of a function that does what the filter does, with its encoder made once."""
        settings = {"ensure_ascii": False, **settings}
        return self._constant(json.JSONEncoder(**settings).encode)


def _told(tools: Tools, key: Any, make: Callable[[], Any]) -> Any:
    found = tools.made.get(key)
    if found is None:
        found = tools.made[key] = make()
    return found


def owners_of(expression: Any) -> frozenset[int | None]:
    """Return the messages that an expression reads, and None for the tools."""
    if not isinstance(expression, tuple) or (expression and expression[0] == "const"):
        return frozenset()
    if expression and expression[0] == "at":
        # A message one further up has the number -1, as the tools have, but no field of that name.
        return frozenset([None if expression[1][1] == "tools" else expression[1][0]])
    return frozenset().union(*map(owners_of, expression))
