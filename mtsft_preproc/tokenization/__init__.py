"""Tokenizer folders -> encoders: batches of text in, one flat array of ids out."""

from mtsft_preproc.tokenization.cache import CACHE_VARIABLE
from mtsft_preproc.tokenization.child import TokenizerLoading
from mtsft_preproc.tokenization.choice import (
    ENCODERS,
    REFERENCE,
    EncoderChoice,
    check_encoder_name,
    choose_encoder,
)
from mtsft_preproc.tokenization.encoders import (
    Difference,
    Encoder,
    EncoderDiffers,
    FastEncoder,
    FlatIds,
    PiecedIds,
    SpannedIds,
    open_encoder,
    shared_encoder,
)
from mtsft_preproc.tokenization.load import check_folder, load_tokenizer
from mtsft_preproc.tokenization.proof import Proof, prove
from mtsft_preproc.tokenization.remembering import RememberingEncoder
from mtsft_preproc.tokenization.spec import AddedToken, Adjustment, ResolvedTokenizer, TokenizerSpec
from mtsft_preproc.tokenization.special_text import SpecialText

__all__ = [
    "CACHE_VARIABLE",
    "ENCODERS",
    "REFERENCE",
    "AddedToken",
    "Adjustment",
    "Difference",
    "Encoder",
    "EncoderChoice",
    "EncoderDiffers",
    "FastEncoder",
    "FlatIds",
    "PiecedIds",
    "Proof",
    "RememberingEncoder",
    "ResolvedTokenizer",
    "SpannedIds",
    "SpecialText",
    "TokenizerLoading",
    "TokenizerSpec",
    "check_encoder_name",
    "check_folder",
    "choose_encoder",
    "load_tokenizer",
    "open_encoder",
    "prove",
    "shared_encoder",
]
