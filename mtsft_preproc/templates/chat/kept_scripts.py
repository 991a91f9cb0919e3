"""Scripts that serve again: what can't be composed is rendered, and compared with what is known."""

from __future__ import annotations

from collections import OrderedDict

from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.scribe import Scribe
from mtsft_preproc.templates.chat.script import Script

__all__ = ["KeptScripts"]

#: Scripts that a worker keeps, by the shape of the conversation; and of one shape.
_KEPT, _KEPT_OF_SHAPE = 1024, 8
#: Conversations of one shape from which on a script is written that serves for all of them, and shapes that
#: are counted.
_COMMON, _SEEN = 4, 1 << 16


class KeptScripts:
    """Finds the script of a conversation, or has it written.

    Args:
        renderer: The template.
        scribe: Writes what is not there yet.
    """

    def __init__(self, renderer: ChatRenderer, scribe: Scribe) -> None:
        self._renderer = renderer
        self._scribe = scribe
        self._seen: dict[int, int] = {}
        self._scripts: OrderedDict[tuple[object, ...], list[Script]] = OrderedDict()

    def of(self, conversation: Conversation) -> Script:
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
