"""A prompt type: a chat format as a table of elements. Types only; the data is in ``prompt_types``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mtsft_preproc.tokenization import Adjustment

__all__ = ["BOS", "EOS", "Element", "Elements", "PromptType", "Special", "Style", "Token"]


@dataclass(frozen=True)
class Token:
    """An element that is the id of one token, named by its text."""

    text: str


class Special(Enum):
    """An element that is the id of one of the tokenizer's own tokens, or nothing where it has none."""

    BOS = "bos_token"
    EOS = "eos_token"


BOS = Special.BOS
EOS = Special.EOS

#: A string is encoded on its own; ``{{content}}`` and ``{{idx}}`` in it are replaced first.
Element = str | Token | Special
Elements = tuple[Element, ...]


class Style(Enum):
    """How the elements are put together; the names are those of the original's template classes."""

    #: System format in front of the first user format, separator in front of every later one.
    DEFAULT = "Template"
    #: As DEFAULT, without separators.
    NO_SEPARATOR = "LFDefaultTemplate"
    #: The system format's text goes into the first user element, in front of its content.
    SYSTEM_IN_USER = "Llama2Template"
    #: As DEFAULT, with the rules for thinking.
    REASONING = "ReasoningTemplate"


@dataclass(frozen=True)
class PromptType:
    """One chat format.

    Attributes:
        name: What ``--prompt-type`` takes.
        user: Format of a user's message.
        assistant: Format of a reply; None takes ``{{content}}`` and EOS.
        system: Format of the system text.
        observation: Format of a tool result; None takes the user's.
        function: Format of tool calls: written once per call where it has ``{{name}}`` and
            ``{{arguments}}``, else once with all calls as its ``{{content}}``. None takes the ``Action:``
            form and EOS.
        separator: Stands in front of every source but the first.
        prefix: Stands in front of everything.
        default_system: System text of dialogues that have none.
        stop_words: Tokens that end a turn; they become special tokens.
        efficient_eos: Whether a reply's end is taught at the first position of the next source, and one
            EOS closes the sample.
        replace_eos: Whether the first stop word becomes the tokenizer's EOS.
        thought_words: What stands before and behind a thought.
        tool_format: How tools, and calls in a format with ``{{content}}``, are written: a key of
            ``tool_text.tool_formats``.
        style: How the elements are put together.
    """

    name: str
    user: Elements = ("{{content}}",)
    assistant: Elements | None = None
    system: Elements = ("{{content}}",)
    observation: Elements | None = None
    function: Elements | None = None
    separator: Elements = ()
    prefix: Elements = ()
    default_system: str = ""
    stop_words: tuple[str, ...] = ()
    efficient_eos: bool = False
    replace_eos: bool = False
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    tool_format: str = "default"
    style: Style = field(default=Style.DEFAULT)

    def adjustment(self) -> Adjustment:
        """Return what the format changes about the tokenizer."""
        if self.replace_eos and self.stop_words:
            return Adjustment(self.stop_words[0], self.stop_words[1:])
        return Adjustment(None, self.stop_words)

    def elements(self) -> Elements:
        """Return the elements of all formats."""
        optional = (self.observation or ()) + (self.function or ())
        return self.prefix + self.separator + self.system + self.user + self.reply_format() + optional

    def reply_format(self) -> Elements:
        """Return the format of an assistant's message."""
        return self._or_with_eos(self.assistant, "{{content}}")

    def function_format(self) -> Elements:
        """Return the format of a tool call."""
        return self._or_with_eos(self.function, "Action: {{name}}\nAction Input: {{arguments}}")

    def _or_with_eos(self, given: Elements | None, text: str) -> Elements:
        if given is not None:
            return given
        return (text,) if self.efficient_eos else (text, EOS)
