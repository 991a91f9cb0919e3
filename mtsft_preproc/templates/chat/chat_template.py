"""Renders dialogues with a model's own chat template."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import RecordError
from mtsft_preproc.stages import clock
from mtsft_preproc.templates.chat.composing import Composer
from mtsft_preproc.templates.chat.kept_scripts import KeptScripts
from mtsft_preproc.templates.chat.literals import LiteralTokens
from mtsft_preproc.templates.chat.parity import ServingParity
from mtsft_preproc.templates.chat.refusals import by_dialogue, parity_refusal
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.scribe import Scribe
from mtsft_preproc.templates.chat.script import Script
from mtsft_preproc.templates.chat.spans import Spans, View, tokenize
from mtsft_preproc.templates.chat.speakers import ToolBox, Tools, spoken
from mtsft_preproc.templates.chat.stretches import Openings, safe_cuts
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import WHOLE, Template, TokenBatch
from mtsft_preproc.tokenization import Encoder, RememberingEncoder

__all__ = ["ChatTemplate"]

#: Differences that a batch tells of.
_EXAMPLES = 3


class _Told(NamedTuple):
    """What is to be rendered of a dialogue.

    Attributes:
        number: Of the dialogue in the batch.
        messages: Its messages, the system text first, if there is one.
        tools: Its tools, as the template gets them.
        front: Messages in front that are not its own.
        shares: Whether others of the batch share its messages.
    """

    number: int
    messages: Sequence[Message]
    tools: Tools
    front: int
    shares: bool

    def first(self, count: int) -> _Told:
        """Return the dialogue as it stood after ``count`` messages."""
        return self._replace(messages=self.messages[:count])


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

    Attributes:
        composes: Whether dialogues of known shapes are written without the template; see
            :mod:`mtsft_preproc.templates.chat.composing`. Then :meth:`encode` may raise
            :class:`~mtsft_preproc.templates.chat.shape_proofs.ShapeDiffers`. Off unless it is set.
    """

    composes = False

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
        self._openings = Openings(encoder)
        self.closing = int(append_eod)
        self._in_text = special_tokens_in_text
        self._parity = parity
        self._append_eod = append_eod
        self._special = LiteralTokens(encoder.spec)
        self._observes = train_on_tools
        self._scribe = Scribe(renderer, self._special, train_on_tools)
        self._serving = ServingParity(renderer, encoder)
        self._scripts = KeptScripts(renderer, self._scribe)
        self._composer = Composer(renderer, self._scribe)
        self._tools = ToolBox()
        #: The tools of each dialogue of a batch, as the template gets them, by those of the tool box.
        self._shared_tools: dict[int, list[Any] | None] = {}

    @clock.stage("render")
    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        self._scribe.forget()
        self._shared_tools.clear()
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
        spans = tokenize(
            views,
            self._encoder,
            self._special,
            self._in_text,
            self._cuts,
            shared,
            self._remembering,
            self._openings,
        )
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
        flags = [False] * front + list(trained)
        told = _Told(number, spoken(dialogue), self._tools.of(dialogue.tools), front, shared)
        try:
            whole = self._view(told, WHOLE, flags)
        except RecordError as error:
            raise by_dialogue(error, front) from None
        if self._parity != "split":
            return [whole]
        extra = []
        for turn in whole.script.turns:
            message = turn.turn.message
            if turn.turn.stable or not flags[message]:
                continue
            only = [place == message for place in range(message + 1)]
            alone = self._view(told.first(message + 1), message - front, only)
            if alone.script.turns[-1].turn.stable:
                extra.append(alone)
                whole.trained[message] = False
        return [whole, *extra] if any(whole.trained) else extra

    def _view(self, told: _Told, turn: int, trained: list[bool]) -> View:
        messages, tools = told.messages, told.tools
        composed = self._composer.write(messages, tools) if self.composes else None
        script, texts = composed or self._rendered(told, trained)
        return View(told.number, turn, messages, tools, told.front, script, texts, trained)

    def _rendered(self, told: _Told, trained: list[bool]) -> tuple[Script, list[str]]:
        """Ask the template, and keep what can be learnt from its answer."""
        conversation = Conversation.spoken(told.messages, told.tools, told.front)
        learns = self.composes and self._composer.learns(told.messages, told.tools)
        if told.shares and not learns:
            # Parts of one dialogue hold the very same objects, which live for as long as the batch.
            system = [message.content for message in told.messages[: told.front]]
            conversation.same = (*system, *map(id, told.messages[told.front :]))
            conversation.tools = self._shared_tools.setdefault(id(told.tools), conversation.tools)
            # Most turns of such a part are context: to prove each in each part would cost their square.
            conversation.wanted = frozenset(place for place, flag in enumerate(trained) if flag)
        script = self._scripts.of(conversation)
        texts = script.fill(conversation.values)
        if learns:
            self._composer.learn(script, conversation, told.messages, told.tools)
        return script, texts

    def _batch(self, views: Sequence[View], spans: Spans) -> tuple[TokenBatch, npt.NDArray[np.int64]]:
        """Return the tokens, and the numbers of those that lie across a border."""
        counts = np.asarray([len(view.trained) for view in views])
        firsts = np.cumsum(counts) - counts
        kinds, messages, across = spans.kinds(views, firsts, self._encoder.special_mask)
        if self._encoder.spec.bos_id is not None:
            kinds[self._is_bos(spans) & (kinds <= Kind.CONTEXT)] = Kind.PREFIX
        batch = TokenBatch(
            ids=spans.ids,
            kinds=kinds,
            messages=messages,
            trained=np.asarray(list(itertools.chain.from_iterable(view.trained for view in views)), bool),
            sample_ends=spans.borders[1:],
            dialogues=np.asarray([view.dialogue for view in views], np.int64),
            turns=np.asarray([view.turn for view in views], np.int32),
            late_stops=np.zeros(0, np.int64),
            failed={},
            notes=[],
            speakers=spans.speakers(views) if self.tells_speakers else None,
        )
        return batch, across

    def _is_bos(self, spans: Spans) -> npt.NDArray[np.bool_]:
        """Return which tokens are BOS; one that is EOS, too, is BOS where it opens a sample."""
        spec = self._encoder.spec
        found: npt.NDArray[np.bool_] = spans.ids == spec.bos_id
        if spec.bos_id == spec.eos_id:
            opens = np.zeros(len(spans.ids) + 1, bool)
            opens[spans.borders[:-1]] = True
            found &= opens[:-1]
        return found

    def _note(
        self, views: Sequence[View], spans: Spans, across: npt.NDArray[np.int64], batch: TokenBatch
    ) -> None:
        """Note what is odd about the dialogues."""
        lies_across = set((spans.borders.searchsorted(across, "right") - 1).tolist())
        spelled = set(spans.spelled)
        for number, view in enumerate(views):
            script = view.script
            found = list(script.notes)
            if number in lies_across:
                found.append("token-across-border")
            if number in spelled:
                found.append("special-token-in-text")
            if script.columns.stopless and self._lacks_stop(view):
                found.append("stop-not-trained")
            if self._observes and _lacks_result(view):
                found.append("result-not-trained")
            if found:
                notes = batch.notes[view.dialogue]
                notes += [note for note in found if note not in notes]

    def _lacks_stop(self, view: View) -> bool:
        last = len(view.trained) - 1 if self._append_eod else -1
        return any(view.trained[message] and message != last for message in view.script.columns.stopless)

    def _compare(self, views: Sequence[View], spans: Spans, batch: TokenBatch) -> None:
        """Count the trained turns by whether their text is that of serving."""
        of_view, of_turn, kinds = self._serving.differences(views, spans)
        same = kinds == "same"
        for place, count in enumerate(np.bincount(of_view[same], minlength=len(views)).tolist()):
            if count:
                batch.parity_of.setdefault(views[place].dialogue, Counter())["same"] += count
        for place, turn, kind in zip(
            *(column[~same].tolist() for column in (of_view, of_turn, kinds)), strict=True
        ):
            view = views[place]
            batch.parity_of.setdefault(view.dialogue, Counter())[kind] += 1
            if len(batch.differences) < _EXAMPLES or self._parity == "require":
                example = self._serving.example(view, view.script.turns[turn], kind, spans, place)
                batch.differences.append(example)
                if self._parity == "require":
                    batch.failed.setdefault(view.dialogue, parity_refusal(example))
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
        if batch.speakers is not None:
            own = [len(view.trained) - 1 - view.front for view in views]
            batch.speakers = np.insert(batch.speakers, ends, own)
        return batch


def _lacks_result(view: View) -> bool:
    """Return whether words of a result are to be trained that the template writes only among its own."""
    observed = set(view.script.owners[view.script.kinds == Kind.OBSERVED].tolist())
    return any(
        view.trained[number] and message.role is Role.OBSERVATION and message.content
        and number not in observed
        for number, message in enumerate(view.messages)
    )  # fmt: skip


def _no_tokens(failed: dict[int, RecordError], notes: list[list[str]]) -> TokenBatch:
    none = np.zeros(0, np.int64)
    ids, kinds, turns = none.astype(np.int32), none.astype(np.uint8), none.astype(np.int32)
    return TokenBatch(ids, kinds, none, none.astype(bool), none, none, turns, none, failed, notes)
