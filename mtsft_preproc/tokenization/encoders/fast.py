"""A fast library for the ids, watched by the reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from mtsft_preproc.stages import clock
from mtsft_preproc.tokenization.encoders.base import Encoder, FlatIds, PiecedIds, SpannedIds
from mtsft_preproc.tokenization.encoders.byte_spans import ByteSpans, read_byte_spans
from mtsft_preproc.tokenization.encoders.difference import (
    Difference,
    EncoderDiffers,
    compare,
    positions,
    select,
)
from mtsft_preproc.tokenization.encoders.libraries import LIBRARIES, is_failure
from mtsft_preproc.tokenization.encoders.rust import RustEncoder
from mtsft_preproc.tokenization.spec import TokenizerSpec

__all__ = ["CHECKED_FIRST", "CHECKED_SHARE", "DOUBTFUL", "SPANNED_SHARE", "FastEncoder"]

#: One text in so many, by the hash of its ids, is encoded by the reference as well, which takes some thirty
#: times as long: at this share it adds a tenth to the encoding. If a library had trouble with 1,500 of the
#: texts, which is one in a thousand of a small data set, all of them would escape once in twenty times.
CHECKED_SHARE = 512
#: So are the first few after :meth:`FastEncoder.start`.
CHECKED_FIRST = 4
#: Of texts in pieces, one in so many of those, by the same hash, has its spans compared, and the first one.
#: All of the others have their ids compared, on which alone depends what is counted.
SPANNED_SHARE = 8
#: Texts with one of these are for the reference: fastokens 0.3.5 has been seen to take LATIN SMALL LETTER
#: LONG S for an "s" where the pattern of gpt-oss asks for a contraction, and MONGOLIAN VOWEL SEPARATOR for
#: white space in that of DeepSeek.
DOUBTFUL = ("\u017f", "\u180e")
#: Texts that the reference encodes together: one by one, its tables would leave the CPU's cache in between.
_DUE = 64
#: Ids of a text that are hashed, at equal distances: all of a short text.
_PLACES = np.arange(8)[:, None]
#: By which they are multiplied: 2 ** 64 divided by the golden ratio, and its powers.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.cumprod(np.full(len(_PLACES), _SPREAD))


class FastEncoder(Encoder):
    """Gives the reference's ids and spans, many times as fast; ``prove`` says for which tokenizers.

    A sample of the texts is encoded by the reference as well: the first :data:`CHECKED_FIRST`, and one
    in :data:`CHECKED_SHARE` by a hash of its ids, so that the same texts are checked in each run. They pile
    up until the reference encodes them together, at the latest when :meth:`settle` says so.

    Args:
        spec: The tokenizer, of the back end ``tokenizers``.
        library: A name in :data:`~mtsft_preproc.tokenization.encoders.libraries.LIBRARIES`.

    Attributes:
        texts: Number of texts encoded since :meth:`start`.
        checked: How many of them the reference has encoded as well.

    Raises:
        BaseException: The library can't read the tokenizer.
    """

    def __init__(self, spec: TokenizerSpec, library: str = "fastokens") -> None:
        super().__init__(spec)
        self.library = library
        with ThreadPoolExecutor(1) as threads:
            # At the same time: each takes most of a second, and the library lets others run.
            reference = threads.submit(RustEncoder, spec)
            self._fast = LIBRARIES[library](spec.file)
            #: What defines the ids.
            self.reference = reference.result()
        self.start()

    def start(self) -> None:
        """Count anew, so that what is checked does not depend on what the process did before."""
        self.texts = 0
        self.checked = 0
        self._due: list[tuple[list[str], FlatIds]] = []

    @clock.stage("compare")
    def settle(self) -> None:
        """Have the reference encode the texts of the sample that it has not encoded yet.

        Raises:
            EncoderDiffers: It gives other ids for one of them.
        """
        due, self._due = self._due, []
        texts = [text for own, _ in due for text in own]
        if texts:
            lengths = np.concatenate([np.diff(flat.offsets) for _, flat in due])
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            found = FlatIds(np.concatenate([flat.ids for _, flat in due]), offsets)
            compare(self.library, texts, found, self.reference.encode(texts))

    @functools.cached_property
    def _byte_spans(self) -> ByteSpans | None:
        return read_byte_spans(self.spec.file, self.spec.vocab_size)

    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text; special tokens that it spells become tokens.

        Raises:
            EncoderDiffers: The reference gives other ids for one of these texts or of those before, or the
                library failed.
        """
        flat = self._encode(texts)
        numbers = self._sample(flat)
        self._count(texts, numbers)
        self._check_later(texts, flat, numbers)
        return flat

    def encode_marked(self, text: str) -> list[int]:
        """Let the reference do it: marked text is rare."""
        return self.reference.encode_marked(text)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        """Give the ids, and the characters that each covers.

        Raises:
            EncoderDiffers: The reference gives other ids or spans, or the library failed.
        """
        if self._byte_spans is None:
            self._count(texts, list(range(len(texts))))
            return self.reference.encode_spans(texts)
        found, known = self._span(texts)
        numbers = sorted(
            {*self._sample(FlatIds(found.ids, found.offsets)), *np.flatnonzero(~known).tolist()}
        )
        self._count(texts, numbers)
        if numbers:
            self._correct(found, known, texts, numbers)
        return found

    def encode_pieces(self, texts: Sequence[Sequence[str]]) -> PiecedIds:
        """Give the ids, and how many tokens each piece has.

        Raises:
            EncoderDiffers: The reference gives other ids or spans for one of these texts, or other ids for
                one of those before, or the library failed.
        """
        joined = ["".join(pieces) for pieces in texts]
        if self._byte_spans is None:
            self._count(joined, list(range(len(joined))))
            return PiecedIds.of(self.reference.encode_spans(joined), texts)
        flat = self._encode(joined)
        known, found = self._byte_spans.count(joined, texts, flat)
        spanned = {*self._sample(flat, CHECKED_SHARE * SPANNED_SHARE, 1), *np.flatnonzero(~known).tolist()}
        others = [number for number in self._sample(flat) if number not in spanned]
        self._count(joined, [*others, *spanned])
        self._check_later(joined, flat, others)
        if spanned:
            self._correct_pieces(found, known, texts, sorted(spanned))
        return found

    def encode_marked_spans(self, text: str) -> SpannedIds:
        """Let the reference do it: marked text is rare."""
        return self.reference.encode_marked_spans(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Let the reference do it: what is decoded is for people to read."""
        return self.reference.decode(ids)

    def compare(self, texts: list[str]) -> int:
        """Compare the ids and spans of all ``texts`` with the reference's; return the number of ids.

        Raises:
            EncoderDiffers: They are not the same, or the library failed.
        """
        if self._byte_spans is None:
            flat = self._encode(texts)
            compare(self.library, texts, flat, self.reference.encode(texts))
            return len(flat.ids)
        found, known = self._span(texts)
        self._correct(found, known, texts, list(range(len(texts))))
        return len(found.ids)

    def _encode(self, texts: list[str]) -> FlatIds:
        first, second = DOUBTFUL
        doubtful = [number for number, text in enumerate(texts) if first in text or second in text]
        if not doubtful:
            return self._encode_fast(texts)
        plain = sorted({*range(len(texts))}.difference(doubtful))
        rows: dict[int, npt.NDArray[np.int32]] = {}
        for numbers, encode in ((doubtful, self.reference.encode), (plain, self._encode_fast)):
            flat = encode([texts[number] for number in numbers])
            rows.update(zip(numbers, np.split(flat.ids, flat.offsets[1:-1]), strict=False))
        ordered = [rows[number] for number in range(len(texts))]
        offsets = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
        return FlatIds(np.concatenate(ordered), offsets)

    def _encode_fast(self, texts: list[str]) -> FlatIds:
        try:
            return self._fast.encode(texts)
        except UnicodeEncodeError:
            # Half of a surrogate pair: whatever the reference makes of it.
            return self.reference.encode(texts)
        except BaseException as error:
            if not is_failure(error):
                raise
            where = f"the library failed: {type(error).__name__}: {error}"
            raise EncoderDiffers(Difference(self.library, self._culprit(texts), where)) from None

    def _culprit(self, texts: list[str]) -> str:
        """Return the first text at which the library fails by itself, or the first of all."""
        for text in texts:
            try:
                self._fast.encode([text])
            except BaseException as error:
                if not is_failure(error):
                    raise
                return text
        return texts[0]

    def _span(self, texts: list[str]) -> tuple[SpannedIds, npt.NDArray[np.bool_]]:
        """Return ids and spans, and of which texts the spans are known; bool, shape (T,)."""
        assert self._byte_spans is not None
        flat = self._encode(texts)
        known, starts, ends = self._byte_spans.find(texts, flat)
        return SpannedIds(*flat, starts.astype(np.int32), ends.astype(np.int32)), known

    def _correct(
        self, found: SpannedIds, known: npt.NDArray[np.bool_], texts: list[str], numbers: list[int]
    ) -> None:
        """Compare the texts ``numbers`` with the reference; enter its spans where they are not known."""
        chosen = [texts[number] for number in numbers]
        right = self.reference.encode_spans(chosen)
        own = select(FlatIds(found.ids, found.offsets), numbers)
        compare(self.library, chosen, own, FlatIds(right.ids, right.offsets))
        at = positions(found.offsets, numbers)
        unknown = np.repeat(~known[numbers], np.diff(own.offsets))
        for array, other in ((found.starts, right.starts), (found.ends, right.ends)):
            array[at] = np.where(unknown, other, array[at])
            spans = FlatIds(array[at], own.offsets)
            compare(self.library, chosen, spans, FlatIds(other, own.offsets), "span")

    def _correct_pieces(
        self,
        found: PiecedIds,
        known: npt.NDArray[np.bool_],
        texts: Sequence[Sequence[str]],
        numbers: list[int],
    ) -> None:
        """Compare the texts ``numbers`` with the reference; enter its counts where they are not known."""
        assert self._byte_spans is not None
        pieces = [texts[number] for number in numbers]
        chosen = ["".join(own) for own in pieces]
        own = select(FlatIds(found.ids, found.offsets), numbers)
        _, starts, ends = self._byte_spans.find(chosen, own)
        spans = SpannedIds(*own, starts.astype(np.int32), ends.astype(np.int32))
        self._correct(spans, known[numbers], chosen, list(range(len(chosen))))
        right = PiecedIds.of(spans, pieces)
        counts = np.fromiter(map(len, texts), np.int64, len(texts))
        borders = np.concatenate([[0], np.cumsum(counts)])
        at = positions(borders, numbers)
        own_counts = counts[numbers]
        shift = np.repeat(found.offsets[numbers] - own.offsets[:-1], own_counts)
        unknown = np.repeat(~known[numbers], own_counts)
        rows = np.concatenate([[0], np.cumsum(own_counts)])
        for column, other in ((found.started, right.started), (found.ended, right.ended)):
            column[at] = np.where(unknown, other + shift, column[at])
            counted, expected = (array.astype(np.int32) for array in (column[at] - shift, other))
            compare(self.library, chosen, FlatIds(counted, rows), FlatIds(expected, rows), "border")

    def _check_later(self, texts: list[str], flat: FlatIds, numbers: list[int]) -> None:
        """Have the reference encode the texts ``numbers``, once there are enough of them."""
        if numbers:
            chosen = [texts[number] for number in numbers]
            self._due.append((chosen, select(flat, numbers)))
            if sum(len(own) for own, _ in self._due) >= _DUE:
                self.settle()

    def _sample(self, flat: FlatIds, share: int = CHECKED_SHARE, first: int = CHECKED_FIRST) -> list[int]:
        """Return the numbers of the texts to check, which rise.

        Args:
            flat: The ids of the texts.
            share: One in so many is checked.
            first: And the first few.
        """
        starts, counts = flat.offsets[:-1], np.diff(flat.offsets)
        hashes = (counts + 1).astype(np.uint64) * _SPREAD
        if len(flat.ids):
            ids = flat.ids.take(starts + (counts * _PLACES >> 3), mode="clip").astype(np.uint64)
            # A text without ids has none of its own there.
            hashes += (_FACTORS @ ids) * (counts > 0)
        # What exceeds 64 bits is cut off; the upper ones depend on all bits of what was multiplied.
        hashes = hashes * _SPREAD >> np.uint64(32)
        chosen = hashes % np.uint64(share) == 0
        chosen[: max(0, first - self.texts)] = True
        return [int(number) for number in np.flatnonzero(chosen)]

    def _count(self, texts: list[str], checked: list[int]) -> None:
        self.texts += len(texts)
        self.checked += len(checked)
