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
from mtsft_preproc.encoding import DatasetSpec, datasets_of
from mtsft_preproc.errors import InputError, TemplateError
from mtsft_preproc.handlers import Handler, HandlerChoice, user_file_sha256
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.masking import policies
from mtsft_preproc.readers import InputFile, Shard, readers
from mtsft_preproc.sources import Sources, find_sources, with_defaults
from mtsft_preproc.templates import Format, Probe, ProbeReport, make_format
from mtsft_preproc.tokenization import Adjustment, ResolvedTokenizer, TokenizerLoading, check_folder

__all__ = ["Plan", "file_sha256", "make_plan"]

_LEAST, _MOST = 1 << 20, 1 << 26
_CHUNK = 1 << 22


@dataclass
class Plan:
    """Everything that is known before the first record is encoded.

    Attributes:
        config: The settings.
        files: The inputs.
        choices: The handler of each.
        shards: What the tasks read, in the order of the output.
        handler: That of the first file; all have its objective.
        datasets: What the samples fill.
        format: The chat format, or None for text documents.
        tokenizer: The tokenizer, adjusted to it.
        probe: What a dialogue of two rounds becomes in it, or None without a chat format.
        identity: What the bytes of the dataset follow from: version, settings, inputs, tokenizer, format.
        fingerprint: sha256 of ``identity``.
    """

    config: PreprocessConfig
    files: list[InputFile]
    choices: tuple[HandlerChoice, ...]
    shards: list[Shard]
    handler: Handler
    datasets: tuple[DatasetSpec, ...]
    format: Format | None
    tokenizer: ResolvedTokenizer
    probe: ProbeReport | None
    identity: dict[str, Any]
    fingerprint: str

    @property
    def objective(self) -> str:
        """What becomes of the records, as :attr:`Handler.objective`."""
        return self.handler.objective


def make_plan(config: PreprocessConfig, published: dict[str, Any] | None = None) -> Plan:
    """Check the settings against the data and the tokenizer, and cut the work into shards.

    Writes nothing. What is cheap to check is checked first.

    Args:
        config: The settings.
        published: Manifest of an interrupted run that has just been finished, or None.

    Raises:
        MtsftError: Something is wrong; the message says what would be right.
    """
    if config.train_on is not None:
        policies.canonical(config.train_on)
    sources = find_sources(config)
    config = with_defaults(config, sources)
    named = _format(config, sources)
    check_folder(config.tokenizer)
    with TokenizerLoading(
        config.tokenizer,
        named.adjustment() if named else Adjustment(),
        config.use_fast,
        config.trust_remote_code,
        Probe(named, config) if named else None,
    ) as loading:
        shards = list(_shards(sources, config))
        if not shards:
            raise InputError(f"--input: {', '.join(config.input)}: no records")
        hashes = _hash_files(sources.files, config.workers)
        tokenizer = loading.result()
        chat_format, probe = None, None
        if named is not None:
            date = config.date() or _date_of_run(config, published)
            chat_format = named.resolve(tokenizer.spec, date)
            probe = loading.afterwards()
    if probe is not None and probe.unproven:
        raise TemplateError(f"--chat-template: not for training: {probe.error}")
    identity = {
        "version": __version__,
        "settings": config.shaping(),
        "columns": sources.handler.columns,
        "inputs": [
            {"path": file.path, "bytes": file.size, "sha256": digest, "handler": choice.name}
            | {"map_keys": json.loads(choice.map_keys)}
            for file, choice, digest in zip(sources.files, sources.choices, hashes, strict=True)
        ],
        "tokenizer": tokenizer.spec.describe(),
    }
    if config.handler_path is not None:
        identity["handler_file"] = user_file_sha256(config.handler_path)
    if chat_format is not None:
        identity |= chat_format.describe()
    canonical = json.dumps(identity, sort_keys=True).encode()
    fingerprint = hashlib.sha256(canonical).hexdigest()
    return Plan(
        config,
        sources.files,
        sources.choices,
        shards,
        sources.handler,
        datasets_of(sources.handler, config),
        chat_format,
        tokenizer,
        probe,
        identity,
        fingerprint,
    )


def _format(config: PreprocessConfig, sources: Sources) -> Format | None:
    handler = sources.handler
    if handler.objective == "text":
        return None
    # By the name of the handler that was found, where it was to be found.
    named = replace(config, handler_name=sources.choices[0].name)
    return make_format(named, handler.text_form, handler.text_form_only)


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


def _shards(sources: Sources, config: PreprocessConfig) -> Iterable[Shard]:
    size = config.shard_bytes
    if size is None:
        # A few hundred tasks, so that the last ones don't leave most workers idle, of a size that
        # makes the cost of a task small.
        size = min(_MOST, max(_LEAST, sum(file.size for file in sources.files) // 256))
    left = config.max_samples
    index = 0
    for number, (file, limit) in enumerate(zip(sources.files, sources.limits, strict=True)):
        reader = readers.get(file.kind)
        for start, end in reader.cut(file, size):
            if limit == 0:
                break
            shard = Shard(index, number, file, start, end)
            most = min((count for count in (left, limit) if count is not None), default=None)
            if most is not None:
                count = reader.count(shard, most)
                shard = replace(shard, max_records=count)
                left = None if left is None else left - count
                limit = None if limit is None else limit - count
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
