"""Over-long rules: what becomes of samples with more tokens than ``--seq-length``.

Two families. ``recent``, ``head`` and ``window`` cut a dialogue at the borders of its rounds and render
what is left anew, so that it is what the format writes for that shorter dialogue. ``right``, ``left`` and
``pair`` cut tokens.
"""

from mtsft_preproc.truncation.pieces import Piece, round_starts
from mtsft_preproc.truncation.rounds import ROUND_RULES, fit_rounds
from mtsft_preproc.truncation.tokens import TOKEN_RULES, cut_tokens

__all__ = ["ROUND_RULES", "TOKEN_RULES", "Piece", "cut_tokens", "fit_rounds", "round_starts"]
