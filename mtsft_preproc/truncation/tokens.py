"""``right``, ``left`` and ``pair``: cuts that look at tokens, not at what they mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtsft_preproc.templates import Kind, TokenBatch

__all__ = ["TOKEN_RULES", "cut_tokens"]

TOKEN_RULES = ("right", "left", "pair")

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def cut_tokens(rule: str, batch: TokenBatch, over: Bools, limit: int, closing: int = 0) -> TokenBatch:
    """Cut samples that are too long.

    Args:
        rule: One of :data:`TOKEN_RULES`.
        batch: The samples.
        over: bool, shape (S,): which of them are too long.
        limit: The most tokens of a sample.
        closing: Tokens at the end of each sample that close it, whatever was cut (``pair`` alone).
    """
    keep = np.ones(len(batch.ids), bool)
    generated = batch.kinds >= Kind.GENERATED
    borders = np.concatenate([[0], batch.sample_ends])
    for sample in np.flatnonzero(over).tolist():
        start, end = int(borders[sample]), int(borders[sample + 1])
        if rule == "right":
            keep[start + limit : end] = False
        elif rule == "left":
            keep[start : end - limit] = False
        else:
            body = slice(start, end - closing)
            keep[body] = _pairs(batch.kinds[body], batch.messages[body], limit - max(1, closing))
            said = keep[body] & generated[body] & batch.trained[batch.messages[body]]
            if not said.any():
                # To end what was never said is nothing to learn.
                keep[end - closing : end] = False
    return _kept(batch, keep)


def _pairs(kinds: npt.NDArray[np.uint8], messages: Ints, room: int) -> Bools:
    """Return which tokens of a sample stay, by the rule of LLaMA-Factory (``infer_seqlen``).

    Rounds are taken in order while there is room. One that doesn't fit gives up the end of its source if
    its target is less than half of the room, else the end of its target if its source is, else both ends in
    proportion. What comes behind is lost.
    """
    keep = np.zeros(len(kinds), bool)
    generated = kinds == Kind.GENERATED
    # A pair ends where what was generated ends, or where the message that generated it does.
    ends = np.flatnonzero(generated[:-1] & (~generated[1:] | (messages[1:] != messages[:-1]))) + 1
    start = 0
    for end in [*ends.tolist(), len(kinds)]:
        if room <= 0:
            break
        own = generated[start:end]
        target = int(own.sum())
        source = len(own) - target
        source_room, target_room = _shares(source, target, room)
        keep[start : start + source_room] = True
        keep[start + source : start + source + target_room] = True
        room -= source_room + target_room
        start = end
    return keep


def _shares(source: int, target: int, room: int) -> tuple[int, int]:
    if target * 2 < room:
        most = room
    elif source * 2 < room:
        most = room - source
    else:
        most = int(room * (target / (source + target)))
    target = min(most, target)
    return min(max(room - target, 0), source), target


def _kept(batch: TokenBatch, keep: Bools) -> TokenBatch:
    """Return the batch without some of its tokens."""
    counted = np.concatenate([[0], np.cumsum(keep)])
    late = batch.late_stops[keep[batch.late_stops]]
    return TokenBatch(
        ids=batch.ids[keep],
        kinds=batch.kinds[keep],
        messages=batch.messages[keep],
        trained=batch.trained,
        sample_ends=counted[batch.sample_ends],
        dialogues=batch.dialogues,
        turns=batch.turns,
        late_stops=counted[late],
        failed=batch.failed,
        notes=batch.notes,
        parity_of=batch.parity_of,
        differences=batch.differences,
    )
