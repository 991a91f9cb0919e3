"""Tokens as coloured text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.text import Text

from mtsft_preproc.tokenization import Encoder

__all__ = ["coloured", "legend"]

TRAINED, IGNORED = "bold green", "dim"
TRAINED_CONTROL, IGNORED_CONTROL = "bold black on green", "black on bright_black"
#: A label that is not the token: the end of the turn before, taught at the next header.
TAUGHT = "bold white on magenta"


def legend() -> Text:
    """Return what the colours mean."""
    text = Text("legend: ")
    text.append("trained", TRAINED).append("  ").append("not trained", IGNORED).append("  ")
    text.append("control token, trained", TRAINED_CONTROL).append("  ")
    text.append("control token", IGNORED_CONTROL).append("  ")
    return text.append("its label is the end of the turn before", TAUGHT)


def coloured(encoder: Encoder, ids: Sequence[int], labels: Sequence[int], ignored: int) -> Text:
    """Return tokens as text: trained in colour, the rest dimmed, control tokens marked."""
    control = {token.id for token in encoder.spec.added if token.special}
    names = {token.id: token.text for token in encoder.spec.added}

    def style(place: int) -> str:
        token, label = ids[place], labels[place]
        if label not in (ignored, token):
            return TAUGHT
        if token in control:
            return TRAINED_CONTROL if label != ignored else IGNORED_CONTROL
        return TRAINED if label != ignored else IGNORED

    text = Text()
    for look, group in itertools.groupby(range(len(ids)), key=style):
        run = [ids[place] for place in group]
        if look in (TRAINED, IGNORED) or look == TAUGHT:
            text.append(encoder.decode(run), look)
        else:
            text.append("".join(names[token] for token in run), look)
    return text
