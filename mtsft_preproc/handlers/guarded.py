"""What a handler of the user's own makes is looked at before anyone relies on it."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall, shorten
from mtsft_preproc.errors import MtsftError, SettingsError
from mtsft_preproc.handlers.base import DialogueHandler, Handler, PairHandler, TextHandler

__all__ = ["guard"]

_TEXT = "text or None"


def guard(handler: Handler, path: str) -> None:
    """Make a handler name its file, and the record, where it fails or makes what is none.

    Args:
        handler: Of a class of the user's own; its method is replaced.
        path: The file that it comes from.
    """
    if isinstance(handler, DialogueHandler):
        vars(handler)["dialogue"] = _guarded(handler.dialogue, _check_dialogue, path)
    elif isinstance(handler, PairHandler):
        vars(handler)["pair"] = _guarded(handler.pair, _check_pair, path)
    elif isinstance(handler, TextHandler):
        vars(handler)["texts"] = _guarded(handler.texts, _check_texts, path)


def _guarded(
    method: Callable[[Mapping[str, Any]], Any], check: Callable[[Any], None], path: str
) -> Callable[[Mapping[str, Any]], Any]:
    @functools.wraps(method)
    def guarded(record: Mapping[str, Any]) -> Any:
        try:
            made = method(record)
            check(made)
        except MtsftError:
            raise
        except (Exception, SystemExit) as error:
            where = _place(error, path)
            raise SettingsError(f"--handler-path: {where}, on the record {shorten(record)}") from None
        return made

    return guarded


def _place(error: BaseException, path: str) -> str:
    """Return where in the user's file an error arose, and what it was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.basename(frame.filename) == os.path.basename(path)]
    where = f"{path}, line {lines[-1]}" if lines else path
    return f"{where}: {type(error).__name__}: {error}"


def _check_dialogue(made: Any) -> None:
    """Refuse what is no dialogue.

    Raises:
        TypeError: It says what was expected, and where.
    """
    _expect(made, Dialogue, "what dialogue() returns")
    _expect(made.system, str, "system")
    _expect(made.summary, str, "summary")
    _expect(made.tools, list, "tools")
    # A list of its own: what is known of shared tools isn't of those that a handler may have changed.
    made.tools = list(made.tools)
    _expect(made.messages, list, "messages")
    for number, message in enumerate(made.messages):
        _check_message(message, f"messages[{number}]")


def _check_message(message: Any, place: str) -> None:
    _expect(message, Message, place)
    _expect(message.role, Role, f"{place}.role")
    for name in ("content", "reasoning", "name", "call_id"):
        _expect(getattr(message, name), (str, type(None)), f"{place}.{name}", _TEXT)
    _expect(message.train, (bool, type(None)), f"{place}.train", "True, False or None")
    _expect(message.tool_calls, tuple, f"{place}.tool_calls")
    for number, call in enumerate(message.tool_calls):
        _expect(call, ToolCall, f"{place}.tool_calls[{number}]")


def _check_pair(made: Any) -> None:
    _expect(made, tuple, "what pair() returns", "a tuple of two Dialogues")
    if len(made) != 2:
        raise TypeError(f"what pair() returns: expected two Dialogues, got {len(made)}")
    for side in made:
        _check_dialogue(side)


def _check_texts(made: Any) -> None:
    _expect(made, list, "what texts() returns", "a list of texts")
    for number, text in enumerate(made):
        _expect(text, str, f"texts[{number}]")


def _expect(value: Any, kind: type | tuple[type, ...], place: str, expected: str | None = None) -> None:
    if not isinstance(value, kind):
        name = expected or getattr(kind, "__name__", "")
        raise TypeError(f"{place}: expected {name}, got {shorten(value)}")
