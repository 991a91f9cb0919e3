"""Renders dialogues with a model's own chat template."""

from __future__ import annotations

import functools
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.messages import chat_messages, chat_tools
from mtsft_preproc.templates.chat.parity import ServingParity
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.script import Scribe, Script
from mtsft_preproc.templates.chat.spans import Spans, View, tokenize
from mtsft_preproc.templates.chat.stretches import safe_cuts
from mtsft_preproc.templates.chat.turns import Turn
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import WHOLE, ParityDifference, Template, TokenBatch
from mtsft_preproc.tokenization import Encoder, RememberingEncoder, SpecialText

__all__ = ["ChatTemplate"]

#: Scripts that a worker keeps, by the shape of the conversation; and of one shape.
_KEPT, _KEPT_OF_SHAPE = 1024, 8
#: Conversations of one shape from which on a script is written that serves for all of them, and shapes that
#: are counted.
_COMMON, _SEEN = 4, 1 << 16
#: Differences that a batch tells of.
_EXAMPLES = 3


class ChatTemplate(Template):
    """A chat template, compiled for one tokenizer.

    The ids are those of ``apply_chat_template``: the text is rendered by the same Jinja set-up and encoded
    as one. What is trained is proven; see :mod:`mtsft_preproc.templates.chat.turns`.

    Args:
        renderer: The template.
        encoder: Of the tokenizer.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        parity: ``"report"``, ``"require"``, ``"split"`` or ``"off"``.
        append_eod: Whether one more EOS, trained, closes each sample.
        train_on_tools: Whether words of tool results are told apart from the rest, so that they can be
            trained.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        encoder: Encoder,
        special_tokens_in_text: str = "plain",
        parity: str = "report",
        append_eod: bool = False,
        train_on_tools: bool = False,
    ) -> None:
        self._renderer = renderer
        self._encoder = encoder
        self._remembering = RememberingEncoder(encoder)
        self.closing = int(append_eod)
        self._in_text = special_tokens_in_text
        self._parity = parity
        self._append_eod = append_eod
        self._special = SpecialText(encoder.spec)
        self._observes = train_on_tools
        self._scribe = Scribe(renderer, self._special, train_on_tools)
        self._serving = ServingParity(renderer, encoder)
        self._seen: dict[int, int] = {}
        self._scripts: OrderedDict[tuple[object, ...], list[Script]] = OrderedDict()
        #: The tools of each dialogue of a batch, as the template gets them, by those of the dialogue.
        self._tools: dict[int, list[Any]] = {}

    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        self._scribe.forget()
        self._tools.clear()
        views: list[View] = []
        failed: dict[int, RecordError] = {}
        notes: list[list[str]] = [[] for _ in dialogues]
        for number, dialogue in enumerate(dialogues):
            try:
                views += self._views(number, dialogue, trained[number], shared)
            except RecordError as error:
                failed[number] = error
        self._scribe.forget()
        if not views:
            return _no_tokens(failed, notes)
        cuts = self._cuts if shared else None
        encoder = self._remembering if shared else self._encoder
        spans = tokenize(views, encoder, self._special, self._in_text, cuts)
        for number, refusal in spans.failed.items():
            failed.setdefault(views[number].dialogue, refusal)
        batch, across = self._batch(views, spans)
        batch.failed, batch.notes = failed, notes
        self._note(views, spans, across, batch)
        if self._parity != "off":
            self._compare(views, spans, batch)
        return self._with_eod(views, batch) if self._append_eod else batch

    @functools.cached_property
    def _cuts(self) -> frozenset[int]:
        return safe_cuts(self._encoder.spec)

    def _views(self, number: int, dialogue: Dialogue, trained: Sequence[bool], shared: bool) -> list[View]:
        """Render a dialogue: once, and once more per turn that needs a sample of its own."""
        front = int(bool(dialogue.system))
        # One list for all parts of a dialogue, which are told by it.
        tools = self._tools.setdefault(id(dialogue.tools), chat_tools(dialogue.tools))
        conversation = Conversation.of(chat_messages(dialogue), tools, front)
        if shared:
            # Parts of one dialogue hold the very same objects, which live for as long as the batch.
            conversation.same = (*[dialogue.system] * front, *map(id, dialogue.messages))
            # Most turns of such a part are context: to prove each in each part would cost their square.
            conversation.wanted = frozenset(number + front for number, flag in enumerate(trained) if flag)
        flags = [False] * conversation.front + list(trained)
        try:
            whole = self._view(number, WHOLE, conversation, flags)
        except RecordError as error:
            raise _by_dialogue(error, conversation.front) from None
        if self._parity != "split":
            return [whole]
        extra = []
        for turn in whole.script.turns:
            message = turn.turn.message
            if turn.turn.stable or not flags[message]:
                continue
            only = [place == message for place in range(message + 1)]
            alone = self._view(number, message - conversation.front, conversation.first(message + 1), only)
            if alone.script.turns[-1].turn.stable:
                extra.append(alone)
                whole.trained[message] = False
        return [whole, *extra] if any(whole.trained) else extra

    def _view(self, number: int, turn: int, conversation: Conversation, trained: list[bool]) -> View:
        script = self._script(conversation)
        texts = script.fill(conversation.values)
        return View(number, turn, conversation, script, texts, trained)

    def _script(self, conversation: Conversation) -> Script:
        """Return the script that a conversation is rendered in.

        Raises:
            RecordError: It can't be rendered, or what is trained can't be proven.
        """
        known = self._scripts.get(conversation.key, [])
        if known:
            self._scripts.move_to_end(conversation.key)
            values, text = conversation.values, self._renderer.text(conversation)
            for script in known:
                # The proof of a script is that it writes what the template writes.
                if script.holds(values) and script.writes(text, values):
                    return script
        if not self._is_common(conversation):
            return self._scribe.write_once(conversation)
        conversation.wanted = None
        script = self._scribe.write(conversation)
        self._scripts[conversation.key] = [script, *known][:_KEPT_OF_SHAPE]
        if len(self._scripts) > _KEPT:
            self._scripts.popitem(last=False)
        return script

    def _is_common(self, conversation: Conversation) -> bool:
        """Return whether so many conversations of a shape came that a script for all of them pays."""
        shape = hash(conversation.key)
        if len(self._seen) >= _SEEN:
            self._seen.clear()
        self._seen[shape] = self._seen.get(shape, 0) + 1
        return self._seen[shape] >= _COMMON

    def _batch(self, views: Sequence[View], spans: Spans) -> tuple[TokenBatch, npt.NDArray[np.bool_]]:
        """Return the tokens, and which of them lie across a border."""
        kinds, messages, across = spans.kinds(views, self._encoder.special_mask)
        kinds[self._is_bos(spans) & (kinds <= Kind.CONTEXT)] = Kind.PREFIX
        counts = np.asarray([len(view.trained) for view in views])
        firsts = np.cumsum(counts) - counts
        batch = TokenBatch(
            ids=spans.ids,
            kinds=kinds,
            messages=np.maximum(messages, 0) + np.repeat(firsts, np.diff(spans.borders)),
            trained=np.concatenate([np.asarray(view.trained, bool) for view in views]),
            sample_ends=spans.borders[1:],
            dialogues=np.asarray([view.dialogue for view in views], np.int64),
            turns=np.asarray([view.turn for view in views], np.int32),
            late_stops=np.zeros(0, np.int64),
            failed={},
            notes=[],
        )
        return batch, across

    def _is_bos(self, spans: Spans) -> npt.NDArray[np.bool_]:
        """Return which tokens are BOS; one that is EOS, too, is BOS where it opens a sample."""
        spec = self._encoder.spec
        found: npt.NDArray[np.bool_] = spans.ids == (-1 if spec.bos_id is None else spec.bos_id)
        if spec.bos_id == spec.eos_id:
            opens = np.zeros(len(spans.ids) + 1, bool)
            opens[spans.borders[:-1]] = True
            found &= opens[:-1]
        return found

    def _note(
        self, views: Sequence[View], spans: Spans, across: npt.NDArray[np.bool_], batch: TokenBatch
    ) -> None:
        """Note what is odd about the dialogues."""
        lies_across = np.cumsum(np.concatenate([[0], across]))[spans.borders]
        for number, view in enumerate(views):
            notes = batch.notes[view.dialogue]
            found = list(view.script.notes)
            if lies_across[number + 1] > lies_across[number]:
                found.append("token-across-border")
            if number in spans.spelled:
                found.append("special-token-in-text")
            if any(self._lacks_stop(view, turn.turn) for turn in view.script.turns):
                found.append("stop-not-trained")
            if self._observes and _lacks_result(view):
                found.append("result-not-trained")
            notes += [note for note in found if note not in notes]

    def _lacks_stop(self, view: View, turn: Turn) -> bool:
        closes = self._append_eod and turn.message == len(view.trained) - 1
        return view.trained[turn.message] and not turn.stop and not closes

    def _compare(self, views: Sequence[View], spans: Spans, batch: TokenBatch) -> None:
        """Count the trained turns by whether their text is that of serving."""
        for number, turn, kind in self._serving.differences(views, spans):
            view = views[number]
            counts = batch.parity_of.setdefault(view.dialogue, Counter())
            counts[kind] += 1
            if kind != "same" and (len(batch.differences) < _EXAMPLES or self._parity == "require"):
                example = self._serving.example(view, turn, kind, spans, number)
                batch.differences.append(example)
                if self._parity == "require":
                    batch.failed.setdefault(view.dialogue, _refusal(example))
        lengths = np.diff(spans.borders)
        for number, view in enumerate(views):
            if view.turn != WHOLE:
                counts = batch.parity_of.setdefault(view.dialogue, Counter())
                counts.update({"split-samples": 1, "split-tokens": int(lengths[number])})

    def _with_eod(self, views: Sequence[View], batch: TokenBatch) -> TokenBatch:
        """Close each sample with EOS, which belongs to its last message."""
        ends = batch.sample_ends
        last = np.cumsum([len(view.trained) for view in views]) - 1
        batch.messages = np.insert(batch.messages, ends, last)
        batch.ids = np.insert(batch.ids, ends, np.int32(self._encoder.spec.eos_id))
        batch.kinds = np.insert(batch.kinds, ends, np.uint8(Kind.GENERATED))
        batch.sample_ends = ends + np.arange(1, len(ends) + 1)
        return batch


def _lacks_result(view: View) -> bool:
    """Return whether words of a result are to be trained that the template writes only among its own."""
    observed = set(view.script.owners[view.script.kinds == Kind.OBSERVED].tolist())
    messages = enumerate(view.conversation.messages)
    return any(
        view.trained[number] and message["role"] == "tool" and message.get("content")
        and number not in observed
        for number, message in messages
    )  # fmt: skip


def _no_tokens(failed: dict[int, RecordError], notes: list[list[str]]) -> TokenBatch:
    none = np.zeros(0, np.int64)
    ids, kinds, turns = none.astype(np.int32), none.astype(np.uint8), none.astype(np.int32)
    return TokenBatch(ids, kinds, none, none.astype(bool), none, none, turns, none, failed, notes)


def _by_dialogue(error: RecordError, front: int) -> RecordError:
    """Return an error that counts the messages as the dialogue does, without the system text."""

    def shifted(match: re.Match[str]) -> str:
        number = int(match.group(1)) - front
        return f"messages[{number}]" if number >= 0 else "system"

    field = re.sub(r"^messages\[(\d+)\]", shifted, error.field)
    return RecordError(error.reason, field, error.expected, error.got)


def _refusal(example: ParityDifference) -> RecordError:
    return RecordError(
        "parity",
        f"messages[{example.message}]",
        f"the {example.kind} that a serving engine has: {example.serving!r}",
        repr(example.training),
    )
