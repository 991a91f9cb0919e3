"""Why a dialogue is refused, in the dialogue's own terms."""

from __future__ import annotations

import re

from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.token_batch import ParityDifference

__all__ = ["by_dialogue", "parity_refusal"]


def by_dialogue(error: RecordError, front: int) -> RecordError:
    """Return an error that counts the messages as the dialogue does, without the system text."""

    def shifted(match: re.Match[str]) -> str:
        number = int(match.group(1)) - front
        return f"messages[{number}]" if number >= 0 else "system"

    field = re.sub(r"^messages\[(\d+)\]", shifted, error.field)
    return RecordError(error.reason, field, error.expected, error.got)


def parity_refusal(example: ParityDifference) -> RecordError:
    """Return the error of a dialogue that is not trained in the text that it will meet."""
    return RecordError(
        "parity",
        f"messages[{example.message}]",
        f"the {example.kind} that a serving engine has: {example.serving!r}",
        repr(example.training),
    )
