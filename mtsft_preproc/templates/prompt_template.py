"""Renders dialogues in a prompt type."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue, Role
from mtsft_preproc.errors import RecordError, TemplateError, TokenizerError
from mtsft_preproc.stages import clock
from mtsft_preproc.templates.assembly import assemble
from mtsft_preproc.templates.element_writer import ElementWriter
from mtsft_preproc.templates.elements import Compiled, ConstantTable, Piece, Slot, TextGuard, data
from mtsft_preproc.templates.prompt_plan import PlanParts, PromptPlan
from mtsft_preproc.templates.prompt_tools import Content, PromptTools, ToolOpenings
from mtsft_preproc.templates.prompt_type import PromptType, Style
from mtsft_preproc.templates.segments import Kind, RunTable, SegmentBatch
from mtsft_preproc.templates.thinking import Thinking
from mtsft_preproc.templates.token_batch import Template, TokenBatch, speakers_of
from mtsft_preproc.templates.tool_text import in_rounds
from mtsft_preproc.tokenization import Encoder, FlatIds, RememberingEncoder, SpecialText

__all__ = ["PromptTemplate"]


def _texts(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return the texts of all messages, and the system texts."""
    texts = [dialogue.system for dialogue in dialogues]
    for dialogue in dialogues:
        texts += dialogue.outline.texts
    return texts


def _knows_spans(encoder: Encoder) -> bool:
    try:
        encoder.encode_spans(["a"])
    except TokenizerError:
        return False
    return True


