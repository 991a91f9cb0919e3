"""The inputs of a run, each with the handler that reads it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError, SettingsError
from mtsft_preproc.handlers import (
    ConversationHandler,
    Handler,
    HandlerChoice,
    check_columns,
    check_kept,
    detect,
    first_records,
    handlers,
    load_user_handlers,
    make_handler,
    read_dataset_info,
    user_file_sha256,
)
from mtsft_preproc.readers import InputFile, find_inputs
from mtsft_preproc.registry import nearest

__all__ = ["AUTO", "DATASET_INFO", "Sources", "find_sources", "with_defaults"]

logger = logging.getLogger(__name__)

#: What ``--handler-name`` takes besides handlers: find the format; look it up in ``dataset_info.json``.
AUTO = "auto"
DATASET_INFO = "LlamaFactoryInstructionHandler"
_DATASET_INFO_ALIAS = "llama-factory"

#: Objectives whose samples ``--append-eod`` closes; pairs and prompts stay as they are, as in the original.
_CLOSED = ("sft", "text")


@dataclass(frozen=True)
class Sources:
    """The inputs.

    Attributes:
        files: All files, in the order in which they are read.
        choices: The handler of each.
        limits: The most records that are read of each, or None for all.
        handler: That of the first file. All have its objective, defaults and text form.
    """

    files: list[InputFile]
    choices: tuple[HandlerChoice, ...]
    limits: tuple[int | None, ...]
    handler: Handler


def find_sources(config: PreprocessConfig) -> Sources:
    """Find the files and their handlers, and check that they go together.

    Raises:
        MtsftError: Something is missing, or does not fit.
    """
    name = _canonical(config)
    if config.dataset_dir is not None and name != DATASET_INFO:
        raise SettingsError(f"--dataset-dir: belongs to --handler-name {DATASET_INFO} alone")
    limits: list[int | None] = []
    if name == DATASET_INFO:
        files, choices = [], []
        for entry in read_dataset_info(config.dataset_dir, ",".join(config.input)):
            own = find_inputs([entry.path])
            files += own
            choices += [HandlerChoice(entry.handler, _json(entry.map_keys))] * len(own)
            limits += [entry.max_samples] * len(own)
            if entry.max_samples is not None and len(own) > 1:
                raise SettingsError(
                    f"--dataset-dir: {entry.name}: num_samples of a folder with {len(own)} files; "
                    "expected a single file"
                )
    else:
        files = find_inputs(config.input)
        limits = [None] * len(files)
        if name == AUTO:
            choices = _detected(files, config)
        else:
            own_file = config.handler_path and user_file_sha256(config.handler_path)
            choices = [HandlerChoice(name, _json(config.mapped()), own_file)] * len(files)
    made = {choice: make_handler(config, choice) for choice in dict.fromkeys(choices)}
    check_kept(config.keep_columns, files)
    for choice, handler in made.items():
        check_columns(handler, [file for file, own in zip(files, choices, strict=True) if own == choice])
    handler = made[choices[0]]
    for choice, other in made.items():
        _check_alike(choices[0].name, handler, choice.name, other)
    return Sources(files, tuple(choices), tuple(limits), handler)


def _canonical(config: PreprocessConfig) -> str:
    """Return the full name of the handler.

    Raises:
        SettingsError: There is none of that name.
    """
    if config.handler_path is not None:
        load_user_handlers(config.handler_path)
    name = config.handler_name
    own = {AUTO: AUTO, DATASET_INFO: DATASET_INFO, _DATASET_INFO_ALIAS: DATASET_INFO}
    if name in own:
        return own[name]
    known = [*handlers.names(), *(alias for full in handlers.names() for alias in handlers.aliases(full))]
    if name not in known:
        hint = nearest(name, [*known, *own])
        raise SettingsError(f"--handler-name: unknown handler {name!r}; {hint}")
    return handlers.canonical(name)


def _detected(files: list[InputFile], config: PreprocessConfig) -> list[HandlerChoice]:
    """Return the handler of each file by its first records; one without records takes that of another."""
    found: list[HandlerChoice | None] = []
    for file in files:
        records = first_records(file)
        found.append(_detected_in(file, records, config) if records else None)
    filled = [choice for choice in found if choice is not None]
    if not filled:
        raise InputError(f"--input: {', '.join(config.input)}: no records")
    return [choice or filled[0] for choice in found]


def _detected_in(file: InputFile, records: list[dict[str, Any]], config: PreprocessConfig) -> HandlerChoice:
    try:
        found = detect(records)
    except SettingsError as error:
        raise SettingsError(f"{file.path}: {error}") from None
    given = config.mapped()
    map_keys = {**found.map_keys, **given}
    if isinstance(given.get("tags"), dict):
        map_keys["tags"] = {**found.map_keys.get("tags", {}), **given["tags"]}
    logger.info(
        "%s: taken for %s%s: %s", file.path, found.handler,
        f" with --map-keys '{_json(map_keys)}'" if map_keys else "", found.why,
    )  # fmt: skip
    return HandlerChoice(found.handler, _json(map_keys))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_alike(name: str, one: Handler, other_name: str, other: Handler) -> None:
    """Refuse inputs whose samples can't stand in one output."""
    for what, left, right in (
        ("become", one.objective, other.objective),
        ("bring along the settings", dict(one.defaults), dict(other.defaults)),
        ("bring along the text form", one.text_form, other.text_form),
    ):
        if left != right:
            raise SettingsError(
                f"--input: files that don't go together: those of {name} {what} {left}, "
                f"those of {other_name} {right}; expected one run for each kind"
            )


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
    if config.overlong not in (None, "drop") and not (config.seq_length or defaults.get("seq_length")):
        raise SettingsError(f"--overlong {config.overlong}: nothing is too long without --seq-length N")
    return replace(
        config,
        handler_name=_canonical(config),
        train_on=config.train_on or defaults.get("train_on", "assistant"),
        overlong=config.overlong or defaults.get("overlong", "drop"),
        seq_length=config.seq_length or defaults.get("seq_length"),
        append_eod=config.append_eod and sources.handler.objective in _CLOSED,
        chat_template=config.chat_template if own_format else defaults.get("chat_template"),
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
        ("--pad-to-multiple-of", config.pad_to_multiple_of > 1, documents, "text documents"),
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
