"""What settings may be."""

from __future__ import annotations

#: What text that spells a special token becomes.
SPECIAL_TOKENS_IN_TEXT = ("plain", "allow", "reject")
OVERLONG = ("drop", "recent", "head", "window", "right", "left", "pair", "fail")
EMPTY_REPLY = ("keep", "reject", "untrained")
ENABLE_THINKING = ("true", "false", "none")
PARITY = ("report", "require", "split", "off")
TRUE_FALSE = ("true", "false")
MIX_STRATEGIES = ("concat", "interleave_under", "interleave_over")
DEDUP = ("none", "exact")
#: The sides of a split, in the order of the shares of ``--split``.
SIDES = ("train", "valid", "test")
#: Samples that are packed together where nothing is said: all, up to so many. What packing holds of them
#: is bounded by that.
PACK_WINDOW = 100_000_000
REASONING_EFFORT = ("high", "max")
#: Columns that the sources sidecar has anyway.
SOURCES_COLUMNS = (
    "item", "offset", "length", "trained", "position", "source_name", "file", "row", "turn", "digest",
)  # fmt: skip
#: What a chat template is given anyway.
GIVEN_VARIABLES = ("add_generation_prompt", "documents", "messages", "tools")
ON_ERROR = ("skip", "fail")

#: The prompt type that is no table but its model's own chat template.
DEEPSEEK4 = "deepseek4"
