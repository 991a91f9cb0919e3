"""Every real tokenizer on every real data set: the fast library's ids and spans against the reference's.

Ends with exit code 1 where an encoder that was proven gives other ids or spans than the reference.

    python tests/extended/encoders.py [--megabytes 2] [--library fastokens] [--tokenizers qwen2.5 ...]
                                      [--write docs/encoders.md]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtsft_preproc.tokenization import FlatIds, TokenizerSpec, load_tokenizer, open_encoder, prove
from mtsft_preproc.tokenization.encoders import FastEncoder

SHARED = Path(__file__).parents[3] / "shared"
COMMAND = "python tests/extended/encoders.py --write docs/encoders.md"
HEAD = """# A fast encoder against the reference

Made by `{command}`: {count:,} texts ({size:.1f} MB)
from {sets} data sets, `{library}` {version} and `tokenizers` {reference}, one thread, CPU time. *Probe* is
the comparison before it is taken, *other ids* and *other spans* count texts of the data. *Known* is the
share of texts whose spans follow from the lengths of their tokens; the reference is asked for the others'.
Speeds are MB of UTF-8 a second.

| tokenizer | taken | probe: texts | ids | other ids | other spans | known | HF | fast | ratio | spans |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
BATCH = 1000


def strings(value: Any) -> Iterator[str]:
    """Yield all texts in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def records(path: Path) -> list[Any]:
    """Return the records of a JSON or JSON lines file."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def sample(folder: Path, megabytes: float) -> list[str]:
    """Return texts of a data set, evenly from its files: each record's as they are, joined, and as JSON."""
    files = [path for path in sorted(folder.rglob("*.json*")) if path.suffix in (".json", ".jsonl")]
    found: list[str] = []
    for path in files:
        told = records(path)
        whole = path.stat().st_size * 2.2
        step = max(1, round(whole / (megabytes * 1e6 / len(files))))
        for number, record in enumerate(told[::step]):
            texts = list(strings(record))
            found += texts
            found.append("\n".join(texts) if number % 8 else json.dumps(record, indent=2))
    return list(dict.fromkeys(found))


def timed(work: Callable[[list[str]], Any], texts: list[str]) -> tuple[list[Any], float]:
    """Return what ``work`` makes of the texts, batch by batch, and the seconds of CPU."""
    started = time.process_time()
    found = [work(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
    return found, time.process_time() - started


def differing(found: list[Any], right: list[Any], columns: tuple[int, ...]) -> int:
    """Return the number of texts of which some values are not the same."""
    count = 0
    for one, other in zip(found, right, strict=True):
        if all(np.array_equal(one[column], other[column]) for column in (1, *columns)):
            continue
        for number in range(len(one.offsets) - 1):
            own, its = (slice(*item.offsets[number : number + 2]) for item in (one, other))
            count += any(not np.array_equal(one[column][own], other[column][its]) for column in columns)
    return count


def known(encoder: FastEncoder, texts: list[str], flat: list[FlatIds]) -> float:
    """Return the share of texts whose spans follow from the lengths of their tokens."""
    spans = encoder._byte_spans
    if spans is None:
        return 0.0
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    sure = [spans.find(batch, own)[0].sum() for batch, own in zip(batches, flat, strict=True)]
    return float(sum(sure)) / len(texts)


def row(name: str, spec: TokenizerSpec, library: str, texts: list[str]) -> tuple[list[Any], bool]:
    """Return the cells of a table's row, and whether something is wrong."""
    proof = prove(spec, library)
    if not proof.ok:
        print(f"  {proof.reason}", file=sys.stderr)
        reason = proof.reason.split(": ", 1)[-1]
        return [name, f"no: {reason[:60]}", proof.texts or "", *[""] * 8], False
    encoder = open_encoder(spec, library)
    assert isinstance(encoder, FastEncoder)
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    right, slow = timed(encoder.reference.encode, texts)
    # Without the sample: what the library does by itself, cold.
    fast, quick = timed(encoder._encode, texts)
    other_ids = differing(fast, right, (0,))
    spans, span_slow = timed(encoder.reference.encode_spans, texts)
    fast_spans, span_quick = timed(encoder.encode_spans, texts)
    other_spans = differing(fast_spans, spans, (0, 2, 3))
    cells = [
        name, "yes", f"{proof.texts:,}", f"{proof.ids:,}", other_ids, other_spans,
        f"{100 * known(encoder, texts, fast):.1f} %", f"{size / slow:.1f}", f"{size / quick:.0f}",
        f"{slow / quick:.0f}x", f"{span_slow / span_quick:.0f}x",
    ]  # fmt: skip
    return cells, bool(other_ids or other_spans)


def main() -> int:
    """Run everything."""
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=2.0, help="of each data set")
    parser.add_argument("--library", default="fastokens")
    parser.add_argument("--tokenizers", nargs="*")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    folders = [path for path in sorted((SHARED / "datasets").iterdir()) if path.is_dir()]
    texts = list(dict.fromkeys(text for folder in folders for text in sample(folder, arguments.megabytes)))
    head = HEAD.format(
        command=COMMAND, count=len(texts), size=sum(len(text.encode()) for text in texts) / 1e6,
        sets=len(folders), library=arguments.library, version=version(arguments.library),
        reference=version("tokenizers"),
    )  # fmt: skip
    print(head, end="", flush=True)
    rows, bad = [], False
    for folder in sorted((SHARED / "tokenizers").iterdir()):
        if arguments.tokenizers and folder.name not in arguments.tokenizers:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            spec = load_tokenizer(str(folder)).save(Path(scratch))
            cells, wrong = row(folder.name, spec, arguments.library, texts)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
        print(rows[-1], flush=True)
        bad |= wrong
    if arguments.write:
        arguments.write.write_text(head + "\n".join(rows) + "\n", "utf-8")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
