"""Encoder back ends behind one small interface."""

from mtsft_preproc.tokenization.encoders.base import Encoder, FlatIds, PiecedIds, SpannedIds
from mtsft_preproc.tokenization.encoders.difference import Difference, EncoderDiffers
from mtsft_preproc.tokenization.encoders.fast import FastEncoder
from mtsft_preproc.tokenization.encoders.opening import open_encoder, shared_encoder
from mtsft_preproc.tokenization.encoders.pieces import SentencePieceEncoder
from mtsft_preproc.tokenization.encoders.python import TransformersEncoder
from mtsft_preproc.tokenization.encoders.rust import RustEncoder

__all__ = [
    "Difference",
    "Encoder",
    "EncoderDiffers",
    "FastEncoder",
    "FlatIds",
    "PiecedIds",
    "RustEncoder",
    "SentencePieceEncoder",
    "SpannedIds",
    "TransformersEncoder",
    "open_encoder",
    "shared_encoder",
]
