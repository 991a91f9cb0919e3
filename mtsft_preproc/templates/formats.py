"""The chat format that the settings name: a prompt type, a chat template, or the data format's own text."""

from __future__ import annotations

import datetime
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mtsft_preproc.config import DEEPSEEK4, PreprocessConfig
from mtsft_preproc.errors import SettingsError, TemplateError
from mtsft_preproc.registry import nearest
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.prompt_template import PromptTemplate
from mtsft_preproc.templates.prompt_type import PromptType, Token
from mtsft_preproc.templates.prompt_type_file import read_prompt_types
from mtsft_preproc.templates.prompt_types import prompt_types
from mtsft_preproc.templates.text_forms import TextForm, TextTemplate, text_forms
from mtsft_preproc.templates.token_batch import Template
from mtsft_preproc.tokenization import Adjustment, Encoder, TokenizerSpec

__all__ = ["BUILTIN", "ChatFormat", "Format", "PromptFormat", "TextFormat", "make_format"]

_BUILTIN_FOLDER = Path(__file__).with_name("builtin")
#: Chat templates of the package, by name.
BUILTIN = tuple(sorted(path.stem for path in _BUILTIN_FOLDER.glob("*.jinja")))
#: The template in the tokenizer's folder.
_TOKENIZERS_OWN = "tokenizer"
#: The one text form that numbers its rounds and starts with a text of the user's.
_NUMBERED = "chatglm_rounds"


@dataclass(frozen=True)
class Format(ABC):
    """A chat format, small enough to travel with every task."""

    @abstractmethod
    def adjustment(self) -> Adjustment:
        """Return what the format changes about the tokenizer."""

    @abstractmethod
    def resolve(self, spec: TokenizerSpec, date: datetime.date) -> Format:
        """Return the format for a tokenizer.

        Args:
            spec: The tokenizer, adjusted.
            date: The date for templates that print one.

        Raises:
            TemplateError: They don't go together.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of it: all that bytes depend on, ready for JSON."""

    @abstractmethod
    def open(self, encoder: Encoder, config: PreprocessConfig) -> Template:
        """Compile it for an encoder."""


@dataclass(frozen=True)
class PromptFormat(Format):
    """A prompt type."""

    prompt_type: PromptType

    def adjustment(self) -> Adjustment:
        """Return what the format changes about the tokenizer."""
        return self.prompt_type.adjustment()

    def resolve(self, spec: TokenizerSpec, date: datetime.date) -> PromptFormat:
        """Refuse a format that names a token which the tokenizer lacks."""
        del date
        for element in self.prompt_type.elements():
            if isinstance(element, Token):
                spec.id_of(element.text)
        return self

    def describe(self) -> dict[str, Any]:
        """Return its table."""
        entries = {**asdict(self.prompt_type), "style": self.prompt_type.style.value}
        return {"prompt_type": json.loads(json.dumps(entries, default=repr))}

    def open(self, encoder: Encoder, config: PreprocessConfig) -> Template:
        """Compile it for an encoder."""
        return PromptTemplate(
            self.prompt_type,
            encoder,
            config.special_tokens_in_text,
            config.enable_thinking,
            config.append_eod,
            config.train_on_tools,
        )


