"""What a text form makes of a dialogue: passages of text, each encoded as one, and constant tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mtsft_preproc.templates.elements import Piece
from mtsft_preproc.templates.segments import Kind

__all__ = ["Constant", "Owner", "Passage", "Rendering", "Span"]


class Owner(NamedTuple):
    """What tokens are to a mask policy.

    Attributes:
        kind: Who wrote them.
        message: Number of the message that they belong to.
    """

    kind: Kind
    message: int


class Span(NamedTuple):
    """A part of a passage.

    Attributes:
        piece: Its text, and whether special tokens in it are meant as tokens.
        owner: Whose it is.
    """

    piece: Piece
    owner: Owner


@dataclass(slots=True)
class Passage:
    """Text that is encoded as one.

    Attributes:
        spans: Its parts.
        opens: Owner of what the tokenizer by itself adds in front; None: that is left out.
        closes: The same for what it adds behind.
    """

    spans: Sequence[Span]
    opens: Owner | None = None
    closes: Owner | None = None

    def owner(self, speakers: bool = False) -> Owner | None:
        """Return the owner of all spans; None where there are several, so that tokens must be told apart.

        To a mask policy context is context, whatever message it belongs to: then the last owner counts.

        Args:
            speakers: Whether context is told apart by message, too.
        """
        owners = {span.owner for span in self.spans}
        if len(owners) == 1 or (not speakers and {owner.kind for owner in owners} == {Kind.CONTEXT}):
            return self.spans[-1].owner
        return None


class Constant(NamedTuple):
    """Ids that the form writes itself.

    Attributes:
        ids: The ids.
        owner: Whose they are.
        late: Whether the first of them has ``Template.late_stop_id`` for its label.
    """

    ids: tuple[int, ...]
    owner: Owner
    late: bool = False


@dataclass(slots=True)
class Rendering:
    """A dialogue in a text form.

    Attributes:
        parts: Its passages and constants, in order.
        last: Number of the last message that was rendered.
        notes: Names of harmless oddities.
    """

    parts: list[Passage | Constant]
    last: int
    notes: list[str] = field(default_factory=list)
