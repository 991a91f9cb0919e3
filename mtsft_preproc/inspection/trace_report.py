"""What ``mtsft trace`` found: as JSON, and in colour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text as Styled

from mtsft_preproc.inspection.colours import coloured, legend
from mtsft_preproc.tokenization import Encoder

__all__ = [
    "ItemTrace",
    "Place",
    "StepTrace",
    "Text",
    "TokenTrace",
    "print_item",
    "print_step",
    "print_token",
]

#: Characters of a text, and entries of a list, that are shown of a record.
_TEXT, _ENTRIES = 300, 40
_HERE = "reverse"


@dataclass(frozen=True)
class Place:
    """A sample in an item.

    Attributes:
        sample: Its number in the item, from 0.
        offset: Where it starts in the item, in tokens.
        length: Tokens; where a sample has several sequences (a pair), those of the first.
        trained: Trained tokens.
        source: Name of the source in the mix.
        file: The file of input.
        row: The row in it, from 0.
        turn: The message that the sample is for, or None for whole dialogues.
        digest: Of what the record says, in hex.
    """

    sample: int
    offset: int
    length: int
    trained: int
    source: str
    file: str
    row: int
    turn: int | None
    digest: str


@dataclass(frozen=True)
class ItemTrace:
    """The samples of an item.

    Attributes:
        item: Its number.
        length: Tokens of it, where that was asked for.
        samples: The samples, in order.
    """

    item: int
    length: int | None
    samples: list[Place]

    def as_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class StepTrace:
    """What a training step was dealt.

    Attributes:
        step: Number of the step, from 1.
        epoch: Number of its epoch, from 0.
        items: The items, in the order of the batch.
    """

    step: int
    epoch: int
    items: list[ItemTrace]

    def as_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        items = [item.as_json() for item in self.items]
        return {"step": self.step, "epoch": self.epoch, "items": items}


@dataclass(frozen=True)
class Text:
    """A token and the text around it.

    Attributes:
        id: Its id.
        text: Its text.
        label: Its label, or None where the dataset has none.
        trained: Whether it is trained, or None where the dataset has no labels.
        taught: Text of the label, where that is another token: the end of the turn before.
        predicted: Whether the model has to predict the label from what stands before in the sample.
        before: Text before it, in its sample.
        after: Text behind it.
        parts: Ids and labels before it, of itself, and behind it.
        encoder: Of the tokenizer.
        ignored: Label of what is not trained.
    """

    id: int
    text: str
    label: int | None
    trained: bool | None
    taught: str | None
    predicted: bool
    before: str
    after: str
    parts: list[tuple[list[int], list[int]]]
    encoder: Encoder
    ignored: int


@dataclass
class TokenTrace:
    """Where a token came from.

    Attributes:
        item: Number of the item.
        token: Number of the token in it.
        items: The samples of the item.
        place: The sample; None: padding.
        text: The token, and what stands around it.
        message: Number of the message that it belongs to, from 0, without the system text; or None.
        role: Its role, or None.
        part: What it is a part of, as ``Speaker.part``; None where that is not known.
        why: What that means; or why it is not known.
        record: The record of input, if it could be read.
    """

    item: int
    token: int
    items: ItemTrace
    place: Place | None
    text: Text
    message: int | None = None
    role: str | None = None
    part: str | None = None
    why: str = ""
    record: Any = field(default=None)

    def as_json(self) -> dict[str, Any]:
        """Return it ready for JSON, with the record as it is."""
        text = self.text
        return {
            "item": self.item,
            "token": self.token,
            "sample": None if self.place is None else asdict(self.place),
            "id": text.id,
            "text": text.text,
            "label": text.label,
            "trained": text.trained,
            "taught": text.taught,
            "before": text.before,
            "after": text.after,
            "message": self.message,
            "role": self.role,
            "part": self.part,
            "why": self.why,
            "record": self.record,
        }


def print_item(found: ItemTrace, console: Console) -> None:
    """Print the samples of an item, a line each."""
    _say(console, f"item {found.item}: {found.length} tokens, {len(found.samples)} samples", "bold")
    _table(
        console,
        ("sample", "offset", "length", "trained", "turn", "row", "digest", "source", "file"),
        [
            (
                place.sample, place.offset, place.length, place.trained,
                "" if place.turn is None else place.turn, place.row, place.digest[:12], place.source,
                place.file,
            )
            for place in found.samples
        ],
    )  # fmt: skip


def print_step(found: StepTrace, console: Console) -> None:
    """Print the items of a step, a line for each of their samples."""
    _say(console, f"step {found.step}: epoch {found.epoch}, {len(found.items)} items", "bold")
    _table(
        console,
        ("item", "offset", "length", "trained", "turn", "row", "file"),
        [
            (
                item.item, place.offset, place.length, place.trained,
                "" if place.turn is None else place.turn, place.row, place.file,
            )
            for item in found.items
            for place in item.samples
        ],
    )  # fmt: skip


def print_token(found: TokenTrace, console: Console, full: bool = False) -> None:
    """Print where a token came from.

    Args:
        found: What was found.
        console: Where to print.
        full: Whether to print all of the record.
    """
    text, place = found.text, found.place
    _say(console, f"item {found.item}, token {found.token}: {text.id} {text.text!r}", "bold")
    _say(console, f"label    {_label(text)}")
    if place is not None:
        turn = "" if place.turn is None else f", for turn {place.turn}"
        tokens = f"tokens {place.offset} to {place.offset + place.length}"
        _say(console, f"sample   {place.sample} of the item: {tokens}{turn}")
        _say(console, f"from     {place.file}, row {place.row} (source {place.source})")
    whose = f"message {found.message} ({found.role}): " if found.message is not None else ""
    _say(console, f"turn     {whose}{found.why}")
    console.print(legend().append("  ").append("this token", _HERE))
    before, here, after = (coloured(text.encoder, *part, text.ignored) for part in text.parts)
    here.stylize(_HERE)
    if console.color_system is None:
        here = Styled(">>>").append_text(here).append("<<<")
    console.print(Styled().append_text(before).append_text(here).append_text(after))
    if found.record is not None:
        _say(console, "record", "bold")
        shown = found.record if full else shortened(found.record)
        _say(console, json.dumps(shown, ensure_ascii=False, indent=2, default=str))


def _label(text: Text) -> str:
    if text.label is None:
        return "none in the dataset: trainers take the token itself"
    if not text.trained:
        return f"{text.label}: not trained"
    if text.taught is not None:
        return f"{text.label} {text.taught!r}: the end of the turn before, taught here"
    how = "predicted from what stands before it" if text.predicted else "the first: nothing predicts it"
    return f"{text.label}: trained, {how}"


def shortened(value: Any) -> Any:
    """Return a value of JSON with long texts and lists cut, and what was cut told."""
    if isinstance(value, str) and len(value) > _TEXT:
        return f"{value[:_TEXT]}... ({len(value)} characters; --full shows all)"
    if isinstance(value, list):
        shown = [shortened(entry) for entry in value[:_ENTRIES]]
        return shown + ([f"... ({len(value)} entries)"] if len(value) > _ENTRIES else [])
    if isinstance(value, dict):
        return {key: shortened(entry) for key, entry in value.items()}
    return value


def _table(console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table whose lines are never broken, whatever the width; texts stand at the end."""
    lines = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    for number, line in enumerate([tuple(names), *lines]):
        shown = "  ".join(cell.rjust(width) for cell, width in zip(line[:-2], widths, strict=False))
        shown += "  " + line[-2].ljust(widths[-2]) + "  " + line[-1]
        _say(console, shown, None if number else "dim")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(Styled(text, style or ""))
