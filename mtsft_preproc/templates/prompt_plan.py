"""Plain dialogues in a prompt type, at the speed of the encoder.

Nearly every message is a text in an element, with the same constants around it. For dialogues of such
messages alone, in which no text spells a special token, what each message adds to a batch is known before:
one text and one run of segments. All else is for :class:`PromptTemplate` itself to render.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mtsft_preproc.dialogue import Dialogue, Message, Outline, Role
from mtsft_preproc.templates.elements import Compiled, Slot
from mtsft_preproc.templates.segments import TEXT, Kind, RunTable, SegmentBatch
from mtsft_preproc.templates.thinking import Reply

__all__ = ["PlanParts", "PromptPlan"]

#: Looked up once: an enum's members are slow to get at.
_ASSISTANT = Role.ASSISTANT
#: Who may speak first in a round, and second; a byte each.
_SOURCES, _TARGETS = bytes([Role.USER, Role.OBSERVATION]), bytes([Role.ASSISTANT])
#: The code of a message is its role, with one of these bits in a round with an empty thought, and with the
#: other if it is the first or the last one of its dialogue.
_THOUGHT, _EDGE = 1 << 3, 1 << 4
#: Codes of what opens a dialogue: the default, a system text.
_DEFAULT, _SYSTEM = 1 << 5, (1 << 5) + 1
#: Shapes that are remembered.
_KEPT = 4096
#: Segments: the number of a constant or TEXT, and the kind.
_Segments = list[tuple[int, Kind]]
#: Appends the calls of a reply: message, reply, its place, False, number of the round, batch.
_Calls = Callable[[Message, Reply, str, bool, int, SegmentBatch], bool]


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


class _Shape(NamedTuple):
    """What all dialogues of the same roles have in common.

    Attributes:
        codes: The code of each message, without thoughts.
        runs: Its run.
        around: What stands before and behind its words in its text, thought or none.
    """

    codes: bytes
    runs: list[int]
    around: list[tuple[str, str]]

    def filled(self, texts: Sequence[str]) -> list[str]:
        """Return texts of messages with what stands around them."""
        return [before + text + after for (before, after), text in zip(self.around, texts, strict=True)]


class PromptPlan:
    """Renders plain dialogues.

    Args:
        parts: The prompt type.
        table: Takes the runs.
        tools: Appends the system text and tools of a dialogue that has tools, and all in front of them;
            False: it can't be done here, and nothing was appended. None: no dialogue with tools is plain.
        calls: Appends the calls of a reply; returns whether their texts spell a special token.

    Raises:
        ValueError: The prompt type needs more than a text and constants for a message.
    """

    def __init__(
        self,
        parts: PlanParts,
        table: RunTable,
        tools: Callable[[Dialogue, SegmentBatch], bool] | None,
        calls: _Calls,
    ) -> None:
        self._parts, self._table, self._tools, self._calls = parts, table, tools, calls
        self._words = parts.words
        #: By code: what stands before and behind the words in their text.
        self._around = [("", "")] * (_SYSTEM + 1)
        #: By code: the run.
        self._run = [0] * (_SYSTEM + 1)
        #: By roles; when there are too many, all of them are forgotten.
        self._shapes: dict[bytes, _Shape | None] = {}
        self._compile_openings()
        for role in (Role.USER, Role.OBSERVATION):
            self._compile_source(role)
        self._compile_reply()
        closing = [(constant, Kind.GENERATED) for constant in parts.closing]
        #: What ends a reply that calls, by whether it is the last.
        self._ends = table.end, table.number(closing, ends=True)

    def _compile_openings(self) -> None:
        prefix = self._constants(self._parts.prefix, Kind.PREFIX)
        default = self._constants(self._parts.default_system, Kind.SYSTEM)
        before, segments, after = self._format(self._parts.system, Kind.SYSTEM)
        self._around[_SYSTEM] = before, after
        self._run[_DEFAULT] = self._table.number([*prefix, *default])
        self._run[_SYSTEM] = self._table.number([*prefix, *segments])

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

    def _compile_source(self, role: Role) -> None:
        before, segments, after = self._format(self._parts.formats[role], Kind.CONTEXT)
        separator = self._constants(self._parts.separator, Kind.CONTEXT)
        for code, thought in self._codes_of(role, Kind.CONTEXT):
            self._around[code] = self._around[code + _EDGE] = before, after
            self._run[code] = self._table.number([*separator, *segments, *thought], ends=True)
            self._run[code + _EDGE] = self._table.number([*segments, *thought], ends=True)

    def _compile_reply(self) -> None:
        before, segments, after = self._format(self._parts.formats[_ASSISTANT], Kind.GENERATED)
        closing = [(constant, Kind.GENERATED) for constant in self._parts.closing]
        for code, thought in self._codes_of(_ASSISTANT, Kind.GENERATED):
            self._around[code] = self._around[code + _EDGE] = before, after
            self._run[code] = self._table.number([*thought, *segments], ends=True)
            self._run[code + _EDGE] = self._table.number([*thought, *segments, *closing], ends=True)

    def _codes_of(self, role: Role, kind: Kind) -> list[tuple[int, _Segments]]:
        """Return the codes of a role, and the thought that messages of each have if that is a ``kind``."""
        thought: _Segments = [(self._parts.empty_thought, kind)] if self._parts.thought_kind is kind else []
        return [(role, []), (role + _THOUGHT, thought)]

    def add_texts(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        """Append a dialogue of texts alone, as nearly all are; all but ``end_dialogue``.

        Args:
            dialogue: As :meth:`add` takes it.
            batch: Takes the segments.

        Returns:
            Whether it is one; if not, nothing was appended.
        """
        roles, texts, rich = dialogue.outline
        if rich or dialogue.tools or (dialogue.one_turn and self._words):
            return False
        shape = self._shape(roles)
        if shape is None:
            return False
        self._open(dialogue.system, batch)
        batch.texts += shape.filled(texts)
        batch.runs += self._runs_of(self._codes(shape, texts), shape)
        batch.messages += len(roles)
        return True

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
        roles, _, rich = dialogue.outline
        # In history, thoughts of earlier replies are left out.
        shape = self._shape(roles)
        if shape is None or (dialogue.one_turn and self._words):
            return None
        for message in rich.values():
            if message.reasoning or (message.tool_calls and message.role is not _ASSISTANT):
                return None
        if dialogue.tools:
            if self._tools is None or not self._tools(dialogue, batch):
                return None
        else:
            self._open(dialogue.system, batch)
        return self._add_messages(dialogue.outline, shape, batch)

    def _open(self, system: str, batch: SegmentBatch) -> None:
        """Append what stands in front of the first message where there are no tools."""
        if system:
            before, after = self._around[_SYSTEM]
            batch.texts.append(before + system + after)
            batch.runs.append(self._run[_SYSTEM])
        else:
            batch.runs.append(self._run[_DEFAULT])

    def _shape(self, roles: bytes) -> _Shape | None:
        """Return what all dialogues of these roles have in common; None: the roles don't take turns."""
        try:
            return self._shapes[roles]
        except KeyError:
            pass
        shape = None
        if _take_turns(roles):
            codes = bytearray(roles)
            codes[0] += _EDGE
            codes[-1] += _EDGE
            shape = _Shape(bytes(codes), [self._run[code] for code in codes],
                           [self._around[code] for code in codes])  # fmt: skip
        if len(self._shapes) >= _KEPT:
            self._shapes.clear()
        self._shapes[roles] = shape
        return shape

    def _codes(self, shape: _Shape, texts: Sequence[str]) -> bytes:
        """Return the code of each message."""
        if self._words is None:
            return shape.codes
        before, behind = self._words
        codes = bytearray(shape.codes)
        for number in range(1, len(codes), 2):
            if before not in texts[number] and behind not in texts[number]:
                codes[number - 1] += _THOUGHT
                codes[number] += _THOUGHT
        return bytes(codes)

    def _runs_of(self, codes: bytes, shape: _Shape) -> list[int]:
        """Return the run of each message."""
        return shape.runs if codes is shape.codes else [self._run[code] for code in codes]

    def _add_messages(self, outline: Outline, shape: _Shape, batch: SegmentBatch) -> list[str]:
        """Append the messages of a dialogue, some of which may call tools."""
        roles, words, rich = outline
        codes = self._codes(shape, words)
        texts, runs = shape.filled(words), self._runs_of(codes, shape)
        spelled = False
        done = 0
        for number, target in rich.items():
            if not target.tool_calls:
                continue
            batch.texts += texts[done:number]
            batch.runs += runs[done:number]
            spelled |= self._call(target, number, bool(codes[number] & _THOUGHT), batch)
            batch.runs.append(self._ends[number == len(roles) - 1])
            done = number + 1
        batch.texts += texts[done:]
        batch.runs += runs[done:]
        batch.messages += len(roles)
        return ["special-token-in-text"] if spelled else []

    def _call(self, target: Message, number: int, thought: bool, batch: SegmentBatch) -> bool:
        kind = self._parts.thought_kind if thought else None
        if kind is Kind.GENERATED:
            batch.add_constant(self._parts.empty_thought, kind)
        return self._calls(
            target, (target.text, "", kind), f"messages[{number}]", False, number // 2, batch
        )


def _take_turns(roles: bytes) -> bool:
    """Return whether users or tools and the assistant take turns, and the assistant has the last one."""
    if not roles or len(roles) % 2:
        return False
    # Nothing is left of what holds these roles alone.
    return not roles[::2].strip(_SOURCES) and not roles[1::2].strip(_TARGETS)
