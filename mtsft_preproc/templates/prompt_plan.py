"""Plain dialogues in a prompt type, at the speed of the encoder.

Nearly every message is a text in an element, with the same constants around it. For dialogues of such
messages alone, in which no text spells a special token, what each message adds to a batch is known before:
one text and one run of segments. All else is for :class:`PromptTemplate` itself to render.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.elements import Compiled, Slot
from mtsft_preproc.templates.segments import TEXT, Kind, RunTable, SegmentBatch
from mtsft_preproc.templates.thinking import Reply

__all__ = ["PlanParts", "PromptPlan"]

#: Looked up once: an enum's members are slow to get at.
_ASSISTANT = Role.ASSISTANT
#: Segments: the number of a constant or TEXT, and the kind.
_Segments = list[tuple[int, Kind]]
#: Appends the calls of a reply: message, reply, its place, number of the round, batch.
_Calls = Callable[[Message, Reply, str, int, SegmentBatch], bool]


@dataclass(frozen=True)
class PlanParts:
    """A prompt type, compiled.

    Attributes:
        prefix: Stands in front of everything.
        system: Format of the system text.
        default_system: The system text of dialogues that have none.
        separator: Stands in front of every source but the first.
        formats: By role.
        closing: Constants that close a sample.
        bos: Which constants are BOS.
        words: What stands before and behind a thought; None: the format knows no thoughts.
        empty_thought: Number of the constant that is an empty thought.
        thought_kind: What an empty thought is.
    """

    prefix: Compiled
    system: Compiled
    default_system: Compiled
    separator: Compiled
    formats: dict[Role, Compiled]
    closing: Sequence[int]
    bos: frozenset[int]
    words: tuple[str, str] | None
    empty_thought: int
    thought_kind: Kind


@dataclass(frozen=True, slots=True)
class _Form:
    """What a message becomes.

    Attributes:
        before: What stands in front of its words in the text.
        after: What stands behind them.
        runs: Its runs: by whether it is behind the first source (of a reply: whether it is the last), plus
            two where an empty thought goes with it.
    """

    before: str
    after: str
    runs: tuple[int, int, int, int]


class PromptPlan:
    """Renders plain dialogues.

    Args:
        parts: The prompt type.
        table: Takes the runs.
        tools: Appends the system text and tools of a dialogue that has tools, and all in front of them;
            False: it can't be done here, and nothing was appended.
        calls: Appends the calls of a reply; returns whether their texts spell a special token.

    Raises:
        ValueError: The prompt type needs more than a text and constants for a message.
    """

    def __init__(
        self,
        parts: PlanParts,
        table: RunTable,
        tools: Callable[[Dialogue, SegmentBatch], bool],
        calls: _Calls,
    ) -> None:
        self._parts, self._table, self._tools, self._calls = parts, table, tools, calls
        self._words = parts.words
        prefix = self._constants(parts.prefix, Kind.PREFIX)
        default = self._constants(parts.default_system, Kind.SYSTEM)
        self._opening = table.number([*prefix, *default])
        before, segments, after = self._format(parts.system, Kind.SYSTEM)
        self._system = before, after, table.number([*prefix, *segments])
        #: By role; None: no dialogue has one where a source is expected.
        self._sources = [self._source(role) for role in Role]
        self._reply = self._target()
        closing = [(constant, Kind.GENERATED) for constant in parts.closing]
        #: What ends a reply that calls, by whether it is the last.
        self._ends = table.end, table.number(closing, ends=True)

    def _constants(self, elements: Compiled, kind: Kind) -> _Segments:
        found = []
        for element in elements:
            if not isinstance(element, int):
                raise ValueError("a text where none is expected")
            found.append((element, Kind.PREFIX if element in self._parts.bos else kind))
        return found

    def _format(self, elements: Compiled, kind: Kind) -> tuple[str, _Segments, str]:
        """Return the text in front of the content, the segments, and the text behind."""
        slots = [element for element in elements if isinstance(element, Slot)]
        if len(slots) != 1 or slots[0].has_round:
            raise ValueError("not one place for the content")
        at = elements.index(slots[0])
        before = self._constants(elements[:at], kind)
        after = self._constants(elements[at + 1 :], kind)
        return slots[0].before, [*before, (TEXT, kind), *after], slots[0].after

    def _source(self, role: Role) -> _Form | None:
        if role not in (Role.USER, Role.OBSERVATION):
            return None
        before, segments, after = self._format(self._parts.formats[role], Kind.CONTEXT)
        separator = self._constants(self._parts.separator, Kind.CONTEXT)
        thought: _Segments = []
        if self._parts.thought_kind is Kind.CONTEXT:
            thought = [(self._parts.empty_thought, Kind.CONTEXT)]
        number = self._table.number
        runs = (
            number(segments, ends=True),
            number([*separator, *segments], ends=True),
            number([*segments, *thought], ends=True),
            number([*separator, *segments, *thought], ends=True),
        )
        return _Form(before, after, runs)

    def _target(self) -> _Form:
        before, segments, after = self._format(self._parts.formats[Role.ASSISTANT], Kind.GENERATED)
        closing = [(constant, Kind.GENERATED) for constant in self._parts.closing]
        thought: _Segments = []
        if self._parts.thought_kind is Kind.GENERATED:
            thought = [(self._parts.empty_thought, Kind.GENERATED)]
        number = self._table.number
        runs = (
            number(segments, ends=True),
            number([*segments, *closing], ends=True),
            number([*thought, *segments], ends=True),
            number([*thought, *segments, *closing], ends=True),
        )
        return _Form(before, after, runs)

    def add(self, dialogue: Dialogue, batch: SegmentBatch) -> list[str] | None:
        """Append a dialogue, all but ``end_dialogue``.

        Args:
            dialogue: No text of a message or of the system spells a special token.
            batch: Takes the segments.

        Returns:
            Notes on the dialogue; None: it is not plain, and nothing was appended.

        Raises:
            RecordError: It can't be rendered; ``batch`` then holds a part of it.
        """
        messages = dialogue.messages
        if not messages or len(messages) % 2 or not self._open(dialogue, batch):
            return None
        return self._rounds(messages, batch)

    def _open(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        for place, message in enumerate(dialogue.messages):
            if place % 2:
                plain = message.role is _ASSISTANT
            else:
                plain = self._sources[message.role] is not None and not message.tool_calls
            if message.reasoning or not plain:
                return False
        if dialogue.one_turn and self._words is not None:
            return False  # thoughts of earlier replies are left out
        if dialogue.tools:
            return self._tools(dialogue, batch)
        if dialogue.system:
            before, after, run = self._system
            batch.texts.append(before + dialogue.system + after)
            batch.runs.append(run)
        else:
            batch.runs.append(self._opening)
        return True

    def _rounds(self, messages: Sequence[Message], batch: SegmentBatch) -> list[str]:
        """Append the messages. The inner loop of a run: hence the local names."""
        add_text, add_run = batch.texts.append, batch.runs.append
        sources, words = self._sources, self._words
        reply_before, reply_after, reply_runs = self._reply.before, self._reply.after, self._reply.runs
        last = len(messages) - 2
        thought = 0
        spelled = False
        for place in range(0, len(messages), 2):
            source, target = messages[place], messages[place + 1]
            content = target.content or ""
            if words is not None:
                thought = 0 if words[0] in content or words[1] in content else 2
            form = sources[source.role]
            assert form is not None
            add_text(form.before + (source.content or "") + form.after)
            add_run(form.runs[(place > 0) + thought])
            if target.tool_calls:
                spelled |= self._call(target, content, place, bool(thought), batch)
                add_run(self._ends[place == last])
            else:
                add_text(reply_before + content + reply_after)
                add_run(reply_runs[(place == last) + thought])
        batch.messages += len(messages)
        return ["special-token-in-text"] if spelled else []

    def _call(self, target: Message, content: str, place: int, thought: bool, batch: SegmentBatch) -> bool:
        kind = self._parts.thought_kind if thought else None
        if kind is Kind.GENERATED:
            batch.add_constant(self._parts.empty_thought, kind)
        return self._calls(target, (content, "", kind), f"messages[{place + 1}]", place // 2, batch)
