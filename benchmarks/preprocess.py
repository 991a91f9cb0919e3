"""The whole command against a floor and against other programs, in one run: see README.md beside this file.

    python benchmarks/preprocess.py --shared FOLDER --scratch FOLDER [--cases mix alpaca] [--repeats 3]
        [--programs floor ours] [--llamafactory PYTHON] [--trl PYTHON] [--write PAGE.md]

Programs run one after the other, in turns, each as a process tree of its own in a fresh folder. The table
shows medians; ratios are medians of the ratios of one turn. The output of the floor and of the command
must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from preprocess_cases import CASES, PEER_NAMES, PEERS, PROGRAMS, PROMPT_TYPES, Case, Program, command
from preprocess_inputs import INPUTS, first_records, repeated, rounds, tokenizer_folder, write_input
from preprocess_table import Turn, checks, scaling, table, write_block
from process_tree import run

#: Texts of prompt types: start; system, user, tool result, reply, each in front and behind; between rounds.
FORMATS = {
    "qwen": (
        "", "<|im_start|>system\n", "<|im_end|>\n",
        "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>tool\n", "<|im_end|>\n<|im_start|>assistant\n", "", "<|im_end|>", "\n",
    ),
    "llama3": (
        "<|begin_of_text|>", "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>tool<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "", "<|eot_id|>", "",
    ),
    "glm4": (
        "[gMASK]<sop>", "<|system|>\n", "", "<|user|>\n", "<|assistant|>",
        "<|observation|>\n", "<|assistant|>",
        "\n", "", "",
    ),
    "llama2": (
        "<s>[INST] ", "<<SYS>>\n", "\n<</SYS>>\n\n", "", " [/INST]", "", " [/INST]",
        "", "</s>", "<s>[INST] ",
    ),
}  # fmt: skip
#: What ends a sample of glm4, and is the label where a later source begins.
END_OF_TEXT = {"glm4": "<|endoftext|>"}
FIELDS = ("input_ids", "labels", "attention_mask")
BATCH = 1 << 22


# The floor begins here. It checks nothing, keeps no record of anything, and knows these inputs alone.
def tools_text(tools: list[dict]) -> str:
    text, names = "You have access to the following tools:\n", []
    for tool in tools:
        function = tool["function"]
        names.append(function["name"])
        text += (
            f"> Tool Name: {function['name']}\nTool Description: {function['description']}\nTool Args:\n"
        )
        needed = function["parameters"]["required"]
        for name, value in function["parameters"]["properties"].items():
            required = ", required): " if name in needed else "): "
            text += f"  - {name} ({value['type']}{required}{value['description']}"
            text += f", should be one of [{', '.join(value['enum'])}]\n" if value.get("enum") else "\n"
        text += "\n"
    return (
        f"{text}Use the following format if using a tool:\n"
        f"```\nAction: tool name (one of [{', '.join(names)}]).\n"
        "Action Input: the input to the tool, in a JSON format representing the kwargs "
        '(e.g. ```{"input": "hello world", "num_beams": 5}```).\n```\n'
    )


def render(record: dict, prompt_type: str, texts: list[str], loads) -> int:
    """Put the texts of a record on the list, a source and a target by turns; return their number."""
    start, system, system_end, user, user_end, tool, tool_end, *replies = FORMATS[prompt_type]
    reply, reply_end, between = replies
    last = END_OF_TEXT.get(prompt_type, "")
    said = "You are a helpful assistant." if prompt_type == "qwen" else ""
    if tools := loads(record.get("tools", "[]")):
        said += tools_text(tools)
    opening = f"{start}{system}{said}{system_end}" if said else start
    count = len(texts)
    if "messages" not in record:
        for question, answer in record.get("history", ()):
            texts += (f"{opening}{user}{question}{user_end}", f"{reply}{answer}{reply_end}")
            opening = between
        asked = f"{record['instruction']}\n{record['input']}" if record["input"] else record["instruction"]
        texts += (f"{opening}{user}{asked}{user_end}", f"{reply}{record['output']}{reply_end}{last}")
        return len(texts) - count
    for message in record["messages"]:
        role = message["role"]
        if role == "user":
            texts.append(f"{opening}{user}{message['content']}{user_end}")
        elif role == "tool":
            texts.append(f"{opening}{tool}{message['content']}{tool_end}")
        elif message.get("tool_calls"):
            call = message["tool_calls"][0]["function"]
            texts.append(f"{reply}Action: {call['name']}\nAction Input: {call['arguments']}{reply_end}")
        else:
            texts.append(f"{reply}{message['content']}{reply_end}")
        opening = between
    texts[-1] += last
    return len(texts) - count


def floor_part(source: str, tokenizer: str, prompt_type: str, output: str, part: int, parts: int) -> None:
    """Do one part of the bytes of the input."""
    from fastokens import Tokenizer
    from orjson import loads

    encoder = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    size = os.path.getsize(source)
    begin, end = size * part // parts, size * (part + 1) // parts
    files = [open(f"{output}/{field}.{part}", "wb", buffering=0) for field in FIELDS]  # noqa: SIM115
    all_lengths: list[npt.NDArray[np.int32]] = []
    with open(source, "rb") as file:
        if begin:
            file.seek(begin - 1)
            file.readline()
        while file.tell() < end:
            texts: list[str] = []
            counts = [
                render(loads(line), prompt_type, texts, loads)
                for line in file.readlines(min(BATCH, end - file.tell()))
            ]
            flat, offsets = encoder.encode_batch_flat(texts)
            ids = np.frombuffer(flat, np.int32)
            lengths = np.diff(np.frombuffer(offsets, np.int64))
            targets = np.repeat(np.arange(len(texts)) % 2 == 1, lengths)
            labels = np.where(targets, ids, np.int32(-100))
            starts = np.cumsum([0, *counts[:-1]])
            if prompt_type in END_OF_TEXT:
                later = np.setdiff1d(np.arange(0, len(texts), 2), starts)
                labels[np.frombuffer(offsets, np.int64)[later]] = encoder.token_to_id(
                    END_OF_TEXT[prompt_type]
                )
            for out, array in zip(files, (ids, labels, np.ones(len(ids), np.int32)), strict=True):
                out.write(array.data)
            all_lengths.append(np.add.reduceat(lengths, starts).astype(np.int32))
    np.concatenate(all_lengths).tofile(f"{output}/lengths.{part}")


def floor(source: str, tokenizer: str, prompt_type: str, workers: int, output: str) -> None:
    """Do all parts in processes, and join what they wrote."""
    # The encoder has threads of its own, as many as there are cores that it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    jobs = [
        multiprocessing.Process(
            target=floor_part, args=(source, tokenizer, prompt_type, output, part, workers)
        )
        for part in range(workers)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    lengths = np.concatenate([np.fromfile(f"{output}/lengths.{part}", np.int32) for part in range(workers)])
    places = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=places[1:])
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 4, len(lengths), len(lengths) + 1)
    documents = np.arange(len(lengths) + 1, dtype=np.int64)
    for field in FIELDS:
        with open(f"{output}/{field}.0", "ab") as whole:
            for part in range(1, workers):
                with open(f"{output}/{field}.{part}", "rb") as rest:
                    shutil.copyfileobj(rest, whole, 1 << 22)
                os.remove(f"{output}/{field}.{part}")
        os.rename(f"{output}/{field}.0", f"{output}/data_packed_{field}_document.bin")
        with open(f"{output}/data_packed_{field}_document.idx", "wb") as index:
            for piece in (header, lengths.data, (places * 4).data, documents.data):
                index.write(piece)


# The floor ends here.


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of the datasets in a folder."""
    found = {}
    for path in sorted(folder.glob("data_packed_*_document.*")):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def take_turn(
    name: str, case: Case, source: Path, tokenizer: Path, given: argparse.Namespace, memory: float
) -> Turn:
    """Run a program once, in a fresh folder that is removed afterwards."""
    program = PROGRAMS[name]
    columns = INPUTS.get(case.source, "alpaca")
    folder = given.scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if program.records:
        source = first_records(source, program.records)
    words = command(
        program, source, columns, tokenizer, folder, given.workers, given.flags.split(), given.pythons
    )
    os.sync()
    log = given.scratch / "run.log"
    environment = {
        "HF_HOME": str(folder / "hub"),
        "CUDA_VISIBLE_DEVICES": "",
        "MTSFT_CACHE": str(given.scratch / "cache") if program.cache else "off",
    }
    cost = run(words, log, environment, memory)
    if program.kind in given.pythons:
        packages = [program.kind, "transformers", "tokenizers", "datasets", "torch"]
        words = [
            given.pythons[program.kind],
            str(PEERS / "count_tokens.py"),
            str(folder / "tokenized"),
            *packages,
        ]
        counted = json.loads(subprocess.run(words, check=True, capture_output=True).stdout.splitlines()[-1])
        given.versions[name] = counted["versions"]
        tokens, written = counted["tokens"], {}
    else:
        written = digests(folder)
        tokens = (folder / "data_packed_input_ids_document.bin").stat().st_size // 4
    if case.shows:
        # What --profile says stands last.
        told = log.read_text("utf-8", errors="replace").strip()
        given.shown = told[told.rindex("\nprofile") + 1 :]
    shutil.rmtree(folder)
    return Turn(cost, tokens, written)


