"""Tokenizer folders -> encoders: batches of text in, one flat array of ids out."""

from mtsft_preproc.tokenization.child import TokenizerLoading
from mtsft_preproc.tokenization.encoders import Encoder, FlatIds, SpannedIds, open_encoder
from mtsft_preproc.tokenization.load import check_folder, load_tokenizer
from mtsft_preproc.tokenization.remembering import RememberingEncoder
from mtsft_preproc.tokenization.spec import AddedToken, Adjustment, ResolvedTokenizer, TokenizerSpec
from mtsft_preproc.tokenization.special_text import SpecialText

__all__ = [
    "AddedToken",
    "Adjustment",
    "Encoder",
    "FlatIds",
    "RememberingEncoder",
    "ResolvedTokenizer",
    "SpannedIds",
    "SpecialText",
    "TokenizerLoading",
    "TokenizerSpec",
    "check_folder",
    "load_tokenizer",
    "open_encoder",
]
