"""Records of an instruction and its answer, in Alpaca's text form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtsft_preproc.dialogue import Dialogue, Message, Role, shorten
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.base import DialogueHandler, needed_text, summary_of, text_field

__all__ = ["BelleHandler", "GeneralHandler", "LeetcodeHandler"]

_HUMAN, _ASSISTANT = "Human:", "Assistant:"
_MARKS = re.compile(f"({_HUMAN}|{_ASSISTANT})")
_FENCE = "```"


class InstructionHandler(DialogueHandler):
    """What these handlers share: Alpaca's text form, of whose replies the last one is trained."""

    text_form: ClassVar[str | None] = "alpaca_text"
    defaults: ClassVar[Mapping[str, Any]] = {"train_on": "last"}


class GeneralHandler(InstructionHandler):
    """``instruction`` / ``input`` / ``output`` rows; the first two are joined with a newline, always."""

    keys: ClassVar[Mapping[str, str | None]] = {
        "instruction": "instruction",
        "input": "input",
        "output": "output",
    }
    required: ClassVar[Sequence[Sequence[str]]] = (("instruction",), ("output",))

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        columns = self.columns
        instruction = needed_text(record, columns, "instruction")
        further = text_field(record, columns.get("input")) or ""
        output = needed_text(record, columns, "output")
        messages = [Message(Role.USER, f"{instruction}\n{further}"), Message(Role.ASSISTANT, output)]
        notes = [] if instruction or further else ["empty-prompt"]
        return Dialogue(messages, notes=notes, summary=summary_of(record, columns))


class BelleHandler(InstructionHandler):
    """BELLE's rows, whose instruction holds the earlier turns as ``Human:...`` and ``Assistant:...``.

    An instruction without these marks is one question. With them, it must be a dialogue from its start on,
    in turns; what comes last in it is answered by ``output``. A mark that somebody speaks of can't be told
    from one that counts, so an instruction whose marks don't take turns is rejected.
    """

    keys: ClassVar[Mapping[str, str | None]] = GeneralHandler.keys
    required: ClassVar[Sequence[Sequence[str]]] = GeneralHandler.required

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        columns = self.columns
        messages = _turns(needed_text(record, columns, "instruction"), columns["instruction"])
        further = text_field(record, columns.get("input"))
        asked = messages[-1]
        if further:
            asked.content = f"{asked.text}\n{further}"
        notes = [] if asked.content else ["empty-prompt"]
        messages.append(Message(Role.ASSISTANT, needed_text(record, columns, "output").strip()))
        return Dialogue(messages, notes=notes, summary=summary_of(record, columns))


def _turns(instruction: str, column: str) -> list[Message]:
    """Return what an instruction holds: messages in turns, the last one the user's.

    Raises:
        RecordError: ``bad-history``.
    """
    front, *pieces = _MARKS.split(instruction)
    if not pieces:
        return [Message(Role.USER, front.strip())]
    expected = f"text that starts with {_HUMAN!r}, then {_ASSISTANT!r} and {_HUMAN!r} in turns"
    if front.strip():
        raise RecordError("bad-history", column, expected, f"{shorten(front)} in front")
    messages = []
    for number, (mark, text) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        if mark != (_ASSISTANT if number % 2 else _HUMAN):
            raise RecordError("bad-history", column, expected, f"{mark} twice, before {shorten(text)}")
        messages.append(Message(Role.ASSISTANT if number % 2 else Role.USER, text.strip()))
    if messages[-1].role is Role.ASSISTANT:
        said = messages.pop()
        if said.content:
            got = f"{shorten(said.content)} behind it"
            raise RecordError(
                "bad-history", column, f"nothing behind the last {_ASSISTANT!r}: output stands there", got
            )
    return messages


class LeetcodeHandler(InstructionHandler):
    """Programming tasks: what stands before the code is asked, code and explanation are the answer."""

    keys: ClassVar[Mapping[str, str | None]] = {
        "code_with_problem": "code_with_problem",
        "code_only": "code_only",
        "explanation_only": "explanation_only",
    }
    required: ClassVar[Sequence[Sequence[str]]] = tuple((key,) for key in keys)

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        columns = self.columns
        problem, fence, _ = needed_text(record, columns, "code_with_problem").partition(_FENCE)
        code = needed_text(record, columns, "code_only")
        explanation = needed_text(record, columns, "explanation_only")
        asked = problem.strip()
        messages = [Message(Role.USER, asked), Message(Role.ASSISTANT, f"{code}\n{explanation}")]
        notes = ([] if fence else ["no-code-fence"]) + ([] if asked else ["empty-prompt"])
        return Dialogue(messages, notes=notes, summary=summary_of(record, columns))
