"""Damage of an index or of tokens is found, and named, where all hashes and seals are right again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arranged import manifest_of
from damages import (
    Damages,
    append,
    both,
    cell,
    check_found,
    index,
    label_second_sample,
    move_token,
    on_padding,
    untrain,
    words,
)

DAMAGES: Damages = {
    # The index.
    "magic": (
        "plain",
        index("labels", lambda own: own.head.__setitem__(0, 0)),
        True,
        ("index",),
        "not an .idx file",
    ),
    "version": (
        "plain",
        index("labels", lambda own: own.head.__setitem__(9, 2)),
        True,
        ("index",),
        "index version 2",
    ),
    "unknown type": (
        "plain",
        index("labels", lambda own: own.head.__setitem__(17, 9)),
        True,
        ("index",),
        "token type code 9",
    ),
    "other type": (
        "plain",
        index("labels", lambda own: own.head.__setitem__(17, 5)),
        True,
        ("index",),
        r"idx, byte 17: tokens of type int64, expected int32",
    ),
    "longer index": (
        "plain",
        append(".idx", b"x"),
        True,
        ("index",),
        "idx, byte 18: 30 items and 31 document borders make 642 bytes, the file has 643",
    ),
    "offset": (
        "plain",
        index("labels", lambda own: own.offsets.__setitem__(4, own.offsets[4] + 4)),
        True,
        ("index",),
        rf"labels_document\.idx, byte {34 + 4 * 30 + 8 * 4}: item 4 starts at \d+, but item 3 with its",
    ),
    "first offset": (
        "plain",
        index("labels", lambda own: own.offsets.__iadd__(4)),
        True,
        ("index",),
        f"byte {34 + 4 * 30}: item 0 starts at 4, expected 0",
    ),
    "length": (
        "plain",
        index("input_ids", lambda own: own.lengths.__setitem__(7, 1)),
        True,
        ("index",),
        rf"byte {34 + 4 * 30 + 8 * 8}: item 8 starts at \d+, but item 7 with its 1 tokens at",
    ),
    "no token": (
        "plain",
        index("input_ids", lambda own: own.from_lengths(np.append(own.lengths, [0]))),
        True,
        ("index",),
        r"\(item 30\): a length of 0, expected 1 or more",
    ),
    "negative length": (
        "plain",
        index("input_ids", lambda own: own.lengths.__setitem__(7, -1)),
        True,
        ("index",),
        r"\(item 7\): a length of -1, expected 1 or more",
    ),
    "document border": (
        "plain",
        index("input_ids", lambda own: own.borders.__setitem__(5, 4)),
        True,
        ("index",),
        f"byte {34 + 12 * 30 + 8 * 5}: document border 4, expected 5",
    ),
    "longer tokens": (
        "plain",
        append(".bin", bytes(4)),
        True,
        ("index",),
        r"labels_document\.bin, byte \d+: \d+ bytes, but the items of .*labels_document\.idx end at \d+",
    ),
    "other lengths": (
        "plain",
        index("labels", move_token),
        True,
        ("index",),
        r"labels_document\.idx, byte 34 \(item 0\): a length of .*, but plain_packed_input_ids_document",
    ),
    "other lengths of a side": (
        "pairwise",
        index("rejected_labels", move_token),
        True,
        ("index",),
        r"rejected_labels_document\.idx, byte 34 \(item 0\)",
    ),
    "other lengths of a mask": (
        "r1",
        index("attention_mask", move_token),
        True,
        ("index",),
        "attention_mask_document.idx, byte 34",
    ),
    "an item less beside prompts": (
        "r1",
        both(
            index(
                "labels", lambda own: own.from_lengths(np.append(own.lengths[:-2], own.lengths[-2:].sum()))
            ),
        ),
        True,
        ("index",),
        r"r1_packed_labels_document\.idx, byte 18: \d+ items, but r1_packed_input_ids",
    ),
    "a shorter pack": (
        "packed",
        both(*(index(field, move_token) for field in ("input_ids", "labels", "attention_mask"))),
        True,
        ("index",),
        "item 0: a pack of 199 tokens, expected 200",
    ),
    # Tokens.
    "id": (
        "plain",
        words("input_ids", 7, 4005),
        True,
        ("tokens",),
        r"input_ids_document\.bin, byte 28 \(item 0, token 7\): id 4005, but the vocabulary has 4005",
    ),
    "negative id": (
        "one_text",
        words("b", 2, -1),
        True,
        ("tokens",),
        r"byte 8 .*: id -1, but the vocabulary",
    ),
    "id of a reply": ("r1", words("labels", 0, 99_999), True, ("tokens",), "id 99999, but the vocabulary"),
    "label": (
        "plain",
        words("labels", 0, 17),
        True,
        ("counts", "tokens"),
        r"labels_document\.bin, byte 0 \(item 0, token 0\): label 17, expected the id \d+ or -100",
    ),
    "label of a pair": (
        "pairwise",
        words("rejected_labels", 0, 17),
        True,
        ("counts", "tokens"),
        "rejected_labels.*byte 0",
    ),
    "label of another end": (
        "late",
        words("labels", 0, 17),
        True,
        ("counts", "tokens"),
        r"label 17, expected the id \d+, the end of a turn \d+ or -100",
    ),
    "late end where all is trained": (
        "full",
        lambda p: words("labels", 3, manifest_of(p)["tokenizer"]["eos_id"])(p),
        True,
        ("tokens",),
        r"\(item 0, token 3\): label \d+, expected the id",
    ),
    "late end in another format": (
        "plain",
        lambda p: words("labels", 3, manifest_of(p)["tokenizer"]["eos_id"])(p),
        True,
        ("counts", "tokens"),
        r"\(item 0, token 3\): label \d+, expected the id",
    ),
    "nothing trained": (
        "plain",
        untrain,
        True,
        ("tokens",),
        r"\(item 3, token 0\): no token is trained of the sample of \d+ tokens that starts here",
    ),
    "mask": (
        "plain",
        words("attention_mask", 5, 0),
        True,
        ("tokens",),
        r"attention_mask_document\.bin, byte 20 \(item 0, token 5\): 0, expected 1",
    ),
    "mask of prompts": ("ppo", words("attention_mask", 5, 2), True, ("tokens",), "2, expected 1"),
    "mask of packs": ("packed", on_padding("attention_mask", 0), True, ("tokens",), "0, expected 1"),
    "number of a sample": (
        "neat",
        words("attention_mask", 0, 2),
        True,
        ("tokens",),
        r"\(item 0, token 0\): 2, expected 1",
    ),
    "number on padding": ("neat", on_padding("attention_mask", 1), True, ("tokens",), "1, expected 0"),
    "padding": ("packed", on_padding("input_ids", 5), True, ("tokens",), r"id 5 on padding, expected 3967"),
    "label on padding": (
        "packed",
        on_padding("labels", 3967),
        True,
        ("counts", "tokens"),
        "label 3967 on padding, expected -100",
    ),
    "first label of a sample": (
        "packed",
        label_second_sample,
        True,
        ("tokens",),
        r"label \d+ at the first token of a sample in a pack, expected -100",
    ),
    "one trained less": (
        "plain",
        cell("trained", 3, 1),
        True,
        ("counts", "records", "tokens"),
        r"plain\.sources\.parquet, row 3: 1 trained tokens, but there are \d+",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_it_is_found_and_named(name: str, copy_of: Callable[[str], Path]) -> None:
    check_found(name, DAMAGES, copy_of)
