"""Is training text serving text? Looked at per trained turn, in tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        self._tails: dict[str, list[int]] = {}

    def differences(self, views: Sequence[View], spans: Spans) -> Iterator[tuple[int, ScriptTurn, str]]:
        """Yield (number of the view, turn, what differs) for each trained turn.

        What differs is ``"prompt"`` (the text in front), ``"reply"`` (the turn reads otherwise where it
        is the newest), ``"border"`` (the same text, but other tokens) or ``"same"``.
        """
        late: list[tuple[int, ScriptTurn, int, str]] = []
        for number, view in enumerate(views):
            for turn in view.script.turns:
                if not view.trained[turn.turn.message]:
                    continue
                if not turn.turn.stable:
                    yield number, turn, "reply" if turn.turn.prompt_same else "prompt"
                    continue
                token, clean = self._border(number, turn, spans)
                if not clean:
                    yield number, turn, "border"
                elif number in spans.guarded:
                    # Marks stand for the tokens there: what could be compared is what was just encoded.
                    yield number, turn, "same"
                elif turn.tail is not None:
                    same = self._ends_with(spans, token, self._tail(turn.tail))
                    yield number, turn, "same" if same else "border"
                else:
                    late.append((number, turn, token, _from_special(view, turn)))
        if late:
            yield from self._encoded(late, spans)

    def _encoded(
        self, late: list[tuple[int, ScriptTurn, int, str]], spans: Spans
    ) -> Iterator[tuple[int, ScriptTurn, str]]:
        """Settle the turns whose prompts end in words: those are encoded as a serving engine would."""
        texts = {text: place for place, text in enumerate(dict.fromkeys(text for *_, text in late))}
        flat = self._encoder.encode(list(texts))
        for number, turn, token, text in late:
            place = texts[text]
            ids = flat.ids[flat.offsets[place] : flat.offsets[place + 1]].tolist()
            yield number, turn, "same" if self._ends_with(spans, token, ids) else "border"

    @staticmethod
    def _border(number: int, turn: ScriptTurn, spans: Spans) -> tuple[int, bool]:
        """Return the first token of a turn, and whether the one in front ends where the turn starts."""
        piece = int(spans.first_piece[number]) + turn.first
        place = int(spans.pieces[piece - 1]) if piece else 0
        low, high = int(spans.borders[number]), int(spans.borders[number + 1])
        token = low + int(spans.starts[low:high].searchsorted(place))
        return token, token == low or int(spans.ends[token - 1]) <= place

    @staticmethod
    def _ends_with(spans: Spans, token: int, ids: list[int]) -> bool:
        found: list[int] = spans.ids[max(0, token - len(ids)) : token].tolist()
        return found == ids

    def _tokens(self, ids: list[int]) -> str:
        """Return tokens with their borders shown."""
        return "|".join(self._encoder.decode([index]) for index in ids)

    def _tail(self, text: str) -> list[int]:
        if text not in self._tails:
            if len(self._tails) >= _KEPT:
                self._tails.clear()
            self._tails[text] = self._encoder.encode([text]).ids.tolist()
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
        shown = number - view.conversation.front
        before = "".join(view.texts[: turn.first])
        reply = "".join(view.texts[turn.first : turn.stop])
        try:
            serving = self._renderer.text(view.conversation.first(number), prompt=True)
            if kind == "reply":
                alone = self._renderer.text(view.conversation.first(number + 1))
                start = alone.rfind(view.conversation.messages[number].get("content") or "\0")
                start = min(start, len(serving)) if start >= 0 else len(serving)
                return ParityDifference(view.dialogue, shown, kind, *_around(reply, alone[start:]))
        except RecordError as error:
            serving = str(error)
        if kind == "border":
            token, _ = self._border(place, turn, spans)
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


def _from_special(view: View, turn: ScriptTurn) -> str:
    """Return the text in front of a turn, from the template's last special token on."""
    piece, place = turn.tail_from
    return "".join(view.texts[piece : turn.first])[place:]
