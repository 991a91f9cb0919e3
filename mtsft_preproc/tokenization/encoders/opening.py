"""Opens encoders by name."""

from __future__ import annotations

import threading
from dataclasses import replace

from mtsft_preproc.tokenization.encoders.base import Encoder
from mtsft_preproc.tokenization.encoders.fast import FastEncoder
from mtsft_preproc.tokenization.encoders.libraries import REFERENCE
from mtsft_preproc.tokenization.encoders.pieces import SentencePieceEncoder
from mtsft_preproc.tokenization.encoders.python import TransformersEncoder
from mtsft_preproc.tokenization.encoders.rust import RustEncoder
from mtsft_preproc.tokenization.spec import TokenizerSpec

__all__ = ["open_encoder", "shared_encoder"]

_BACKENDS: dict[str, type[Encoder]] = {
    "tokenizers": RustEncoder,
    "sentencepiece": SentencePieceEncoder,
    "transformers": TransformersEncoder,
}


def open_encoder(spec: TokenizerSpec, choice: str = REFERENCE) -> Encoder:
    """Open an encoder for the tokenizer ``spec``.

    Args:
        spec: The tokenizer.
        choice: ``"reference"``, which is the library that ``spec`` names, or a fast library's name, as
            :func:`~mtsft_preproc.tokenization.choice.choose_encoder` chose it: nothing is proven here.
    """
    if choice == REFERENCE:
        return _BACKENDS[spec.backend](spec)
    return FastEncoder(spec, choice)


class _Shared(threading.local):
    def __init__(self) -> None:
        self.encoders: dict[tuple[TokenizerSpec, str], Encoder] = {}


_shared = _Shared()


def shared_encoder(spec: TokenizerSpec, choice: str = REFERENCE) -> Encoder:
    """Return the encoder that this thread has for a tokenizer, wherever its file was when it was opened.

    What a worker was forked from may have opened it already. One is kept: that of the last call. (Of this
    thread: a fast encoder counts what it was given, so two runs at the same time can't have the same one.)

    Args:
        spec: The tokenizer.
        choice: As for :func:`open_encoder`.
    """
    key = replace(spec, file=""), choice
    encoders = _shared.encoders
    if key not in encoders:
        encoders.clear()  # before the next one is loaded
        encoders[key] = open_encoder(spec, choice)
    encoder = encoders[key]
    encoder.spec = spec  # of which the file may be another copy
    return encoder
