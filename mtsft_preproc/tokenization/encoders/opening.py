"""Opens encoders by name."""

from __future__ import annotations

from mtsft_preproc.tokenization.encoders.base import Encoder
from mtsft_preproc.tokenization.encoders.fast import FastEncoder
from mtsft_preproc.tokenization.encoders.libraries import REFERENCE
from mtsft_preproc.tokenization.encoders.pieces import SentencePieceEncoder
from mtsft_preproc.tokenization.encoders.python import TransformersEncoder
from mtsft_preproc.tokenization.encoders.rust import RustEncoder
from mtsft_preproc.tokenization.spec import TokenizerSpec

__all__ = ["open_encoder"]

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
