"""How the samples of a finished dataset were encoded, out of its manifest."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc._version import __version__
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.inspection.reencoding.inputs import HASHES
from mtsft_preproc.join.agreement import FORMATS
from mtsft_preproc.join.inputs import has_manifest, read_manifest

__all__ = ["Recipe", "recipes_of"]

logger = logging.getLogger(__name__)

#: Settings that decide what tokens a record becomes. The others say which data, in which order, or how to
#: go about it; the manifest tells handlers and columns file by file, and has an entry on the tokenizer.
_ENCODING = (
    "handler_path", "json_keys", "dataset_additional_keys", "render_state", "first_round", "source_prefix",
    "prompt_type", "prompt_type_path", "chat_template", "chat_template_kwargs", "parity", "train_on",
    "train_on_tools", "empty_reply", "enable_thinking", "drop_thinking", "reasoning_effort", "seq_length",
    "overlong", "append_eod", "pad_to_multiple_of", "pack", "ignore_index", "special_tokens_in_text",
    "max_record_mb",
)  # fmt: skip
#: Settings that decide what else of a record is read, and so whether it is too large. Merged datasets may
#: have had other ones, which their manifests tell; where these are gone, what encodes alone is read.
_READING = ("keep_columns", "rejected_records")
#: Settings that the manifest holds as JSON does.
_LISTS = ("json_keys", "dataset_additional_keys", "keep_columns")
_OBJECTS = ("chat_template_kwargs",)
#: What an entry on a file of input says of its content and of how it becomes dialogues.
_OF_A_FILE = ("bytes", *HASHES, "handler", "map_keys")


@dataclass(frozen=True)
class Recipe:
    """How some of a dataset's samples were encoded.

    Attributes:
        manifest: The manifest that tells it: that of the dataset, or of one that it was made of.
        config: The settings; only what reading and encoding look at is meant.
        inputs: The manifest's entries on the files that the samples came from.
    """

    manifest: Mapping[str, Any]
    config: PreprocessConfig
    inputs: tuple[Mapping[str, Any], ...]

    def entry(self, source: str | None, path: str) -> Mapping[str, Any] | None:
        """Return the entry on a file of a source, or None where there is none.

        Args:
            source: Name of the source; None for any.
            path: Path of the file, as the manifest has it.
        """
        for own in self.inputs:
            if own["path"] == path and source in (None, own["source"]):
                return own
        return None

    def encodes_as(self, entry: Mapping[str, Any]) -> str:
        """Return what decides the samples of a file: two recipes of which it is the same are as one.

        Where a dataset or its tokenizer lay, and the names of sources, are left out.

        Args:
            entry: The entry on the file.
        """
        settings = {name: getattr(self.config, name) for name in (*_ENCODING, *_READING)}
        about = {name: self.manifest.get(name) for name in (*FORMATS, "handler_file")}
        tokenizer = {**self.manifest["tokenizer"], "path": None}
        own = {name: entry.get(name) for name in _OF_A_FILE}
        return json.dumps([settings, about, tokenizer, own], sort_keys=True)


def recipes_of(prefix: Path, manifest: Mapping[str, Any]) -> list[Recipe]:
    """Return how the samples of a dataset were encoded.

    A dataset that was merged or repacked says what it was made of. If these datasets are still there, their
    manifests tell the settings; if not, its own does, as far as they had the same.

    Args:
        prefix: Its output prefix.
        manifest: Its manifest.

    Raises:
        DatasetError: The manifest does not tell all that is needed.
    """
    _warn_of_version(prefix, manifest)
    merged, repacked = manifest.get("merged"), manifest.get("repacked")
    if not merged and not repacked:
        return [_recipe(prefix, manifest, manifest["settings"])]
    found: list[Recipe] = []
    parts = merged or repacked or []
    for part in parts:
        known = _manifest_of_part(prefix, part)
        if known is not None:
            found += recipes_of(*known)
        elif merged or len(parts) == 1:
            settings = _with_packing(manifest)
            found.append(_recipe(prefix, manifest, {**settings, **_settings_before(repacked)}))
        else:
            raise DatasetError(
                f"{prefix}: was repacked from several datasets, and {part['prefix']}.manifest.json, which "
                "tells the settings of one of them, is not there, or is another dataset's by now"
            )
    return found


def _settings_before(repacked: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return the settings that packing anew replaced, as they were when the samples were encoded."""
    while repacked:
        [part, *_] = repacked
        if not part.get("repacked"):
            return dict(part["settings"])
        repacked = part["repacked"]
    return {}


def _with_packing(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings; what packs are, which may differ elsewhere, its own entry tells."""
    packing = manifest.get("packing")
    if packing is None:
        return dict(manifest["settings"])
    own = {"seq_length": packing["seq_length"], "pad_to_multiple_of": packing["multiple"], "pack": True}
    return {**own, **manifest["settings"]}


def _manifest_of_part(prefix: Path, part: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return prefix and manifest of a dataset that another was made of, if it is where it was, or beside.

    Raises:
        DatasetError: Its manifest is malformed.
    """
    for place in (Path(part["prefix"]), prefix.with_name(Path(part["prefix"]).name)):
        if has_manifest(place):
            manifest = read_manifest(place)
            if manifest["fingerprint"] == part["fingerprint"]:
                return place, manifest
    return None


def _recipe(prefix: Path, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    if missing := [name for name in _ENCODING if name not in settings]:
        raise DatasetError(
            f"{prefix}.manifest.json: tells no {', '.join(missing)}: the datasets that it was made of had "
            "not the same there, and their manifests are not there"
            if manifest.get("merged") or manifest.get("repacked")
            else f"{prefix}.manifest.json: tells no {', '.join(missing)}; made by an older version?"
        )
    values = {name: settings[name] for name in (*_ENCODING, *_READING) if name in settings}
    values |= {name: tuple(values[name]) for name in _LISTS if name in values}
    values |= {name: json.dumps(values[name]) for name in _OBJECTS}
    config = PreprocessConfig(
        input=("-",),  # the entries tell them
        output_prefix=str(prefix),
        tokenizer=manifest["tokenizer"]["path"],
        handler_name=manifest["inputs"][0]["handler"],
        **values,
    )
    return Recipe(manifest, config, tuple(manifest["inputs"]))


def _warn_of_version(prefix: Path, manifest: Mapping[str, Any]) -> None:
    if manifest["version"] != __version__:
        logger.warning(
            "%s was made by version %s of this package, this is %s, which may encode otherwise",
            prefix, manifest["version"], __version__,
        )  # fmt: skip