@dataclass(frozen=True)
class ChatFormat(Format):
    """A Jinja chat template.

    Attributes:
        name: What the user named.
        templates: Its texts by name; empty until it is resolved where the tokenizer has them.
        kwargs: Further variables for it, as JSON text.
        special_tokens: Special tokens by name, as transformers hands them to templates.
        date: What ``strftime_now`` tells it, or None where it never asks.
    """

    name: str
    templates: tuple[tuple[str, str], ...] = ()
    kwargs: str = "{}"
    special_tokens: tuple[tuple[str, str], ...] = ()
    date: datetime.date | None = None

    @property
    def asks_date(self) -> bool:
        """Whether the template prints the date."""
        return any("strftime_now" in text for _, text in self.templates)

    def adjustment(self) -> Adjustment:
        """Return nothing: a model's own template knows the tokenizer as it is."""
        return Adjustment()

    def resolve(self, spec: TokenizerSpec, date: datetime.date) -> ChatFormat:
        """Take the template from the tokenizer where it is there."""
        templates = self.templates
        if not templates:
            own = dict(spec.chat_templates)
            if not own and self.name == _TOKENIZERS_OWN:
                raise TemplateError(
                    f"--chat-template {self.name}: the tokenizer in {spec.source} has no chat template; "
                    f"expected a .jinja file, one of {', '.join(BUILTIN)}, or --prompt-type"
                )
            if self.name == _TOKENIZERS_OWN:
                templates = spec.chat_templates
            elif self.name in own:
                templates = (("default", own[self.name]),)
            else:
                known = [*([_TOKENIZERS_OWN] if own else []), *own, *BUILTIN]
                raise TemplateError(
                    f"--chat-template: no {self.name!r}; expected a .jinja file or a name: "
                    f"{nearest(self.name, known)}"
                )
        if "default" not in dict(templates):
            raise TemplateError(
                f"--chat-template: none in {spec.source} is called default; "
                f"expected the name of one: {', '.join(name for name, _ in templates)}"
            )
        found = replace(self, templates=templates, special_tokens=spec.special_tokens_map)
        if found.asks_date:
            found = replace(found, date=date)
        found.renderer()  # compiles, or says why not
        return found

    def describe(self) -> dict[str, Any]:
        """Return its name, content hash and variables."""
        content = json.dumps(self.templates, ensure_ascii=True).encode("ascii")
        return {
            "chat_template": {
                "name": self.name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "kwargs": json.loads(self.kwargs),
                "special_tokens": dict(self.special_tokens),
                "date": self.date.isoformat() if self.date else None,
            }
        }

    def renderer(self) -> ChatRenderer:
        """Compile the template."""
        variables = {**dict(self.special_tokens), **json.loads(self.kwargs)}
        return ChatRenderer(dict(self.templates), variables, self.date or datetime.date.min)

    def open(self, encoder: Encoder, config: PreprocessConfig) -> Template:
        """Compile it for an encoder."""
        return ChatTemplate(
            self.renderer(),
            encoder,
            config.special_tokens_in_text,
            config.parity,
            config.append_eod,
            config.train_on_tools,
        )


@dataclass(frozen=True)
class TextFormat(Format):
    """The text that a data format defines itself.

    Attributes:
        name: A name of :data:`~mtsft_preproc.templates.text_forms.text_forms`.
        first_round: Number of the first round, where the form writes numbers.
        source_prefix: Text in front of each sample, where the form has a place for it.
    """

    name: str
    first_round: int = 0
    source_prefix: str = ""

    def adjustment(self) -> Adjustment:
        """Return nothing: these forms take the tokenizer as it is."""
        return Adjustment()

    def resolve(self, spec: TokenizerSpec, date: datetime.date) -> TextFormat:
        """Refuse a tokenizer that the form doesn't go with."""
        del date
        self._form(spec)
        return self

    def describe(self) -> dict[str, Any]:
        """Return its name and settings."""
        return {"text_form": asdict(self)}

    def open(self, encoder: Encoder, config: PreprocessConfig) -> Template:
        """Compile it for an encoder."""
        return TextTemplate(
            self._form(encoder.spec),
            encoder,
            config.special_tokens_in_text,
            config.append_eod,
            config.train_on_tools,
        )

    def _form(self, spec: TokenizerSpec) -> TextForm:
        return text_forms.get(self.name)(spec, self.first_round, self.source_prefix)


