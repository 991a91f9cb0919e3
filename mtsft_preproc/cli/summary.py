"""What a person wants to know at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtsft_preproc.finish import RunResult
from mtsft_preproc.stages import STAGES, Profile

__all__ = ["profile_lines", "summary"]


def summary(result: RunResult) -> str:
    """Return what a person wants to know at the end of a run."""
    manifest = result.manifest
    records = manifest["records"]
    tokens, trained = manifest["tokens"], manifest["trained_tokens"]
    lines = [
        f"records   {records['read']:,} read, {records['kept']:,} kept, {records['rejected']:,} rejected"
    ]
    lines += [f"            {count:,} {why}" for why, count in records["rejected_by_reason"].items()]
    lost = records["lost_samples_by_reason"]
    if lost:
        what = ", ".join(f"{count:,} {why}" for why, count in lost.items())
        lines.append(f"lost      {sum(lost.values()):,} samples of records that kept others: {what}")
    if records["notes"]:
        notes = ", ".join(f"{count:,} {what}" for what, count in records["notes"].items())
        lines.append(f"noticed   {notes}")
    share = trained / tokens if tokens else 0.0
    outputs = manifest.get("splits", {"": manifest})
    lines += [_items_line(side, output) for side, output in outputs.items()]
    lines.append(f"tokens    {tokens:,}, of which {trained:,} ({share:.1%}) trained")
    lines += _source_lines(manifest["sources"])
    lines += _parity_lines(manifest["parity"])
    if result.texts:
        encoder = manifest["encoder"]
        lines.append(
            f"encoder   {encoder['name']} {encoder['version']}: {result.checked:,} of {result.texts:,} "
            "texts compared with the reference, all equal"
        )
    if new := manifest["tokenizer"]["new_tokens"]:
        lines.append(f"NEW       tokens added to the vocabulary (resize the embedding): {', '.join(new)}")
    reused = f", {result.reused_parts} parts reused" if result.reused_parts else ""
    split = manifest.get("splits")
    sidecars = ".manifest.json, .rejected.jsonl, .sources.parquet, .timings.json"
    if split:
        sidecars = (
            f"{{,_{',_'.join(split)}}}.manifest.json, .rejected.jsonl, .timings.json, _SIDE.sources.parquet"
        )
    lines += [
        f"time      {result.seconds:.1f} s{reused}",
        f"output    {_datasets(result)}.{{bin,idx}}",
        f"          {result.prefix}{sidecars}",
    ]
    return "\n".join(lines)


def _items_line(side: str, output: dict[str, Any]) -> str:
    """Return how many items an output has, and how full they are."""
    longest = output["length_quantiles"].get("1.0", 0)
    name = f"{side:<10}" if side else "items     "
    packing = output.get("packing")
    if packing is None:
        items = "items; " if side else "; "
        return f"{name}{output['items']:,}{' ' if side else ''}{items}longest {longest:,} tokens"
    return (
        f"{name}{output['items']:,} packs of {packing['seq_length']:,} tokens with {output['samples']:,} "
        f"samples; longest {longest:,}; fill {packing['fill']:.2%}"
    )


def _source_lines(sources: list[dict[str, Any]]) -> list[str]:
    """Return what came of each source, where there are several."""
    if len(sources) < 2:
        return []
    lines = ["sources"]
    for own in sources:
        line = (
            f"          {own['name']}: {own['read']:,} read, {own['kept']:,} kept, "
            f"{own['samples']:,} samples, {own['tokens']:,} tokens, {own['trained_tokens']:,} trained; "
            f"share {own['share_reached']:.2%}"
        )
        if own.get("share_asked") is not None:
            line += f", asked {own['share_asked']:.2%}"
        lines.append(line)
    return lines


def _datasets(result: RunResult) -> str:
    """Return the names of the datasets, in the way of a shell."""
    fields = result.manifest["fields"]
    among = fields[0] if len(fields) == 1 else f"{{{','.join(fields)}}}"
    packed = "" if result.manifest["objective"] == "text" else "packed_"
    split = result.manifest.get("splits")
    sides = "" if not split else f"_{next(iter(split))}" if len(split) == 1 else f"_{{{','.join(split)}}}"
    return f"{result.prefix}{sides}_{packed}{among}_document"


def _parity_lines(parity: dict[str, Any]) -> list[str]:
    """Return what the summary says on serving parity."""
    turns = dict(parity["turns"])
    extra, added = turns.pop("split-samples", 0), turns.pop("split-tokens", 0)
    if not turns:
        return []
    total, same = sum(turns.values()), turns.get("same", 0)
    parts = [f"{count:,} {kind}" for kind, count in turns.items() if kind != "same"]
    differs = f"; differ: {', '.join(parts)}" if parts else ""
    lines = [f"parity    {same:,} of {total:,} trained turns ({same / total:.1%}) as in serving{differs}"]
    if extra:
        lines.append(f"split     {extra:,} samples more, for turns of their own: {added:,} tokens")
    for item in parity["first"]:
        lines += [
            f"            {item['file']}, row {item['row']}, message {item['message']}: {item['kind']}",
            f"            - serving:  {item['serving'][:90]!r}",
            f"            + training: {item['training'][:90]!r}",
        ]
    return lines


def profile_lines(profile: Profile) -> str:
    """Return where the time of a run went."""
    lines = [f"profile   wall {sum(profile.phases.values()):.2f} s: {_shares(profile.phases)}"]
    if profile.stages:
        total = sum(profile.stages.values())
        ordered = {name: profile.stages[name] for name in STAGES if name in profile.stages}
        lines.append(f"          CPU of the encoding {total:.2f} s: {_shares(ordered)}")
    return "\n".join(lines)


def _shares(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / total:.1%}" for name, value in seconds.items())
