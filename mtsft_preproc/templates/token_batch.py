"""What every template gives back: the tokens of many samples in flat columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.segments import Kind

__all__ = ["WHOLE", "ParityDifference", "Template", "TokenBatch", "speakers_of"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Turn of a sample that is a whole dialogue.
WHOLE = -1


@dataclass(slots=True)
class ParityDifference:
    """A trained turn that the model would meet differently when it serves.

    Attributes:
        dialogue: Number of the dialogue in the batch.
        message: Number of the message in the dialogue.
        kind: What differs: ``"prompt"``, ``"reply"`` or ``"border"``.
        training: The end of the text before the turn (or the turn) as it is trained.
        serving: The same as a serving engine has it.
    """

    dialogue: int
    message: int
    kind: str
    training: str
    serving: str


@dataclass(slots=True)
class TokenBatch:
    """Samples in columns.

    A dialogue usually becomes one sample; it may become several (each of them names its turn), or none
    (then it stands in ``failed``).

    Attributes:
        ids: int32, shape (N,): tokens of all samples, one behind the other.
        kinds: uint8, shape (N,): the :class:`Kind` of each token.
        messages: int64, shape (N,): number of the message that each token belongs to, in ``trained``.
        trained: bool, shape (M,): whether what is generated (or observed) in a message is trained, for the
            messages of all samples.
        sample_ends: int64, shape (S,): where in ``ids`` each sample ends.
        dialogues: int64, shape (S,): number of the dialogue that each sample came from; rises.
        turns: int32, shape (S,): number of the message that a sample is for, or ``WHOLE``.
        late_stops: int64, shape (L,): positions whose label is ``Template.late_stop_id``, unless context is
            trained.
        failed: Why a dialogue has no sample, by its number.
        notes: Per dialogue: names of harmless oddities.
        parity_of: Per dialogue: its trained turns by whether training text is serving text: ``"same"`` or
            the kind of the difference; nothing where that was not looked at.
        differences: The first few differences.
        said: bool, shape (N,): ``kinds >= GENERATED`` in a trained message, where that is known; else None.
        speakers: int64, shape (N,): number of the message in its dialogue that each token belongs to, or -1
            for what belongs to none; None unless ``Template.tells_speakers``.
    """

    ids: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    messages: Ints
    trained: Bools
    sample_ends: Ints
    dialogues: Ints
    turns: npt.NDArray[np.int32]
    late_stops: Ints
    failed: dict[int, RecordError]
    notes: list[list[str]]
    parity_of: dict[int, Counter[str]] = field(default_factory=dict)
    differences: list[ParityDifference] = field(default_factory=list)
    said: Bools | None = None
    speakers: Ints | None = None

    @property
    def parity(self) -> Counter[str]:
        """What ``parity_of`` says of all dialogues together."""
        return sum(self.parity_of.values(), Counter())

    def mask(self, context: bool = False) -> Bools:
        """Return, bool of shape (N,), which positions are trained.

        Args:
            context: Whether what stands around the replies is trained, too, whatever the flags say; the
                system text never is. Each label is then its own token: ``late_stops`` don't count.
        """
        if self.said is not None:
            mask = self.said.copy()
        else:
            mask = (self.kinds >= Kind.GENERATED) & self.trained[self.messages]
        if context:
            mask |= (self.kinds == Kind.CONTEXT) | (self.kinds == Kind.OBSERVED)
        else:
            mask[self.late_stops] = True
        return mask


class Template(ABC):
    """Turns dialogues into tokens of which it knows who wrote them."""

    #: Label at ``late_stops``: the token that ends a turn, where the format has it in the label of the
    #: next turn's first position instead of in the text; None where the format writes it.
    late_stop_id: int | None = None
    #: Tokens that close each sample, whatever it holds.
    closing: int = 0
    #: Whether a dialogue that goes on never has fewer tokens than before.
    grows: bool = False
    #: Whether batches say of each token which message it belongs to (``TokenBatch.speakers``). No dataset
    #: needs that, so it is off unless it is set: for ``mtsft trace``.
    tells_speakers: bool = False

    @abstractmethod
    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        """Render and tokenize dialogues.

        Args:
            dialogues: The dialogues.
            trained: Per dialogue, per message: whether the mask policy trains what it generates; of a tool
                result: whether what it says is trained.
            shared: Whether many of the dialogues share messages, as parts of one dialogue do: what they
                share is then tokenized once. The tokens don't depend on it, nor what is trained; replies
                that are not trained may count as context.
        """


def speakers_of(batch: TokenBatch, trained: Sequence[Sequence[bool]]) -> Ints:
    """Return ``TokenBatch.speakers`` of a batch whose dialogues are a sample each, with all their messages.

    What a format writes around the words of a message belongs to it; what opens the text and what is the
    system's belongs to none.

    Args:
        batch: The batch.
        trained: Per dialogue, an entry per message.
    """
    counts = np.asarray([len(trained[number]) for number in batch.dialogues.tolist()], np.int64)
    firsts = np.repeat(np.cumsum(counts) - counts, np.diff(batch.sample_ends, prepend=0))
    return np.where(batch.kinds > Kind.SYSTEM, batch.messages - firsts, np.int64(-1))
