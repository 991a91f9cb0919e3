"""The chat format that the settings name: a prompt type, or a chat template."""

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
from mtsft_preproc.templates.token_batch import Template
from mtsft_preproc.tokenization import Adjustment, Encoder, TokenizerSpec

__all__ = ["BUILTIN", "ChatFormat", "Format", "PromptFormat", "make_format"]

_BUILTIN_FOLDER = Path(__file__).with_name("builtin")
#: Chat templates of the package, by name.
BUILTIN = tuple(sorted(path.stem for path in _BUILTIN_FOLDER.glob("*.jinja")))
#: The template in the tokenizer's folder.
_TOKENIZERS_OWN = "tokenizer"


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
        return {"prompt_type": json.loads(json.dumps(asdict(self.prompt_type), default=repr))}

    def open(self, encoder: Encoder, config: PreprocessConfig) -> Template:
        """Compile it for an encoder."""
        return PromptTemplate(
            self.prompt_type,
            encoder,
            config.special_tokens_in_text,
            config.enable_thinking,
            config.append_eod,
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
            self.renderer(), encoder, config.special_tokens_in_text, config.parity, config.append_eod
        )


def make_format(config: PreprocessConfig) -> Format:
    """Return the format that the settings name.

    Raises:
        SettingsError: There is none, or settings don't go together.
        TemplateError: A file with formats is malformed.
    """
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
