"""Encodes with a token's whereabouts in the place of its id.

What happens to a token on its way into a sample (cuts, masks, several samples of one record) looks at kinds
and numbers, never at ids. So a template that hands out the places of its tokens instead of their ids has
them go the same way, and what comes out tells of each token which one it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates import Kind, Template, TokenBatch

__all__ = ["Speaker", "SpeakingTemplate"]

#: What tokens are that belong to no message.
_PARTS = {Kind.PREFIX: "opening", Kind.SYSTEM: "system"}


class Speaker(NamedTuple):
    """Whose a token is.

    Attributes:
        part: ``"reply"`` (what the model would have generated, the end of its turn included), ``"result"``
            (words of a tool, where those are trained), ``"message"`` (what else is said, replies that are
            context among it, with what a prompt type writes around the words), ``"opening"``, ``"system"``
            (system text and tools), or ``"format"`` (what a chat template writes around messages).
        message: Number of the message in the record's dialogue, from 0, without the system text; or None.
        role: Its role in lower case, or None.
    """

    part: str
    message: int | None
    role: str | None


class SpeakingTemplate(Template):
    """Encodes as another template does, but each token is its number, counted on from ``base``.

    Args:
        inner: The template.
        base: Greater than all ids of the vocabulary, so that a number is told from an id.
    """

    def __init__(self, inner: Template, base: int) -> None:
        self._inner = inner
        self._base = base
        inner.tells_speakers = True
        self.late_stop_id, self.closing, self.grows = inner.late_stop_id, inner.closing, inner.grows
        self.forget()

    def forget(self) -> None:
        """Begin anew, with another record."""
        self._ids: list[npt.NDArray[np.int32]] = []
        self._kinds: list[npt.NDArray[np.uint8]] = []
        self._speakers: list[npt.NDArray[np.int64]] = []
        self._roles: dict[int, Role] = {}
        #: Messages that were seen, with their numbers, by identity: cut dialogues hold those of the whole.
        self._seen: dict[int, tuple[Message, int]] = {}
        self._count = 0

    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        """Encode as the other template does; ``ids`` are numbers of tokens."""
        firsts = np.asarray([self._first(dialogue) for dialogue in dialogues], np.int64)
        batch = self._inner.encode(dialogues, trained, shared)
        assert batch.speakers is not None
        first = np.repeat(firsts[batch.dialogues], np.diff(batch.sample_ends, prepend=0))
        self._ids.append(batch.ids)
        self._kinds.append(batch.kinds)
        self._speakers.append(np.where(batch.speakers >= 0, batch.speakers + first, np.int64(-1)))
        numbers = np.arange(self._count, self._count + len(batch.ids))
        self._count += len(batch.ids)
        batch.ids = (numbers + self._base).astype(np.int32)
        return batch

    def _first(self, dialogue: Dialogue) -> int:
        """Return the number of a dialogue's first message in the record's."""
        messages = dialogue.messages
        _, first = self._seen.get(id(messages[0]), (None, 0))
        for number, message in enumerate(messages, first):
            self._seen.setdefault(id(message), (message, number))
            self._roles[number] = message.role
        return first

    def ids_of(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the ids of tokens, int32 of shape (N,); what is no number of one stays as it is."""
        known = np.concatenate([np.zeros(0, np.int32), *self._ids]).astype(np.int32)
        own = tokens >= self._base
        found = tokens.copy()
        found[own] = known[tokens[own] - self._base]
        return found

    def speaker_of(self, token: int) -> Speaker | None:
        """Return whose a token is; None where the template did not write it."""
        if token < self._base:
            return None
        if len(self._kinds) > 1:
            self._kinds = [np.concatenate(self._kinds)]
            self._speakers = [np.concatenate(self._speakers)]
        place = token - self._base
        kind, message = Kind(int(self._kinds[0][place])), int(self._speakers[0][place])
        if message < 0:
            return Speaker(_PARTS.get(kind, "format"), None, None)
        part = {Kind.GENERATED: "reply", Kind.OBSERVED: "result"}.get(kind, "message")
        return Speaker(part, message, self._roles[message].name.lower())
