"""Is training text serving text? Looked at per trained turn, in tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.headers import common_length
from mtsft_preproc.templates.chat.messages import chat_messages, chat_tools
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.script import ScriptTurn
from mtsft_preproc.templates.chat.spans import Spans, View
from mtsft_preproc.templates.token_batch import ParityDifference
from mtsft_preproc.tokenization import Encoder

__all__ = ["ServingParity", "prompts_of"]

Ints = npt.NDArray[np.int64]

#: Characters of each side that an example shows.
_SHOWN = 160
#: Constant ends of prompts whose ids are kept.
_KEPT = 256


class ServingParity:
    """Compares what stands in front of trained turns with what a serving engine has there.

    Args:
        renderer: The template.
        encoder: Of the tokenizer.
    """

    def __init__(self, renderer: ChatRenderer, encoder: Encoder) -> None:
        self._renderer = renderer
        self._encoder = encoder
        self._tails: dict[str, npt.NDArray[np.int32]] = {}

    def differences(self, views: Sequence[View], spans: Spans) -> tuple[Ints, Ints, npt.NDArray[np.str_]]:
        """Say of each trained turn what differs.

        That is ``"prompt"`` (the text in front), ``"reply"`` (the turn reads otherwise where it is the
        newest), ``"border"`` (the same text, but other tokens) or ``"same"``.

        Returns:
            int64, shape (T,): number of the view; int64, shape (T,): number of the turn in its script; and
            what differs.
        """
        columns = [view.script.columns for view in views]
        counts = np.asarray([len(one.messages) for one in columns])
        of_view = np.repeat(np.arange(len(views)), counts)
        of_turn = np.arange(len(of_view)) - np.repeat(np.cumsum(counts) - counts, counts)
        flags = np.asarray(list(itertools.chain.from_iterable(view.trained for view in views)), bool)
        lengths = np.asarray([len(view.trained) for view in views])
        messages = np.concatenate([one.messages for one in columns])
        [wanted] = np.nonzero(flags[messages + np.repeat(np.cumsum(lengths) - lengths, counts)])
        of_view, of_turn = of_view[wanted], of_turn[wanted]
        stable = np.concatenate([one.stable for one in columns])[wanted]
        firsts = np.concatenate([one.firsts for one in columns])[wanted]
        tails = np.concatenate([one.tails for one in columns])[wanted]
        tokens, clean = self._borders(of_view, firsts, spans)
        guarded = np.isin(of_view, list(spans.guarded))
        same = clean & stable
        # Where marks stand for the tokens, what could be compared is what was just encoded.
        self._settle(same, same & ~guarded, tokens, tails, views, of_view, of_turn, spans)
        kinds = np.where(same, "same", "border")
        for number in np.flatnonzero(~stable).tolist():
            turn = views[of_view[number]].script.turns[of_turn[number]].turn
            kinds[number] = "reply" if turn.prompt_same else "prompt"
        return of_view, of_turn, kinds

    def _settle(
        self,
        same: npt.NDArray[np.bool_],
        open_ones: npt.NDArray[np.bool_],
        tokens: Ints,
        tails: npt.NDArray[np.object_],
        views: Sequence[View],
        of_view: Ints,
        of_turn: Ints,
        spans: Spans,
    ) -> None:
        """Say in ``same`` of ``open_ones`` whether the tokens in front are those of a serving engine."""
        late: dict[str, list[int]] = {}
        # Few templates have more than one or two.
        for tail in set(tails[open_ones].tolist()):
            own = np.flatnonzero(open_ones & (tails == tail))
            if tail is not None:
                same[own] = _end_with(spans.ids, tokens[own], self._tail(tail))
                continue
            for number in own.tolist():
                view = views[of_view[number]]
                text = _from_special(view, view.script.turns[of_turn[number]])
                late.setdefault(text, []).append(number)
        if late:
            # Prompts that end in words: those are encoded as a serving engine would.
            flat = self._encoder.encode(list(late))
            for place, numbers in enumerate(late.values()):
                ids = flat.ids[flat.offsets[place] : flat.offsets[place + 1]]
                same[numbers] = _end_with(spans.ids, tokens[numbers], ids)

    @staticmethod
    def _borders(views: Ints, firsts: Ints, spans: Spans) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return the first token of turns, and whether the one in front ends where the turn starts.

        Args:
            views: Per turn the number of its view.
            firsts: Per turn its first piece, counted in the view.
            spans: The tokens.
        """
        low = spans.borders[views]
        in_front = np.maximum(spans.first_piece[views] + firsts - 1, 0)
        tokens = np.where(firsts > 0, spans.started[in_front], low)
        return tokens, (tokens == low) | (spans.ended[in_front] == tokens)

    def _tokens(self, ids: list[int]) -> str:
        """Return tokens with their borders shown."""
        return "|".join(self._encoder.decode([index]) for index in ids)

    def _tail(self, text: str) -> npt.NDArray[np.int32]:
        if text not in self._tails:
            if len(self._tails) >= _KEPT:
                self._tails.clear()
            self._tails[text] = self._encoder.encode([text]).ids
        return self._tails[text]

    def example(
        self, view: View, turn: ScriptTurn, kind: str, spans: Spans, place: int
    ) -> ParityDifference:
        """Return a difference as a person would look at it.

        Args:
            view: Where it is.
            turn: The turn.
            kind: What differs.
            spans: The tokens of all views.
            place: Number of the view.
        """
        number = turn.turn.message
        conversation = view.conversation
        shown = number - view.front
        before = "".join(view.texts[: turn.first])
        reply = "".join(view.texts[turn.first : turn.stop])
        try:
            serving = self._renderer.text(conversation.first(number), prompt=True)
            if kind == "reply":
                alone = self._renderer.text(conversation.first(number + 1))
                start = alone.rfind(conversation.messages[number].get("content") or "\0")
                start = min(start, len(serving)) if start >= 0 else len(serving)
                return ParityDifference(view.dialogue, shown, kind, *_around(reply, alone[start:]))
        except RecordError as error:
            serving = str(error)
        if kind == "border":
            [token], _ = self._borders(np.asarray([place]), np.asarray([turn.first]), spans)
            training = spans.ids[max(0, token - 3) : token + 1].tolist()
            asked = self._encoder.encode([serving]).ids[-3:].tolist()
            return ParityDifference(view.dialogue, shown, kind, self._tokens(training), self._tokens(asked))
        return ParityDifference(view.dialogue, shown, kind, *_around(before, serving))


