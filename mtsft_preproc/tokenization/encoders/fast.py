"""A fast library for the ids, watched by the reference."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.tokenization.encoders.base import Encoder, FlatIds, SpannedIds
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

__all__ = ["CHECKED_FIRST", "CHECKED_SHARE", "DOUBTFUL", "FastEncoder"]

#: One text in so many, by the hash of its content, is encoded by the reference as well.
CHECKED_SHARE = 256
#: So are the first few after :meth:`FastEncoder.start`.
CHECKED_FIRST = 4
#: Texts with one of these are for the reference: fastokens 0.3.5 has been seen to take LATIN SMALL LETTER
#: LONG S for an "s" where the pattern of gpt-oss asks for a contraction, and MONGOLIAN VOWEL SEPARATOR for
#: white space in that of DeepSeek.
DOUBTFUL = ("\u017f", "\u180e")


class FastEncoder(Encoder):
    """Gives the reference's ids and spans, many times as fast; ``prove`` says for which tokenizers.

    A sample of the texts is encoded by the reference as well: the first :data:`CHECKED_FIRST`, and one
    in :data:`CHECKED_SHARE` by the CRC-32 of its UTF-8, so that the same texts are checked in each run.
    The reference is loaded when it is first needed.

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
        self._fast = LIBRARIES[library](spec.file)
        self.start()

    def start(self) -> None:
        """Count anew, so that what is checked does not depend on what the process did before."""
        self.texts = 0
        self.checked = 0

    @functools.cached_property
    def reference(self) -> RustEncoder:
        """What defines the ids."""
        return RustEncoder(self.spec)

    @functools.cached_property
    def _byte_spans(self) -> ByteSpans | None:
        return read_byte_spans(self.spec.file, self.spec.vocab_size)

    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text; special tokens that it spells become tokens.

        Raises:
            EncoderDiffers: The reference gives other ids for one of them, or the library failed.
        """
        flat = self._encode(texts)
        numbers = self._sample(texts)
        self._count(texts, numbers)
        if numbers:
            chosen = [texts[number] for number in numbers]
            compare(self.library, chosen, select(flat, numbers), self.reference.encode(chosen))
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
        numbers = sorted({*self._sample(texts), *np.flatnonzero(~known).tolist()})
        self._count(texts, numbers)
        if numbers:
            self._correct(found, known, texts, numbers)
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

    def _sample(self, texts: list[str]) -> list[int]:
        """Return the numbers of the texts to check."""
        first = CHECKED_FIRST - self.texts
        return [
            number
            for number, text in enumerate(texts)
            if number < first or zlib.crc32(text.encode("utf-8", "surrogatepass")) % CHECKED_SHARE == 0
        ]

    def _count(self, texts: list[str], checked: list[int]) -> None:
        self.texts += len(texts)
        self.checked += len(checked)
