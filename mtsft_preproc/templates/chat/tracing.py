"""Strings that know what they were made of, and write down what is asked about them.

A chat template is run once on strings of this kind. The text that it writes then comes in pieces: some are
the template's own, some came from the dialogue, and each of those knows from which message and through
which operations. Every question that the template asked on the way (is it empty? does it start with...?) is
noted with its answer, a *guard*. The template is a pure function of what it asks, so for another dialogue
of the same shape that answers all of them alike, it writes the same pieces with other words in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from mtsft_preproc.templates.chat.bounds import check_format
from mtsft_preproc.templates.chat.expressions import Expression, constant, shape_of

__all__ = [
    "CLOSE",
    "OPEN",
    "OUTSIDE",
    "Leaf",
    "Mark",
    "Object",
    "Piece",
    "Recorder",
    "Traced",
    "added",
    "call_method",
    "expression_of",
    "is_traced",
    "joined_expression",
    "joined_text",
    "joined_with",
    "modulo",
    "owners_of",
    "pinned",
    "plain",
    "recorder_of",
    "stripped",
    "written",
]

#: Owner of what comes from the tools, and where they stand: behind the last message.
OUTSIDE = -1


class Leaf(NamedTuple):
    """A piece of text that came from the dialogue.

    Attributes:
        expression: How it is made.
        text: The text, for the dialogue that was traced.
        owners: Numbers of the messages that it came from, and ``OUTSIDE`` for the tools.
    """

    expression: Expression
    text: str
    owners: frozenset[int]


class Mark(NamedTuple):
    """The border of a ``{% generation %}`` block."""

    opens: bool


OPEN, CLOSE = Mark(True), Mark(False)

Piece = str | Leaf | Mark


class Recorder:
    """Writes down the guards of one run."""

    def __init__(self) -> None:
        #: Answer by question, in the order in which they were asked.
        self.guards: dict[Expression, Any] = {}

    def answer(self, question: Expression, answer: Any) -> Any:
        """Note what was asked, and what the answer was."""
        self.guards[question] = answer
        return answer

    def result(self, expression: Expression, value: Any, owners: frozenset[int]) -> Any:
        """Return the result of an operation on traced strings: traced where it is text, else noted."""
        if isinstance(value, str):
            made = Traced.of((Leaf(expression, str.__str__(value), owners),), self)
            made.safe = isinstance(value, Markup)
            return made
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            self.answer(("len", expression), len(value))
            items = [
                self.result(("item", expression, index), item, owners) for index, item in enumerate(value)
            ]
            return type(value)(items)
        return self.answer(expression, value)


class Traced(str):
    """A string in pieces. Compares, hashes and prints as the string that it is."""

    pieces: tuple[Piece, ...]
    recorder: Recorder
    #: Whether it is what the filter ``safe`` makes: added to another string, it escapes that one.
    safe: bool = False

    @classmethod
    def of(cls, pieces: Iterable[Piece], recorder: Recorder) -> Traced:
        """Make one of pieces."""
        pieces = tuple(pieces)
        text = pieces[0].text if len(pieces) == 1 and type(pieces[0]) is Leaf else joined_text(pieces)
        return _made(text, pieces, recorder)

    @classmethod
    def joined(cls, parts: Iterable[Any]) -> str:
        """Join strings, traced and plain; the result is traced if one of them is."""
        pieces: list[Piece] = []
        texts: list[str] = []
        recorder: Recorder | None = None
        for part in parts:
            if type(part) is not Traced:
                part = written(part)
            if isinstance(part, Traced):
                pieces += part.pieces
                recorder = part.recorder
                texts.append(str.__str__(part))
            else:
                text = str(part)
                pieces.append(text)
                texts.append(text)
        text = "".join(texts)
        if recorder is None:
            return text
        return _made(text, tuple(pieces), recorder)

    @property
    def owners(self) -> frozenset[int]:
        """Of all pieces."""
        return frozenset().union(*[piece.owners for piece in self.pieces if isinstance(piece, Leaf)])

    def __str__(self) -> str:
        return self

    def __bool__(self) -> bool:
        return bool(self.recorder.answer(("truth", expression_of(self)), bool(plain(self))))

    def __add__(self, other: str) -> str:
        return _added(self, other)

    def __radd__(self, other: str) -> str:
        return _added(other, self)

    def __rmod__(self, other: str) -> Any:
        return call_method(self.recorder, "__mod__", other, (self,), {})

    def __iter__(self) -> Iterator[str]:
        self.recorder.answer(("len", expression_of(self)), len(plain(self)))
        return iter([self[number] for number in range(len(plain(self)))])

    def __hash__(self) -> int:
        self.pin()
        return hash(plain(self))

    def pin(self) -> None:
        """Note the whole value: something is done with it that can't be followed."""
        expression = expression_of(self)
        if expression[0] != "const":
            self.recorder.answer(("call", "__eq__", expression, (constant(plain(self)),), ()), True)