def measure(
    case: Case, sources: dict[str, Path], tokenizer: Path, given: argparse.Namespace
) -> dict[str, list[Turn]]:
    """Let the programs of a case take turns; return what each gave, the turn that looks at memory first."""
    names = [name for name in case.programs if runs(PROGRAMS[name], case, tokenizer, given)]
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for turn in range(given.repeats + 1):
        # Each begins once, so that none always runs behind the same other one.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            program = PROGRAMS[name]
            peer = program.kind in given.pythons
            if peer and not 1 <= turn <= given.peer_repeats:
                continue
            memory = 0.1 if peer or turn == 0 else 0.0
            turns[name].append(take_turn(name, case, sources[program.form], tokenizer, given, memory))
            print(
                f"{case.source} {tokenizer.name} {name}: {turns[name][-1].cost}",
                file=sys.stderr,
                flush=True,
            )
    return turns


def runs(program: Program, case: Case, tokenizer: Path, given: argparse.Namespace) -> bool:
    """Return whether a program takes part."""
    if program.kind not in given.programs or (
        program.kind in PEER_NAMES and program.kind not in given.pythons
    ):
        return False
    # The tools text of glm4 is a text of its own, which the floor does not know.
    tools = case.source in ("mix", "sgd-tools")
    return program.kind != "floor" or not (tools and tokenizer.name == "glm4")


