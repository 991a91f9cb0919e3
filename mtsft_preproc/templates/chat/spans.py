"""Rendered text -> tokens that know who wrote them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.rendering import Conversation
from mtsft_preproc.templates.chat.script import Script
from mtsft_preproc.templates.chat.stretches import MarkedStretches, cut, encode_stretches
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.tokenization import Encoder, SpannedIds, SpecialText

__all__ = ["Spans", "View", "tokenize"]

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class View:
    """A rendered conversation that becomes one sample.

    Attributes:
        dialogue: Number of the dialogue in the batch.
        turn: Number of the message that the sample is for, or ``WHOLE``.
        conversation: What was rendered.
        script: The pieces that it was rendered in.
        texts: Text of each piece.
        trained: Per message of the conversation: whether it is trained.
    """

    dialogue: int
    turn: int
    conversation: Conversation
    script: Script
    texts: list[str]
    trained: list[bool]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)


@dataclass(slots=True)
class Spans:
    """The tokens of all views, one behind the other; places are counted over all of their texts.

    Attributes:
        ids: int32, shape (N,).
        starts: int64, shape (N,): where the characters that a token covers start.
        ends: int64, shape (N,): where they end.
        borders: int64, shape (V+1,): view v has the tokens ``borders[v]`` to ``borders[v+1]``.
        pieces: int64, shape (P,): where each piece ends.
        first_piece: int64, shape (V+1,): number of each view's first piece.
        spelled: Numbers of the views in whose words a special token is spelled.
        guarded: Of those: the ones that were encoded so that it stays text.
        failed: Why a view could not be encoded.
    """

    ids: npt.NDArray[np.int32]
    starts: Ints
    ends: Ints
    borders: Ints
    pieces: Ints
    first_piece: Ints
    spelled: list[int]
    guarded: set[int]
    failed: dict[int, RecordError]

    def kinds(
        self, views: Sequence[View], special: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.uint8], Ints, npt.NDArray[np.bool_]]:
        """Say who wrote each token.

        Args:
            views: What the tokens are of.
            special: bool, shape (vocabulary,): which ids are special tokens.

        Returns:
            uint8, shape (N,): the :class:`Kind` of each token; int64, shape (N,): the message, of those
            of its view, that generated it, or -1; bool, shape (N,): whether it lies across the border of
            what was generated, so that it is no one's.
        """
        kinds = np.concatenate([view.script.kinds for view in views])
        owners = np.concatenate([view.script.owners for view in views])
        last = len(self.pieces) - 1
        first = np.minimum(np.searchsorted(self.pieces, self.starts, side="right"), last)
        end = np.maximum(self.ends - 1, self.starts)
        final = np.minimum(np.searchsorted(self.pieces, end, side="right"), last)
        found, message = kinds[first], owners[first]
        # The system's text is never trained: a token that ends in it is its.
        found[(found == Kind.CONTEXT) & (kinds[final] == Kind.SYSTEM)] = Kind.SYSTEM
        # A special token may swallow the white space behind it; it is the model's all the same.
        across = (message != owners[final]) & ~(special[self.ids] & (message >= 0))
        message[across] = -1
        of_model = across & ((found == Kind.GENERATED) | (kinds[final] == Kind.GENERATED))
        found[across] = Kind.CONTEXT
        return found, message, of_model


def tokenize(
    views: Sequence[View],
    encoder: Encoder,
    special: SpecialText,
    in_text: str,
    cuts: frozenset[int] | None = None,
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
        cuts: Special tokens in front of which text may be cut, where views have stretches in common: each
            stretch is then encoded once. None encodes each text as one.
    """
    if cuts is None:
        encoded = encoder.encode_spans([view.text for view in views])
    else:
        parts = [cut(view.text, _template_tokens(view, cuts)) for view in views]
        encoded = encode_stretches(parts, encoder.encode_spans)
    spelled = _spelled(views, encoded, encoder)
    again: dict[int, SpannedIds] = {}
    failed: dict[int, RecordError] = {}
    lengths = [[len(text) for text in view.texts] for view in views]
    marked_stretches = MarkedStretches(encoder, cuts or frozenset())
    for number in spelled:
        if in_text == "allow":
            continue
        try:
            if in_text == "reject":
                got = _first_spelled(views[number], special)
                raise RecordError("special-token", "", "text without control tokens", got)
            marked = _marked(views[number], special)
            again[number] = marked_stretches.encode("".join(marked))
        except RecordError as error:
            failed[number] = error
        else:
            lengths[number] = [len(text) for text in marked]
    places = np.concatenate([[0], np.cumsum([sum(own) for own in lengths])])
    ids, starts, ends, borders = _joined(encoded, again, places)
    pieces = np.cumsum([length for own in lengths for length in own], dtype=np.int64)
    first_piece = np.concatenate([[0], np.cumsum([len(own) for own in lengths])])
    return Spans(ids, starts, ends, borders, pieces, first_piece, spelled, set(again), failed)


def _template_tokens(view: View, wanted: frozenset[int]) -> list[int]:
    """Return where the template's own special tokens start in a text, those in ``wanted``."""
    starts = [0, *itertools.accumulate(map(len, view.texts))]
    tokens = zip(view.script.special, view.script.places, strict=True)
    return [starts[piece] + place for index, (piece, place) in tokens if index in wanted]


def _spelled(views: Sequence[View], encoded: SpannedIds, encoder: Encoder) -> list[int]:
    """Return the views whose special tokens are not just the template's."""
    # Text that isn't in the vocabulary becomes the unknown token, too; of that one the spelling counts.
    unknown = [token for token in encoder.spec.added if token.special and token.id == encoder.spec.unk_id]
    is_special = encoder.special_mask[encoded.ids]
    found = encoded.ids[is_special]
    counts = np.diff(np.concatenate([[0], np.cumsum(is_special)])[encoded.offsets])
    meant = [[index for index in view.script.special if index in encoder.special_ids] for view in views]
    ends = np.cumsum(counts)
    return [
        number
        for number, ids in enumerate(meant)
        if counts[number] != len(ids)
        or found[ends[number] - counts[number] : ends[number]].tolist() != ids
        or any(
            views[number].text.count(word.text) != views[number].script.special.count(word.id)
            for word in unknown
        )
    ]


def _first_spelled(view: View, special: SpecialText) -> str:
    words = [view.texts[number] for number, _ in view.script.fills]
    return next((repr(found) for text in words if (found := special.find(text))), "a control token")


def _marked(view: View, special: SpecialText) -> list[str]:
    """Return the pieces with the template's special tokens written as marks.

    Raises:
        RecordError: ``special-token``: the dialogue's words hold a mark.
    """
    words = {number for number, _ in view.script.fills}
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


def _joined(
    encoded: SpannedIds, again: dict[int, SpannedIds], places: Ints
) -> tuple[npt.NDArray[np.int32], Ints, Ints, Ints]:
    """Return ids, starts, ends and borders of all views, those in ``again`` taken from there."""
    if not again:
        shift = np.repeat(places[:-1], np.diff(encoded.offsets))
        return encoded.ids, encoded.starts + shift, encoded.ends + shift, encoded.offsets
    parts = []
    for number, place in enumerate(places[:-1].tolist()):
        one = again.get(number)
        if one is None:
            own = slice(encoded.offsets[number], encoded.offsets[number + 1])
            parts.append((encoded.ids[own], encoded.starts[own] + place, encoded.ends[own] + place))
        else:
            parts.append((one.ids, one.starts.astype(np.int64) + place, one.ends.astype(np.int64) + place))
    borders = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])])
    ids, starts, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ids, starts, ends, borders
