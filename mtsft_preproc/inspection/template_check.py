"""Looks at a chat format before there are any data: what is trained, where turns end, what serving sees."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.inspection.colours import coloured, legend
from mtsft_preproc.templates import (
    ChatFormat,
    ChatRenderer,
    Format,
    Template,
    TokenBatch,
    prompts_of,
    reporting,
    stop_remedy,
    turn_ends,
)
from mtsft_preproc.tokenization import Encoder, ResolvedTokenizer, TokenizerLoading, open_encoder

__all__ = ["DialogueCheck", "FormatCheck", "check_formats", "print_check"]

_IGNORED = -100


@dataclass
class DialogueCheck:
    """What a dialogue becomes in a format.

    Attributes:
        name: What the dialogue has: ``"plain"``, ``"system"``, ``"thinking"`` or ``"tools"``.
        ids: int32, shape (N,): its tokens; empty where it is refused.
        labels: int32, shape (N,): the same where trained, else -100.
        says: What is to be known of it.
        unsafe: What would do damage, with the remedy.
        refused: Why it can't be rendered, or None.
    """

    name: str
    ids: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    labels: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    says: list[str] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)
    refused: str | None = None


@dataclass
class FormatCheck:
    """What was found about a format with a tokenizer.

    Attributes:
        name: The format.
        dialogues: What dialogues become in it.
        encoder: Of the tokenizer, or None where the two don't go together.
        unusable: Why they don't, or None.
    """

    name: str
    dialogues: list[DialogueCheck]
    encoder: Encoder | None = None
    unusable: str | None = None

    @property
    def unsafe(self) -> list[str]:
        """What would do damage, each once."""
        return list(dict.fromkeys(line for dialogue in self.dialogues for line in dialogue.unsafe))


def check_formats(named: list[tuple[str, Format, PreprocessConfig]]) -> Iterator[FormatCheck]:
    """Check formats with the tokenizer that their settings name; each tokenizer is loaded once.

    Raises:
        TokenizerError: It can't be loaded.
    """
    loaded: dict[object, tuple[ResolvedTokenizer, Encoder]] = {}
    for name, found, config in named:
        adjustment = found.adjustment()
        if adjustment not in loaded:
            with TokenizerLoading(
                config.tokenizer, adjustment, config.use_fast, config.trust_remote_code
            ) as loading:
                resolved = loading.result()
            with tempfile.TemporaryDirectory() as folder:
                loaded[adjustment] = resolved, open_encoder(resolved.save(Path(folder)))
        yield _check(name, found, config, *loaded[adjustment])


def _check(
    name: str, found: Format, config: PreprocessConfig, resolved: ResolvedTokenizer, encoder: Encoder
) -> FormatCheck:
    try:
        complete = found.resolve(resolved.spec, config.date() or datetime.date.today())
        template = complete.open(encoder, reporting(config))
    except TemplateError as error:
        return FormatCheck(name, [], None, str(error))
    checks = [
        _dialogue(what, dialogue, template, encoder, config, isinstance(found, ChatFormat))
        for what, dialogue in _dialogues()
    ]
    return FormatCheck(name, checks, encoder)


def _dialogues() -> Iterator[tuple[str, Dialogue]]:
    """Yield dialogues of two rounds by what they have."""
    asked, again = Message(Role.USER, "What is 2 + 2?"), Message(Role.USER, "And times 10?")
    first, second = Message(Role.ASSISTANT, "It is 4."), Message(Role.ASSISTANT, "That is 40.")
    yield "plain", Dialogue([asked, first, again, second])
    yield "system", Dialogue([asked, first, again, second], "Answer briefly.")
    thought = [
        Message(Role.ASSISTANT, reply.content, reasoning)
        for reply, reasoning in ((first, "Two and two make four."), (second, "Four times ten is forty."))
    ]
    yield "thinking", Dialogue([asked, thought[0], again, thought[1]])
    call = ToolCall("multiply", {"a": 4, "b": 10}, "call00001")
    number = {"type": "number", "description": "A factor."}
    tool = {
        "type": "function",
        "function": {
            "name": "multiply",
            "description": "Multiply two numbers.",
            "parameters": {"type": "object", "properties": {"a": number, "b": number}, "required": ["a"]},
        },
    }
    calls = Message(Role.ASSISTANT, None, None, (call,))
    result = Message(Role.OBSERVATION, "40", name="multiply", call_id="call00001")
    yield "tools", Dialogue([asked, first, again, calls, result, second], "Answer briefly.", [tool])


def _dialogue(
    name: str,
    dialogue: Dialogue,
    template: Template,
    encoder: Encoder,
    config: PreprocessConfig,
    is_chat: bool,
) -> DialogueCheck:
    """Encode a dialogue and look at what came of it."""
    trained = [message.role.is_target for message in dialogue.messages]
    batch = template.encode([dialogue], [trained])
    check = DialogueCheck(name)
    if batch.failed:
        error = batch.failed[0]
        check.refused = str(error)
        if error.reason in ("mask-unproven", "not-rendered") or name == "plain":
            check.unsafe.append(f"{name}: {error}")
        return check
    mask = batch.mask()
    check.ids = batch.ids
    check.labels = np.where(mask, batch.ids, np.int32(_IGNORED))
    if template.late_stop_id is not None:
        check.labels[batch.late_stops] = template.late_stop_id
    _look_at_tokens(check, batch, mask, encoder)
    _look_at_ends(check, template, encoder, batch, config)
    check.says += [note for note in batch.notes[0] if note != "stop-not-trained"]
    if is_chat and config.parity != "off":
        _look_at_parity(check, batch)
    elif not is_chat:
        _compare_with_own_template(check, dialogue, batch, encoder)
    return check


def _look_at_tokens(
    check: DialogueCheck, batch: TokenBatch, mask: npt.NDArray[np.bool_], encoder: Encoder
) -> None:
    share = mask.sum() / max(1, len(mask))
    check.says.append(f"{len(mask)} tokens, {int(mask.sum())} trained ({share:.0%})")
    if not mask.any():
        check.unsafe.append("no token is trained")
    elif mask.all():
        check.unsafe.append("every token is trained, the user's words too")
    bos = encoder.spec.bos_id
    if bos is not None and bos != encoder.spec.eos_id:
        places = np.flatnonzero(batch.ids == bos)
        check.says.append(f"BOS {len(places)} times")
        if len(places) > 1 and places[0] == 0 and places[1] == 1:
            check.unsafe.append("BOS stands twice at the start")
        if mask[places].any():
            check.unsafe.append("BOS is trained")


def _look_at_ends(
    check: DialogueCheck,
    template: Template,
    encoder: Encoder,
    batch: TokenBatch,
    config: PreprocessConfig,
) -> None:
    """Look at the token that ends each turn."""
    ends = turn_ends(template, encoder, batch)
    texts = dict.fromkeys(f"{end.text!r} ({end.id})" for end in ends if end.special)
    if texts:
        check.says.append(f"turns end with {', '.join(texts)}")
    unstopped = [number for number, end in enumerate(ends, 1) if not end.special]
    if unstopped:
        numbers = " and ".join(map(str, unstopped))
        check.unsafe.append(
            f"turn {numbers} of {len(ends)}: no stop token is trained; {stop_remedy(ends, config)}"
        )
    foreign = dict.fromkeys(end.text for end in ends if end.special and not end.stops)
    if foreign:
        check.says.append(
            f"{', '.join(map(repr, foreign))} is not among the tokens that end generation by the "
            f"tokenizer's folder ({', '.join(encoder.decode([index]) for index in encoder.spec.stop_ids)})"
        )


def _look_at_parity(check: DialogueCheck, batch: TokenBatch) -> None:
    turns = {kind: count for kind, count in batch.parity.items() if not kind.startswith("split-")}
    total, same = sum(turns.values()), turns.get("same", 0)
    check.says.append(f"{same} of {total} turns stand in the text that serving has")
    for item in batch.differences:
        check.unsafe.append(
            f"the {item.kind} of message {item.message} is not serving's: training has {item.training!r}, "
            f"serving {item.serving!r}; see --parity"
        )


def _compare_with_own_template(
    check: DialogueCheck, dialogue: Dialogue, batch: TokenBatch, encoder: Encoder
) -> None:
    """Compare a prompt type with what a server would do that has the tokenizer's own template."""
    own = dict(encoder.spec.chat_templates)
    if "default" not in own:
        return
    try:
        renderer = ChatRenderer(own, dict(encoder.spec.special_tokens_map), datetime.date.today())
    except TemplateError as error:
        check.says.append(f"the tokenizer's own chat template can't be used: {error}")
        return
    generated = batch.mask()
    generated[batch.late_stops] = False
    for message, prompt in prompts_of(renderer, dialogue):
        if isinstance(prompt, RecordError):
            check.says.append(f"the tokenizer's own chat template refuses it: {prompt.got}")
            return
        places = np.flatnonzero(generated & (batch.messages == message))
        before = batch.ids[: places[0]].tolist() if len(places) else []
        if before != encoder.encode([prompt]).ids.tolist():
            check.says.append(
                "a server with the tokenizer's own chat template has another prompt for message "
                f"{message}: {prompt[-80:]!r}"
            )
            return
    check.says.append("the prompts are those of the tokenizer's own chat template")


