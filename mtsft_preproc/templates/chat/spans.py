"""Rendered text -> tokens that know who wrote them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Message
from mtsft_preproc.errors import RecordError
from mtsft_preproc.stages import clock
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.templates.chat.script import Script
from mtsft_preproc.templates.chat.stretches import (
    MarkedStretches,
    Openings,
    Row,
    chain,
    cut,
    encode_stretches,
    rows_of,
)
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import Encoder, PiecedIds, SpecialText

__all__ = ["Spans", "View", "tokenize"]

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class View:
    """A rendered conversation that becomes one sample.

    Attributes:
        dialogue: Number of the dialogue in the batch.
        turn: Number of the message that the sample is for, or ``WHOLE``.
        messages: What was rendered: the system text first, if there is one.
        tools: With it, as the template gets them.
        front: Messages in front that are not the dialogue's own.
        script: The pieces that it was rendered in.
        texts: Text of each piece.
        trained: Per message of the conversation: whether it is trained.
    """

    dialogue: int
    turn: int
    messages: Sequence[Message]
    tools: list[Any]
    front: int
    script: Script
    texts: list[str]
    trained: list[bool]

    @property
    def conversation(self) -> Conversation:
        """What was rendered, as the template gets it."""
        return Conversation.spoken(self.messages, self.tools, self.front)

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)


@dataclass(slots=True)
class Spans:
    """The tokens of all views, one behind the other, and the pieces that they lie in.

    Attributes:
        ids: int32, shape (N,).
        borders: int64, shape (V+1,): view v has the tokens ``borders[v]`` to ``borders[v+1]``.
        started: int64, shape (P,): the tokens that start in front of the end of each piece.
        ended: int64, shape (P,): the tokens of which the last character stands in front of it.
        first_piece: int64, shape (V+1,): number of each view's first piece.
        spelled: Numbers of the views in whose words a special token is spelled.
        guarded: Of those: the ones that were encoded so that it stays text.
        failed: Why a view could not be encoded.
    """

    ids: npt.NDArray[np.int32]
    borders: Ints
    started: Ints
    ended: Ints
    first_piece: Ints
    spelled: list[int]
    guarded: set[int]
    failed: dict[int, RecordError]

    def kinds(
        self, views: Sequence[View], firsts: Ints, special: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.uint8], Ints, Ints]:
        """Say who wrote each token.

        Args:
            views: What the tokens are of.
            firsts: int64, shape (V,): number of each view's first message.
            special: bool, shape (vocabulary,): which ids are special tokens.

        Returns:
            uint8, shape (N,): the :class:`Kind` of each token; int64, shape (N,): the message that
            generated it, counted over all views, or the first one of its view; int64, shape (A,): numbers
            of the tokens that lie across the border of what was generated, so that they are no one's.
        """
        kinds = np.concatenate([view.script.kinds for view in views])
        owners = np.concatenate([view.script.owners for view in views])
        counts = np.diff(self.started, prepend=0)
        first = np.repeat(firsts, np.diff(self.first_piece))
        # There are far fewer pieces than tokens: what can be reckoned is reckoned of these.
        found, message = np.repeat(kinds, counts), np.repeat(np.maximum(owners, 0) + first, counts)
        # Few tokens lie in more than one piece; all that is hard is about them.
        torn = self._torn()
        begin, final = (column.searchsorted(torn, "right") for column in (self.started, self.ended))
        kind, ends_in, own = kinds[begin], kinds[final], owners[begin]
        # The system's text is never trained: a token that ends in it is its.
        kind[(kind == Kind.CONTEXT) & (ends_in == Kind.SYSTEM)] = Kind.SYSTEM
        # A special token may swallow the white space behind it; it is the model's all the same.
        across = (own != owners[final]) & ~(special[self.ids[torn]] & (own >= 0))
        of_model = torn[across & ((kind == Kind.GENERATED) | (ends_in == Kind.GENERATED))]
        kind[across] = Kind.CONTEXT
        found[torn] = kind
        message[torn[across]] = first[begin[across]]
        return found, message, of_model

    def speakers(self, views: Sequence[View]) -> Ints:
        """Return, int64 of shape (N,), the message of its dialogue that each token belongs to, or -1.

        Words belong to the message that they came from, what is generated to the assistant's that it is of,
        the end of its turn included; other text of the template's own belongs to none. A token that lies in
        several pieces belongs where it starts.
        """
        of_piece = []
        for view in views:
            owners = view.script.owners.copy()
            for piece, leaf in view.script.leaves.items():
                if owners[piece] < 0 and len(leaf.owners) == 1:
                    [owners[piece]] = leaf.owners
            of_piece.append(np.where(owners >= view.front, owners - view.front, np.int64(-1)))
        return np.repeat(np.concatenate(of_piece), np.diff(self.started, prepend=0))

    def _torn(self) -> Ints:
        """Return the numbers of the tokens that lie across the end of a piece, which rise."""
        counts = self.started - self.ended
        [crossed] = np.nonzero(counts)
        counts = counts[crossed]
        first = self.ended[crossed] - (np.cumsum(counts) - counts)
        return np.unique(np.repeat(first, counts) + np.arange(int(counts.sum())))


@clock.stage("tokenize")
def tokenize(
    views: Sequence[View],
    encoder: Encoder,
    special: SpecialText,
    in_text: str,
    cuts: frozenset[int],
    shared: bool,
    known: Encoder,
    openings: Openings,
) -> Spans:
    """Encode the texts of views.

    No special token comes from the words of a dialogue: the special tokens among the ids must be those
    that the template's own text spells, and where they are not, the text is encoded again with the
    template's tokens marked (``plain``), refused (``reject``), or left as it is (``allow``).

    Args:
        views: The views.
        encoder: Of the tokenizer.
        special: Finds special tokens.
        in_text: What becomes of special tokens in words.
        cuts: Special tokens in front of which text may be cut.
        shared: Whether views have stretches in common: each stretch is then encoded once.
        known: The same encoder, remembering what it has encoded.
        openings: What views with tools open with, encoded.
    """
    texts: list[Sequence[str]] = [view.texts for view in views]
    if shared:
        parts = [cut(view.text, _template_tokens(view, cuts)) for view in views]
        encoded = PiecedIds.of(encode_stretches(parts, known.encode_spans), texts)
    elif any(view.tools for view in views):
        # The same few lists of tools are often a good part of all text.
        opened = [_opening(view.script, cuts) if view.tools else 0 for view in views]
        encoded = openings.encode(
            [pieces[:count] for pieces, count in zip(texts, opened, strict=True)],
            [pieces[count:] for pieces, count in zip(texts, opened, strict=True)],
        )
    else:
        encoded = encoder.encode_pieces(texts)
    spelled = _spelled(views, encoded, encoder)
    again: dict[int, Row] = {}
    failed: dict[int, RecordError] = {}
    marked_stretches = MarkedStretches(encoder, cuts if shared else frozenset())
    for number in spelled:
        if in_text == "allow":
            continue
        try:
            if in_text == "reject":
                got = _first_spelled(views[number], special)
                raise RecordError("special-token", "", "text without control tokens", got)
            marked = _marked(views[number], special)
            one = PiecedIds.of(marked_stretches.encode("".join(marked)), [marked])
            [again[number]] = rows_of(one, [marked])
        except RecordError as error:
            failed[number] = error
    if again:
        encoded = chain([again.get(number, row) for number, row in enumerate(rows_of(encoded, texts))])
    first_piece = np.concatenate([[0], np.cumsum(list(map(len, texts)))])
    ids, borders, started, ended = encoded
    return Spans(ids, borders, started, ended, first_piece, spelled, set(again), failed)


def _opening(script: Script, cuts: frozenset[int]) -> int:
    """Return of how many pieces the opening is: the system's part, tools included, if a cut may follow."""
    if script.opening is None:
        [system] = np.nonzero(script.kinds == Kind.SYSTEM)
        behind = int(system[-1]) + 1 if len(system) else 0
        tokens = zip(script.special, script.places, strict=True)
        starts = [piece for index, (piece, place) in tokens if index in cuts and place == 0]
        script.opening = next((piece for piece in starts if piece >= behind > 0), 0)
    return script.opening


