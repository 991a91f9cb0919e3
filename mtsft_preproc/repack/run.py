"""Runs it."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import Any

from mtsft_preproc._version import __version__
from mtsft_preproc.arrange import ArrangementSettings, PackSettings
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding import SampleEncoder
from mtsft_preproc.engines import engine_name, make_engine
from mtsft_preproc.errors import DatasetError, RejectedDataError, SettingsError
from mtsft_preproc.finish import RunResult, gather_outputs, publish_outputs
from mtsft_preproc.indexed import bin_path, idx_path
from mtsft_preproc.join.agreement import SPLIT
from mtsft_preproc.join.inputs import JoinInput, refuse_own_inputs
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.manifest import RESULTS, Facts
from mtsft_preproc.mix_spec import SpecEntry
from mtsft_preproc.publish import clear
from mtsft_preproc.repack.inputs import check_tokens, open_inputs
from mtsft_preproc.repack.samples import FinishedSamples
from mtsft_preproc.sources import named_mix
from mtsft_preproc.timings import Timings
from mtsft_preproc.work import (
    finish_interrupted,
    hold,
    left_over,
    make_folder,
    open_work,
    refuse_finished,
)

__all__ = ["OVERLONG", "check_overlong", "repack"]

logger = logging.getLogger(__name__)

#: What may become of samples that are too long for the packs.
OVERLONG = ("drop", "fail")
#: Settings of the datasets that those of the packing take the place of.
_REPLACED = (
    "seq_length", "pack", "neat_pack", "pack_scope", "pad_to_multiple_of", "mix", "mix_strategy",
    "interleave_probs", "split", "shuffle", "dedup", "seed",
)  # fmt: skip


def repack(config: PreprocessConfig) -> RunResult:
    """Pack finished datasets anew.

    Args:
        config: The settings; ``input`` are output prefixes, and ``pack`` says whether samples are packed or
            stand alone. What only encoding needs is not looked at.

    Raises:
        MtsftError: The inputs are no datasets that can be packed together, or settings are wrong. No output
            appears.
    """
    started = time.monotonic()
    timings = Timings("repack", config.workers, engine_name(config.engine, config.workers))
    _check(config)
    paths = OutputPaths(config.prefix)
    finished = finish_interrupted(paths, config.restart)
    done = finished.manifest if finished else None
    if finished is None:
        refuse_finished([paths], [], config.overwrite)
    inputs = open_inputs(config)
    facts, samples = _facts(config, inputs)
    if done is not None and done["fingerprint"] == facts.fingerprint:
        return RunResult(paths.prefix, done, time.monotonic() - started)
    make_folder(paths)
    sides = [paths.side(side) for side in facts.settings.sides]
    with hold(paths, facts.settings.sides):
        refuse_finished([paths, *sides], [own.name for own in facts.datasets], config.overwrite)
        _refuse_own_inputs(inputs, facts, [paths, *sides])
        open_work(paths, facts.fingerprint, dict(facts.identity), config.restart)
        try:
            with timings.profile.phase("check"):
                check_tokens(inputs, config.workers)
            with timings.profile.phase("gather"), make_engine(config.engine, config.workers) as engine:
                survey = samples.survey(paths.survey, facts.settings.questions())
                outputs = gather_outputs(facts, survey, paths, [], engine)
            with timings.profile.phase("publish"):
                blocks = samples.blocks()
                manifest = publish_outputs(facts, survey, outputs, blocks, paths, samples.kept, timings)
        except (DatasetError, RejectedDataError, SettingsError):
            # With these settings and datasets there is nothing to take up.
            clear(paths.work)
            raise
    seconds = time.monotonic() - started
    return RunResult(paths.prefix, manifest, seconds, profile=timings.profile)


def check_overlong(rule: str) -> None:
    """Refuse a rule for what is too long that needs more than finished samples.

    Raises:
        SettingsError: It is none of :data:`OVERLONG`.
    """
    if rule not in OVERLONG:
        raise SettingsError(
            f"--overlong: expected {' or '.join(OVERLONG)} for samples that are finished, got {rule!r}"
        )


def _check(config: PreprocessConfig) -> None:
    check_overlong(config.overlong or "drop")
    if config.pack != (config.seq_length is not None):
        raise SettingsError("--seq-length: expected it for packs, and none for --unpacked samples")
    multiple = config.pad_to_multiple_of
    if multiple > 1 and not config.pack:
        raise SettingsError(
            "--pad-to-multiple-of: belongs to packs; samples stand as they are with --unpacked"
        )
    if config.seq_length is not None and config.seq_length % multiple:
        # A sample shorter than that, but not by much, would be longer once it is aligned.
        raise SettingsError(
            f"--seq-length: expected a multiple of --pad-to-multiple-of {multiple}, got {config.seq_length}"
        )


def _libraries(manifests: list[dict[str, Any]]) -> dict[str, str]:
    """Return the versions of the libraries that the tokens come from, where they are the same for all."""
    first: dict[str, str] = manifests[0].get("libraries", {})
    return first if all(own.get("libraries") == first for own in manifests) else {}


def _refuse_own_inputs(inputs: list[JoinInput], facts: Facts, outputs: list[OutputPaths]) -> None:
    """Refuse to replace, or to take away, what is read."""
    names = set(left_over(outputs[0], set(), outputs[1:]))
    for own in outputs:
        names |= {own.manifest.name, own.rejected.name, own.sources.name}
        pairs = [own.dataset(dataset.name) for dataset in facts.datasets]
        names |= {path(pair).name for pair in pairs for path in (bin_path, idx_path)}
    refuse_own_inputs(inputs, outputs[0].folder, names)


def _facts(config: PreprocessConfig, inputs: list[JoinInput]) -> tuple[Facts, FinishedSamples]:
    """Return what is made, and the samples that it is made of."""
    manifests = [own.manifest for own in inputs if own.manifest is not None]
    first = manifests[0]
    packing = PackSettings.of(config)
    samples = FinishedSamples(inputs, packing, config.overlong or "drop", int(first["ignore_index"]))
    _, mix = named_mix(config, [SpecEntry(name, (name,)) for name in samples.sources])
    settings = ArrangementSettings.of(config, mix)
    identity = {name: value for name, value in first.items() if name not in RESULTS}
    own_settings = config.shaping()
    identity |= {
        "version": __version__,
        "settings": {**first["settings"], **{name: own_settings[name] for name in _REPLACED}},
        "inputs": [entry for manifest in manifests for entry in manifest["inputs"]],
        "repacked": [
            {
                "prefix": own.name,
                "fingerprint": manifest["fingerprint"],
                "settings": {name: manifest["settings"].get(name) for name in _REPLACED},
                "files": {name: entry["sha256"] for name, entry in manifest["files"].items()},
                # With what settings the samples were encoded, the innermost entry says.
                **({"repacked": manifest["repacked"]} if "repacked" in manifest else {}),
            }
            for own, manifest in zip(inputs, manifests, strict=True)
        ],
        "overlong": config.overlong or "drop",
    }
    if not config.split and all("split" in manifest for manifest in manifests):
        identity["split"] = {name: first["split"].get(name) for name in SPLIT}
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    facts = Facts(
        identity=identity,
        fingerprint=fingerprint,
        objective="sft",
        datasets=SampleEncoder.datasets,
        settings=settings,
        pad_id=int(first["pad_id"]),
        ignore_index=int(first["ignore_index"]),
        turn_ends=first.get("turn_ends", []),
        libraries=_libraries(manifests),
        inputs=samples.files,
    )
    return facts, samples
