"""What a piece of rendered text was made of: expressions over a dialogue, as data.

An expression is a nested tuple, so that it can be compared and hashed; :func:`compile_expression` makes a
function of it. Kinds::

    ("at", path)                    the value in the messages at a path: (2, "content")
    ("tool", text, path)            the value at a path in the tools, which are given as JSON
    ("const", type name, value)     a value that is the same in every dialogue
    ("call", method, self, args, kwargs)    a method of str
    ("filter", name, args, kwargs)  a Jinja filter
    ("item", of, index)             one of the strings that an expression returns as a list
    ("cat", parts)                  strings, joined
    ("list", items) ("tuple", items) ("dict", pairs)    containers of expressions
    ("len" | "truth" | "shape", of) a question about the value of an expression
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Expression", "compile_expression", "constant", "paths", "shape_of"]

Expression = tuple[Any, ...]
#: Takes the messages, as a template sees them.
Evaluate = Callable[[Sequence[Any]], Any]


def constant(value: Any) -> Expression:
    """Return the expression of a value that is the same in every dialogue."""
    if isinstance(value, slice):
        return ("const", "slice", (value.start, value.stop, value.step))
    return ("const", type(value).__name__, value)


def shape_of(value: Any) -> Any:
    """Return all of a JSON value but its strings: keys, types, lengths, numbers."""
    if isinstance(value, str):
        return str
    if isinstance(value, dict):
        return (dict, tuple((key, shape_of(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (list, tuple(map(shape_of, value)))
    return (type(value), value)


def paths(expression: Any) -> frozenset[tuple[Any, ...]]:
    """Return the paths of all values in the messages that an expression reads."""
    if not isinstance(expression, tuple) or (expression and expression[0] in ("const", "tool")):
        return frozenset()
    if expression and expression[0] == "at":
        return frozenset((expression[1],))
    return frozenset().union(*map(paths, expression))


def compile_expression(expression: Expression, call_filter: Callable[..., Any]) -> Evaluate:
    """Return a function that evaluates ``expression`` for other messages.

    Args:
        expression: The expression.
        call_filter: ``call_filter(name, value, args, kwargs)``, as Jinja's environment has it.
    """

    def compiled(inner: Expression) -> Evaluate:
        return compile_expression(inner, call_filter)

    kind = expression[0]
    if kind == "at":
        return _at(expression[1])
    if kind == "tool":
        tool = _at(expression[2])(_tools(expression[1]))
        return lambda messages: tool
    if kind == "const":
        value = slice(*expression[2]) if expression[1] == "slice" else expression[2]
        return lambda messages: value
    if kind == "item":
        of, index = compiled(expression[1]), expression[2]
        return lambda messages: of(messages)[index]
    if kind in ("cat", "list"):
        parts = [compiled(part) for part in expression[1]]
        if kind == "cat":
            return lambda messages: "".join([part(messages) for part in parts])
        return lambda messages: [part(messages) for part in parts]
    if kind == "tuple":
        items = [compiled(part) for part in expression[1]]
        return lambda messages: tuple([item(messages) for item in items])
    if kind == "dict":
        pairs = [(compiled(key), compiled(value)) for key, value in expression[1]]
        return lambda messages: {key(messages): value(messages) for key, value in pairs}
    if kind in ("len", "truth", "shape"):
        question = {"len": len, "truth": bool, "shape": shape_of}[kind]
        of = compiled(expression[1])
        return lambda messages: question(of(messages))
    return _call(expression, compiled, call_filter)


@functools.lru_cache(maxsize=64)
def _tools(text: str) -> Any:
    return json.loads(text)


def _at(path: tuple[Any, ...]) -> Evaluate:
    if len(path) == 2:
        number, field = path
        return lambda messages: messages[number][field]

    def walk(messages: Sequence[Any]) -> Any:
        value: Any = messages
        for key in path:
            value = value[key]
        return value

    return walk


def _call(
    expression: Expression, compiled: Callable[[Expression], Evaluate], call_filter: Callable[..., Any]
) -> Evaluate:
    """Return the function of a method call or a filter."""
    if expression[0] == "filter":
        _, name, args, kwargs = expression
        values = [compiled(arg) for arg in args]
        named = [(key, compiled(value)) for key, value in kwargs]

        def filtered(messages: Sequence[Any]) -> Any:
            first, *rest = [value(messages) for value in values]
            return call_filter(name, first, rest, {key: value(messages) for key, value in named})

        return filtered
    _, method, own, args, kwargs = expression
    function = getattr(str, method)
    of = compiled(own)
    if not kwargs and all(arg[0] == "const" for arg in args):
        constants = [compiled(arg)(()) for arg in args]
        return lambda messages: function(of(messages), *constants)
    values = [compiled(arg) for arg in args]
    named = [(key, compiled(value)) for key, value in kwargs]
    return lambda messages: function(
        of(messages),
        *[value(messages) for value in values],
        **{key: value(messages) for key, value in named},
    )