def _template_tokens(view: View, wanted: frozenset[int]) -> list[int]:
    """Return where the template's own special tokens start in a text, those in ``wanted``."""
    starts = [0, *itertools.accumulate(map(len, view.texts))]
    tokens = zip(view.script.special, view.script.places, strict=True)
    return [starts[piece] + place for index, (piece, place) in tokens if index in wanted]


def _spelled(views: Sequence[View], encoded: PiecedIds, encoder: Encoder) -> list[int]:
    """Return the views whose special tokens are not just the template's."""
    # Text that isn't in the vocabulary becomes the unknown token, too; of that one the spelling counts.
    unknown = [token for token in encoder.spec.added if token.special and token.id == encoder.spec.unk_id]
    found, counts = _special_only(encoded.ids, encoded.offsets, encoder)
    scripts = [view.script for view in views]
    borders = np.concatenate([[0], np.cumsum([len(script.meant) for script in scripts])])
    meant, expected = _special_only(np.concatenate([script.meant for script in scripts]), borders, encoder)
    differs = counts != expected
    if not differs.any():
        # All the same, but for views in which one stands for another.
        views_of = np.repeat(np.arange(len(views)), counts)
        differs[views_of[found != meant]] = True
    else:
        own, other = (
            np.split(ids, np.cumsum(many)[:-1]) for ids, many in ((found, counts), (meant, expected))
        )
        for number in np.flatnonzero(~differs).tolist():
            differs[number] = not np.array_equal(own[number], other[number])
    if unknown:
        for number, view in enumerate(views):
            differs[number] |= any(
                view.text.count(word.text) != view.script.special.count(word.id) for word in unknown
            )
    spelled: list[int] = np.flatnonzero(differs).tolist()
    return spelled


def _special_only(ids: npt.NDArray[Any], borders: Ints, encoder: Encoder) -> tuple[npt.NDArray[Any], Ints]:
    """Return the special tokens among those of views, and how many each view has."""
    is_special = encoder.special_mask[ids]
    [places] = np.nonzero(is_special)
    return ids[places], np.diff(places.searchsorted(borders))


def _first_spelled(view: View, special: SpecialText) -> str:
    words = [view.texts[number] for number in view.script.words]
    return next((repr(found) for text in words if (found := special.find(text))), "a control token")


def _marked(view: View, special: SpecialText) -> list[str]:
    """Return the pieces with the template's special tokens written as marks.

    Raises:
        RecordError: ``special-token``: the dialogue's words hold a mark.
    """
    words = set(view.script.words)
    texts = list(view.texts)
    number = 0
    while number < len(texts):
        if number in words:
            special.find(texts[number])
            number += 1
            continue
        # A token may lie across pieces of the template's own: they are marked as one, in the first.
        stop = next((end for end in range(number, len(texts)) if end in words), len(texts))
        texts[number:stop] = _mark_run(texts[number:stop], special)
        number = stop
    return texts


def _mark_run(texts: list[str], special: SpecialText) -> list[str]:
    separate = [special.mark(text) for text in texts]
    joined = special.mark("".join(texts))
    return separate if "".join(separate) == joined else [joined, *[""] * (len(texts) - 1)]