def make_format(
    config: PreprocessConfig, text_form: str | None = None, text_form_only: bool = False
) -> Format:
    """Return the format that the settings name.

    Args:
        config: The settings.
        text_form: The text form that the data format defines itself, taken where they name none.
        text_form_only: Whether the records fit no other.

    Raises:
        SettingsError: There is none, or settings don't go together.
        TemplateError: A file with formats is malformed.
    """
    given = _given_flag(config)
    if given is not None and text_form_only:
        raise SettingsError(
            f"{given}: {config.handler_name} reads data whose text form is its own; expected no {given}"
        )
    own = text_form if given is None else None
    for flag, value in (("--first-round", config.first_round), ("--source-prefix", config.source_prefix)):
        if value and own != _NUMBERED:
            raise SettingsError(
                f"{flag}: belongs to ChatGLMHandler without --prompt-type or --chat-template"
            )
    if own is not None:
        return TextFormat(text_forms.canonical(own), config.first_round, config.source_prefix)
    return _named_format(config)


def _given_flag(config: PreprocessConfig) -> str | None:
    """Return a flag with which the settings name a format, or None."""
    flags = {
        "--chat-template": config.chat_template,
        "--prompt-type": config.prompt_type,
        "--prompt-type-path": config.prompt_type_path,
    }
    return next((flag for flag, value in flags.items() if value is not None), None)


def _named_format(config: PreprocessConfig) -> Format:
    """Return the prompt type or chat template that the settings name."""
    if config.chat_template is not None:
        return _chat_format(config, config.chat_template, _given_kwargs(config))
    if config.prompt_type is None:
        names = [*prompt_types.names(), DEEPSEEK4]
        raise SettingsError(
            f"--prompt-type or --chat-template: {config.handler_name} needs one of them; "
            f"--chat-template {_TOKENIZERS_OWN} takes the tokenizer's own; prompt types "
            f"{nearest('', names)}"
        )
    known = read_prompt_types(config.prompt_type_path) if config.prompt_type_path else prompt_types
    if config.prompt_type == DEEPSEEK4 and DEEPSEEK4 not in known.names():
        return _chat_format(config, DEEPSEEK4, _deepseek_kwargs(config))
    if config.prompt_type not in known.names():
        hint = nearest(config.prompt_type, [*known.names(), DEEPSEEK4])
        raise SettingsError(f"--prompt-type: unknown prompt type {config.prompt_type!r}; {hint}")
    return PromptFormat(known.get(config.prompt_type))


def _chat_format(config: PreprocessConfig, name: str, kwargs: dict[str, Any]) -> ChatFormat:
    text = json.dumps(kwargs)
    if name == _TOKENIZERS_OWN:
        return ChatFormat(name, kwargs=text)
    if name in BUILTIN:
        content = (_BUILTIN_FOLDER / f"{name}.jinja").read_text("utf-8")
        return ChatFormat(name, (("default", content),), text)
    if name.endswith((".jinja", ".jinja2", ".j2", ".txt")) or "/" in name:
        try:
            content = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise SettingsError(f"--chat-template: {name}: {why}") from None
        return ChatFormat(name, (("default", content),), text)
    return ChatFormat(name, kwargs=text)  # one of the tokenizer's, by name


def _given_kwargs(config: PreprocessConfig) -> dict[str, Any]:
    """Return ``--chat-template-kwargs``, and ``--enable-thinking`` as templates know it."""
    kwargs = config.template_kwargs()
    if config.enable_thinking != "none":
        value = config.enable_thinking == "true"
        if kwargs.get("enable_thinking", value) != value:
            raise SettingsError(
                f"--chat-template-kwargs: enable_thinking is {json.dumps(kwargs['enable_thinking'])}, "
                f"--enable-thinking is {config.enable_thinking}; expected one of them"
            )
        kwargs["enable_thinking"] = value
    return kwargs


def _deepseek_kwargs(config: PreprocessConfig) -> dict[str, Any]:
    """Return the variables of the prompt type that is a chat template."""
    kwargs: dict[str, Any] = {"thinking": config.enable_thinking == "true"}
    if config.drop_thinking is not None:
        kwargs["drop_thinking"] = config.drop_thinking == "true"
    if config.reasoning_effort is not None:
        kwargs["reasoning_effort"] = config.reasoning_effort
    return kwargs
