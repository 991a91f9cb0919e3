"""What ``preprocess.py`` measures: programs, and the cases that set them side by side."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CASES", "PEERS", "PEER_NAMES", "PROGRAMS", "PROMPT_TYPES", "Case", "Program", "command"]

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
#: Prompt type by tokenizer, and the name of LLaMA-Factory's template.
PROMPT_TYPES = {"qwen2.5": "qwen", "llama3.1": "llama3", "glm4": "glm4", "llama2": "llama2"}
#: Names of the packages of the peers.
PEER_NAMES = ("llamafactory", "trl")
_SEQ = ("--seq-length", "4096")


@dataclass(frozen=True)
class Program:
    """One way to do the work.

    Attributes:
        kind: ``floor``, ``ours``, or the name of a peer.
        flags: Flags of the command on top of the usual ones.
        workers: Number of workers; None: that of the whole run.
        form: File form of the input, where a case compares forms.
        records: Number of records that are read; None: all.
        cache: Whether what the command keeps of a tokenizer from run to run may be there.
    """

    kind: str
    flags: tuple[str, ...] = ()
    workers: int | None = None
    form: str = "jsonl"
    records: int | None = None
    cache: bool = True


@dataclass(frozen=True)
class Case:
    """A table: the same work by several programs.

    Attributes:
        title: What stands above the table.
        source: Name of the input; ``rounds`` comes in three file forms.
        programs: Names of :data:`PROGRAMS`; ratios are to the first one.
        megabytes: Size to which the input is repeated; None: as it is.
        equal: Whether all outputs of the command and the floor must be the same bytes.
        shows: Whether the last lines that the command prints belong to the table.
    """

    title: str
    source: str
    programs: tuple[str, ...]
    megabytes: int | None = None
    equal: bool = True
    shows: bool = False


PROGRAMS = {
    "floor": Program("floor"),
    "ours": Program("ours"),
    "ours, first run": Program("ours", cache=False),
    "LLaMA-Factory": Program("llamafactory"),
    "TRL": Program("trl"),
    "floor, 1 worker": Program("floor", workers=1),
    "ours, 1 worker": Program("ours", workers=1),
    "ours, 5 records": Program("ours", records=5),
    "ours, 5 records, 1 worker": Program("ours", records=5, workers=1),
    "ours, 5 records, first run": Program("ours", records=5, cache=False),
    "ours, --chat-template": Program("ours", ("--chat-template", "tokenizer")),
    "ours, --train-on split": Program("ours", ("--train-on", "split")),
    "ours, --seq-length": Program("ours", _SEQ),
    "ours, --pack": Program("ours", (*_SEQ, "--pack")),
    "ours, JSON array": Program("ours", form="json"),
    "ours, parquet": Program("ours", form="parquet"),
    "ours, --profile": Program("ours", ("--profile",)),
}
_ALL = ("floor", "ours", "ours, first run", "LLaMA-Factory", "TRL")
CASES = {
    "mix": Case("Mix of all four, as messages", "mix", _ALL),
    "alpaca": Case("Alpaca 52k", "alpaca", _ALL),
    "sgd-tools": Case("SGD with tools", "sgd-tools", _ALL),
    "sgd-history": Case("SGD, Alpaca with history", "sgd-history", _ALL),
    "medicalgpt": Case("MedicalGPT", "medicalgpt", _ALL),
    "jinja": Case(
        "Prompt type and chat template (Jinja), mix", "mix", ("ours", "ours, --chat-template"), equal=False
    ),
    "split": Case(
        "`--train-on assistant` and `split`, SGD with history", "sgd-history",
        ("ours", "ours, --train-on split"),
        equal=False,
    ),
    "pack": Case("Packing, mix", "mix", ("ours, --seq-length", "ours, --pack"), equal=False),
    "workers": Case(
        "One worker and two, mix", "mix",
        (
            "floor", "floor, 1 worker", "ours", "ours, 1 worker",
            "ours, 5 records", "ours, 5 records, 1 worker",
        ),
    ),
    "small": Case("20 MB of the mix", "mix", ("floor", "ours"), megabytes=20),
    "large": Case("2 GB of the mix", "mix", ("floor", "ours"), megabytes=2000),
    "forms": Case(
        "File forms, Alpaca and SGD with history", "rounds",
        ("ours", "ours, JSON array", "ours, parquet"), equal=True,
    ),
    "start-up": Case(
        "Five records of Alpaca", "alpaca",
        ("ours, 5 records", "ours, 5 records, 1 worker", "ours, 5 records, first run"),
    ),
    "profile": Case("Stages of a run on the mix", "mix", ("ours, --profile",), shows=True),
}  # fmt: skip


def command(
    program: Program,
    source: Path,
    columns: str,
    tokenizer: Path,
    output: Path,
    workers: int,
    extra: list[str],
    pythons: dict[str, str],
) -> list[str]:
    """Return the command line of a program.

    Args:
        program: The program.
        source: Its input.
        columns: ``alpaca`` or ``messages``.
        tokenizer: Folder of the tokenizer; its name is a key of :data:`PROMPT_TYPES`.
        output: Empty folder.
        workers: Number of workers, unless the program has one of its own.
        extra: Flags for every run of the command.
        pythons: Interpreter by peer.
    """  # fmt: skip
    prompt_type, count = PROMPT_TYPES[tokenizer.name], str(program.workers or workers)
    if program.kind == "floor":
        script = str(Path(__file__).parent / "preprocess.py")
        return [
            sys.executable,
            script,
            "floor",
            str(source),
            str(tokenizer),
            prompt_type,
            count,
            str(output),
        ]
    if program.kind != "ours":
        script = str(PEERS / f"run_{program.kind}.py")
        python = pythons[program.kind]
        return [python, script, str(source), str(tokenizer), prompt_type, columns, count, str(output)]
    handler = "OpenAIInstructionHandler" if columns == "messages" else "AlpacaStyleInstructionHandler"
    flags = ["--prompt-type", prompt_type] if "--chat-template" not in program.flags else []
    if columns == "alpaca":
        flags += ["--map-keys", json.dumps({"history": "history"})] if "alpaca" not in source.stem else []
    return [
        sys.executable, str(ROOT / "preprocess_data.py"), "--input", str(source), "--handler-name", handler,
        "--tokenizer-name-or-path", str(tokenizer), "--output-prefix", str(output / "data"),
        "--workers", count, *flags, *program.flags, *extra,
    ]  # fmt: skip
