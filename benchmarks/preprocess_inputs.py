"""The inputs of ``preprocess.py``: JSON lines that every program of the comparison can read, made once.

Alpaca and SGD with history keep their columns (``instruction``, ``input``, ``output``, ``history``). SGD
with tools and MedicalGPT are chat messages with roles; tools stand as JSON text, since Arrow, through
which the peers read, would make one type of all schemas. The mix holds all four as messages, in a random
order. Where it is longer than they are, it goes on with copies whose texts are rotated at a blank, so
that no message is there twice.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

__all__ = ["INPUTS", "first_records", "repeated", "rounds", "tokenizer_folder", "write_input"]

Record = dict[str, Any]
#: Columns of an input, by name: ``alpaca`` or ``messages``.
INPUTS = {
    "alpaca": "alpaca",
    "sgd-history": "alpaca",
    "sgd-tools": "messages",
    "medicalgpt": "messages",
    "mix": "messages",
}
_MAKE_TOKENIZER_FILE = """
import sys
from transformers import AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1]).backend_tokenizer.save(sys.argv[1] + "/tokenizer.json")
"""


def write_input(name: str, shared: Path, folder: Path, megabytes: int) -> Path:
    """Return the file of an input, which is made where it isn't there.

    Args:
        name: One of :data:`INPUTS`.
        shared: Folder with ``datasets/``.
        folder: Where the file goes.
        megabytes: Size of the mix, in 1e6 bytes.
    """
    path = folder / (f"mix-{megabytes}.jsonl" if name == "mix" else f"{name}.jsonl")
    if not path.exists():
        datasets = shared / "datasets"
        if name == "mix":
            _write(path, _mixed(datasets), megabytes * 1_000_000)
        else:
            _write(path, iter(_records(name, datasets)))
    return path


def first_records(source: Path, count: int) -> Path:
    """Return a file of the first lines of a file."""
    path = source.with_name(f"{source.stem}-first-{count}.jsonl")
    with open(source, "rb") as file:
        path.write_bytes(b"".join(itertools.islice(file, count)))
    return path


def repeated(source: Path, megabytes: int) -> Path:
    """Return a file of that size which holds the lines of another again and again, or its first ones."""
    path = source.with_name(f"{source.stem}-to-{megabytes}.jsonl")
    if not path.exists():
        lines = source.read_bytes().splitlines(keepends=True)
        _write_lines(path, itertools.cycle(lines), megabytes * 1_000_000)
    return path


def rounds(shared: Path, folder: Path, megabytes: int) -> dict[str, Path]:
    """Return the same Alpaca records with history as JSON lines, as a JSON array and as parquet."""
    paths = {form: folder / f"rounds-{megabytes}.{form}" for form in ("jsonl", "json", "parquet")}
    if all(path.exists() for path in paths.values()):
        return paths
    datasets = shared / "datasets"
    source = _records("sgd-history", datasets) + [
        {**row, "history": []} for row in _records("alpaca", datasets)
    ]
    random.Random(0).shuffle(source)
    _write(paths["jsonl"], itertools.cycle(source), megabytes * 1_000_000)
    lines = paths["jsonl"].read_bytes().splitlines()
    paths["json"].write_bytes(b"[\n" + b",\n".join(lines) + b"\n]\n")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([orjson.loads(line) for line in lines])
    pyarrow.parquet.write_table(table, paths["parquet"], row_group_size=2000)
    return paths


def tokenizer_folder(name: str, shared: Path, folder: Path) -> Path:
    """Return a copy of a tokenizer's folder that has a ``tokenizer.json``, which all programs read."""
    path = folder / "tokenizers" / name
    if not (path / "tokenizer.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        for file in (shared / "tokenizers" / name).iterdir():
            shutil.copyfile(file, path / file.name)
        if not (path / "tokenizer.json").exists():
            subprocess.run([sys.executable, "-c", _MAKE_TOKENIZER_FILE, str(path)], check=True)
    return path


def _write(path: Path, records: Iterator[Record], size: int | None = None) -> None:
    _write_lines(path, (orjson.dumps(record) + b"\n" for record in records), size)


def _write_lines(path: Path, lines: Iterator[bytes], size: int | None) -> None:
    """Write lines until there are none, or until the file has that size."""
    written, unfinished = 0, path.with_suffix(".unfinished")
    with open(unfinished, "wb") as file:
        for line in lines:
            written += file.write(line)
            if size is not None and written >= size:
                break
    unfinished.replace(path)


def _records(name: str, datasets: Path) -> list[Record]:
    """Return the records of a data set."""
    if name == "alpaca":
        rows = orjson.loads((datasets / "alpaca/alpaca_data_en_52k.json").read_bytes())
        return [{key: row[key] for key in ("instruction", "input", "output")} for row in rows]
    if name == "sgd-history":
        return list(orjson.loads((datasets / "sgd/sgd_train_alpaca_history.json").read_bytes()))
    if name == "sgd-tools":
        lines = (datasets / "sgd/sgd_train_openai_tools.jsonl").read_bytes().splitlines()
        rows = [orjson.loads(line) for line in lines]
        # As json writes it, since that text is what a program that does not parse it would render.
        return [{"messages": row["messages"], "tools": json.dumps(row["tools"])} for row in rows]
    lines = (datasets / "medicalgpt/sharegpt_zh_1K_format.jsonl").read_bytes().splitlines()
    found = (_alternating(orjson.loads(line)["conversations"]) for line in lines)
    return [{"messages": messages} for messages in found if messages]


def _alternating(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return ShareGPT turns as messages; none where the sides don't alternate, as peers refuse that."""
    sides = [turn["from"] for turn in turns]
    if not turns or sides != ["human", "gpt"] * (len(turns) // 2):
        return []
    names = {"human": "user", "gpt": "assistant"}
    return [{"role": names[turn["from"]], "content": turn["value"]} for turn in turns]


def _messages(row: Record) -> Record:
    """Return a record as messages."""
    if "messages" in row:
        return {"messages": row["messages"], "tools": row.get("tools", "[]")}
    pairs = [
        *row.get("history", ()),
        ["\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]],
    ]
    messages = [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return {"messages": messages, "tools": "[]"}


def _mixed(datasets: Path) -> Iterator[Record]:
    """Yield all records as messages, in a random order, and then again with rotated texts, without end."""
    records = [_messages(row) for name in INPUTS if name != "mix" for row in _records(name, datasets)]
    for copy in itertools.count():
        random.Random(copy).shuffle(records)
        for record in records:
            messages = [
                {**message, "content": _rotated(message["content"], copy)} for message in record["messages"]
            ]
            yield {**record, "messages": messages}


def _rotated(text: str | None, copy: int) -> str | None:
    """Return a text with its first part behind the rest; copy 0 is the text itself."""
    if not text or not copy:
        return text
    place = len(text) * copy // 7 % len(text)
    cut = text.find(" ", place) + 1 or place
    return text[cut:] + text[:cut]