def print_check(check: FormatCheck, console: Console, brief: bool) -> None:
    """Print what was found.

    Args:
        check: The findings.
        console: Where to.
        brief: One line, for a list of formats.
    """
    verdict = "unusable" if check.unusable else "UNSAFE" if check.unsafe else "safe"
    style = {"unusable": "dim", "UNSAFE": "bold red", "safe": "green"}[verdict]
    if brief:
        console.print(f"{check.name:<18}", end="", markup=False)
        console.print(f"{verdict:<10}", style=style, end="")
        first = (check.unusable or (check.unsafe or check.dialogues[0].says[:3])[0])[:300]
        console.print(first, markup=False)
        return
    console.print(legend())
    for dialogue in check.dialogues:
        console.print(f"\n{check.name}: {dialogue.name}", style="bold", markup=False)
        if dialogue.refused:
            console.print(f"  refused: {dialogue.refused}", markup=False)
        elif check.encoder is not None:
            console.print(
                coloured(check.encoder, dialogue.ids.tolist(), dialogue.labels.tolist(), _IGNORED)
            )
        for line in dialogue.says:
            console.print(f"  {line}", markup=False)
    console.print()
    for line in check.unsafe:
        console.print(f"UNSAFE: {line}", style="bold red", markup=False)
    if not check.unsafe:
        console.print("safe", style="bold green")