def sources_of(case: Case, given: argparse.Namespace) -> dict[str, Path]:
    """Return the file of a case in each form that it has."""
    inputs = given.scratch / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    if case.source == "rounds":
        return rounds(given.shared, inputs, given.mix // 2)
    path = write_input(case.source, given.shared, inputs, given.mix)
    return {"jsonl": repeated(path, case.megabytes) if case.megabytes else path}


def machine(given: argparse.Namespace) -> str:
    """Return a line about the machine and the versions."""
    names = ("numpy", "orjson", "tokenizers", "fastokens")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    peers = "; ".join(
        f"{name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
        for name, found in given.versions.items()
    )
    load = os.getloadavg()[0]
    return (
        f"{given.workers} workers, {len(os.sched_getaffinity(0))} cores, load {load:.1f} at the end, "
        f"medians of {given.repeats} turns ({given.peer_repeats} of the peers); "
        f"Python {sys.version.split()[0]}, {versions}. {peers}".rstrip()
    )


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with datasets/ and tokenizers/")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for inputs and outputs: 5 GB")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["mix", "alpaca"])
    parser.add_argument("--tokenizers", nargs="+", choices=PROMPT_TYPES, default=["qwen2.5"])
    parser.add_argument("--programs", nargs="+", choices=["floor", "ours", *PEER_NAMES])
    parser.add_argument("--repeats", type=int, default=3, help="turns that count, behind one for memory")
    parser.add_argument("--peer-repeats", type=int, default=1, help="turns of the peers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--mix", type=int, default=200, help="MB of the mix; file forms are compared at half of it"
    )
    parser.add_argument("--flags", default="", help="more flags for every run of the command, in one word")
    parser.add_argument(
        "--near", type=float, default=0.25, help="how far token totals of peers may be apart"
    )
    for name in PEER_NAMES:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"interpreter that has {name}")
    parser.add_argument("--write", type=Path, help="Markdown file whose marked blocks are filled")
    given = parser.parse_args()
    given.pythons = {name: getattr(given, name) for name in PEER_NAMES if getattr(given, name)}
    given.programs = given.programs or ["floor", "ours", *PEER_NAMES]
    given.peer_repeats = min(given.peer_repeats, given.repeats)
    given.versions, given.shown = {}, ""
    return given


def main() -> None:
    """Run the cases and print their tables."""
    given, bad = parsed(), False
    for name in given.cases:
        case = CASES[name]
        for tokenizer_name in given.tokenizers:
            sources = sources_of(case, given)
            tokenizer = tokenizer_folder(tokenizer_name, given.shared, given.scratch)
            turns = measure(case, sources, tokenizer, given)
            megabytes = sources["jsonl"].stat().st_size / 1e6
            lines = [f"{case.title} ({megabytes:.1f} MB), {tokenizer_name}:", ""]
            lines += table(case, turns, megabytes)
            said = checks(case, turns, given.near) + scaling(turns)
            bad |= any("NOT" in line for line in said)
            lines += ["", " ".join(said), "", machine(given)] if said else ["", machine(given)]
            if case.shows:
                lines += ["", "```text", given.shown, "```"]
            print("\n".join(lines), "\n", flush=True)
            if given.write:
                write_block(given.write, f"{name} {tokenizer_name}", lines)
    if bad:
        raise SystemExit("outputs differ: see NOT EQUAL and NOT NEAR above")


if __name__ == "__main__":
    if sys.argv[1:2] == ["floor"]:
        floor(*sys.argv[2:5], int(sys.argv[5]), sys.argv[6])
    else:
        main()
