"""Renders dialogues in a prompt type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError, TemplateError, TokenizerError
from mtsft_preproc.handlers.tool_json import SharedTools
from mtsft_preproc.templates.assembly import assemble
from mtsft_preproc.templates.elements import (
    CallSlot,
    Compiled,
    ConstantTable,
    Piece,
    RoundText,
    Slot,
    TextGuard,
    data,
    joined,
    ours,
)
from mtsft_preproc.templates.prompt_plan import PlanParts, PromptPlan
from mtsft_preproc.templates.prompt_type import PromptType, Style
from mtsft_preproc.templates.segments import Kind, RunTable, SegmentBatch
from mtsft_preproc.templates.thinking import Reply, Thinking
from mtsft_preproc.templates.token_batch import Template, TokenBatch
from mtsft_preproc.templates.tool_text import (
    RESULT_CLOSES,
    RESULT_OPENS,
    arguments_text,
    in_rounds,
    tool_formats,
    tools_text,
)
from mtsft_preproc.tokenization import Encoder, FlatIds, RememberingEncoder, SpecialText

__all__ = ["PromptTemplate"]

#: Openings with tools that are remembered; when there are more, all of them are forgotten.
_OPENINGS = 256
#: Content of a message: text of the record, or text that the format has a part in.
Content = str | list[Piece]


def _opening(elements: Compiled) -> Compiled:
    """Return a reply's format without what stands behind the content."""
    found: list[int | Slot | RoundText] = []
    for element in elements:
        if isinstance(element, Slot):
            return (*found, replace(element, after="", marked=(element.marked[0], "")))
        found.append(element)
    return elements


