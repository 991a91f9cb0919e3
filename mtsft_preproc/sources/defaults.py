"""What the data format brings along where nothing is given, and what does not go with it."""

from __future__ import annotations

import logging
from dataclasses import replace

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers import ConversationHandler, Handler
from mtsft_preproc.sources.find import Sources
from mtsft_preproc.sources.names import canonical

__all__ = ["with_defaults"]

logger = logging.getLogger(__name__)

#: Objectives whose samples ``--append-eod`` closes; pairs and prompts stay as they are, as in the original.
_CLOSED = ("sft", "text")


def with_defaults(config: PreprocessConfig, sources: Sources) -> PreprocessConfig:
    """Return the settings, with what the data format brings along where nothing is given.

    Raises:
        SettingsError: A setting does not go with what the records become.
    """
    name, defaults = sources.choices[0].name, sources.handler.defaults
    _check_objective(config, name, sources.handler)
    taken = [
        f"--{key.replace('_', '-')} {value}"
        for key, value in defaults.items()
        if getattr(config, key) is None and (key != "chat_template" or config.prompt_type is None)
    ]
    if taken:
        logger.info("%s brings along %s", name, " ".join(taken))
    own_format = config.prompt_type is not None or config.chat_template is not None
    seq_length = config.seq_length or defaults.get("seq_length")
    _check_pack(config, seq_length)
    if config.overlong not in (None, "drop") and not seq_length:
        raise SettingsError(f"--overlong {config.overlong}: nothing is too long without --seq-length N")
    return replace(
        config,
        handler_name=canonical(config),
        train_on=config.train_on or defaults.get("train_on", "assistant"),
        overlong=config.overlong or defaults.get("overlong", "drop"),
        seq_length=seq_length,
        append_eod=config.append_eod and sources.handler.objective in _CLOSED,
        chat_template=config.chat_template if own_format else defaults.get("chat_template"),
    )


def _check_pack(config: PreprocessConfig, seq_length: int | None) -> None:
    """Refuse packs of no size, or of one that aligned samples don't fill.

    Args:
        config: The settings.
        seq_length: ``--seq-length``, or what the data format brings along.
    """
    if not config.pack:
        return
    if seq_length is None:
        raise SettingsError("--pack: expected --seq-length N, the tokens of each pack, got none")
    if seq_length % config.pad_to_multiple_of:
        # A sample shorter than that, but not by much, would be longer once it is aligned.
        raise SettingsError(
            f"--seq-length: expected a multiple of --pad-to-multiple-of {config.pad_to_multiple_of} with "
            f"--pack, got {seq_length}"
        )


def _check_objective(config: PreprocessConfig, name: str, handler: Handler) -> None:
    """Refuse settings that would have no effect on what a handler makes."""
    objective = handler.objective
    documents, samples = objective == "text", objective == "sft"
    for flag, given, belongs, right in (
        ("--train-on", config.train_on is not None, samples, "dialogues to fine-tune on"),
        ("--train-on-tools", config.train_on_tools, samples, "dialogues to fine-tune on"),
        ("--overlong", config.overlong not in (None, "drop", "fail"), samples, "dialogues to fine-tune on"),
        ("--empty-reply", config.empty_reply != "keep", not documents, "dialogues"),
        ("--prompt-type", config.prompt_type is not None, not documents, "dialogues"),
        ("--chat-template", config.chat_template is not None, not documents, "dialogues"),
        ("--pack", config.pack, samples, "dialogues to fine-tune on"),
        (
            "--pad-to-multiple-of",
            config.pad_to_multiple_of > 1,
            documents or config.pack,
            "text documents, or to --pack",
        ),
        (
            "--dataset-additional-keys",
            bool(config.dataset_additional_keys),
            objective == "r1",
            "R1 prompts",
        ),
        (
            "--render-state",
            config.render_state,
            isinstance(handler, ConversationHandler),
            "conversations with states",
        ),
    ):
        if given and not belongs:
            raise SettingsError(f"{flag}: belongs to handlers of {right}; {name} is none")
    if config.train_on == "full" and (config.overlong == "window" or config.parity == "split"):
        other = "--overlong window" if config.overlong == "window" else "--parity split"
        raise SettingsError(
            f"--train-on full: with {other} the same words would be trained in several samples; expected "
            "another of the two"
        )
    for flag, given in (
        ("--append-eod", config.append_eod and objective not in _CLOSED),
        ("--json-keys", config.json_keys != ("text",) and not documents),
    ):
        if given:
            logger.warning("%s has no effect: %s is made of the records", flag, objective)
