"""Appends the elements of formats, filled, to a batch."""

from __future__ import annotations

from collections.abc import Sequence, Set

from mtsft_preproc.templates.elements import Compiled, Piece, RoundText, Slot, TextGuard
from mtsft_preproc.templates.segments import Kind, SegmentBatch

__all__ = ["ElementWriter"]


class ElementWriter:
    """Appends compiled formats, with content in its place.

    Args:
        guard: Keeps content from becoming control tokens.
        bos: Numbers of the constants that are BOS, which is never trained.
    """

    def __init__(self, guard: TextGuard, bos: Set[int]) -> None:
        self._guard = guard
        self._bos = bos

    def pieces(
        self, elements: Compiled, content: Sequence[Piece], number: int, kind: Kind, batch: SegmentBatch
    ) -> bool:
        """Append a format with content in pieces; return whether data in it spell a special token."""
        spelled = False
        for element in elements:
            if isinstance(element, Slot):
                spelled |= self._guard.add(element.around(content, number), kind, batch)
            else:
                self.fill((element,), "", number, kind, batch)
        return spelled

    def fill(
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