def _texts(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return the texts of all messages, and the system texts."""
    texts = [message.content for dialogue in dialogues for message in dialogue.messages if message.content]
    texts += [dialogue.system for dialogue in dialogues if dialogue.system]
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
        self._compile_tools(table)
        words = prompt_type.thought_words if style is Style.REASONING else None
        tokens = [token.text for token in encoder.spec.added if token.special]
        meant = frozenset(text for text in tokens if text in "".join(words or ()))
        self._thinking = Thinking(words, enable_thinking, meant)
        self._empty_thought = table.add_text(self._thinking.empty) if words else -1
        eos = table.add([encoder.spec.eos_id])
        self._closing = (eos,) * (int(prompt_type.efficient_eos) + int(append_eod))
        self.late_stop_id = encoder.spec.eos_id if prompt_type.efficient_eos else None
        self.closing = len(self._closing)
        self.grows = True
        self._constants = FlatIds.of(table.ids)
        self._bos = frozenset(table.bos)
        self._runs = RunTable()
        self._openings: dict[tuple[SharedTools, str], tuple[bool, list[str], list[int]]] = {}
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

    def _compile_tools(self, table: ConstantTable) -> None:
        name, function = self.prompt_type.tool_format, self.prompt_type.function_format()
        if name not in tool_formats:
            raise TemplateError(
                f"prompt type {self.prompt_type.name!r}: unknown tool_format {name!r}; "
                f"available: {', '.join(sorted(tool_formats))}"
            )
        self._tool_format = tool_formats[name]
        holds_content = any("{{content}}" in element for element in function if isinstance(element, str))
        #: Format of all calls of a message, as content; or else of each call.
        self._function = table.compile(function) if holds_content else None
        self._call = () if holds_content else table.compile_call(function)
        first = self._call[0] if self._call else None
        self._call_opens = not isinstance(first, CallSlot) or first.opens_with_text
        self._reply_opening = _opening(self._formats[Role.ASSISTANT])
        self._joins_results = any(
            element.before.endswith(RESULT_OPENS) and element.after.startswith(RESULT_CLOSES)
            for element in self._formats[Role.OBSERVATION]
            if isinstance(element, Slot)
        )

    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        segments = SegmentBatch(self._runs)
        failed: dict[int, RecordError] = {}
        notes: list[list[str]] = []
        plan = self._plan if self._plan and self._guard.clears(_texts(dialogues)) else None
        for number, dialogue in enumerate(dialogues):
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
            targets = [message.role.is_target for item in kept for message in item.messages]
        encoder = self._remembering if shared else self._encoder
        batch = assemble(segments, encoder, self._constants, targets)
        batch.failed.update(failed)
        batch.notes = notes
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
        try:
            return PromptPlan(parts, self._runs, self._open_with_tools, self._plain_calls)
        except ValueError:
            return None

    def _plain_calls(
        self, target: Message, reply: Reply, where: str, number: int, batch: SegmentBatch
    ) -> bool:
        return self._calls(target, reply, where, False, number, batch)

    def _open_with_tools(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        """Append what stands before the first message; False: it takes more than texts and constants."""
        if self._tool_format.governs:
            return False
        shared = SharedTools.of(dialogue.tools)
        found = self._openings.get((shared, dialogue.system)) if shared else None
        if found is None:
            own = SegmentBatch(self._runs)
            spelled = self._open_system(dialogue, own)
            plain = not (spelled or own.guarded or own.stretches)
            found = plain, own.texts, own.runs
            if shared:
                if len(self._openings) >= _OPENINGS:
                    self._openings.clear()
                self._openings[shared, dialogue.system] = found
        plain, texts, runs = found
        if plain:
            batch.texts += texts
            batch.runs += runs
        return plain

    def _render(self, dialogue: Dialogue, batch: SegmentBatch) -> list[str]:
        """Append the segments of a dialogue to ``batch``, all but ``end_dialogue``.

        Returns:
            Notes on the dialogue that the summary counts.

        Raises:
            RecordError: The dialogue can't be rendered; ``batch`` then holds a part of it.
        """
        spelled = False
        governed = self._tool_format.governs and bool(dialogue.tools)
        rounds = in_rounds(dialogue.messages, self._joins_results or governed)
        for number, (place, sources, target) in enumerate(rounds):
            is_past = dialogue.one_turn and number < len(rounds) - 1
            reply = (
                self._thinking.past(target)
                if is_past
                else self._thinking.reply(target, place + len(sources))
            )
            content, thoughts, empty_thought = reply
            source = self._source(sources, governed)
            if number == 0:
                spelled |= self._open(dialogue, sources[0].role, source, batch)
            else:
                self._fill(self._separator, "", number, Kind.CONTEXT, batch)
                spelled |= self._message(sources[0].role, source, number, Kind.CONTEXT, batch)
            if empty_thought is Kind.CONTEXT:
                batch.add_constant(self._empty_thought, Kind.CONTEXT)
            for _ in sources:
                # Results that are written as one belong to the first; each message keeps its number.
                batch.end_message()
            if empty_thought is Kind.GENERATED:
                batch.add_constant(self._empty_thought, Kind.GENERATED)
            if target.tool_calls:
                spelled |= self._calls(
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
            self._fill(self._prefix, "", 0, Kind.PREFIX, batch)
            front = [piece for text in self._system_texts(dialogue) for piece in self._in_system(text)]
            if front:
                if isinstance(source, str):
                    source = [self._result(source) if role is Role.OBSERVATION else data(source)]
                source = [*front, *source]
            return self._message(role, source, 0, Kind.CONTEXT, batch)
        return self._open_system(dialogue, batch) | self._message(role, source, 0, Kind.CONTEXT, batch)

    def _open_system(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        """Append the prefix and the system messages; return whether a text spells a token."""
        self._fill(self._prefix, "", 0, Kind.PREFIX, batch)
        spelled = False
        if dialogue.tools:
            for text in self._system_texts(dialogue):
                spelled |= self._pieces(self._system, text, 0, Kind.SYSTEM, batch)
        elif dialogue.system:
            spelled = self._guard.spells(dialogue.system)
            guarded = self._guard.guards(spelled)
            self._fill(self._system, dialogue.system, 0, Kind.SYSTEM, batch, guarded)
        else:
            self._fill(self._default_system, "", 0, Kind.SYSTEM, batch)
        return spelled

    def _system_texts(self, dialogue: Dialogue) -> list[Sequence[Piece]]:
        """Return the contents of the system messages: the system text, the tools text, or both in one."""
        default = self.prompt_type.default_system
        system = [data(dialogue.system)] if dialogue.system else [ours(default)] if default else []
        if not dialogue.tools:
            return [system] if system else []
        tools = tools_text(self.prompt_type.tool_format, dialogue.tools)
        if not system:
            return [tools]
        if self._tool_format.joint is None:
            return [tools, system]
        return [[*system, ours(self._tool_format.joint), *tools]]

    def _in_system(self, content: Sequence[Piece]) -> list[Piece]:
        """Return a text in the system format, where that goes into the user's element."""
        slot = self._system[0]
        assert isinstance(slot, Slot)
        pieces = slot.around(content, 0)
        return [piece._replace(kind=Kind.SYSTEM) for piece in pieces] if self._parts_system else pieces

    def _result(self, text: str, message: int = 0) -> Piece:
        """Return the words of a result: of the ``message``-th of those that are written as one."""
        return Piece(text, frozenset(), Kind.OBSERVED if self._observes else None, message)

    def _source(self, sources: Sequence[Message], governed: bool) -> Content:
        """Return the content of a source: a user's message, or results."""
        governed = governed and sources[0].role is Role.OBSERVATION
        if len(sources) == 1 and not governed:
            return sources[0].text
        border = ours(f"{RESULT_CLOSES}\n{RESULT_OPENS}")
        texts = enumerate(source.text for source in sources)
        results = joined([[self._result(text, place)] for place, text in texts], border)
        return [ours(RESULT_OPENS), *results, ours(RESULT_CLOSES)] if governed else results

    def _calls(
        self, target: Message, reply: Reply, where: str, governed: bool, number: int, batch: SegmentBatch
    ) -> bool:
        """Append a reply that calls tools; return whether its text spells a special token."""
        form = self._formats[Role.ASSISTANT] if governed else self._function
        if form is None:
            return self._calls_one_by_one(target, reply, where, number, batch)
        calls = [
            self._tool_format.call(call, f"{where}.tool_calls[{place}]")
            for place, call in enumerate(target.tool_calls)
        ]
        border = [ours("\n")] if self._thinking.spoken(reply) else []
        content = [*self._thinking.said(reply), *border, *joined(calls, ours("\n"))]
        return self._pieces(form, content, number, Kind.GENERATED, batch)

    def _calls_one_by_one(
        self, target: Message, reply: Reply, where: str, number: int, batch: SegmentBatch
    ) -> bool:
        """Append a reply and its calls, each in the function format.

        Raises:
            RecordError: The format has no place for text beside a call.
        """
        spelled = False
        said, spoken = self._thinking.said(reply), self._thinking.spoken(reply)
        if not spoken.strip():
            # White space alone is no text, and would only hide where the call begins.
            said, spoken = (said, "") if said and said[0].text.strip() else ([], "")
        elif not self._call_opens:
            expected = f"no text beside a tool call in prompt type {self.prompt_type.name!r}"
            raise RecordError("unsupported-message", where, expected, shorten(spoken))
        if said:
            # The reply is not over: what the format puts behind its content comes behind the calls.
            border = [ours("\n")] if spoken else []
            spelled = self._pieces(self._reply_opening, [*said, *border], number, Kind.GENERATED, batch)
        for place, call in enumerate(target.tool_calls):
            arguments = arguments_text(call, f"{where}.tool_calls[{place}]")
            for element in self._call:
                if isinstance(element, int):
                    batch.add_constant(element, Kind.GENERATED)
                elif not self._guard.add_clear(element.text(call.name, arguments), Kind.GENERATED, batch):
                    spelled |= self._guard.add(element.fill(call.name, arguments), Kind.GENERATED, batch)
        return spelled

    def _message(self, role: Role, content: Content, number: int, kind: Kind, batch: SegmentBatch) -> bool:
        """Append one message; return whether its text spells a special token."""
        if not isinstance(content, str):
            return self._pieces(self._formats[role], content, number, kind, batch)
        allowed = self._thinking.tokens if kind is Kind.GENERATED else frozenset()
        spelled = self._guard.spells(content, allowed)
        guarded = self._guard.guards(spelled)
        if guarded and allowed:
            content = self._special.mark(content, only=allowed)
        first = len(batch.texts)
        self._fill(self._formats[role], content, number, kind, batch, guarded)
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

    def _pieces(
        self, elements: Compiled, content: Sequence[Piece], number: int, kind: Kind, batch: SegmentBatch
    ) -> bool:
        """Append a format with content in pieces; return whether data in it spell a special token."""
        spelled = False
        for element in elements:
            if isinstance(element, Slot):
                spelled |= self._guard.add(element.around(content, number), kind, batch)
            else:
                self._fill((element,), "", number, kind, batch)
        return spelled

    def _fill(
        self,
        elements: Compiled,
        content: str,
        number: int,
        kind: Kind,
        batch: SegmentBatch,
        guarded: bool = False,
    ) -> None:
        """Append the elements of a format with ``content`` in its place."""
        for element in elements:
            if isinstance(element, int):
                batch.add_constant(element, Kind.PREFIX if element in self._bos else kind)
            elif isinstance(element, RoundText):
                batch.add_text(element.fill(number), kind)
            elif guarded:
                batch.add_guarded(element.fill_marked(content, number), kind)
            else:
                batch.add_text(element.fill(content, number), kind)
