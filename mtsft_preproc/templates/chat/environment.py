"""The Jinja set-up that chat templates are written for: what ``apply_chat_template`` of transformers has.

Built here because importing transformers costs a worker a second and a hundred megabytes. That it renders
the same is what the tests compare, template by template.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_format
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from mtsft_preproc.templates.chat.bounds import GROWING_METHODS, bounded, check_format, power, product

__all__ = ["ChatEnvironment", "GenerationBlocks", "KeptObject"]


#: Names that are attributes of a dict before they are keys.
_DICT_NAMES = frozenset(dir(dict))
#: Methods of text that the sandbox has nothing to say about.
_SAFE_STR = frozenset(name for name in dir(str) if not name.startswith(("_", "format"))) - GROWING_METHODS
#: Filters that pad or repeat.
_GROWING_FILTERS = ("batch", "center", "indent", "slice", "wordwrap")
_LOOP_NAMES = frozenset(name for name in dir(LoopContext) if not name.startswith("_"))


class GenerationBlocks(Extension):
    """``{% generation %} ... {% endgeneration %}``: the template's own word on what the model generates."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the block into a call whose body is rendered first."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("generated"), [], [], body).set_lineno(line)

    def generated(self, caller: Macro) -> str:
        """Return the body; a tracing environment marks it."""
        return str(self.environment.mark_generated(caller()))  # type: ignore[attr-defined]


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and renders chat templates.

    Args:
        today: What ``strftime_now`` tells templates that print the date: fixed, so that the same settings
            give the same bytes tomorrow.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, today: datetime.date) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols])
        now = datetime.datetime.combine(today, datetime.time())

        def strftime_now(pattern: str) -> str:
            return now.strftime(pattern)

        self.filters["tojson"] = bounded(_tojson)
        for name in _GROWING_FILTERS:
            self.filters[name] = bounded(self.filters[name])
        self.filters["format"] = _format
        # It makes text at random.
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = strftime_now
        self.globals["dict"] = _TemplateDict()
        self.globals["namespace"] = _TemplateNamespace

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do what could make a value that takes all memory."""
        if operator == "*":
            return product(left, right)
        if operator == "**":
            return power(left, right)
        if isinstance(left, str):
            check_format(left, right if isinstance(right, tuple) else (right,), {})
        return left % right

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return what stands for ``str.format``, which the sandbox runs itself."""
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        pattern = value.__self__

        def called(*args: Any, **kwargs: Any) -> str:
            check_format(pattern, args, kwargs)
            return formatted(*args, **kwargs)

        return called

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look an attribute up as the sandbox does, by a shorter way for what templates ask most."""
        kind = type(obj)
        if (kind is dict or kind is KeptObject) and attribute not in _DICT_NAMES:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        if kind is _TemplateNamespace and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        if (isinstance(obj, str) and attribute in _SAFE_STR) or (
            kind is LoopContext and attribute in _LOOP_NAMES
        ):
            return getattr(obj, attribute)
        if isinstance(obj, str) and attribute in GROWING_METHODS:
            return bounded(getattr(obj, attribute))
        return super().getattr(obj, attribute)

    def mark_generated(self, body: str) -> str:
        """Return what stands for a generation block."""
        return body


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    check_format(str(value), args, kwargs)
    return do_format(value, *args, **kwargs)


def _raise_exception(message: str) -> Callable[[], None]:
    raise jinja2.TemplateError(message)


class KeptObject(dict[str, Any]):
    """A JSON object that comes again and again, and never changes; it keeps its text.

    Attributes:
        texts: What ``tojson`` made of it, by the settings.
    """

    __slots__ = ("texts",)

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__(value)
        self.texts: dict[Any, str] = {}


#: What Python says where a template adds one to text, say, is a part of the refusal.
KeptObject.__name__ = "dict"


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if type(value) is not KeptObject:
        return _json(value, ensure_ascii, indent, separators, sort_keys)
    if separators is not None:
        return _json(value, ensure_ascii, indent, separators, sort_keys)
    # What is equal needn't be the same: an indent of 1 is one, True is not.
    key = (ensure_ascii, indent, type(indent), sort_keys)
    if key not in value.texts:
        value.texts[key] = _json(value, ensure_ascii, indent, None, sort_keys)
    return value.texts[key]


def _json(value: Any, ensure_ascii: bool, indent: int | None, separators: Any, sort_keys: bool) -> str:
    # Jinja's own filter escapes HTML, which no chat format wants.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _TemplateDict:
    """``dict`` for templates, without the attributes of the type."""

    def __call__(self, *pairs: Any, **named: Any) -> dict[Any, Any]:
        return dict(*pairs, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _TemplateNamespace(Namespace):
    """``namespace`` for templates, without names that lead into Python."""

    # Names its first argument so that namespace(self=...) works, as in Jinja.
    def __init__(*own: Any, **named: Any) -> None:
        self, pairs = own[0], own[1:]
        attributes = dict(*pairs, **named)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace takes no name with an underscore first: {name!r}"
        )