def call_method(
    recorder: Recorder, name: str, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a method of ``str`` with traced strings among what it is given."""
    try:
        value = getattr(str, name)(plain(own), *map(plain, args), **plain(kwargs))
    except (LookupError, ValueError):
        # Jinja goes on without some of these (text[0] of an empty one): of other text they aren't raised.
        pin((own, args, kwargs))
        raise
    if value is NotImplemented:
        return value
    named = tuple((key, expression_of(arg)) for key, arg in kwargs.items())
    expression = ("call", name, expression_of(own), tuple(map(expression_of, args)), named)
    return recorder.result(expression, value, owners_of((own, args, kwargs)))


def pinned(recorder: Recorder, value: str, given: Any) -> Traced:
    """Return the result of an operation that can't be done again, only noted whole."""
    pin(given)
    # Made of what was given, but always this.
    expression = ("item", ("list", (constant(value), expression_of(given))), 0)
    made = Traced.of((Leaf(expression, str.__str__(value), owners_of(given)),), recorder)
    made.safe = isinstance(value, Markup)
    return made


def pin(value: Any) -> None:
    """Note the whole of all traced strings and objects in a value."""
    if isinstance(value, Traced):
        value.pin()
    elif isinstance(value, Object):
        pin(value.open())
    elif isinstance(value, dict):
        for key, item in value.items():
            pin(key)
            pin(item)
    elif isinstance(value, list | tuple):
        for item in value:
            pin(item)


def written(value: Any) -> Any:
    """Return what a template writes of a value: of lists and objects, Python's notation."""
    if isinstance(value, str) or not is_traced(value):
        return value
    expression = ("filter", "string", (expression_of(value),), ())
    return recorder_of(value).result(expression, str(plain(value)), owners_of(value))


def added(left: Any, right: Any) -> Any:
    """Add; markupsafe's strings don't ask what they are added to."""
    return _added(left, right) if isinstance(left, Markup) and isinstance(right, Traced) else left + right


def modulo(left: Any, right: Any) -> Any:
    """Divide, or format with ``%``, whose values may be traced."""
    if isinstance(left, str):
        values = plain(right)
        check_format(plain(left), values if isinstance(values, tuple) else (values,), {})
    if not isinstance(left, str) or not is_traced((left, right)):
        return left % right
    recorder = recorder_of((left, right))
    if _is_safe(left):
        return pinned(recorder, Markup(plain(left)) % plain(right), (left, right))
    return call_method(recorder, "__mod__", left, (right,), {})


def _added(left: str, right: str) -> str:
    if type(left) is str and type(right) is Traced and not right.safe:
        return _made(left + str.__str__(right), (left, *right.pieces), right.recorder)
    if type(right) is str and type(left) is Traced and not left.safe:
        return _made(str.__str__(left) + right, (*left.pieces, right), left.recorder)
    if not _is_safe(left) and not _is_safe(right):
        return Traced.joined((left, right))
    both = Traced.joined([part if _is_safe(part) else _escaped(part) for part in (left, right)])
    if isinstance(both, Traced):
        both.safe = True
    return both


def _made(text: str, pieces: tuple[Piece, ...], recorder: Recorder) -> Traced:
    """Return the traced string of pieces whose text is known."""
    made = str.__new__(Traced, text)
    made.pieces, made.recorder = pieces, recorder
    return made


def _is_safe(part: str) -> bool:
    return isinstance(part, Markup) or (isinstance(part, Traced) and part.safe)


def _escaped(part: str) -> str:
    """Return ``part`` with its HTML characters escaped, as ``+`` of what is marked safe does."""
    if not isinstance(part, Traced):
        return str.__str__(escape(part))
    # Piece by piece, so that the template's own text stays its own.
    pieces: list[Piece] = []
    for piece in part.pieces:
        if isinstance(piece, Leaf):
            expression = ("filter", "escape", (piece.expression,), ())
            pieces.append(Leaf(expression, str.__str__(escape(piece.text)), piece.owners))
        else:
            pieces.append(piece if isinstance(piece, Mark) else str.__str__(escape(piece)))
    return Traced.of(pieces, part.recorder)


def joined_with(separator: Any, parts: Any) -> Any:
    """Join as ``str.join`` does, the template's own text staying its own."""
    between: list[Any] = []
    for number, part in enumerate(parts):
        between += [separator, part] if number else [part]
    return Traced.joined(between)


def stripped(text: Traced, name: str, chars: Any = None) -> Any:
    """Strip as the methods of ``str`` do, the template's own text staying its own."""
    if len(text.pieces) == 1 or isinstance(chars, Traced):
        return call_method(text.recorder, name, text, () if chars is None else (chars,), {})
    pieces = list(text.pieces)
    if name in ("strip", "lstrip"):
        pieces = _strip_start(pieces, "lstrip", chars, text.recorder)
    if name in ("strip", "rstrip"):
        pieces = _strip_start(pieces[::-1], "rstrip", chars, text.recorder)[::-1]
    made = Traced.of(pieces, text.recorder)
    made.safe = text.safe
    return made


def split(text: Traced, sep: Any = None, maxsplit: int = -1) -> Any:
    """Split as ``str.split`` does, the template's own text staying its own."""
    args = (constant(sep),) if maxsplit == -1 else (constant(sep), constant(maxsplit))
    whole = ("call", "split", expression_of(text), args, ())
    value = plain(text).split(plain(sep), maxsplit)
    if len(text.pieces) > 1 and type(sep) is str and maxsplit == -1:
        parts: list[list[Piece]] = [[]]
        for piece in text.pieces:
            bits = _split_piece(piece, sep, args, text.recorder)
            parts[-1].append(bits[0])
            parts += [[bit] for bit in bits[1:]]
        made = [Traced.of(part, text.recorder) for part in parts]
        if list(map(plain, made)) == value:
            # Not so where a separator lies across pieces, which would make it one more.
            text.recorder.answer(("len", whole), len(value))
            return made
    if is_traced(sep):
        return call_method(text.recorder, "split", text, (sep, maxsplit), {})
    return text.recorder.result(whole, value, text.owners)


def _split_piece(piece: Piece, separator: str, args: Any, recorder: Recorder) -> list[Piece]:
    if isinstance(piece, Mark):
        return [piece]
    if not isinstance(piece, Leaf):
        return list(str.__str__(piece).split(separator))
    expression = ("call", "split", piece.expression, args, ())
    bits = piece.text.split(separator)
    recorder.answer(("len", expression), len(bits))
    if len(bits) == 1:
        return [piece]
    return [Leaf(("item", expression, number), bit, piece.owners) for number, bit in enumerate(bits)]


def _strip_start(pieces: list[Piece], name: str, chars: Any, recorder: Recorder) -> list[Piece]:
    args = () if chars is None else (constant(chars),)
    for number, piece in enumerate(pieces):
        if isinstance(piece, Mark):
            continue
        if isinstance(piece, Leaf):
            expression = ("call", name, piece.expression, args, ())
            left = getattr(piece.text, name)(chars)
            recorder.answer(("truth", expression), bool(left))
            pieces[number] = Leaf(expression, left, piece.owners)
        else:
            left = pieces[number] = getattr(str.__str__(piece), name)(chars)
        if left:
            break
    return pieces


def _method(name: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        return call_method(self.recorder, name, self, args, kwargs)

    method.__name__ = name
    return method


_COMPARES = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__", "__len__"}
_DUNDERS = _COMPARES | {"__getitem__", "__mul__", "__rmul__", "__mod__"}
for _name in dir(str):
    if _name in _DUNDERS or not _name.startswith("__"):
        setattr(Traced, _name, _method(_name))


def _stripping(name: str) -> Callable[..., Any]:
    return lambda self, chars=None: stripped(self, name, chars)


for _name in ("strip", "lstrip", "rstrip"):
    setattr(Traced, _name, _stripping(_name))
setattr(Traced, "join", joined_with)  # noqa: B010
setattr(Traced, "split", split)  # noqa: B010


class Object(dict[str, Any]):
    """A JSON object of the dialogue whose inside is only looked at where the template does.

    ``tojson`` takes it whole. Anything else that is done with it notes its shape (keys, numbers, lengths,
    but not its strings, nor what is in objects in it) and goes on with what lies in it.

    Args:
        value: The object.
        path: Where it stands in what the template is given.
        recorder: Takes the guards.
    """

    def __init__(self, value: dict[str, Any], path: tuple[Any, ...], recorder: Recorder) -> None:
        super().__init__(value)
        self.value, self.path, self.recorder = value, path, recorder
        self.owners = frozenset((path[0],))
        self._opened: dict[Any, Any] | None = None

    def open(self) -> dict[Any, Any]:
        """Return what lies in it."""
        if self._opened is None:
            value = self.value
            self.recorder.answer(("shape", ("at", self.path)), shape_of(value))
            self._opened = {
                # A key is data too, though the shape has pinned it.
                Traced.of((Leaf(constant(key), key, self.owners),), self.recorder): self._wrap(item, (key,))
                for key, item in value.items()
            }
        return self._opened

    def _wrap(self, value: Any, below: tuple[Any, ...]) -> Any:
        path = self.path + below
        if isinstance(value, str):
            return Traced.of((Leaf(("at", path), value, self.owners),), self.recorder)
        if isinstance(value, dict):
            return Object(value, path, self.recorder)
        if isinstance(value, list):
            return [self._wrap(item, (*below, number)) for number, item in enumerate(value)]
        return value


def _opened(name: str) -> Callable[..., Any]:
    def method(self: Object, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.open(), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in (
    "__getitem__",
    "__iter__",
    "__len__",
    "__contains__",
    "__eq__",
    "get",
    "keys",
    "values",
    "items",
    "copy",
):
    setattr(Object, _name, _opened(_name))


def plain(value: Any) -> Any:
    """Return ``value`` with plain strings and dicts for traced ones."""
    if isinstance(value, Traced):
        return str.__str__(value)
    if isinstance(value, Object):
        return value.value
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if not hasattr(value, "_fields") else value
    return value


def expression_of(value: Any) -> Expression:
    """Return how a value is made."""
    if isinstance(value, Traced):
        return joined_expression(value.pieces)
    if isinstance(value, Object):
        return ("at", value.path)
    if isinstance(value, dict):
        return ("dict", tuple((expression_of(key), expression_of(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return (kind, tuple(map(expression_of, value)))
    return constant(value)


def joined_expression(pieces: Iterable[Piece]) -> Expression:
    """Return how the text of pieces is made."""
    parts = [
        piece.expression if isinstance(piece, Leaf) else constant(str.__str__(piece))
        for piece in pieces
        if not isinstance(piece, Mark)
    ]
    return parts[0] if len(parts) == 1 else ("cat", tuple(parts))


def joined_text(pieces: Iterable[Piece]) -> str:
    """Return the text of pieces."""
    return "".join(map(_text, pieces))


def owners_of(value: Any) -> frozenset[int]:
    """Return the messages that the traced strings in ``value`` came from."""
    if isinstance(value, Traced | Object):
        return value.owners
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = (*dict.keys(value), *dict.values(value))
    elif isinstance(value, list | tuple):
        inner = value
    return frozenset().union(*map(owners_of, inner))


def is_traced(value: Any) -> bool:
    """Return whether a traced value lies in ``value``."""
    if isinstance(value, Traced | Object):
        return True
    if isinstance(value, dict):
        return any(map(is_traced, dict.keys(value))) or any(map(is_traced, dict.values(value)))
    return isinstance(value, list | tuple) and any(map(is_traced, value))


def recorder_of(value: Any) -> Recorder:
    """Return the recorder of the first traced value in ``value``."""
    if isinstance(value, Traced | Object):
        return value.recorder
    inner = (*dict.keys(value), *dict.values(value)) if isinstance(value, dict) else value
    return next(recorder_of(item) for item in inner if is_traced(item))


def _text(piece: Piece) -> str:
    if isinstance(piece, Leaf):
        return piece.text
    return "" if isinstance(piece, Mark) else str.__str__(piece)
