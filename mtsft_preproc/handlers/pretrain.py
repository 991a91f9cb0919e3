"""Plain text documents, as they stand or written from the fields of a record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import shorten
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers.base import HandlerOptions, TextHandler, needed_text, text_field
from mtsft_preproc.handlers.message_text import message_list

__all__ = [
    "AlpacaPretrainHandler",
    "GeneralPretrainHandler",
    "SharegptPretrainHandler",
    "StackOverflowHandler",
]

_ALPACA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
    "USER: Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
    "{further}### Response: ASSISTANT: {output}"
)
#: Name of the one dataset of a handler that writes the text itself.
_TEXT = "text"


class KeyedTextHandler(TextHandler):
    """Base of handlers that make a dataset of each column that ``--json-keys`` names."""

    keys: ClassVar[Mapping[str, str | None]] = {}
    required: ClassVar[Sequence[Sequence[str]]] = ()

    def __init__(
        self, map_keys: Mapping[str, Any] | None = None, options: HandlerOptions | None = None
    ) -> None:
        named = dict(map_keys or {})
        unread = next((key for key in named if key != "tags"), None)
        if unread is not None:
            raise SettingsError(
                f"--map-keys: {unread!r}: the columns of text documents are named by --json-keys"
            )
        super().__init__(named, options)
        keys = self.options.json_keys
        if not keys or len(set(keys)) != len(keys) or not all(keys):
            got = " ".join(keys)
            raise SettingsError(f"--json-keys: expected names of columns, each once, got {got!r}")
        self.columns = {key: key for key in keys}
        # Which columns are needed depends on the settings here, not on the class alone.
        self.required = tuple((key,) for key in keys)  # type: ignore[misc]

    def texts(self, record: Mapping[str, Any]) -> list[str]:
        return [self.text(record, column) for column in self.columns.values()]

    def datasets(self) -> list[str]:
        return list(self.columns)

    @abstractmethod
    def text(self, record: Mapping[str, Any], column: str) -> str:
        """Return the text of one column.

        Raises:
            RecordError: It can't be one.
        """


class GeneralPretrainHandler(KeyedTextHandler):
    """Columns of text, as they stand."""

    def text(self, record: Mapping[str, Any], column: str) -> str:
        return needed_text(record, self.columns, column)


class SharegptPretrainHandler(KeyedTextHandler):
    """Messages in ShareGPT's form: what they say, one behind the other, without a word between."""

    tags: ClassVar[Mapping[str, str]] = {"content_tag": "value"}

    def __init__(
        self, map_keys: Mapping[str, Any] | None = None, options: HandlerOptions | None = None
    ) -> None:
        super().__init__(map_keys, options)
        if not self.tag["content_tag"]:
            raise SettingsError("--map-keys: 'content_tag': expected the field with the text, got ''")

    def text(self, record: Mapping[str, Any], column: str) -> str:
        messages, _ = message_list(record, column)
        said = []
        for number, message in enumerate(messages):
            place = f"{column}[{number}]"
            if not isinstance(message, Mapping):
                raise RecordError("wrong-type", place, "an object with a content", shorten(message))
            field = self.tag["content_tag"]
            content = message.get(field)
            if content is None:
                raise RecordError("missing-field", f"{place}.{field}", "text", "null")
            if not isinstance(content, str):
                raise RecordError("wrong-type", f"{place}.{field}", "text", shorten(content))
            said.append(content)
        return "".join(said)


class WrittenTextHandler(TextHandler):
    """Base of handlers that write one text from the fields of a record."""

    def datasets(self) -> list[str]:
        return [_TEXT]


class AlpacaPretrainHandler(WrittenTextHandler):
    """``instruction`` / ``input`` / ``output`` rows as text in Vicuna's words.

    Where a row has no input, the text says ``###None``, as that of the original does.
    """

    keys: ClassVar[Mapping[str, str | None]] = {
        "instruction": "instruction",
        "input": "input",
        "output": "output",
    }
    required: ClassVar[Sequence[Sequence[str]]] = (("instruction",), ("output",))

    def texts(self, record: Mapping[str, Any]) -> list[str]:
        instruction = needed_text(record, self.columns, "instruction")
        given = text_field(record, self.columns.get("input"))
        output = needed_text(record, self.columns, "output")
        further = f"### Input:\n{given}\n\n" if given else "###None\n\n"
        return [_ALPACA.format(instruction=instruction, further=further, output=output)]


class StackOverflowHandler(WrittenTextHandler):
    """Questions about Python with an answer."""

    keys: ClassVar[Mapping[str, str | None]] = {
        "title": "title",
        "question_body": "question_body",
        "answer_body": "answer_body",
    }
    required: ClassVar[Sequence[Sequence[str]]] = tuple((key,) for key in keys)

    def texts(self, record: Mapping[str, Any]) -> list[str]:
        title, question, answer = (needed_text(record, self.columns, key) for key in self.keys)
        return [f"In python, {title}\n### Question:\n{question}\n### Response:\n{answer}\n"]
