"""What a piece of rendered text was made of: expressions over a dialogue, as data.

An expression is a nested tuple, so that it can be compared and hashed; :func:`compile_expression` makes a
function of it. Kinds::

    ("at", path)                    the value at a path: (2, "content"), (-1, "tools", 0)
    ("const", type name, value)     a value that is the same in every dialogue
    ("call", method, self, args, kwargs)    a method of str
    ("filter", name, args, kwargs)  a Jinja filter
    ("item", of, index)             one of the strings that an expression returns as a list
    ("cat", parts)                  strings, joined
    ("list", items) ("tuple", items) ("dict", pairs)    containers of expressions
    ("len" | "truth" | "shape", of) a question about the value of an expression
    ("compare", name, of, with)     another one; the names are those of Python's module operator
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Expression", "compile_expression", "constant", "paths", "shape_of"]

Expression = tuple[Any, ...]
#: Takes all that a template is given: the messages, and an object with the tools behind them.
Evaluate = Callable[[Sequence[Any]], Any]


def constant(value: Any) -> Expression:
    """Return the expression of a value that is the same in every dialogue."""
    if isinstance(value, slice):
        return ("const", "slice", (value.start, value.stop, value.step))
    return ("const", type(value).__name__, value)


def shape_of(value: dict[str, Any]) -> Any:
    """Return all of a JSON object but its strings and the objects in it: keys, types, lengths, numbers."""
    return tuple((key, _kind(item)) for key, item in value.items())


def _kind(value: Any) -> Any:
    if isinstance(value, str | dict):
        return str if isinstance(value, str) else dict
    if isinstance(value, list):
        return (list, tuple(map(_kind, value)))
    return (type(value), value)


def paths(expression: Any) -> frozenset[tuple[Any, ...]]:
    """Return the paths of all values in the messages that an expression reads."""
    if not isinstance(expression, tuple) or (expression and expression[0] == "const"):
        return frozenset()
    if expression and expression[0] == "at":
        return frozenset((expression[1],))
    return frozenset().union(*map(paths, expression))


def compile_expression(expression: Expression, call_filter: Callable[..., Any]) -> Evaluate:
    """Return a function that evaluates ``expression`` for other values.

    Args:
        expression: The expression.
        call_filter: ``call_filter(name, value, args, kwargs)``, as Jinja's environment has it.
    """

    def compiled(inner: Expression) -> Evaluate:
        return compile_expression(inner, call_filter)

    kind = expression[0]
    if kind == "at":
        return _at(expression[1])
    if kind == "const":
        value = slice(*expression[2]) if expression[1] == "slice" else expression[2]
        return lambda values: value
    if kind == "item":
        of, index = compiled(expression[1]), expression[2]
        return lambda values: of(values)[index]
    if kind in ("cat", "list"):
        parts = [compiled(part) for part in expression[1]]
        if kind == "cat":
            return lambda values: "".join([part(values) for part in parts])
        return lambda values: [part(values) for part in parts]
    if kind == "tuple":
        items = [compiled(part) for part in expression[1]]
        return lambda values: tuple([item(values) for item in items])
    if kind == "dict":
        pairs = [(compiled(key), compiled(value)) for key, value in expression[1]]
        return lambda values: {key(values): value(values) for key, value in pairs}
    if kind in ("len", "truth", "shape"):
        question = {"len": len, "truth": bool, "shape": shape_of}[kind]
        of = compiled(expression[1])
        return lambda values: question(of(values))
    if kind == "compare":
        compare = getattr(operator, expression[1])
        one, other = compiled(expression[2]), compiled(expression[3])
        return lambda values: compare(one(values), other(values))
    return _call(expression, compiled, call_filter)


def _at(path: tuple[Any, ...]) -> Evaluate:
    if len(path) == 2:
        number, field = path
        return lambda values: values[number][field]

    def walk(values: Sequence[Any]) -> Any:
        value: Any = values
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
        given = [compiled(arg) for arg in args]
        named = [(key, compiled(value)) for key, value in kwargs]

        def filtered(values: Sequence[Any]) -> Any:
            first, *rest = [value(values) for value in given]
            return call_filter(name, first, rest, {key: value(values) for key, value in named})

        return filtered
    _, method, own, args, kwargs = expression
    function = getattr(str, method)
    of = compiled(own)
    if not kwargs and all(arg[0] == "const" for arg in args):
        constants = [compiled(arg)(()) for arg in args]
        return lambda values: function(of(values), *constants)
    given = [compiled(arg) for arg in args]
    named = [(key, compiled(value)) for key, value in kwargs]
    return lambda values: function(
        of(values),
        *[value(values) for value in given],
        **{key: value(values) for key, value in named},
    )
