"""Every file of the real data sets through the pipeline, by its own handler and by auto.

The files are found by walking: one that ``dataset_files.py`` doesn't list is an error. It ends
with exit code 1 unless, for every file,

- as many records are read as the file holds, and read = kept + rejected;
- no sample is without a trained token, and the labels hold as many as the manifest says;
- ``--handler-name auto`` takes the expected handler, and where that is the own one, gives the same tokens;
- what is no data is refused with a message that says why;

and, for dialogues of several rounds,

- ``--train-on split`` makes a sample of each reply that the file holds;
- ``split`` and ``--overlong window`` train each reply once: the same runs of tokens as without them;
- ``--overlong recent`` trains the newest of these runs;
- nothing is longer than it may be, and what is rejected besides is ``overlong``.

    python tests/extended/datasets.py [--write docs/datasets.md]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_checks import Output, check_auto, check_counts, check_cuts
from dataset_files import CUTS, FILES, FIRST, FORMATS, LIMIT, File, records

from mtsft_preproc import PreprocessConfig, preprocess
from mtsft_preproc.errors import MtsftError

ROOT = Path(__file__).parents[2]
COMMAND = "python tests/extended/datasets.py --write docs/datasets.md"


@dataclass(frozen=True)
class Done:
    """What came of a run: its manifest and warnings, or the error that stopped it."""

    prefix: Path
    manifest: dict[str, Any]
    warnings: list[str]
    error: str = ""


def work(config: PreprocessConfig) -> Done:
    """Do one run, in a process of its own."""
    warned: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mtsft_preproc")
    logger.addHandler(listener)
    logger.propagate = False
    try:
        return Done(config.prefix, preprocess(config).manifest, warned)
    except MtsftError as error:
        return Done(config.prefix, {}, warned, str(error))
    finally:
        logger.removeHandler(listener)


class Runs:
    """Starts runs, two at a time, and hands out what came of them."""

    def __init__(self, shared: Path, folder: Path, pool: ProcessPoolExecutor) -> None:
        self._shared, self._folder, self._pool = shared, folder, pool
        self._done: dict[tuple[str, ...], Future[Done]] = {}

    def start(self, key: tuple[str, ...], names: Sequence[str], chat_format: str, **settings: Any) -> None:
        """Start a run over the files ``names``."""
        settings = {**FORMATS[chat_format], "max_rejected": 1.0, "log_interval": 10**9, **settings}
        config = PreprocessConfig(
            input=tuple(str(self._shared / "datasets" / name) for name in names),
            output_prefix=str(self._folder / str(len(self._done)) / "data"),
            **{**settings, "tokenizer": str(self._shared / "tokenizers" / settings["tokenizer"])},
        )
        self._done[key] = self._pool.submit(work, config)

    def __getitem__(self, key: tuple[str, ...]) -> Done:
        return self._done[key].result()


def key_of(file: File, chat_format: str, name: str) -> tuple[str, ...]:
    """Return what names the run of auto that reads a file together with others of its kind."""
    alone = file.large or chat_format != "qwen" or file.handler == "sharegpt-pairwise"
    return ("auto", chat_format, name if alone and chat_format != "moss" else "")


def start_all(runs: Runs) -> dict[tuple[str, ...], list[str]]:
    """Start everything; return the files of each run of auto."""
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    # The longest first.
    for name, file in sorted(FILES.items(), key=lambda item: not item[1].large):
        if file.refused:
            runs.start(("refused", name), [name], "qwen", handler_name="auto")
        for chat_format in file.formats if file.handler else ():
            template = chat_format == "qwen3"
            runs.start(
                ("own", chat_format, name), [name], chat_format,
                handler_name=file.handler, map_keys=json.dumps(file.map_keys),
                max_samples=FIRST if file.large and template else None,
            )  # fmt: skip
            if not template:
                together[key_of(file, chat_format, name)].append(name)
    for key, names in together.items():
        first = FIRST if FILES[names[0]].large else None
        runs.start(key, names, key[1], handler_name="auto", max_samples=first)
        several = [name for name in names if FILES[name].replies]
        # MOSS's data bring along a limit of their own, at which the plain run is cut.
        unlimited = {"overlong": "drop", "seq_length": 10**6} if key[1] == "moss" else {}
        cuts = {"whole": unlimited, **CUTS} if unlimited else CUTS
        for cut, settings in cuts.items() if several else ():
            runs.start(
                (cut, *key), several, key[1], handler_name="auto", max_samples=first,
                **{**unlimited, **settings},
            )  # fmt: skip
    return together


def row(name: str, chat_format: str, file: File, took: str, done: Done) -> list[str]:
    """Return the cells of the table's row."""
    manifest, counts = done.manifest, done.manifest["records"]
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts["rejected_by_reason"].items())
    notes = [f"{note} {count:,}" for note, count in counts["notes"].items()]
    parity = {kind: count for kind, count in manifest["parity"]["turns"].items() if count}
    notes += (
        [f"parity: {', '.join(f'{kind} {count:,}' for kind, count in parity.items())}"] if parity else []
    )
    notes += [f"the first {FIRST:,} records"] if file.large and chat_format == "qwen3" else []
    notes += ["no stop token"] if any("no stop token" in warning for warning in done.warnings) else []
    notes += [f"warns: {text}" for text in done.warnings if "no stop token" not in text]
    keys = f"`{json.dumps(file.map_keys)}`" if file.map_keys else ""
    numbers = [counts["read"], counts["kept"], counts["rejected"]]
    totals = [manifest["samples"], manifest["tokens"], manifest["trained_tokens"]]
    cells = [name, file.handler, keys, chat_format, took, *(f"{number:,}" for number in numbers)]
    return [*cells, rejected, *(f"{number:,}" for number in totals), "; ".join(notes)]


