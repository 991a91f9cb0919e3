"""An encoder that knows what it has encoded lately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.tokenization.encoders import Encoder, FlatIds, SpannedIds

__all__ = ["RememberingEncoder"]

#: Characters of text that are kept; when there are more, all of it is forgotten.
_KEPT = 1 << 21
_Ids = npt.NDArray[np.int32]


class RememberingEncoder(Encoder):
    """Encodes each text once, as long as not too much comes in between.

    For dialogues that are rendered in many parts, which share their messages.

    Args:
        encoder: What does the work.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.spec)
        self._encoder = encoder
        self._ids: dict[str, _Ids] = {}
        self._spans: dict[str, tuple[_Ids, _Ids, _Ids]] = {}
        self._characters = 0

    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text, as :meth:`Encoder.encode`."""
        self._make_room()
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            self._characters += sum(map(len, new))
            flat = self._encoder.encode(new)
            for number, text in enumerate(new):
                self._ids[text] = flat.ids[flat.offsets[number] : flat.offsets[number + 1]].copy()
        found = [self._ids[text] for text in texts]
        return FlatIds(np.concatenate([_NONE, *found]), _offsets(found))

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        """Encode each text, as :meth:`Encoder.encode_spans`."""
        self._make_room()
        new = [text for text in dict.fromkeys(texts) if text not in self._spans]
        if new:
            self._characters += sum(map(len, new))
            spanned = self._encoder.encode_spans(new)
            for number, text in enumerate(new):
                own = slice(int(spanned.offsets[number]), int(spanned.offsets[number + 1]))
                self._spans[text] = (
                    spanned.ids[own].copy(),
                    spanned.starts[own].copy(),
                    spanned.ends[own].copy(),
                )
        found = [self._spans[text] for text in texts]
        ids, starts, ends = (
            np.concatenate([_NONE, *(one[column] for one in found)]) for column in range(3)
        )
        return SpannedIds(ids, _offsets([one[0] for one in found]), starts, ends)

    def encode_marked(self, text: str) -> list[int]:
        """Encode a text with marks, as :meth:`Encoder.encode_marked`."""
        return self._encoder.encode_marked(text)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        """Encode a text with marks, as :meth:`Encoder.encode_marked_spans`."""
        return self._encoder.encode_marked_spans(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``."""
        return self._encoder.decode(ids)

    def _make_room(self) -> None:
        if self._characters > _KEPT:
            self._ids.clear()
            self._spans.clear()
            self._characters = 0


_NONE = np.zeros(0, np.int32)


def _offsets(found: Sequence[_Ids]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(ids) for ids in found], out=offsets[1:])
    return offsets
