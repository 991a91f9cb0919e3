"""The datasets of one output: their structure, their tokens, and the samples in them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mtsft_preproc.inspection.verify.counts import check_output_counts
from mtsft_preproc.inspection.verify.manifest_file import datasets_of
from mtsft_preproc.inspection.verify.pairs import Pair, check_equal_lengths, open_pair
from mtsft_preproc.inspection.verify.report import Check, Report
from mtsft_preproc.inspection.verify.samples import Samples, Spans, check_packs, check_singles, read_samples
from mtsft_preproc.inspection.verify.tokens import Group, Rules, Seen, all_of, check_tokens
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.templates import text_forms

__all__ = ["check_datasets"]

_IDS, _LABELS, _MASK = "packed_input_ids", "packed_labels", "packed_attention_mask"
_SIDES = ("packed_chosen_", "packed_rejected_")


def check_datasets(
    report: Report,
    paths: OutputPaths,
    manifest: Mapping[str, Any],
    whole: set[str],
    threads: ThreadPoolExecutor,
) -> Samples | None:
    """Look at the datasets of an output.

    Args:
        report: Takes what is found.
        paths: The output.
        manifest: Its manifest; not that of a run that was split.
        whole: Names of the files whose bytes are those that the manifest tells of.
        threads: Look at tokens.

    Returns:
        The samples; None where the sidecar can't be read.
    """
    name = paths.prefix.name
    pairs = None
    with report.check("index", name) as check:
        pairs = _open(check, paths, manifest)
    samples = spans = None
    with report.check("samples", name) as check:
        if paths.sources.name not in whole:
            check.skip(f"samples: {paths.sources.name} is not the file that the manifest tells of")
        elif pairs is None:
            check.skip("samples: an index is damaged")
        else:
            samples, spans = _samples(check, paths, manifest, pairs)
    seen = None
    with report.check("tokens", name) as check:
        if pairs is None:
            check.skip("tokens: an index is damaged")
        else:
            seen = _tokens(check, manifest, pairs, spans, threads)
            if samples is not None and seen is not None:
                _compare_trained(check, manifest, samples, spans, seen)
    with report.check("counts", name) as check:
        if samples is None or pairs is None or seen is None:
            check.skip("counts: the datasets or the samples can't be read")
        else:
            text = manifest["objective"] == "text"  # empty texts have no item, but their place is counted
            items = len(samples.item) if text else len(_lengths(manifest, pairs)[0].lengths)
            check_output_counts(check, paths.manifest.name, manifest, items, samples, seen.total)
    return samples


def _open(check: Check, paths: OutputPaths, manifest: Mapping[str, Any]) -> dict[str, Pair] | None:
    """Open the pairs, by name; None where an index is damaged, or they don't fit each other."""
    pairs: dict[str, Pair] = {}
    # Prompts, and what stands beside them, may be empty.
    empty = manifest["objective"] in ("ppo", "r1")
    names = datasets_of(manifest)
    for name in names:
        prefix = paths.dataset(name)
        with check.guard(f"{prefix.name}.idx"):
            pair = open_pair(check, prefix, empty)
            if pair is not None:
                pairs[name] = pair
    check.checked = (
        f"{len(names)} datasets, {sum(pair.tokens for pair in pairs.values()) * 4 / 1e6:,.1f} MB of tokens"
    )
    return pairs if len(pairs) == len(names) and _fit(check, manifest, pairs) else None


def _fit(check: Check, manifest: Mapping[str, Any], pairs: Mapping[str, Pair]) -> bool:
    """Look whether datasets have the lengths that they must have; return it."""
    fits = [check_equal_lengths(check, pairs[name], pairs[like]) for name, like in _alike(manifest)]
    if manifest["objective"] != "text":
        first, *others = _lengths(manifest, pairs)
        for own in others:
            if len(own.lengths) != len(first.lengths):
                check.fail(
                    f"{own.idx.name}, byte 18",
                    f"{len(own.lengths)} items, but {first.idx.name} has {len(first.lengths)}",
                )
                fits.append(False)
    packing = manifest.get("packing")
    if packing is not None and all(fits):
        own, capacity = pairs[_IDS], packing["seq_length"]
        wrong = np.flatnonzero(own.lengths != capacity)
        check.each(
            wrong,
            lambda at: (
                f"{own.idx.name}, item {at}: a pack of {own.lengths[at]} tokens, expected {capacity}"
            ),
        )
        fits.append(not len(wrong))
    return all(fits)


