"""The sources as the user named them, with their weights."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers import handlers, load_user_handlers, read_dataset_info
from mtsft_preproc.mix_spec import SpecEntry, make_mix, read_mix_spec
from mtsft_preproc.mixing import Mix
from mtsft_preproc.registry import nearest

__all__ = [
    "AUTO",
    "DATASET_INFO",
    "NO_DATASET_INFO",
    "asked",
    "canonical",
    "full_name",
    "named_mix",
    "origin",
]

logger = logging.getLogger(__name__)

#: What ``--handler-name`` takes besides handlers: find the format; look it up in ``dataset_info.json``.
AUTO = "auto"
DATASET_INFO = "LlamaFactoryInstructionHandler"
_DATASET_INFO_ALIAS = "llama-factory"
#: Why that is nothing for a mix file.
NO_DATASET_INFO = (
    f"{DATASET_INFO} can't be in --mix, as its sources stand in dataset_info.json; expected the handler of "
    "the files themselves, or names of datasets as --input with --mix-strategy and --interleave-probs"
)


def origin(config: PreprocessConfig) -> str:
    """Return where the user named the inputs, for an error message: ``--input: a.jsonl, b.jsonl``."""
    return f"--input: {', '.join(config.input)}" if config.mix is None else f"--mix: {config.mix}"


def canonical(config: PreprocessConfig) -> str:
    """Return the full name of the handler of the run.

    Raises:
        SettingsError: There is none of that name, or it can't be that of a mix.
    """
    if config.handler_path is not None:
        load_user_handlers(config.handler_path)
    name = full_name(config.handler_name, "--handler-name")
    if config.mix is not None and name == DATASET_INFO:
        raise SettingsError(f"--handler-name: {NO_DATASET_INFO}")
    return name


def full_name(name: str, where: str) -> str:
    """Return the full name of a handler.

    Args:
        name: A name or alias.
        where: What the user wrote it behind, for the message.

    Raises:
        SettingsError: There is none of that name.
    """
    own = {AUTO: AUTO, DATASET_INFO: DATASET_INFO, _DATASET_INFO_ALIAS: DATASET_INFO}
    if name in own:
        return own[name]
    known = [*handlers.names(), *(alias for full in handlers.names() for alias in handlers.aliases(full))]
    if name not in known:
        hint = nearest(name, [*known, *own])
        raise SettingsError(f"{where}: unknown handler {name!r}; {hint}")
    return handlers.canonical(name)


def asked(config: PreprocessConfig, name: str) -> tuple[list[SpecEntry], Mix]:
    """Return the sources as the user named them, and their mix.

    Args:
        config: The settings.
        name: Full name of the handler of the run.
    """
    weights_by = "samples"
    if config.mix is not None:
        spec = read_mix_spec(config.mix, config.mix_strategy)
        entries, weights_by = list(spec.entries), spec.weights_by
    elif name == DATASET_INFO:
        entries = [
            SpecEntry(each.name, (each.path,), each.handler, each.map_keys, max_samples=each.max_samples)
            for each in read_dataset_info(config.dataset_dir, ",".join(config.input))
        ]
    else:
        entries = [SpecEntry(given, (given,)) for given in config.input]
    return named_mix(config, entries, weights_by)


def named_mix(
    config: PreprocessConfig, entries: list[SpecEntry], weights_by: str = "samples"
) -> tuple[list[SpecEntry], Mix]:
    """Return sources, each with a name of its own and its weight, and their mix.

    Args:
        config: The settings.
        entries: The sources.
        weights_by: What their weights are shares of.

    Raises:
        SettingsError: ``--interleave-probs`` has not a share for each.
    """
    entries = _told_apart(entries)
    if config.interleave_probs:
        if len(config.interleave_probs) != len(entries):
            raise SettingsError(
                f"--interleave-probs: expected a share for each of the {len(entries)} sources "
                f"({', '.join(entry.name for entry in entries)}), got {len(config.interleave_probs)}"
            )
        entries = [
            replace(entry, weight=share)
            for entry, share in zip(entries, config.interleave_probs, strict=True)
        ]
    strategy = config.mix_strategy
    if strategy != "concat" and len(entries) == 1:
        logger.warning(
            "--mix-strategy %s has no effect: there is one source, %s", strategy, entries[0].name
        )
        strategy, entries = "concat", [replace(entries[0], weight=None)]
    return entries, make_mix(entries, strategy, weights_by)


def _told_apart(entries: list[SpecEntry]) -> list[SpecEntry]:
    """Return the sources with ``#2`` behind the second of a name, ``#3`` behind the third."""
    taken = {entry.name for entry in entries}
    seen: Counter[str] = Counter()
    found = []
    for entry in entries:
        seen[entry.name] += 1
        name, number = entry.name, seen[entry.name]
        if number > 1:
            name = f"{entry.name}#{number}"
            while name in taken:
                number += 1
                name = f"{entry.name}#{number}"
            taken.add(name)
            seen[entry.name] = number
        found.append(replace(entry, name=name))
    return found
