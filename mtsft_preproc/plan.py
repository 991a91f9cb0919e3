"""What a run will do, decided before it does anything: inputs, shards, fingerprint."""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mtsft_preproc._version import __version__
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.encoding import DatasetSpec, datasets_of
from mtsft_preproc.engines import Engine
from mtsft_preproc.errors import InputError, TemplateError
from mtsft_preproc.handlers import Handler, HandlerChoice, user_file_sha256
from mtsft_preproc.hashing import hashing_threads, start_hashing
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.masking import policies
from mtsft_preproc.mixing import Mix
from mtsft_preproc.readers import InputFile, Shard, readers
from mtsft_preproc.sources import Sources, find_sources, origin, with_defaults
from mtsft_preproc.templates import Format, Probe, ProbeReport, make_format
from mtsft_preproc.tokenization import (
    Adjustment,
    EncoderChoice,
    ResolvedTokenizer,
    TokenizerLoading,
    check_encoder_name,
    check_folder,
    choose_encoder,
    shared_encoder,
)

__all__ = ["Plan", "make_plan"]

_LEAST, _MOST = 1 << 20, 1 << 26
#: What workers import, so that the engine can have it ready.
_TASKS = "mtsft_preproc.tasks"


@dataclass
class Plan:
    """Everything that is known before the first record is encoded.

    Attributes:
        config: The settings.
        files: The inputs.
        choices: The handler of each.
        owners: The number of the source in the mix that each belongs to.
        mix: The sources, and how they are mixed.
        shards: What the tasks read, in the order of the output.
        handler: That of the first file; all have its objective.
        datasets: What the samples fill.
        format: The chat format, or None for text documents.
        tokenizer: The tokenizer, adjusted to it.
        probe: What a dialogue of two rounds becomes in it, or None without a chat format.
        encoder: What turns text into ids; the bytes don't depend on it.
        identity: What the bytes of the dataset follow from: version, settings, inputs, tokenizer, format.
        fingerprint: sha256 of ``identity``.
    """

    config: PreprocessConfig
    files: list[InputFile]
    choices: tuple[HandlerChoice, ...]
    owners: tuple[int, ...]
    mix: Mix
    shards: list[Shard]
    handler: Handler
    datasets: tuple[DatasetSpec, ...]
    format: Format | None
    tokenizer: ResolvedTokenizer
    probe: ProbeReport | None
    encoder: EncoderChoice
    identity: dict[str, Any]
    fingerprint: str

    @property
    def objective(self) -> str:
        """What becomes of the records, as :attr:`Handler.objective`."""
        return self.handler.objective


def make_plan(config: PreprocessConfig, engine: Engine, published: dict[str, Any] | None = None) -> Plan:
    """Check the settings against the data and the tokenizer, and cut the work into shards.

    Writes nothing. What is cheap to check is checked first.

    Args:
        config: The settings.
        engine: What is going to do the work; the tokenizer is tried where its workers come from.
        published: Manifest of an interrupted run that has just been finished, or None.

    Raises:
        MtsftError: Something is wrong; the message says what would be right.
    """
    if config.train_on is not None:
        policies.canonical(config.train_on)
    check_encoder_name(config.encoder)
    sources = find_sources(config)
    config = with_defaults(config, sources)
    named = _format(config, sources)
    check_folder(config.tokenizer)
    engine.start([_TASKS])
    with (
        TokenizerLoading(
            config.tokenizer,
            named.adjustment() if named else Adjustment(),
            config.use_fast,
            config.trust_remote_code,
        ) as loading,
        hashing_threads(config.workers) as threads,
    ):
        hashing = [start_hashing(Path(file.path), threads) for file in sources.files]
        shards = list(_shards(sources, config))
        if not shards:
            raise InputError(f"{origin(config)}: no records")
        tokenizer = loading.result()
        chat_format = None
        if named is not None:
            date = config.date() or _date_of_run(config, published)
            chat_format = named.resolve(tokenizer.spec, date)
        size = sum(file.size for file in sources.files)
        trial = engine.prepare(
            _Trial(tokenizer, Probe(named, config) if named else None, config.encoder, size)
        )
        hashes = [wait() for wait in hashing]
        probe, encoder = trial()
    if probe is not None and probe.unproven:
        raise TemplateError(f"--chat-template: not for training: {probe.error}")
    identity = {
        "version": __version__,
        "settings": config.shaping(),
        "columns": sources.handler.columns,
        "inputs": _inputs(sources, hashes),
        "tokenizer": tokenizer.spec.describe(),
    }
    mix = sources.mix
    if len(mix.sources) > 1 or not mix.trivial or mix.sources[0].max_samples is not None:
        identity["mix"] = asdict(mix) | {"sources": [asdict(source) for source in mix.sources]}
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
        sources.owners,
        sources.mix,
        shards,
        sources.handler,
        datasets_of(sources.handler, config),
        chat_format,
        tokenizer,
        probe,
        encoder,
        identity,
        fingerprint,
    )


def _inputs(sources: Sources, hashes: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return what is told of each file in the identity, ready for JSON."""
    return [
        {
            "path": file.path,
            "bytes": file.size,
            **digest,
            "source": sources.mix.sources[owner].name,
            "handler": choice.name,
            "map_keys": json.loads(choice.map_keys),
        }
        for file, choice, owner, digest in zip(
            sources.files, sources.choices, sources.owners, hashes, strict=True
        )
    ]


@dataclass(frozen=True)
class _Trial:
    """Tries encoders for a tokenizer, and the format with it; what it opens is there for the workers."""

    tokenizer: ResolvedTokenizer
    probe: Probe | None
    encoder: str
    bytes_of_input: int

    def __call__(self) -> tuple[ProbeReport | None, EncoderChoice]:
        with tempfile.TemporaryDirectory() as folder:
            spec = self.tokenizer.save(Path(folder))
            choice = choose_encoder(spec, self.encoder, self.bytes_of_input)
            encoder = shared_encoder(spec, choice.name)
            return None if self.probe is None else self.probe(encoder), choice


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
        # A hundred tasks and more, so that the last ones don't leave most workers idle, of a size that
        # makes the cost of a task small: files on disk, and texts that are always checked.
        size = min(_MOST, max(_LEAST, sum(file.size for file in sources.files) // 128))
    left = config.max_samples
    # Of each source, over all its files.
    limits = [source.max_samples for source in sources.mix.sources]
    index = 0
    for number, (file, owner) in enumerate(zip(sources.files, sources.owners, strict=True)):
        if limits[owner] == 0:
            continue
        reader = readers.get(file.kind)
        for start, end in reader.pieces(file, size):
            shard = Shard(index, number, file, start, end)
            limit = limits[owner]
            most = min((count for count in (left, limit) if count is not None), default=None)
            if most is not None:
                count = reader.count(shard, most)
                shard = replace(shard, max_records=count)
                left = None if left is None else left - count
                limits[owner] = None if limit is None else limit - count
            yield shard
            index += 1
            if left == 0:
                return
            if limits[owner] == 0:
                break