def _alike(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names of datasets, and of those whose lengths they have."""
    objective = manifest["objective"]
    if objective == "sft":
        return [(_LABELS, _IDS), (_MASK, _IDS)]
    if objective == "pairwise":
        return [(f"{side}labels", f"{side}input_ids") for side in _SIDES]
    return [] if objective == "text" else [(_MASK, _IDS)]


def _lengths(manifest: Mapping[str, Any], pairs: Mapping[str, Pair]) -> list[Pair]:
    """Return a dataset of each group of lengths; the first is that of the sidecar's column ``length``."""
    alike = {name for name, _ in _alike(manifest)}
    names = [name for name in datasets_of(manifest) if name not in alike]
    return [pairs[name] for name in sorted(names, key=lambda name: name != _IDS)]


def _samples(
    check: Check, paths: OutputPaths, manifest: Mapping[str, Any], pairs: Mapping[str, Pair]
) -> tuple[Samples, Spans | None]:
    """Read the samples; return them, and where they lie, or None where they don't tile the items."""
    first, *others = _lengths(manifest, pairs)
    failed, text = check.failed, manifest["objective"] == "text"
    samples = read_samples(
        check,
        paths.sources,
        manifest,
        [] if text else [own.lengths for own in others],
        manifest["items"] if text else len(first.lengths),
    )
    check.checked = f"{len(samples.item):,} samples, each in its place"
    packing = manifest.get("packing")
    if check.failed > failed:
        return samples, None
    if packing is None:
        return samples, check_singles(check, samples, first.lengths, text)
    capacity, multiple = packing["seq_length"], packing["multiple"]
    return samples, check_packs(check, samples, first.starts, capacity, multiple)


def _rules(manifest: Mapping[str, Any]) -> Rules:
    packing = manifest.get("packing") or {}
    return Rules(
        vocabulary=manifest["tokenizer"]["vocab_size"],
        ignored=manifest["ignore_index"],
        late=_late(manifest),
        pad=manifest["pad_id"],
        packed=bool(packing),
        neat=packing.get("neat", False),
    )


def _late(manifest: Mapping[str, Any]) -> int | None:
    """Return the label that teaches the end of a turn at the next one; None where nothing does."""
    eos: int = manifest["tokenizer"]["eos_id"]
    if manifest["settings"].get("train_on") == "full":
        return None  # all that is trained has itself for its label
    form = manifest.get("text_form", {}).get("name")
    late = (
        manifest.get("prompt_type", {}).get("efficient_eos")
        or (form in text_forms and text_forms.get(form).late_stops)
        or any(end["late"] and end["id"] == eos for end in manifest.get("turn_ends", ()))
    )
    return eos if late else None


def _tokens(
    check: Check,
    manifest: Mapping[str, Any],
    pairs: Mapping[str, Pair],
    spans: Spans | None,
    threads: ThreadPoolExecutor,
) -> Seen:
    """Look at the tokens of all datasets; return what is trained of each sample."""
    rules, objective = _rules(manifest), manifest["objective"]
    groups = [Group(pairs[name]) for name in datasets_of(manifest)]
    if objective == "sft":
        groups = [Group(pairs[_IDS], pairs[_LABELS], pairs[_MASK], spans)]
        if rules.packed and spans is None:
            check.skip("padding, masks and trained tokens of packs: where the samples lie is not known")
    elif objective == "pairwise":
        groups = [Group(pairs[f"{side}input_ids"], pairs[f"{side}labels"]) for side in _SIDES]
    elif objective != "text":
        others = [Group(pairs[name]) for name in datasets_of(manifest) if name not in (_IDS, _MASK)]
        groups = [Group(pairs[_IDS], None, pairs[_MASK]), *others]
    found = [check_tokens(check, group, rules, threads) for group in groups]
    total = sum(group.ids.tokens for group in groups)
    if objective in ("ppo", "r1"):
        seen = Seen(np.zeros(len(groups[0].ids.lengths), np.int32))
    elif objective == "text":
        # All of it is trained. Of several keys nobody tells which text of a record is empty.
        seen = Seen(groups[0].ids.lengths if len(groups) == 1 else np.zeros(0, np.int32), total)
    else:
        seen = all_of(found)
    labels = f", {seen.total:,} labels" if groups[0].labels is not None else ""
    late = (
        f", of which {seen.taught_late:,} teach an end of turn late"
        if rules.late is not None and labels
        else ""
    )
    check.checked = f"{total:,} ids below {rules.vocabulary:,}{labels}{late}"
    return seen


def _compare_trained(
    check: Check, manifest: Mapping[str, Any], samples: Samples, spans: Spans | None, seen: Seen
) -> None:
    """Compare the trained tokens that the sidecar tells of with those that were counted."""
    if spans is None or len(seen.trained) != len(spans.starts):
        if manifest["objective"] != "text" or spans is None:
            check.skip("trained tokens of each sample: where the samples lie is not known")
        return
    rows = np.arange(len(spans.starts)) if spans.rows is None else spans.rows
    told = samples.trained[rows]
    differ = np.flatnonzero(told != seen.trained)
    check.each(
        differ,
        lambda at: (
            f"{samples.file}, row {rows[at]}: {told[at]} trained tokens, but there are {seen.trained[at]}"
        ),
    )
