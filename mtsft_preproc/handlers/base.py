"""What every handler offers, and the rules for ``--map-keys``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, shorten
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.registry import Registry, nearest

__all__ = [
    "DialogueHandler",
    "Handler",
    "HandlerChoice",
    "HandlerOptions",
    "PairHandler",
    "TextHandler",
    "handlers",
    "needed_text",
    "summary_of",
    "text_field",
]


@dataclass(frozen=True)
class HandlerOptions:
    """Settings that some handlers look at.

    Attributes:
        render_state: Whether a dialogue state of the data is put in front of the reply.
        json_keys: Of text documents: the fields that hold text.
    """

    render_state: bool = False
    json_keys: tuple[str, ...] = ("text",)


class Handler(ABC):
    """Reads the records of one data format. See the kinds of handlers below.

    Args:
        map_keys: Columns of the data by key of the handler; what is not given keeps its default, and
            ``""`` leaves a key without a column. ``"tags"`` may hold an object of its own, by
            :attr:`tags`.
        options: Further settings.

    Raises:
        SettingsError: A key that the handler doesn't have.
    """

    #: The handler's keys with the column that each stands for by default; None: no column by default.
    keys: ClassVar[Mapping[str, str | None]]
    #: Keys of which the data must have a column (one of each group is enough).
    required: ClassVar[Sequence[Sequence[str]]]
    #: Names that data often have for a key without a default; one that is not read is worth a warning.
    usual: ClassVar[Mapping[str, Sequence[str]]] = {}
    #: Names inside messages (of fields and roles) by tag, which ``"tags"`` in the map-keys replaces one by
    #: one; empty where a format has none.
    tags: ClassVar[Mapping[str, str]] = {}
    #: What becomes of the records: a name of :mod:`mtsft_preproc.encoding`.
    objective: ClassVar[str]
    #: Settings that the data format brings along where the user gives none: ``train_on``, ``overlong``,
    #: ``seq_length``, ``chat_template``.
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: Name of the text form that the data format defines itself, so that the user need name no chat format;
    #: None: it defines none.
    text_form: ClassVar[str | None] = None
    #: Whether the records fit no chat format but that.
    text_form_only: ClassVar[bool] = False

    def __init__(
        self, map_keys: Mapping[str, Any] | None = None, options: HandlerOptions | None = None
    ) -> None:
        given = dict(map_keys or {})
        self.options = options or HandlerOptions()
        #: :attr:`tags`, with what the map-keys replace.
        self.tag: dict[str, str] = self._tags(given.pop("tags", None))
        keys = self.all_keys()
        for key in given:
            if key not in keys:
                known = [*keys, *(["tags"] if self.tags else [])]
                raise SettingsError(f"--map-keys: unknown key {key!r}; {nearest(key, known)}")
        for key, column in given.items():
            if not isinstance(column, str):
                raise SettingsError(
                    f"--map-keys: {key!r}: expected the name of a column, got {shorten(column)}"
                )
        self.given = given
        #: Column of each key that has one.
        self.columns: dict[str, str] = {key: column for key, column in {**keys, **given}.items() if column}
        self._refuse_twins()

    @classmethod
    def all_keys(cls) -> dict[str, str | None]:
        """Return :attr:`keys` and those that every handler of this kind has."""
        return dict(cls.keys)

    def _tags(self, given: Any) -> dict[str, str]:
        if given is None:
            return dict(self.tags)
        if not self.tags:
            raise SettingsError('--map-keys: "tags": this handler has none')
        if not isinstance(given, dict):
            raise SettingsError(f'--map-keys: "tags": expected an object, got {shorten(given)}')
        for tag, name in given.items():
            if tag not in self.tags:
                raise SettingsError(f"--map-keys: unknown tag {tag!r}; {nearest(tag, list(self.tags))}")
            if not isinstance(name, str):
                raise SettingsError(f"--map-keys: {tag!r}: expected text, got {shorten(name)}")
        return {**self.tags, **given}

    def _refuse_twins(self) -> None:
        """Refuse one column for two keys: its text would stand in the dialogue twice."""
        taken: dict[str, str] = {}
        for key, column in self.columns.items():
            if column in taken:
                twin = taken[column] if taken[column] not in self.given else key
                raise SettingsError(
                    f"--map-keys: {taken[column]!r} and {key!r} both stand for the column {column!r}; "
                    f'expected another column for one of them, or none: {{"{twin}": ""}}'
                )
            taken[column] = key


class DialogueHandler(Handler):
    """Makes a dialogue of each record."""

    objective = "sft"

    @classmethod
    def all_keys(cls) -> dict[str, str | None]:
        return {**cls.keys, "summary": None}

    @abstractmethod
    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        """Return the dialogue of one record.

        Raises:
            RecordError: The record can't be one.
        """


class PairHandler(Handler):
    """Makes two dialogues of each record that differ in their last message."""

    objective = "pairwise"

    @abstractmethod
    def pair(self, record: Mapping[str, Any]) -> tuple[Dialogue, Dialogue]:
        """Return the dialogue with the reply that was chosen, and with the one that was rejected.

        Raises:
            RecordError: The record can't be a pair.
        """


class TextHandler(Handler):
    """Makes text documents of each record."""

    objective = "text"

    @abstractmethod
    def texts(self, record: Mapping[str, Any]) -> list[str]:
        """Return one text per key of :meth:`datasets`; ``""`` where the record has none.

        Raises:
            RecordError: The record can't be text.
        """

    @abstractmethod
    def datasets(self) -> list[str]:
        """Return the keys of the texts: the datasets that they become are named by them."""


@dataclass(frozen=True)
class HandlerChoice:
    """The handler of a file: what a task is told of it.

    Attributes:
        name: Full name.
        map_keys: JSON object.
        file_sha256: Of the user's file that it comes from, or None for a handler of the package.
    """

    name: str
    map_keys: str = "{}"
    file_sha256: str | None = None


#: All handlers, by the names that ``--handler-name`` takes.
handlers: Registry[type[Handler]] = Registry("handler", "--handler-name")


def text_field(record: Mapping[str, Any], column: str | None) -> str | None:
    """Return a field that holds text, or None where it is null, absent or not mapped.

    Raises:
        RecordError: ``wrong-type``.
    """
    value = record.get(column) if column else None
    if value is None or isinstance(value, str):
        return value
    raise RecordError("wrong-type", column or "", "text", shorten(value))


def summary_of(record: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Return what a record says of earlier rounds in short; ``""`` where it says nothing.

    Args:
        record: The record.
        columns: As :attr:`Handler.columns`.

    Raises:
        RecordError: ``wrong-type``.
    """
    return text_field(record, columns.get("summary")) or ""


def needed_text(record: Mapping[str, Any], columns: Mapping[str, str], key: str) -> str:
    """Return the text of a field that the handler can't do without.

    Args:
        record: The record.
        columns: As :attr:`Handler.columns`.
        key: Key of the field.

    Raises:
        RecordError: ``missing-field`` or ``wrong-type``.
    """
    column = columns.get(key)
    text = text_field(record, column)
    if text is None:
        raise RecordError("missing-field", column or key, "text", "null")
    return text
