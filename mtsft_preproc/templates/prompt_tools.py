"""What a prompt type makes of tools: the text about them, the calls of a reply, and the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError, TemplateError
from mtsft_preproc.handlers.tool_json import SharedTools
from mtsft_preproc.templates.element_writer import ElementWriter
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
from mtsft_preproc.templates.prompt_type import PromptType
from mtsft_preproc.templates.segments import Kind, RunTable, SegmentBatch
from mtsft_preproc.templates.thinking import Reply, Thinking
from mtsft_preproc.templates.tool_text import (
    RESULT_CLOSES,
    RESULT_OPENS,
    arguments_text,
    tool_formats,
    tools_text,
)

__all__ = ["Content", "PromptTools", "ToolOpenings"]

#: Openings with tools that are remembered; when there are more, all of them are forgotten.
_OPENINGS = 256
#: Content of a message: text of the record, or text that the format has a part in.
Content = str | list[Piece]


class PromptTools:
    """Writes tools, calls and results in a prompt type.

    Args:
        prompt_type: The format.
        table: Takes the constants.
        formats: The formats of messages, by role.
        guard: Keeps text of records from becoming control tokens.
        thinking: What becomes of the thoughts in a reply.
        observes: Whether words of results are told apart from the format's.

    Raises:
        TemplateError: The prompt type names no tool format that there is.
    """

    def __init__(
        self,
        prompt_type: PromptType,
        table: ConstantTable,
        formats: Mapping[Role, Compiled],
        guard: TextGuard,
        thinking: Thinking,
        observes: bool,
    ) -> None:
        self._prompt_type, self._formats, self._guard = prompt_type, formats, guard
        self._thinking, self._observes = thinking, observes
        self._writer = ElementWriter(guard, table.bos)
        name, function = prompt_type.tool_format, prompt_type.function_format()
        if name not in tool_formats:
            raise TemplateError(
                f"prompt type {prompt_type.name!r}: unknown tool_format {name!r}; "
                f"available: {', '.join(sorted(tool_formats))}"
            )
        self._tool_format = tool_formats[name]
        #: As of :class:`~mtsft_preproc.templates.tool_text.ToolFormat`.
        self.governs = self._tool_format.governs
        holds_content = any("{{content}}" in element for element in function if isinstance(element, str))
        #: Format of all calls of a message, as content; or else of each call.
        self._function = table.compile(function) if holds_content else None
        self._call = () if holds_content else table.compile_call(function)
        first = self._call[0] if self._call else None
        self._call_opens = not isinstance(first, CallSlot) or first.opens_with_text
        self._reply_opening = _opening(formats[Role.ASSISTANT])
        #: Whether results that stand in a row are written as one.
        self.joins_results = any(
            element.before.endswith(RESULT_OPENS) and element.after.startswith(RESULT_CLOSES)
            for element in formats[Role.OBSERVATION]
            if isinstance(element, Slot)
        )

    def system_texts(self, dialogue: Dialogue) -> list[Sequence[Piece]]:
        """Return the contents of the system messages: the system text, the tools text, or both in one."""
        default = self._prompt_type.default_system
        system = [data(dialogue.system)] if dialogue.system else [ours(default)] if default else []
        if not dialogue.tools:
            return [system] if system else []
        tools = tools_text(self._prompt_type.tool_format, dialogue.tools)
        if not system:
            return [tools]
        if self._tool_format.joint is None:
            return [tools, system]
        return [[*system, ours(self._tool_format.joint), *tools]]

    def result(self, text: str, message: int = 0) -> Piece:
        """Return the words of a result: of the ``message``-th of those that are written as one."""
        return Piece(text, frozenset(), Kind.OBSERVED if self._observes else None, message)

    def source(self, sources: Sequence[Message], governed: bool) -> Content:
        """Return the content of a source: a user's message, or results."""
        governed = governed and sources[0].role is Role.OBSERVATION
        if len(sources) == 1 and not governed:
            return sources[0].text
        border = ours(f"{RESULT_CLOSES}\n{RESULT_OPENS}")
        texts = enumerate(source.text for source in sources)
        results = joined([[self.result(text, place)] for place, text in texts], border)
        return [ours(RESULT_OPENS), *results, ours(RESULT_CLOSES)] if governed else results

    def calls(
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
        return self._writer.pieces(form, content, number, Kind.GENERATED, batch)

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
            expected = f"no text beside a tool call in prompt type {self._prompt_type.name!r}"
            raise RecordError("unsupported-message", where, expected, shorten(spoken))
        if said:
            # The reply is not over: what the format puts behind its content comes behind the calls.
            border = [ours("\n")] if spoken else []
            spelled = self._writer.pieces(
                self._reply_opening, [*said, *border], number, Kind.GENERATED, batch
            )
        for place, call in enumerate(target.tool_calls):
            arguments = arguments_text(call, f"{where}.tool_calls[{place}]")
            for element in self._call:
                if isinstance(element, int):
                    batch.add_constant(element, Kind.GENERATED)
                elif not self._guard.add_clear(element.text(call.name, arguments), Kind.GENERATED, batch):
                    spelled |= self._guard.add(element.fill(call.name, arguments), Kind.GENERATED, batch)
        return spelled


class ToolOpenings:
    """What stands in front of the first message of dialogues with tools, made once for equal ones.

    Args:
        runs: The runs of the template.
        render: Appends it, and returns whether a text spells a special token.
    """

    def __init__(self, runs: RunTable, render: Callable[[Dialogue, SegmentBatch], bool]) -> None:
        self._runs, self._render = runs, render
        self._known: dict[tuple[SharedTools, str], tuple[bool, list[str], list[int]]] = {}

    def add(self, dialogue: Dialogue, batch: SegmentBatch) -> bool:
        """Append it; False: it takes more than texts and constants, and nothing was appended."""
        shared = SharedTools.of(dialogue.tools)
        found = self._known.get((shared, dialogue.system)) if shared else None
        if found is None:
            own = SegmentBatch(self._runs)
            spelled = self._render(dialogue, own)
            plain = not (spelled or own.guarded or own.stretches)
            found = plain, own.texts, own.runs
            if shared:
                if len(self._known) >= _OPENINGS:
                    self._known.clear()
                self._known[shared, dialogue.system] = found
        plain, texts, runs = found
        if plain:
            batch.texts += texts
            batch.runs += runs
        return plain


def _opening(elements: Compiled) -> Compiled:
    """Return a reply's format without what stands behind the content."""
    found: list[int | Slot | RoundText] = []
    for element in elements:
        if isinstance(element, Slot):
            return (*found, replace(element, after="", marked=(element.marked[0], "")))
        found.append(element)
    return elements