class PromptTemplate(Template):
    """A prompt type, compiled for one tokenizer.

    Args:
        prompt_type: The format.
        encoder: Of the tokenizer, adjusted by ``prompt_type.adjustment()``.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        enable_thinking: ``"true"``, ``"false"`` or ``"none"``; only reasoning formats look at it.
        append_eod: Whether one more EOS, trained, closes each sample.
        train_on_tools: Whether words of tool results are told apart from the format's, so that they can be
            trained.

    Raises:
        TemplateError: The tokenizer lacks a token that the format names; or it can't say which characters
            its tokens cover, and ``train_on_tools`` asks for that.
    """

    def __init__(
        self,
        prompt_type: PromptType,
        encoder: Encoder,
        special_tokens_in_text: str = "plain",
        enable_thinking: str = "none",
        append_eod: bool = False,
        train_on_tools: bool = False,
    ) -> None:
        self.prompt_type = prompt_type
        self._encoder = encoder
        self._remembering = RememberingEncoder(encoder)
        self._special = special = SpecialText(encoder.spec)
        self._guard = TextGuard(special, special_tokens_in_text, encoder.spec.normalizes_special)
        table = ConstantTable(encoder, special)
        self._writer = ElementWriter(self._guard, table.bos)
        style = prompt_type.style
        self._prefix = table.compile(prompt_type.prefix)
        self._separator = () if style is Style.NO_SEPARATOR else table.compile(prompt_type.separator)
        self._compile_system(table)
        self._observes = train_on_tools
        if train_on_tools and not _knows_spans(encoder):
            raise TemplateError(
                "--train-on-tools: expected a tokenizer that can say which characters its tokens cover (a "
                f"Rust or SentencePiece one); the Python tokenizer in {encoder.spec.source} can't"
            )
        user = table.compile(prompt_type.user)
        observation = prompt_type.observation
        self._formats: dict[Role, Compiled] = {
            Role.USER: user,
            Role.OBSERVATION: user if observation is None else table.compile(observation),
            Role.ASSISTANT: table.compile(prompt_type.reply_format()),
        }
        words = prompt_type.thought_words if style is Style.REASONING else None
        tokens = [token.text for token in encoder.spec.added if token.special]
        meant = frozenset(text for text in tokens if text in "".join(words or ()))
        self._thinking = Thinking(words, enable_thinking, meant)
        self._tools = PromptTools(
            prompt_type, table, self._formats, self._guard, self._thinking, train_on_tools
        )
        self._empty_thought = table.add_text(self._thinking.empty) if words else -1
        eos = table.add([encoder.spec.eos_id])
        self._closing = (eos,) * (int(prompt_type.efficient_eos) + int(append_eod))
        self.late_stop_id = encoder.spec.eos_id if prompt_type.efficient_eos else None
        self.closing = len(self._closing)
        self.grows = True
        self._constants = FlatIds.of(table.ids)
        self._bos = frozenset(table.bos)
        self._runs = RunTable()
        self._plan = self._make_plan()

    def _compile_system(self, table: ConstantTable) -> None:
        prompt_type = self.prompt_type
        self._system = table.compile(prompt_type.system)
        self._system_in_user = prompt_type.style is Style.SYSTEM_IN_USER
        if self._system_in_user and [type(part) for part in self._system] != [Slot]:
            raise TemplateError(
                f"prompt type {prompt_type.name!r}: its system format goes into the user's first "
                "element, so it must be one string with {{content}}"
            )
        #: Whether the system text is told apart from the user's words there.
        self._parts_system = self._system_in_user and _knows_spans(self._encoder)
        # The format's own text is the same in every dialogue: encoded once, its control tokens meant.
        self._default_system = (
            ()
            if self._system_in_user or not prompt_type.default_system
            else table.compile_filled(prompt_type.system, prompt_type.default_system)
        )

    @clock.stage("render")
    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        segments = SegmentBatch(self._runs)
        failed: dict[int, RecordError] = {}
        notes: list[list[str]] = []
        plan = self._plan if self._plan and self._guard.clears(_texts(dialogues)) else None
        for number, dialogue in enumerate(dialogues):
            if plan and plan.add_texts(dialogue, segments):
                notes.append([])
                segments.end_dialogue(number, trained[number])
                continue
            mark = segments.mark()
            try:
                found = plan.add(dialogue, segments) if plan else None
                notes.append(self._render(dialogue, segments) if found is None else found)
            except RecordError as error:
                segments.rollback(mark)
                failed[number] = error
                notes.append([])
            else:
                segments.end_dialogue(number, trained[number])
        targets = None
        if self.late_stop_id is not None:
            kept = [dialogues[number] for number in segments.dialogues]
            targets = [role == Role.ASSISTANT for item in kept for role in item.outline.roles]
        encoder = self._remembering if shared else self._encoder
        batch = assemble(segments, encoder, self._constants, targets)
        batch.failed.update(failed)
        batch.notes = notes
        if self.tells_speakers:
            batch.speakers = speakers_of(batch, trained)
        return batch

    def _make_plan(self) -> PromptPlan | None:
        """Return what renders plain dialogues; None: the prompt type is none for that."""
        thinking = self._thinking
        if self._system_in_user or self._observes or (thinking.words and thinking.enabled == "false"):
            return None
        parts = PlanParts(
            self._prefix, self._system, self._default_system, self._separator, self._formats,
            self._closing, self._bos, thinking.words, self._empty_thought,
            Kind.GENERATED if thinking.enabled == "true" else Kind.CONTEXT,
        )  # fmt: skip
        # Where the tools text governs the form of calls, they are not what the plan takes them for.
        openings = None if self._tools.governs else ToolOpenings(self._runs, self._open_system).add
        try:
            return PromptPlan(parts, self._runs, openings, self._tools.calls)
        except ValueError:
            return None

    def _render(self, dialogue: Dialogue, batch: SegmentBatch) -> list[str]:
        """Append the segments of a dialogue to ``batch``, all but ``end_dialogue``.

        Returns:
            Notes on the dialogue that the summary counts.

        Raises:
            RecordError: The dialogue can't be rendered; ``batch`` then holds a part of it.
        """
        spelled = False
        governed = self._tools.governs and bool(dialogue.tools)
        rounds = in_rounds(dialogue.messages, self._tools.joins_results or governed)
        for number, (place, sources, target) in enumerate(rounds):
            is_past = dialogue.one_turn and number < len(rounds) - 1
            reply = (
                self._thinking.past(target)
                if is_past
                else self._thinking.reply(target, place + len(sources))
            )
            content, thoughts, empty_thought = reply
            source = self._tools.source(sources, governed)
            if number == 0:
                spelled |= self._open(dialogue, sources[0].role, source, batch)
            else:
                self._writer.fill(self._separator, "", number, Kind.CONTEXT, batch)
                spelled |= self._message(sources[0].role, source, number, Kind.CONTEXT, batch)
            if empty_thought is Kind.CONTEXT:
                batch.add_constant(self._empty_thought, Kind.CONTEXT)
            for _ in sources:
                # Results that are written as one belong to the first; each message keeps its number.
                batch.end_message()
            if empty_thought is Kind.GENERATED:
                batch.add_constant(self._empty_thought, Kind.GENERATED)
            if target.tool_calls:
                spelled |= self._tools.calls(
                    target, reply, f"messages[{place + len(sources)}]", governed, number, batch
                )
            else:
                said = self._thinking.said(reply) if thoughts else content
                spelled |= self._message(Role.ASSISTANT, said, number, Kind.GENERATED, batch)
            if number == len(rounds) - 1:
                for constant in self._closing:
                    batch.add_constant(constant, Kind.GENERATED)
            batch.end_message()
        notes = ["special-token-in-text"] if spelled else []
        unanswered = len(dialogue.messages) - place - len(sources) - 1
        if unanswered:
            notes.append("unanswered-ending")
        for _ in range(unanswered):
            batch.end_message()
        return notes

    def _open(self, dialogue: Dialogue, role: Role, source: Content, batch: SegmentBatch) -> bool:
        """Append what stands before and with the first message; return whether a text spells a token."""
        if self._system_in_user:
            self._writer.fill(self._prefix, "", 0, Kind.PREFIX, batch)
            front = [
                piece for text in self._tools.system_texts(dialogue) for piece in self._in_system(text)
            ]
            if front:
                if isinstance(source, str):
                    source = [self._tools.result(source) if role is Role.OBSERVATION else data(source)]
                source = [*front, *source]
            return self._message(role, source, 0, Kind.CONTEXT, batch)
        return self._open_system(dialogue, batch) | self._message(role, source, 0, Kind.CONTEXT, batch)

    def _open_system(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        """Append the prefix and the system messages; return whether a text spells a token."""
        self._writer.fill(self._prefix, "", 0, Kind.PREFIX, batch)
        spelled = False
        if dialogue.tools:
            for text in self._tools.system_texts(dialogue):
                spelled |= self._writer.pieces(self._system, text, 0, Kind.SYSTEM, batch)
        elif dialogue.system:
            spelled = self._guard.spells(dialogue.system)
            guarded = self._guard.guards(spelled)
            self._writer.fill(self._system, dialogue.system, 0, Kind.SYSTEM, batch, guarded)
        else:
            self._writer.fill(self._default_system, "", 0, Kind.SYSTEM, batch)
        return spelled

    def _in_system(self, content: Sequence[Piece]) -> list[Piece]:
        """Return a text in the system format, where that goes into the user's element."""
        slot = self._system[0]
        assert isinstance(slot, Slot)
        pieces = slot.around(content, 0)
        return [piece._replace(kind=Kind.SYSTEM) for piece in pieces] if self._parts_system else pieces

    def _message(self, role: Role, content: Content, number: int, kind: Kind, batch: SegmentBatch) -> bool:
        """Append one message; return whether its text spells a special token."""
        if not isinstance(content, str):
            return self._writer.pieces(self._formats[role], content, number, kind, batch)
        allowed = self._thinking.tokens if kind is Kind.GENERATED else frozenset()
        spelled = self._guard.spells(content, allowed)
        guarded = self._guard.guards(spelled)
        if guarded and allowed:
            content = self._special.mark(content, only=allowed)
        first = len(batch.texts)
        self._writer.fill(self._formats[role], content, number, kind, batch, guarded)
        if self._observes and role is Role.OBSERVATION:
            self._observe(first, content, number, guarded, batch)
        return spelled

    def _observe(self, first: int, content: str, number: int, guarded: bool, batch: SegmentBatch) -> None:
        """Say where a result's words stand in its texts, the first of which is number ``first``."""
        texts = [element for element in self._formats[Role.OBSERVATION] if not isinstance(element, int)]
        for text, element in enumerate(texts, first):
            if isinstance(element, Slot):
                start = len(element.opening(number, guarded))
                batch.add_stretch(text, start, len(content), Kind.OBSERVED)
