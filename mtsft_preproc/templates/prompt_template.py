"""Renders dialogues in a prompt type."""

from __future__ import annotations

from collections.abc import Sequence

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.templates.assembly import assemble
from mtsft_preproc.templates.elements import Compiled, ConstantTable, RoundText, Slot
from mtsft_preproc.templates.prompt_type import PromptType, Style
from mtsft_preproc.templates.segments import Kind, SegmentBatch
from mtsft_preproc.templates.thinking import Thinking
from mtsft_preproc.templates.token_batch import Template, TokenBatch
from mtsft_preproc.tokenization import Encoder, FlatIds, SpecialText

__all__ = ["PromptTemplate"]


class PromptTemplate(Template):
    """A prompt type, compiled for one tokenizer.

    Args:
        prompt_type: The format.
        encoder: Of the tokenizer, adjusted by ``prompt_type.adjustment()``.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        enable_thinking: ``"true"``, ``"false"`` or ``"none"``; only reasoning formats look at it.
        append_eod: Whether one more EOS, trained, closes each sample.

    Raises:
        TemplateError: The tokenizer lacks a token that the format names.
    """

    def __init__(
        self,
        prompt_type: PromptType,
        encoder: Encoder,
        special_tokens_in_text: str = "plain",
        enable_thinking: str = "none",
        append_eod: bool = False,
    ) -> None:
        self.prompt_type = prompt_type
        self._encoder = encoder
        self._in_text = special_tokens_in_text
        self._special = SpecialText(encoder.spec)
        table = ConstantTable(encoder, self._special)
        style = prompt_type.style
        self._prefix = table.compile(prompt_type.prefix)
        self._separator = () if style is Style.NO_SEPARATOR else table.compile(prompt_type.separator)
        self._system = table.compile(prompt_type.system)
        self._system_in_user = style is Style.SYSTEM_IN_USER
        if self._system_in_user and [type(part) for part in self._system] != [Slot]:
            raise TemplateError(
                f"prompt type {prompt_type.name!r}: its system format goes into the user's first "
                "element, so it must be one string with {{content}}"
            )
        # The format's own text is the same in every dialogue: encoded once, its control tokens meant.
        self._default_system = (
            ()
            if self._system_in_user or not prompt_type.default_system
            else table.compile_filled(prompt_type.system, prompt_type.default_system)
        )
        user = table.compile(prompt_type.user)
        observation = prompt_type.observation
        self._formats: dict[Role, Compiled] = {
            Role.USER: user,
            Role.OBSERVATION: user if observation is None else table.compile(observation),
            Role.ASSISTANT: table.compile(prompt_type.reply_format()),
        }
        self._thinking = (
            Thinking(prompt_type.thought_words, enable_thinking) if style is Style.REASONING else None
        )
        self._empty_thought = table.add_text(self._thinking.empty) if self._thinking else -1
        # A reply that thinks holds the special tokens of the thought words, and means them.
        self._thought_tokens = frozenset(
            token.text
            for token in encoder.spec.added
            if self._thinking and token.special and token.text in self._thinking.empty
        )
        eos = table.add([encoder.spec.eos_id])
        self._closing = (eos,) * (int(prompt_type.efficient_eos) + int(append_eod))
        self.late_stop_id = encoder.spec.eos_id if prompt_type.efficient_eos else None
        self._constants = FlatIds.of(table.ids)
        self._bos = frozenset(table.bos)
        self._guard_all = encoder.spec.normalizes_special

    def encode(self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]]) -> TokenBatch:
        segments = SegmentBatch()
        failed: dict[int, RecordError] = {}
        notes: list[list[str]] = []
        for number, dialogue in enumerate(dialogues):
            mark = segments.mark()
            notes.append([])
            try:
                notes[-1] += self._render(dialogue, segments)
            except RecordError as error:
                segments.rollback(mark)
                failed[number] = error
            else:
                segments.end_dialogue(number, trained[number])
        batch = assemble(segments, self._encoder, self._constants, self.late_stop_id is not None)
        batch.failed.update(failed)
        batch.notes = notes
        return batch

    def _render(self, dialogue: Dialogue, batch: SegmentBatch) -> list[str]:
        """Append the segments of a dialogue to ``batch``, all but ``end_dialogue``.

        Returns:
            Notes on the dialogue that the summary counts.

        Raises:
            RecordError: The dialogue can't be rendered; ``batch`` then holds a part of it.
        """
        spelled = False
        messages = dialogue.messages
        for place in range(0, len(messages), 2):
            source, target = messages[place], messages[place + 1]
            number = place // 2
            reply, thought_kind = self._think(target.text)
            if place == 0:
                spelled |= self._open(dialogue.system, source, batch)
            else:
                self._fill(self._separator, "", number, Kind.CONTEXT, batch)
                spelled |= self._message(source, source.text, number, Kind.CONTEXT, batch)
            if thought_kind is Kind.CONTEXT:
                batch.add_constant(self._empty_thought, Kind.CONTEXT)
            batch.end_message()
            if thought_kind is Kind.GENERATED:
                batch.add_constant(self._empty_thought, Kind.GENERATED)
            spelled |= self._message(target, reply, number, Kind.GENERATED, batch)
            if place == len(messages) - 2:
                for constant in self._closing:
                    batch.add_constant(constant, Kind.GENERATED)
            batch.end_message()
        return ["special-token-in-text"] if spelled else []

    def _open(self, own_system: str, source: Message, batch: SegmentBatch) -> bool:
        """Append what stands before and with the first message; return whether a text spells a token."""
        self._fill(self._prefix, "", 0, Kind.PREFIX, batch)
        if self._system_in_user and (own_system or self.prompt_type.default_system):
            return self._system_and_source(own_system, source, batch)
        spelled = self._spells(own_system)
        if own_system:
            guarded = self._guards(spelled)
            self._fill(self._system, own_system, 0, Kind.SYSTEM, batch, guarded)
        else:
            self._fill(self._default_system, "", 0, Kind.SYSTEM, batch)
        return self._message(source, source.text, 0, Kind.CONTEXT, batch) | spelled

    def _system_and_source(self, own_system: str, source: Message, batch: SegmentBatch) -> bool:
        """Append the first message with the system format's text in front of its content."""
        slot = self._system[0]
        assert isinstance(slot, Slot)
        default = self.prompt_type.default_system
        spelled = self._spells(own_system) | self._spells(source.text)
        guarded = self._guards(spelled)
        if guarded:
            system = slot.fill_marked(own_system or self._special.mark(default), 0)
        else:
            system = slot.fill(own_system or default, 0)
        content = system + source.text
        self._fill(self._formats[source.role], content, 0, Kind.CONTEXT, batch, guarded)
        return spelled

    def _message(
        self, message: Message, content: str, number: int, kind: Kind, batch: SegmentBatch
    ) -> bool:
        """Append one message; return whether its text spells a special token."""
        allowed = self._thought_tokens if kind is Kind.GENERATED else frozenset()
        spelled = self._spells(content, allowed)
        guarded = self._guards(spelled)
        if guarded and allowed:
            content = self._special.mark(content, only=allowed)
        self._fill(self._formats[message.role], content, number, kind, batch, guarded)
        return spelled

    def _spells(self, content: str, allowed: frozenset[str] = frozenset()) -> bool:
        """Return whether ``content`` spells a special token.

        Raises:
            RecordError: It does, and ``--special-tokens-in-text reject`` is set.
        """
        found = self._special.find(content, allowed)
        if found and self._in_text == "reject":
            raise RecordError("special-token", "", "text without control tokens", repr(found))
        return found is not None

    def _guards(self, spelled: bool) -> bool:
        """Return whether a text is encoded with the format's own control tokens written as marks."""
        return self._in_text == "plain" and (spelled or self._guard_all)

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

    def _think(self, content: str) -> tuple[str, Kind | None]:
        """Return a reply as it is trained, and where an empty thought goes, if one does."""
        thinking = self._thinking
        if thinking is None:
            return content, None
        content = thinking.strip(content)
        if not thinking.lacks_thought(content):
            return content, None
        return content, Kind.GENERATED if thinking.trains_empty else Kind.CONTEXT
