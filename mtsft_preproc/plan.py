"""What a run will do, decided before it does anything: inputs, shards, fingerprint."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtsft_preproc._version import __version__
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError, TemplateError
from mtsft_preproc.handlers import Handler, check_columns, handlers, make_handler
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.masking import policies
from mtsft_preproc.readers import InputFile, Shard, find_inputs, readers
from mtsft_preproc.templates import Format, Probe, ProbeReport, make_format
from mtsft_preproc.tokenization import ResolvedTokenizer, TokenizerLoading, check_folder

__all__ = ["Plan", "file_sha256", "make_plan"]

_LEAST, _MOST = 1 << 20, 1 << 26
_CHUNK = 1 << 22


@dataclass
class Plan:
    """Everything that is known before the first record is encoded.

    Attributes:
        config: The settings.
        files: The inputs.
        shards: What the tasks read, in the order of the output.
        handler: Record -> dialogue.
        format: The chat format.
        tokenizer: The tokenizer, adjusted to it.
        probe: What a dialogue of two rounds becomes in it.
        identity: What the bytes of the dataset follow from: version, settings, inputs, tokenizer, format.
        fingerprint: sha256 of ``identity``.
    """

    config: PreprocessConfig
    files: list[InputFile]
    shards: list[Shard]
    handler: Handler
    format: Format
    tokenizer: ResolvedTokenizer
    probe: ProbeReport
    identity: dict[str, Any]
    fingerprint: str


def make_plan(config: PreprocessConfig, published: dict[str, Any] | None = None) -> Plan:
    """Check the settings against the data and the tokenizer, and cut the work into shards.

    Writes nothing. What is cheap to check is checked first.

    Args:
        config: The settings.
        published: Manifest of an interrupted run that has just been finished, or None.

    Raises:
        MtsftError: Something is wrong; the message says what would be right.
    """
    handler = make_handler(config)
    policies.canonical(config.train_on)
    named = make_format(config)
    check_folder(config.tokenizer)
    with TokenizerLoading(
        config.tokenizer,
        named.adjustment(),
        config.use_fast,
        config.trust_remote_code,
        Probe(named, config),
    ) as loading:
        files = find_inputs(config.input)
        check_columns(handler, files)
        shards = list(_shards(files, config))
        if not shards:
            raise InputError(f"--input: {', '.join(config.input)}: no records")
        hashes = _hash_files(files, config.workers)
        tokenizer = loading.result()
        chat_format = named.resolve(tokenizer.spec, config.date() or _date_of_run(config, published))
        probe = loading.afterwards()
    if probe.unproven:
        raise TemplateError(f"--chat-template: not for training: {probe.error}")
    identity = {
        "version": __version__,
        "settings": config.shaping() | {"handler_name": handlers.canonical(config.handler_name)},
        "columns": handler.columns,
        "inputs": [
            {"path": file.path, "bytes": file.size, "sha256": digest}
            for file, digest in zip(files, hashes, strict=True)
        ],
        "tokenizer": tokenizer.spec.describe(),
        **chat_format.describe(),
    }
    canonical = json.dumps(identity, sort_keys=True).encode()
    fingerprint = hashlib.sha256(canonical).hexdigest()
    return Plan(config, files, shards, handler, chat_format, tokenizer, probe, identity, fingerprint)


def _date_of_run(config: PreprocessConfig, published: dict[str, Any] | None) -> datetime.date:
    """Return the date for chat templates that print one: that of an interrupted run, or today's.

    A run that is taken up on another day goes on with the date that it was started with.
    """
    if config.restart:
        return datetime.date.today()
    path = OutputPaths(config.prefix).plan
    try:
        before = published or json.loads(path.read_text("utf-8"))["identity"]
        return datetime.date.fromisoformat(before["chat_template"]["date"])
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.date.today()


def _shards(files: list[InputFile], config: PreprocessConfig) -> Iterable[Shard]:
    size = config.shard_bytes
    if size is None:
        # A few hundred tasks, so that the last ones don't leave most workers idle, of a size that
        # makes the cost of a task small.
        size = min(_MOST, max(_LEAST, sum(file.size for file in files) // 256))
    left = config.max_samples
    index = 0
    for number, file in enumerate(files):
        reader = readers.get(file.kind)
        for start, end in reader.cut(file, size):
            shard = Shard(index, number, file, start, end)
            if left is not None:
                count = reader.count(shard, left)
                shard = replace(shard, max_records=count)
                left -= count
            yield shard
            index += 1
            if left == 0:
                return


def _hash_files(files: list[InputFile], workers: int) -> list[str]:
    """Return the sha256 of each file; hashing lets go of the interpreter's lock, so threads do."""
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(file_sha256, [Path(file.path) for file in files]))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        InputError: It can't be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()
