"""Whether outputs go together: a joined dataset is one training set.

Two outputs go together if their tokens and labels mean the same: tokenizer, chat format, ids of padding and
of what is not trained, objective, fields, packing, and each setting that is not in :data:`FREE`. Free are
the settings that say which data and how much, and what becomes of single records: they differ between the
sources of one training set by nature. A setting that is new is compared until it stands there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.join.inputs import JoinInput

__all__ = ["FORMATS", "FREE", "PACKING_FREE", "SPLIT", "WHERE_UNPACKED", "check_agreement"]

logger = logging.getLogger(__name__)

#: Settings that may differ, with why.
FREE = {
    "input": "which data",
    "handler_name": "which data",
    "handler_path": "which data",
    "dataset_dir": "which data",
    "map_keys": "which data",
    "max_samples": "how much of it",
    "mix": "how much of it",
    "mix_strategy": "how much of it",
    "interleave_probs": "how much of it",
    "split": "how much of it; the manifest says which side it is",
    "dedup": "how much of it",
    "shuffle": "the order of the items",
    "seed": "the order of the items",
    "render_state": "belongs to one data format",
    "overlong": "what becomes of single records",
    "empty_reply": "what becomes of single records",
    "parity": "what becomes of single records",
    "rejected_records": "what the ledger holds",
    "keep_columns": "the sidecars' columns are compared",
    "json_keys": "the names of the datasets are compared",
    "dataset_additional_keys": "the names of the datasets are compared",
    "tokenizer": "a path: the tokenizer's content is compared",
    "use_fast": "the tokenizer's content is compared",
    "trust_remote_code": "the tokenizer's content is compared",
    "prompt_type": "a name: the chat format's content is compared",
    "prompt_type_path": "a path: the chat format's content is compared",
    "chat_template": "a name: the chat format's content is compared",
    "chat_template_kwargs": "the chat format's content is compared",
    "first_round": "the chat format's content is compared",
    "source_prefix": "the chat format's content is compared",
    "pack": "the manifest's packing is compared",
    "neat_pack": "the manifest's packing is compared",
    "pack_scope": "which samples are packed together",
}
#: Settings of items as they are; where they are packed, its own manifest entry says what they are.
WHERE_UNPACKED = ("seq_length", "pad_to_multiple_of")
#: Entries of the manifest that hold a chat format, with what in them is only a name for it, or differs from
#: day to day.
FORMATS: dict[str, tuple[str, ...]] = {
    "prompt_type": ("name",),
    "chat_template": ("name", "date"),
    "text_form": (),
}
#: What the tokenizer's entry says beside its content: where it lay, how it was opened, what generation ends
#: with.
_TOKENIZER_FREE = ("path", "use_fast", "stop_ids")
#: What the entry on a split says of any run that makes such sides.
SPLIT = ("side", "shares", "seed")
#: What the entry on packing says beside what an item is.
PACKING_FREE = ("window", "fill")
_SHOWN = 160


def check_agreement(inputs: Sequence[JoinInput]) -> None:
    """Refuse inputs that don't go together, and warn of what could not be compared.

    Raises:
        DatasetError: Two inputs differ; the message names them, what differs and both values.
    """
    first = inputs[0]
    for other in inputs[1:]:
        if (first.manifest is None) != (other.manifest is None):
            have, lack = (first, other) if other.manifest is None else (other, first)
            raise DatasetError(
                f"{have.name} has a manifest and {lack.name} has none, so that their tokenizers and "
                "settings can't be compared; expected inputs that all have one, or none"
            )
        _refuse("datasets", first, other, sorted(first.datasets), sorted(other.datasets))
        for name, own in first.datasets.items():
            theirs = other.datasets[name]
            if own.dtype != theirs.dtype:
                raise DatasetError(
                    f"{own.prefix} and {theirs.prefix}: the type of the tokens differs: {own.dtype} and "
                    f"{theirs.dtype}"
                )
        if first.manifest is not None and other.manifest is not None:
            _compare(first, other, first.manifest, other.manifest)
    if first.manifest is None:
        logger.warning(
            "no manifest beside %s: the tokenizers and settings of the inputs could not be compared, and "
            "no manifest is written", first.name,
        )  # fmt: skip


def _compare(first: JoinInput, other: JoinInput, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    for name in ("format", "objective", "fields"):
        _refuse(name, first, other, one[name], two[name])
    left, right = (_without(own["tokenizer"], _TOKENIZER_FREE) for own in (one, two))
    for name in sorted({*left, *right}):
        _refuse(f"tokenizer: {name}", first, other, left.get(name), right.get(name))
    _compare_formats(first, other, one, two)
    for name in ("pad_id", "ignore_index"):
        _refuse(name, first, other, one[name], two[name])
    packed = _compare_packing(first, other, one.get("packing"), two.get("packing"))
    free = {*FREE, *(WHERE_UNPACKED if packed else ())}
    before = _defaults()
    settings = [before | own["settings"] for own in (one, two)]
    for name in sorted({*settings[0], *settings[1]} - free):
        flag = f"--{name.replace('_', '-')}"
        _refuse(flag, first, other, settings[0].get(name), settings[1].get(name))
    _refuse_sides(first, other, one.get("split"), two.get("split"))
    if one.get("version") != two.get("version"):
        logger.warning(
            "%s was made with version %s of this package, %s with %s",
            first.name, one.get("version"), other.name, two.get("version"),
        )  # fmt: skip
    if one["fingerprint"] == two["fingerprint"]:
        logger.warning("%s and %s hold the same data twice (equal fingerprints)", first.name, other.name)


def _compare_formats(
    first: JoinInput, other: JoinInput, one: Mapping[str, Any], two: Mapping[str, Any]
) -> None:
    for kind, names in FORMATS.items():
        left, right = one.get(kind), two.get(kind)
        if left is None or right is None:
            shown = [None if own is None else own.get("name", kind) for own in (left, right)]
            _refuse(f"chat format ({kind})", first, other, *shown)
            continue
        called = [own.get("name", kind) for own in (left, right)]
        left, right = _without(left, names), _without(right, names)
        for name in sorted({*left, *right}):
            what = f"chat format ({kind} {called[0]!r} and {called[1]!r}): {name}"
            _refuse(what, first, other, left.get(name), right.get(name))


def _compare_packing(first: JoinInput, other: JoinInput, one: Any, two: Any) -> bool:
    """Return whether the inputs are packed."""
    if one is None or two is None:
        shown = ["not packed" if own is None else "packed" for own in (one, two)]
        _refuse("packing", first, other, *shown)
        return False
    left, right = _without(one, PACKING_FREE), _without(two, PACKING_FREE)
    for name in sorted({*left, *right}):
        _refuse(f"packing: {name}", first, other, left.get(name), right.get(name))
    return True


def _refuse_sides(first: JoinInput, other: JoinInput, one: Any, two: Any) -> None:
    """Refuse to join what one is trained on and what another is tested with.

    Splits by other shares or seeds put the same dialogue on other sides.
    """
    if one is not None and two is not None:
        for name in SPLIT:
            _refuse(f"{name} of a split", first, other, one.get(name), two.get(name))


def _refuse(what: str, first: JoinInput, other: JoinInput, one: Any, two: Any) -> None:
    if one != two:
        shown = [json.dumps(value, ensure_ascii=False)[:_SHOWN] for value in (one, two)]
        raise DatasetError(
            f"{first.name} and {other.name} don't go together: {what}: {shown[0]} and {shown[1]}; "
            "expected equal ones"
        )


def _without(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


def _defaults() -> dict[str, Any]:
    """Return what settings are where a manifest, of an earlier version, does not name them."""
    # Those without a default are free; so it doesn't matter what stands there.
    return PreprocessConfig(input=("x",), output_prefix="x", tokenizer="x", handler_name="x").shaping()