def prompts_of(renderer: ChatRenderer, dialogue: Dialogue) -> Iterator[tuple[int, str | RecordError]]:
    """Yield, per message of the assistant, what a serving engine would put in front, or why it can't."""
    conversation = Conversation.of(
        chat_messages(dialogue), chat_tools(dialogue.tools), int(bool(dialogue.system))
    )
    for number, message in enumerate(dialogue.messages):
        if message.role.is_target:
            try:
                yield number, renderer.text(conversation.first(conversation.front + number), prompt=True)
            except RecordError as error:
                yield number, error


def _around(one: str, other: str) -> tuple[str, str]:
    """Return both texts from a little in front of where they part."""
    start = max(0, common_length(one, other) - 40)
    return one[start : start + _SHOWN], other[start : start + _SHOWN]


def _end_with(
    all_ids: npt.NDArray[np.int32], ends: Ints, ids: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """Return at which of some places the tokens in front are ``ids``."""
    places = ends[:, None] + np.arange(-len(ids), 0)
    same: npt.NDArray[np.bool_] = (all_ids[np.maximum(places, 0)] == ids).all(axis=1) & (ends >= len(ids))
    return same


def _from_special(view: View, turn: ScriptTurn) -> str:
    """Return the text in front of a turn, from the template's last special token on."""
    piece, place = turn.tail_from
    return "".join(view.texts[piece : turn.first])[place:]
