"""What ``datasets.py`` checks of finished outputs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from dataset_files import CUTS, LIMIT, File

from mtsft_preproc import IndexedDataset
from mtsft_preproc.handlers import handlers


class Output:
    """A finished output, opened."""

    def __init__(self, prefix: Path, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.fields = {
            name: IndexedDataset(f"{prefix}_{name}_document")
            for name in (path.name[len("data_") : -len("_document.idx")] for path in _indexes(prefix))
        }
        self.sources: dict[str, list[Any]] = pq.read_table(f"{prefix}.sources.parquet").to_pydict()
        self.rejected = [
            json.loads(line) for line in Path(f"{prefix}.rejected.jsonl").read_text("utf-8").splitlines()
        ]

    def items(self, path: str) -> list[int]:
        """Return the numbers of the items that come from a file."""
        return [number for number, file in enumerate(self.sources["file"]) if file == path]

    def runs_of(self, path: str) -> dict[int, list[list[bytes]]]:
        """Return the runs of trained labels, by row of a file, of each of its samples."""
        found: dict[int, list[list[bytes]]] = defaultdict(list)
        for item in self.items(path):
            found[self.sources["row"][item]].append(list(trained_runs(self.fields["packed_labels"][item])))
        return found


def _indexes(prefix: Path) -> list[Path]:
    return sorted(prefix.parent.glob(f"{prefix.name}_*_document.idx"))


def trained_runs(labels: npt.NDArray[Any]) -> Iterator[bytes]:
    """Yield each run of labels that are trained."""
    borders = np.flatnonzero(np.diff(labels != -100, prepend=False, append=False))
    for start, end in zip(borders[::2], borders[1::2], strict=True):
        yield labels[start:end].tobytes()


def check_counts(own: Output, held: int, wrong: list[str]) -> None:
    """Check that nothing is lost, and that each sample trains something."""
    counts = own.manifest["records"]
    if counts["read"] != held:
        wrong.append(f"{counts['read']} records read, the file holds {held}")
    if counts["read"] != counts["kept"] + counts["rejected"]:
        wrong.append("read is not kept + rejected")
    if len(own.rejected) != counts["rejected"] + sum(counts["lost_samples_by_reason"].values()):
        wrong.append("the ledger has another number of lines")
    labels = [tokens for name, tokens in own.fields.items() if name.endswith("labels")]
    trained = np.asarray([[(one != -100).sum() for one in tokens] for tokens in labels])
    if trained.size and not trained.min():
        wrong.append("a sample without a trained token")
    if trained.sum() != own.manifest["trained_tokens"]:
        wrong.append(f"{trained.sum()} labels, the manifest says {own.manifest['trained_tokens']}")


def check_auto(file: File, path: str, own: Output, auto: Output, wrong: list[str]) -> str:
    """Compare auto's run with the own handler's; return what auto took."""
    (taken,) = (entry for entry in auto.manifest["inputs"] if entry["path"] == path)
    alias = handlers.aliases(taken["handler"])[0]
    if alias != (file.auto or file.handler):
        wrong.append(f"auto took {taken['handler']} with {taken['map_keys']}")
    if alias != file.handler:
        return alias
    if taken["map_keys"] != file.map_keys:
        wrong.append(f"auto took the map-keys {taken['map_keys']}")
    items = auto.items(path)
    mine = range(len(items)) if file.large else own.items(path)
    if len(mine) != len(items):
        wrong.append(f"auto: {len(items)} samples, the own handler {len(mine)}")
    for name, tokens in own.fields.items():
        if not all(
            np.array_equal(tokens[one], auto.fields[name][other])
            for one, other in zip(mine, items, strict=False)
        ):
            wrong.append(f"auto: other {name}")
    return "the same"


def check_cuts(
    path: str, outputs: Mapping[str, Output], replies: Sequence[int], alike: bool, wrong: list[str]
) -> list[str]:
    """Check the rules for several rounds.

    Args:
        path: The file.
        outputs: By name of the rule; ``"whole"`` is that of none.
        replies: How many the first records hold.
        alike: Whether ``split`` trains the same tokens as no rule does. In MOSS's form the marks of a
            result are trained with the command, and no sample that ends with the command holds them.
        wrong: Takes what is wrong.

    Returns:
        The cells of the table.
    """
    whole = {row: samples[0] for row, samples in outputs["whole"].runs_of(path).items()}
    cells = [f"{sum(replies):,}"]
    for cut in CUTS:
        output, samples = outputs[cut], outputs[cut].runs_of(path)
        lines = [line for line in output.rejected if line["file"] == path and line["row"] in whole]
        lost = Counter(line["row"] for line in lines)
        gone = set(lost) - set(samples)
        reasons = {line["reason"] for line in lines}
        if reasons - {"overlong"}:
            wrong.append(f"{cut}: rejected: {', '.join(reasons)}")
        if set(whole) != set(samples) | gone:
            wrong.append(f"{cut}: records without a trace")
        bad = [
            row for row, found in samples.items() if not _right(cut, found, whole[row], lost[row], alike)
        ]
        if bad:
            wrong.append(
                f"{cut}: other tokens are trained in {len(bad)} records, the first in row {bad[0]}"
            )
        count = sum(map(len, samples.values()))
        if cut == "split" and count != sum(replies[row] for row in samples):
            wrong.append(f"split: {count} samples of {sum(replies)} replies")
        longest = max((output.sources["length"][item] for item in output.items(path)), default=0)
        if cut != "split" and longest > LIMIT:
            wrong.append(f"{cut}: a sample of {longest} tokens")
        cells += [f"{count:,}"] if cut == "split" else [f"{count:,}", f"{len(gone):,}"]
    return cells


def _right(cut: str, samples: list[list[bytes]], whole: list[bytes], lost: int, alike: bool) -> bool:
    """Return whether the samples of a record train what they have to."""
    runs = [run for sample in samples for run in sample]
    if cut == "recent":
        return len(samples) == 1 and bool(runs) and runs == whole[-len(runs) :]
    if cut == "split" and not alike:
        # Each run stands in the plain one, behind that of the sample before.
        text, place = b"".join(whole), 0
        for run in runs:
            place = text.find(run, place) + len(run)
            if place < len(run):
                return False
        return True
    return not Counter(runs) - Counter(whole) and len(runs) + lost == len(whole)
