"""The files of a run, each with its source and the handler that reads it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError, SettingsError
from mtsft_preproc.handlers import (
    Handler,
    HandlerChoice,
    check_columns,
    check_kept,
    detect,
    first_records,
    load_user_handlers,
    make_handler,
    user_file_sha256,
)
from mtsft_preproc.mix_spec import SpecEntry
from mtsft_preproc.mixing import Mix
from mtsft_preproc.readers import InputFile, ReadingRules, find_inputs
from mtsft_preproc.sources.names import (
    AUTO,
    DATASET_INFO,
    NO_DATASET_INFO,
    asked,
    canonical,
    full_name,
    origin,
)

__all__ = ["Sources", "find_sources"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """The inputs.

    Attributes:
        files: All files, in the order in which they are read: source by source.
        choices: The handler of each.
        owners: The number of the source that each belongs to, ascending.
        mix: The sources, and how they are mixed.
        handler: That of the first file. All have its objective, defaults and text form.
    """

    files: list[InputFile]
    choices: tuple[HandlerChoice, ...]
    owners: tuple[int, ...]
    mix: Mix
    handler: Handler


def find_sources(config: PreprocessConfig) -> Sources:
    """Find the files and their handlers, and check that they go together.

    Each entry of ``--input`` is a source, named as it was given; the second of one name is ``NAME#2``. So
    is each name of ``dataset_info.json``. With ``--mix``, they stand in that file. Two sources may have
    files in common, which are then read for each.

    Raises:
        MtsftError: Something is missing, or does not fit.
    """
    name = canonical(config)
    if config.dataset_dir is not None and name != DATASET_INFO:
        raise SettingsError(f"--dataset-dir: belongs to --handler-name {DATASET_INFO} alone")
    entries, mix = asked(config, name)
    rules = ReadingRules(config.record_bytes, config.on_error == "skip")
    files: list[InputFile] = []
    found: list[HandlerChoice | None] = []
    owners: list[int] = []
    for number, entry in enumerate(entries):
        with _about(config, entry.name):
            own = find_inputs(entry.inputs, rules)
            found += _choices(own, entry, name, config)
        files += own
        owners += [number] * len(own)
    _warn_of_common_files(files, owners, mix)
    choices = _filled(found, files, owners, config)
    check_kept(config.keep_columns, files)
    made = _made(choices, files, [mix.sources[owner].name for owner in owners], config)
    for choice, other in made.items():
        _check_alike(choices[0].name, made[choices[0]], choice.name, other, config)
    return Sources(files, tuple(choices), tuple(owners), mix, made[choices[0]])


@contextmanager
def _about(config: PreprocessConfig, *names: str) -> Iterator[None]:
    """Put the mix file and its source in front of what is wrong; without ``--mix``, leave it as it is."""
    try:
        yield
    except (InputError, SettingsError) as error:
        if config.mix is None:
            raise
        reason = str(error.args[0]).removeprefix("--input: ")
        own = list(dict.fromkeys(names))
        source = "source " if len(own) == 1 else "sources "
        shown = source + " and ".join(map(repr, own))
        raise type(error)(f"--mix: {config.mix}: {shown}: {reason}") from None


def _choices(
    files: list[InputFile], entry: SpecEntry, name: str, config: PreprocessConfig
) -> list[HandlerChoice | None]:
    """Return the handler of each file of a source; None where that is to be found, and has no records."""
    map_keys = config.mapped() if entry.map_keys is None else entry.map_keys
    if entry.handler is not None:
        name = full_name(entry.handler, "field 'handler'")
        if name == DATASET_INFO:
            raise SettingsError(f"field 'handler': {NO_DATASET_INFO}")
    if name == AUTO:
        return [_detected(file, map_keys) for file in files]
    own_file = None
    if config.handler_path is not None and name in load_user_handlers(config.handler_path):
        own_file = user_file_sha256(config.handler_path)
    return [HandlerChoice(name, _json(map_keys), own_file)] * len(files)


def _detected(file: InputFile, given: dict[str, Any]) -> HandlerChoice | None:
    """Return the handler of a file by its first records, or None where it has none."""
    records = first_records(file)
    if not records:
        return None
    try:
        found = detect(records)
    except SettingsError as error:
        raise SettingsError(f"{file.path}: {error}") from None
    map_keys = {**found.map_keys, **given}
    if isinstance(given.get("tags"), dict):
        map_keys["tags"] = {**found.map_keys.get("tags", {}), **given["tags"]}
    logger.info(
        "%s: taken for %s%s: %s", file.path, found.handler,
        f" with --map-keys '{_json(map_keys)}'" if map_keys else "", found.why,
    )  # fmt: skip
    return HandlerChoice(found.handler, _json(map_keys))


def _filled(
    found: list[HandlerChoice | None], files: list[InputFile], owners: list[int], config: PreprocessConfig
) -> list[HandlerChoice]:
    """Give a file without records the handler of another: of its source, if one there has records."""
    first: dict[int, HandlerChoice] = {}
    for choice, owner in zip(found, owners, strict=True):
        if choice is not None:
            first.setdefault(owner, choice)
    if not first:
        raise InputError(f"{origin(config)}: no records{_how_many_unreadable(files)}")
    any_one = first[min(first)]
    return [choice or first.get(owner, any_one) for choice, owner in zip(found, owners, strict=True)]


def _how_many_unreadable(files: list[InputFile]) -> str:
    if not any(file.rules.past_damage and file.size for file in files):
        return ""
    return " that can be read; without --on-error skip, what is damaged is named"


def _made(
    choices: list[HandlerChoice], files: list[InputFile], names: list[str], config: PreprocessConfig
) -> dict[HandlerChoice, Handler]:
    """Return the handlers, each checked against the columns of its files.

    Args:
        choices: The handler of each file.
        files: The files.
        names: The name of each file's source.
        config: The settings.
    """
    made: dict[HandlerChoice, Handler] = {}
    for choice in dict.fromkeys(choices):
        own = [number for number, other in enumerate(choices) if other == choice]
        with _about(config, *(names[number] for number in own)):
            made[choice] = make_handler(config, choice)
            check_columns(made[choice], [files[number] for number in own])
    return made


def _warn_of_common_files(files: list[InputFile], owners: list[int], mix: Mix) -> None:
    readers_of: dict[str, dict[int, None]] = {}
    for file, owner in zip(files, owners, strict=True):
        readers_of.setdefault(os.path.realpath(file.path), {})[owner] = None
    for path, numbers in readers_of.items():
        if len(numbers) > 1:
            names = ", ".join(mix.sources[number].name for number in numbers)
            logger.warning("%s is in %d sources (%s) and is read for each", path, len(numbers), names)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_alike(
    name: str, one: Handler, other_name: str, other: Handler, config: PreprocessConfig
) -> None:
    """Refuse inputs whose samples can't stand in one output."""
    flag = "--input" if config.mix is None else origin(config)
    for what, left, right in (
        ("become", one.objective, other.objective),
        ("bring along the settings", dict(one.defaults), dict(other.defaults)),
        ("bring along the text form", one.text_form, other.text_form),
    ):
        if left != right:
            raise SettingsError(
                f"{flag}: files that don't go together: those of {name} {what} {left}, "
                f"those of {other_name} {right}; expected one run for each kind"
            )
