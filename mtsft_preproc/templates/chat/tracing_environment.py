"""Renders a chat template on traced strings."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from mtsft_preproc.templates.chat.environment import ChatEnvironment
from mtsft_preproc.templates.chat.expressions import constant
from mtsft_preproc.templates.chat.tracing import (
    CLOSE,
    OPEN,
    Recorder,
    Traced,
    added,
    call_method,
    expression_of,
    is_traced,
    joined_with,
    modulo,
    owners_of,
    pinned,
    plain,
    recorder_of,
    stripped,
    written,
)

__all__ = ["TracingEnvironment"]

#: Filters that pick and move whole values; they never look into a string by means that go unnoticed.
_MOVES = frozenset(
    {
        "attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length",
        "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "slice",
        "sort", "string", "unique",
    }
)  # fmt: skip
_CONCAT, _IN, _ADD, _MODULO, _MEASURED = "_concat", "_in", "_add", "_modulo", "_measured"
#: Comparisons of Jinja by their names in Python.
_COMPARES = {"eq": "eq", "ne": "ne", "gt": "gt", "gteq": "ge", "lt": "lt", "lteq": "le"}


class TracingEnvironment(ChatEnvironment):
    """A chat environment in which no operation loses sight of where text came from.

    Args:
        today: As for :class:`ChatEnvironment`.
        reference: The plain environment; filters are run there.
    """

    def __init__(self, today: datetime.date, reference: ChatEnvironment) -> None:
        super().__init__(today)
        self._reference = reference
        for name in self.filters:
            if name not in _MOVES:
                self.filters[name] = self._traced_filter(name, self.filters[name])
        self.filters |= {_CONCAT: lambda *parts: Traced.joined(parts), _ADD: added, _MODULO: modulo}
        self.filters["string"] = _string
        self.finalize = written
        self.globals["strftime_now"] = _pinning(self.globals["strftime_now"])
        self.tests |= {_IN: _contains, _MEASURED: _is_long}
        for name in ("sequence", "iterable"):
            # Jinja measures the length, which would be noted; text always is one.
            self.tests[name] = _or_text(self.tests[name])  # type: ignore[arg-type]

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what a template wrote."""
        return Traced.joined(parts)

    def mark_generated(self, body: str) -> str:
        """Return a generation block with its borders."""
        recorder = body.recorder if isinstance(body, Traced) else Recorder()
        pieces = body.pieces if isinstance(body, Traced) else (body,)
        return Traced.of((OPEN, *pieces, CLOSE), recorder)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; methods of plain strings may be given traced ones."""
        own = getattr(function, "__self__", None)
        if isinstance(function, BuiltinMethodType | MethodType) and isinstance(own, str):
            args = tuple(map(_settled, args))
            # Compiled templates pass their scopes along, under these names.
            named = {
                key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")
            }
            if not isinstance(own, Traced) and (is_traced(args) or is_traced(named)):
                if isinstance(own, Markup):
                    return _pinning(function)(*args, **named)
                if function.__name__ == "join":
                    return joined_with(own, *args)
                recorder = recorder_of((*args, named))
                return call_method(recorder, function.__name__, own, args, named)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return what stands for ``str.format``, which the sandbox runs itself."""
        formatted = super().wrap_str_format(value)
        return None if formatted is None else _pinning(formatted)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Rewrite().visit(source), *args, **kwargs)

    def _traced_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that runs on plain values and gives back a traced result."""
        passes = getattr(function, "jinja_pass_arg", None)

        def filtered(*args: Any, **kwargs: Any) -> Any:
            args = tuple(map(_settled, args))
            given = args[1:] if passes else args
            if not is_traced(given) and not is_traced(kwargs):
                return function(*args, **kwargs)
            if name == "join" and len(given) < 3 and not kwargs and not isinstance(given[0], str):
                return joined_with(given[1] if len(given) > 1 else "", given[0])
            if name == "trim" and isinstance(given[0], Traced) and not kwargs:
                return stripped(given[0], "strip", *given[1:])
            recorder = recorder_of((*given, kwargs))
            first, *rest = plain(given)
            value = self._reference.call_filter(name, first, rest, plain(kwargs))
            named = tuple((key, expression_of(arg)) for key, arg in kwargs.items())
            expression = ("filter", name, tuple(map(expression_of, given)), named)
            return recorder.result(expression, value, owners_of((given, kwargs)))

        if passes:
            filtered.jinja_pass_arg = passes  # type: ignore[attr-defined]
        return filtered


class _Rewrite(NodeTransformer):
    """Makes calls of the operations that Python would run out of sight: ``~``, ``in``, ``+`` and ``%``."""

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node.left, _ADD, [node.right], [], None, None, lineno=node.lineno)

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node.left, _MODULO, [node.right], [], None, None, lineno=node.lineno)

    def visit_ScopedEvalContextModifier(  # noqa: N802
        self, node: nodes.ScopedEvalContextModifier
    ) -> nodes.Node:
        raise TemplateSyntaxError("{% autoescape %} in a chat template isn't supported", node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        first, *rest = node.nodes
        return nodes.Filter(first, _CONCAT, rest, [], None, None, lineno=node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if _compares_length(node):
            name, number = nodes.Const(_COMPARES[node.ops[0].op]), node.ops[0].expr
            of = node.expr.node  # type: ignore[attr-defined]
            return nodes.Test(of, _MEASURED, [name, number], [], None, None, lineno=node.lineno)
        if len(node.ops) != 1 or node.ops[0].op not in ("in", "notin"):
            return node
        test = nodes.Test(node.expr, _IN, [node.ops[0].expr], [], None, None, lineno=node.lineno)
        return nodes.Not(test, lineno=node.lineno) if node.ops[0].op == "notin" else test


def _compares_length(node: nodes.Compare) -> bool:
    """Return whether a length is compared with a number, and nothing else is done with it."""
    of = node.expr
    return (
        isinstance(of, nodes.Filter)
        and of.name in ("length", "count")
        and not (of.args or of.kwargs or of.dyn_args or of.dyn_kwargs)
        and len(node.ops) == 1
        and node.ops[0].op in _COMPARES
        and isinstance(node.ops[0].expr, nodes.Const)
        and type(node.ops[0].expr.value) is int
    )


def _is_long(value: Any, name: str, number: int) -> bool:
    """Compare a length: of text the answer is noted, and not the length."""
    if not isinstance(value, Traced):
        return bool(getattr(operator, name)(len(value), number))
    length = ("len", expression_of(value))
    found = bool(getattr(operator, name)(len(plain(value)), number))
    return bool(value.recorder.answer(("compare", name, length, constant(number)), found))


def _settled(value: Any) -> Any:
    """Return a list of what can be read but once, or looked at but not into."""
    return list(value) if isinstance(value, Iterator | KeysView | ValuesView | ItemsView) else value


def _string(value: Any) -> Any:
    value = written(value)
    return value if isinstance(value, str) else str(value)


def _pinning(function: Any) -> Callable[..., Any]:
    """Return a function that may be given traced values, of which it then holds for just these."""

    def called(*args: Any, **kwargs: Any) -> Any:
        if not is_traced(args) and not is_traced(kwargs):
            return function(*args, **kwargs)
        value = function(*plain(args), **plain(kwargs))
        return pinned(recorder_of((*args, kwargs)), value, (args, kwargs))

    return called


def _contains(value: Any, container: Any) -> bool:
    if isinstance(value, Traced) and isinstance(container, str) and not isinstance(container, Traced):
        return bool(call_method(value.recorder, "__contains__", container, (value,), {}))
    return value in container


def _or_text(test: Callable[..., bool]) -> Callable[..., bool]:
    return lambda value: isinstance(value, Traced) or test(value)