def examine(
    runs: Runs, shared: Path
) -> tuple[list[list[str]], list[list[str]], list[list[str]], list[str]]:
    """Run everything; return the rows of the three tables, and what is wrong."""
    together = start_all(runs)
    opened: dict[tuple[str, ...], Output] = {}

    def output(*key: str) -> Output:
        if key not in opened:
            done = runs[key]
            if done.error:
                raise SystemExit(f"{', '.join(key)}: {done.error}")
            opened[key] = Output(done.prefix, done.manifest)
        return opened[key]

    rows: list[list[str]] = []
    cuts: list[list[str]] = []
    refused: list[list[str]] = []
    wrong: list[str] = []
    for name, file in FILES.items():
        path = str(shared / "datasets" / name)
        found: list[str] = []
        if file.refused:
            error = runs["refused", name].error
            said = error.replace(f"{path}: ", "").partition("name one of the handlers")[0].strip(" ;")
            refused.append([name, said.replace("|", "\\|")])
            if file.refused not in error or path not in error:
                found.append(f"auto says: {error or 'nothing'}")
        held = records(Path(path)) if file.handler else []
        for chat_format in file.formats if file.handler else ():
            own, took = output("own", chat_format, name), ""
            first = file.large and chat_format == "qwen3"
            check_counts(own, min(FIRST, len(held)) if first else len(held), found)
            if chat_format != "qwen3":
                key = next(key for key, names in together.items() if name in names)
                took = check_auto(file, path, own, output(*key), found)
                if file.replies:
                    outputs = {cut: output(cut, *key) for cut in CUTS}
                    outputs["whole"] = output(*(("whole", *key) if chat_format == "moss" else key))
                    counted = [file.replies(record) for record in held[: FIRST if file.large else None]]
                    cuts.append([name, *check_cuts(path, outputs, counted, chat_format != "moss", found)])
            rows.append(row(name, chat_format, file, took, runs["own", chat_format, name]))
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
        wrong += [f"{name}: {problem}" for problem in dict.fromkeys(found)]
    return rows, cuts, refused, wrong


def page(rows: list[list[str]], cuts: list[list[str]], refused: list[list[str]]) -> str:
    """Return the Markdown page."""
    listed = [
        table(
            "file|handler|map-keys|format|auto|>read|>kept|>rejected|why|>samples|>tokens|>trained|noticed",
            rows,
        ),
        table("file|>replies|>split|>window|>rejected|>recent|>rejected", cuts),
        table("file|what auto says", refused),
    ]
    return TEXT.format(command=COMMAND, first=f"{FIRST:,}", limit=LIMIT, tables=listed)


def table(head: str, rows: list[list[str]]) -> str:
    """Return a table; ``>`` in front of a heading aligns its column to the right."""
    heads = head.split("|")
    lines = [
        [text.lstrip(">") for text in heads],
        ["---:" if text[0] == ">" else "---" for text in heads],
        *rows,
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TEXT = """# Real data sets through the pipeline

Made by `{command}`, which ends with an error unless, for every file,
read = kept + rejected, every sample has a trained token, and `--handler-name auto` finds the handler and
the map-keys in the table and gives the same tokens. The files are public data sets, which are not part of
this repository. *Format* is a prompt type (qwen, with Qwen2.5's tokenizer), a chat template (qwen3: that of
the tokenizer) or the text form of the data format itself (moss with InternLM2's tokenizer, chatglm with
ChatGLM3's, alpaca text with Qwen2.5's). *Parity* counts trained turns, as the README says.

{tables[0]}

## Several rounds

*Replies* are counted in the data, without this program. `--train-on split` makes a sample of each.
`--overlong window` and `recent`, with `--seq-length {limit}`, make the samples in these columns, and reject
the records behind them, in which a round is too long by itself. The script holds that `window` and `split`
train the same runs of tokens as the plain run, each once (MOSS's form trains the marks of a result with the
command, which `split` has no place for), and that `recent` trains the newest of them. Of large files it
reads the first {first} records here.

{tables[1]}

## Not data

What `--handler-name auto` answers:

{tables[2]}
"""


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    shared: Path = arguments.shared
    lies = sorted(
        p.relative_to(shared / "datasets").as_posix()
        for p in (shared / "datasets").rglob("*")
        if p.is_file()
    )
    if lies != sorted(FILES):
        print("not in the list:", sorted({*lies} - {*FILES}), "not there:", sorted({*FILES} - {*lies}))
        return 1
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, mp_context=spawn) as pool:
        rows, cuts, refused, wrong = examine(Runs(shared, Path(folder), pool), shared)
    print(*wrong, sep="\n")
    if arguments.write:
        arguments.write.write_text(page(rows, cuts, refused), "utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
