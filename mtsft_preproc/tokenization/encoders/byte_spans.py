"""Which characters tokens cover, from the number of bytes that each stands for.

The tokens of a text lie side by side: where the lengths of its tokens sum up to the bytes of the text, each
token begins where the one before it ends. They do not where something other than the text was split (an
added token swallowed white space, a normalizer composed a letter, a literal ``\u2581`` became a space);
such texts are for the reference. What is taken for a token's length is never more than it covers, so
that two errors can't cancel each other.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mtsft_preproc.tokenization.encoders.base import SPACES, FlatIds, PiecedIds

__all__ = ["ByteSpans", "read_byte_spans"]

_Array = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

#: The letters with which byte-level vocabularies write bytes: printable Latin-1; the rest from U+0100 on.
_LETTERS = frozenset(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144)]))
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
#: Length of a token of which can't be said what it covers: no text is as long.
_UNKNOWN = 1 << 40
#: Pre-tokenizers that only cut, or drop what then is missing from the sum.
_CUTTING = frozenset({"Sequence", "Split", "ByteLevel", "Digits", "Punctuation"})


class ByteSpans:
    """Finds the spans of tokens.

    Args:
        lengths: int64, shape (V,): bytes that each token stands for.
        added: bool, shape (V,): the added tokens, at which a text is cut.
        prepends: Whether a space is put in front of each part between added tokens.
        composes: Whether the text is brought into NFC first.
    """

    def __init__(self, lengths: _Array, added: _Mask, prepends: bool, composes: bool) -> None:
        self._lengths = lengths
        self._added = added
        self._prepends = prepends
        self._composes = composes

    def find(self, texts: list[str], flat: FlatIds) -> tuple[_Mask, _Array, _Array]:
        """Find the characters that each token covers.

        Args:
            texts: T texts.
            flat: Their N tokens.

        Returns:
            known: bool, shape (T,): whether the spans of each text could be found.
            starts: int64, shape (N,): as :attr:`SpannedIds.starts`; of no meaning in other texts.
            ends: int64, shape (N,).
        """
        characters, sizes, character_of = _measure(texts)
        known, lengths, sums = self._lay(texts, flat, sizes)
        counts = np.diff(flat.offsets)
        # From tokens laid side by side to where they lie: those of texts not known have no bytes there.
        shifts = np.cumsum(sizes) - sizes - sums[flat.offsets[:-1]]
        begins = sums[:-1] + np.repeat(shifts, counts)
        starts = character_of[begins] if character_of is not None else begins
        stops = begins + lengths
        ends = stops
        if character_of is not None:
            # Behind the character that holds its last byte; a token without bytes ends where it starts.
            ends = np.where(lengths > 0, character_of[stops - 1] + 1, starts)
        base = np.repeat(np.cumsum(characters) - characters, counts)
        return known, starts - base, ends - base

    def count(
        self, texts: list[str], pieces: Sequence[Sequence[str]], flat: FlatIds
    ) -> tuple[_Mask, PiecedIds]:
        """Count the tokens of the pieces of texts; no character has to be looked up for that.

        Args:
            texts: T texts.
            pieces: The same, in pieces.
            flat: Their N tokens.

        Returns:
            known: bool, shape (T,): whether the tokens of each text could be counted.
            pieced: What was counted; of no meaning in other texts.
        """
        counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends = _sums(_sizes(texts, pieces, counts))
        upto = np.cumsum(counts)
        begins = ends[upto - counts]
        known, _, sums = self._lay(texts, flat, ends[upto] - begins)
        places = ends[1:] + np.repeat(sums[flat.offsets[:-1]] - begins, counts)
        # Token n reaches from sums[n] to sums[n + 1]: where none starts at a place, one lies across it.
        started = np.minimum(sums.searchsorted(places), len(flat.ids))
        ended = started - (sums[started] > places)
        return known, PiecedIds.closed(flat, counts, started, ended)

    def _lay(self, texts: list[str], flat: FlatIds, sizes: _Array) -> tuple[_Mask, _Array, _Array]:
        """Lay tokens side by side.

        Args:
            texts: T texts.
            flat: Their N tokens.
            sizes: int64, shape (T,): bytes of each text.

        Returns:
            known: bool, shape (T,): whether the tokens of each text lie so.
            lengths: int64, shape (N,): bytes of each token; 0 in other texts.
            sums: int64, shape (N+1,): where each token starts, and where the last one ends.
        """
        lengths = self._lengths[flat.ids]
        if self._prepends and len(lengths):
            lengths -= self._first_of_parts(flat)
        sums = _sums(lengths)
        known = np.diff(sums[flat.offsets]) == sizes
        if self._composes:
            normal = [text.isascii() or unicodedata.is_normalized("NFC", text) for text in texts]
            known &= np.array(normal, np.bool_)
        if not known.all():
            lengths = np.where(np.repeat(known, np.diff(flat.offsets)), lengths, 0)
            sums = _sums(lengths)
        return known, lengths, sums

    def _first_of_parts(self, flat: FlatIds) -> _Mask:
        """Return, shape (N,), which tokens begin with a space that was prepended."""
        added = self._added[flat.ids]
        first = np.concatenate([[True], added[:-1]])
        filled = flat.offsets[:-1][np.diff(flat.offsets) > 0]
        first[filled] = True
        return first & ~added


def read_byte_spans(file: str, size: int) -> ByteSpans | None:
    """Read from a ``tokenizer.json`` what each token stands for.

    Args:
        file: The file.
        size: Number of ids.

    Returns:
        None where the lengths of tokens can't tell: the tokenizer is neither byte-level BPE nor of
        SentencePiece's kind with byte fallback, or normalizes or splits in another way.
    """
    content = orjson.loads(Path(file).read_bytes())
    model = content["model"]
    if model.get("type") != "BPE" or any(
        model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        return None
    vocab: dict[str, int] = model["vocab"]
    rules = _rules(content)
    if rules is None:
        return None
    bytewise = rules in ("", "NFC")
    # A byte without a token is dropped, and then missing from the sum; or it would be the unknown token.
    if (not bytewise or model.get("unk_token")) and not (_LETTERS if bytewise else _BYTES) <= vocab.keys():
        return None
    if not bytewise and any(token["normalized"] for token in content["added_tokens"]):
        return None
    lengths = np.full(size, _UNKNOWN, np.int64)
    lengths[list(vocab.values())] = _byte_level(vocab) if bytewise else _pieces(vocab)
    added = np.zeros(size, np.bool_)
    _enter_added(content["added_tokens"], lengths, added, bytewise)
    return ByteSpans(lengths, added, rules == "prepend", rules == "NFC")


def _sums(lengths: _Array) -> _Array:
    """Return where things of these lengths start, laid side by side, and where the last one ends."""
    sums = np.zeros(len(lengths) + 1, np.int64)
    lengths.cumsum(out=sums[1:])
    return sums


def _sizes(texts: list[str], pieces: Sequence[Sequence[str]], counts: _Array) -> _Array:
    """Return the bytes of each piece of each text; int64, shape (P,)."""
    lengths = map(len, itertools.chain.from_iterable(pieces))
    sizes = np.fromiter(lengths, np.int64, int(counts.sum()))
    ends = np.cumsum(counts)
    for number, text in enumerate(texts):
        if not text.isascii():
            own = [
                len(piece) if piece.isascii() else len(piece.encode("utf-8")) for piece in pieces[number]
            ]
            sizes[ends[number] - len(own) : ends[number]] = own
    return sizes


def _measure(texts: list[str]) -> tuple[_Array, _Array, _Array | None]:
    """Return the characters and bytes of each text, and the character of each byte of all (and one more).

    The last is None where all are ASCII, so that it would be the bytes' own numbers.
    """
    joined = "".join(texts)
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    if joined.isascii():
        return characters, characters, None
    data = np.frombuffer(joined.encode("utf-8"), np.uint8)
    leads = (data & 0xC0) != 0x80
    edges = np.append(np.flatnonzero(leads), len(data))
    cuts = np.concatenate([[0], np.cumsum(characters)])
    character_of = np.append(np.cumsum(leads) - 1, len(joined))
    return characters, np.diff(edges[cuts]), character_of


def _rules(content: dict[str, Any]) -> str | None:
    """Return ``""`` or ``"NFC"`` (bytes), ``"prepend"`` or ``"replace"`` (pieces); None for all else."""
    normalizers = _flat(content.get("normalizer"), "normalizers")
    cutters = _flat(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [cutter["type"] for cutter in cutters]
    if "ByteLevel" in kinds:
        prefixed = any(cutter.get("add_prefix_space") for cutter in cutters)
        names = [normalizer["type"] for normalizer in normalizers]
        if prefixed or not set(kinds) <= _CUTTING or names not in ([], ["NFC"]):
            return None
        return "".join(names)
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACES[0]}
    prepend = {"type": "Prepend", "prepend": SPACES[0]}
    if cutters or not content["model"].get("byte_fallback"):
        return None
    if normalizers == [space]:
        return "replace"
    return "prepend" if normalizers == [prepend, space] else None


def _flat(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, sequences in sequences laid flat."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [inner for one in step[name] for inner in _flat(one, name)]


def _byte_level(vocab: dict[str, int]) -> list[int]:
    """Return how many bytes each entry writes: one a letter; the model makes none with other letters."""
    if _LETTERS.issuperset("".join(vocab)):
        return list(map(len, vocab))
    return [len(text) if _LETTERS.issuperset(text) else _UNKNOWN for text in vocab]


def _pieces(vocab: dict[str, int]) -> list[int]:
    """Return how many bytes each piece writes."""
    return [1 if text in _BYTES else len(text.replace(SPACES[0], " ").encode("utf-8")) for text in vocab]


def _enter_added(tokens: list[dict[str, Any]], lengths: _Array, added: _Mask, bytewise: bool) -> None:
    """Enter the lengths of added tokens, which stand for their own text."""
    for token in tokens:
        text, index = token["content"], token["id"]
        if not bytewise and re.fullmatch("<0x[0-9A-F]{2}>", text):
            # The model's own for a byte, which is less than the six that the text itself has.
            continue
        own = len(text.encode("utf-8"))
        # Where the model makes that id of other text too, nothing says which it was.
        clear = lengths[index] in (_UNKNOWN, own) and unicodedata.is_normalized("NFC", text)
        lengths[index] = own if clear else _UNKNOWN
        added[index] = True
