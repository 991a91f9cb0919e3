"""Finished datasets of equal settings -> one: ``mtsft merge``.

Tokens are copied byte by byte, indexes and sidecars as arrays; nothing is tokenized again, and no time goes
into single items. What must be equal between the inputs, and what need not, stands in
:mod:`mtsft_preproc.join.agreement`.
"""

from mtsft_preproc.join.groups import merge_group_keys
from mtsft_preproc.join.run import JoinResult, join

__all__ = ["JoinResult", "join", "merge_group_keys"]
