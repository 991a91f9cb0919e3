"""All settings of a run."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mtsft_preproc.config.checks import (
    at_least,
    check_ignore_index,
    check_keep_columns,
    check_max_record_mb,
    check_max_rejected,
    check_output_prefix,
    check_probs,
    check_split,
    one_of,
    pack_window,
    parse_date,
    parse_map_keys,
    parse_template_kwargs,
)
from mtsft_preproc.config.choices import (
    DEDUP,
    DEEPSEEK4,
    EMPTY_REPLY,
    ENABLE_THINKING,
    MIX_STRATEGIES,
    ON_ERROR,
    OVERLONG,
    PARITY,
    REASONING_EFFORT,
    SPECIAL_TOKENS_IN_TEXT,
    TRUE_FALSE,
)
from mtsft_preproc.errors import SettingsError

__all__ = ["PreprocessConfig"]

#: Settings that say how a run is carried out; the bytes of the dataset never depend on them. (The date that
#: a chat template prints stands with the template.)
_OPERATIONAL = frozenset(
    {
        "output_prefix",
        "template_date",
        "workers",
        "engine",
        "encoder",
        "shard_bytes",
        "log_interval",
        "overwrite",
        "restart",
        "on_error",
        "max_rejected",
    }
)


@dataclass(frozen=True)
class PreprocessConfig:
    """Everything that one run of the preprocessor is told.

    Attributes:
        input: Files, folders or glob patterns, in the order in which they are read.
        output_prefix: The part of the output files' paths that stands before ``_packed_...``.
        tokenizer: Folder of the tokenizer, as transformers saves it.
        handler_name: Format of the records; a name of ``mtsft_preproc.handlers``, or ``"auto"`` to find it
            from the first records.
        handler_path: Python file with a handler of the user's own, or None.
        dataset_dir: Folder of the ``dataset_info.json`` in which LlamaFactoryInstructionHandler looks up
            the names that ``input`` holds, or None.
        json_keys: Of text documents: the fields that hold text; each becomes a dataset.
        dataset_additional_keys: Of the R1 handlers: what becomes a dataset beside the prompt: ``"labels"``
            for the reply, or fields of the record.
        render_state: Of ConversationHandler: put the dialogue state of a reply in front of it.
        first_round: Of ChatGLMHandler: number of the first round, 0 or 1.
        source_prefix: Of ChatGLMHandler: text in front of each sample.
        prompt_type: Chat format; a name of ``mtsft_preproc.templates.prompt_types`` or of
            ``prompt_type_path``.
        prompt_type_path: JSON file with chat formats in MindSpeed-LLM's form, or None.
        chat_template: Instead of a prompt type: ``"tokenizer"`` for the template in the tokenizer's folder,
            the path of a ``.jinja`` file, or a name.
        chat_template_kwargs: JSON object: further variables for the chat template.
        template_date: The date, ``YYYY-MM-DD``, that a chat template prints; None for that of the day on
            which the run was started.
        parity: What becomes of a trained turn whose text is not that of serving.
        map_keys: JSON object: column of the data by key of the handler.
        train_on: Mask policy; a name of ``mtsft_preproc.masking``, or None for the one that the data format
            brings along: ``assistant`` for most.
        train_on_tools: Whether what tools return is trained, too.
        empty_reply: What becomes of a record in which the assistant says nothing: ``"keep"``, ``"reject"``,
            or ``"untrained"`` to keep it and not train that message.
        enable_thinking: ``"true"``, ``"false"`` or ``"none"``, for prompt types that know thinking.
        drop_thinking: For the prompt type ``deepseek4``: ``"true"`` or ``"false"``: whether thoughts of
            earlier turns are left out; None for the template's default.
        reasoning_effort: For the prompt type ``deepseek4``: ``"high"`` or ``"max"``, or None.
        seq_length: The most tokens a sample may have, or None for no limit.
        overlong: What becomes of a longer one; None for what the data format brings along: ``drop`` for
            most.
        append_eod: Whether each sample gets one more end-of-sequence token, trained.
        pad_to_multiple_of: Of text documents, and of samples inside a pack: pad each with the pad token to
            a multiple of so many tokens.
        pack: Put several samples into each item, and fill it with padding to just ``seq_length`` tokens.
        neat_pack: Let the attention mask tell the samples of an item apart.
        pack_scope: ``"global"``, or ``"window:N"`` to pack every N samples for themselves; None for windows
            of :data:`PACK_WINDOW`.
        mix: YAML file with the sources and their weights, instead of ``input``; or None.
        mix_strategy: How the sources follow each other; see :mod:`mtsft_preproc.mixing`.
        interleave_probs: Share of each source (entry of ``input``) in the mix; they sum to 1.
        split: Shares of train, valid and test; empty for a single output.
        shuffle: Whether the items stand in a random order.
        dedup: ``"exact"`` rejects a dialogue that was there before.
        keep_columns: Columns, or fields of ``metadata``, that the sources sidecar takes over.
        ignore_index: Label of a position that is not trained.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        seed: Seed of everything random (split, mix, shuffle); keyed by index or content, so that it doesn't
            depend on workers.
        max_samples: Read only the first so many records, or None for all.
        trust_remote_code: Whether a tokenizer folder may bring and run its own Python code.
        use_fast: Whether to take the Rust tokenizer where transformers offers one.
        workers: Worker processes.
        engine: Name of the engine that runs the tasks, or ``"auto"``: serial for one worker.
        encoder: What turns text into ids: ``"reference"``, a faster library that gives the same ids, or
            ``"auto"`` for that where it is proven and pays; see :mod:`mtsft_preproc.tokenization.choice`.
        shard_bytes: Input bytes per task, or None for a size that follows from the input's.
        log_interval: Records between two progress lines where standard error is no terminal.
        overwrite: Replace a finished output.
        restart: Start over where an earlier run with other settings was interrupted.
        rejected_records: Whether ``PREFIX.rejected.jsonl`` holds the rejected records themselves, too.
        on_error: A bad record goes to the ledger, and damage to a file stops the run (None); what is lost
            to damage goes to the ledger, too (``"skip"``); either stops the run (``"fail"``).
        max_record_mb: The most bytes of a record in units of 2**20; a larger one is rejected.
        max_rejected: The most records that may be rejected before the run stops: a share of the records
            read if a float, a count if an int.
    """

    input: tuple[str, ...]
    output_prefix: str
    tokenizer: str
    handler_name: str
    handler_path: str | None = None
    dataset_dir: str | None = None
    json_keys: tuple[str, ...] = ("text",)
    dataset_additional_keys: tuple[str, ...] = ()
    render_state: bool = False
    first_round: int = 0
    source_prefix: str = ""
    prompt_type: str | None = None
    prompt_type_path: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: str = "{}"
    template_date: str | None = None
    parity: str = "report"
    map_keys: str = "{}"
    train_on: str | None = None
    train_on_tools: bool = False
    empty_reply: str = "keep"
    enable_thinking: str = "none"
    drop_thinking: str | None = None
    reasoning_effort: str | None = None
    seq_length: int | None = None
    overlong: str | None = None
    append_eod: bool = False
    pad_to_multiple_of: int = 1
    pack: bool = False
    neat_pack: bool = False
    pack_scope: str | None = None
    mix: str | None = None
    mix_strategy: str = "concat"
    interleave_probs: tuple[float, ...] = ()
    split: tuple[float, ...] = ()
    shuffle: bool = False
    dedup: str = "none"
    keep_columns: tuple[str, ...] = ()
    ignore_index: int = -100
    special_tokens_in_text: str = "plain"
    seed: int = 1234
    max_samples: int | None = None
    trust_remote_code: bool = False
    use_fast: bool = True
    workers: int = 1
    engine: str = "auto"
    encoder: str = "auto"
    shard_bytes: int | None = None
    log_interval: int = 1000
    overwrite: bool = False
    restart: bool = False
    rejected_records: bool = False
    on_error: str | None = None
    max_record_mb: float = 64
    max_rejected: float | int = 0.1

    def __post_init__(self) -> None:
        if bool(self.input) == (self.mix is not None):
            given = "got both" if self.input else "nothing given"
            raise SettingsError(f"--input: {given}; expected files, folders or globs, or --mix SPEC.yaml")
        check_output_prefix(self.output_prefix)
        at_least("--workers", self.workers, 1)
        at_least("--log-interval", self.log_interval, 1)
        at_least("--seq-length", self.seq_length, 1)
        if self.seq_length is not None and self.seq_length >= 2**31:
            raise SettingsError(f"--seq-length: expected less than 2**31 tokens, got {self.seq_length}")
        at_least("--max-samples", self.max_samples, 1)
        at_least("--shard-bytes", self.shard_bytes, 1)
        at_least("--pad-to-multiple-of", self.pad_to_multiple_of, 1)
        if self.overlong is not None:
            one_of("--overlong", self.overlong, OVERLONG)
        one_of("--empty-reply", self.empty_reply, EMPTY_REPLY)
        check_keep_columns(self.keep_columns)
        self._check_arrangement()
        if self.first_round not in (0, 1):
            raise SettingsError(f"--first-round: expected 0 or 1, got {self.first_round}")
        if self.on_error is not None:
            one_of("--on-error", self.on_error, ON_ERROR)
        check_max_record_mb(self.max_record_mb)
        # 64 and 64.0 are one setting.
        object.__setattr__(self, "max_record_mb", float(self.max_record_mb))
        one_of("--enable-thinking", self.enable_thinking, ENABLE_THINKING)
        one_of("--special-tokens-in-text", self.special_tokens_in_text, SPECIAL_TOKENS_IN_TEXT)
        one_of("--parity", self.parity, PARITY)
        self.mapped()
        self._check_template()
        check_ignore_index(self.ignore_index)
        check_max_rejected(self.max_rejected)

    def _check_arrangement(self) -> None:
        # 1 and 1.0 are one setting.
        object.__setattr__(self, "split", tuple(map(float, self.split)))
        object.__setattr__(self, "interleave_probs", tuple(map(float, self.interleave_probs)))
        one_of("--mix-strategy", self.mix_strategy, MIX_STRATEGIES)
        one_of("--dedup", self.dedup, DEDUP)
        for flag, given in (("--neat-pack", self.neat_pack), ("--pack-scope", self.pack_scope is not None)):
            if given and not self.pack:
                raise SettingsError(f"{flag}: belongs to --pack, which is not given")
        self.pack_window()
        check_probs(self.interleave_probs, self.mix is None and self.mix_strategy != "concat")
        check_split(self.split)

    def pack_window(self) -> int | None:
        """Return how many samples are packed for themselves; None for all.

        Raises:
            SettingsError: ``--pack-scope`` says neither.
        """
        return pack_window(self.pack_scope)

    def _check_template(self) -> None:
        if self.drop_thinking is not None:
            one_of("--drop-thinking", self.drop_thinking, TRUE_FALSE)
        if self.reasoning_effort is not None:
            one_of("--reasoning-effort", self.reasoning_effort, REASONING_EFFORT)
        for flag, value in (
            ("--drop-thinking", self.drop_thinking),
            ("--reasoning-effort", self.reasoning_effort),
        ):
            if value is not None and self.prompt_type != DEEPSEEK4:
                raise SettingsError(f"{flag}: belongs to --prompt-type {DEEPSEEK4} alone")
        self.template_kwargs()
        self.date()
        if self.chat_template is None:
            for flag, given in (
                ("--chat-template-kwargs", self.template_kwargs() != {}),
                ("--parity", self.parity != "report" and self.prompt_type != DEEPSEEK4),
                ("--template-date", self.template_date is not None),
            ):
                if given:
                    raise SettingsError(f"{flag}: belongs to --chat-template, which is not given")
        elif self.prompt_type is not None or self.prompt_type_path is not None:
            raise SettingsError("--prompt-type and --chat-template: expected one of them, got both")

    def template_kwargs(self) -> dict[str, Any]:
        """Return ``--chat-template-kwargs`` as a mapping.

        Raises:
            SettingsError: It is none.
        """
        return parse_template_kwargs(self.chat_template_kwargs)

    def date(self) -> datetime.date | None:
        """Return ``--template-date``.

        Raises:
            SettingsError: It is none.
        """
        return parse_date(self.template_date)

    @property
    def prefix(self) -> Path:
        """The output prefix as a path."""
        return Path(self.output_prefix)

    @property
    def record_bytes(self) -> int:
        """The most bytes of a record."""
        return max(1, round(self.max_record_mb * (1 << 20)))

    def mapped(self) -> dict[str, Any]:
        """Return ``--map-keys`` as a mapping from the handler's keys to columns.

        Raises:
            SettingsError: It is none.
        """
        return parse_map_keys(self.map_keys)

    def shaping(self) -> dict[str, Any]:
        """Return the settings that the bytes of the dataset depend on, ready for JSON.

        Where the output lies and how the run is carried out (workers, engine, shard size, what
        happens on errors) is left out.
        """
        shaping = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in _OPERATIONAL
        }
        return shaping | {
            "input": list(self.input),
            "json_keys": list(self.json_keys),
            "dataset_additional_keys": list(self.dataset_additional_keys),
            "keep_columns": list(self.keep_columns),
            "interleave_probs": list(self.interleave_probs),
            "split": list(self.split),
            "map_keys": self.mapped(),
            "chat_template_kwargs": self.template_kwargs(),
        }
