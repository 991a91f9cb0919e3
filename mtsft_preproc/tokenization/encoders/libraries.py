"""Fast libraries that read a ``tokenizer.json``; what they give is to be proven, tokenizer by tokenizer."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from mtsft_preproc.tokenization.encoders.base import FlatIds

__all__ = ["LIBRARIES", "REFERENCE", "FastLibrary", "is_failure", "version_of"]

#: Name of the encoder that defines the ids.
REFERENCE = "reference"


class FastLibrary(Protocol):
    """A library that has read one tokenizer.

    Args:
        file: A ``tokenizer.json``.
    """

    def __init__(self, file: str) -> None: ...

    def encode(self, texts: list[str]) -> FlatIds:
        """Encode each text, with the tokens that it spells and without any at its ends.

        Raises:
            UnicodeEncodeError: A text holds half of a surrogate pair.
            BaseException: Whatever the library raises, its own panics included.
        """
        ...


class Fastokens:
    """The package ``fastokens``.

    It makes its threads at the first encoding, as many as ``FASTOKENS_BPE_THREADS`` says and else one for
    each CPU that the process may use; with one there are none beside the caller's. Then it can be forked.
    Its cache of words is bounded, and is the thread's, not the tokenizer's.
    """

    def __init__(self, file: str) -> None:
        # Workers are the unit of parallelism; threads inside each would only fight over the cores.
        os.environ["FASTOKENS_BPE_THREADS"] = "1"
        from fastokens import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(file)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> FlatIds:
        ids, offsets = self._tokenizer.encode_batch_flat(texts, add_special_tokens=False)
        # Copied, which costs 1 % of the encoding: the library's buffers can't be written to.
        return FlatIds(
            np.frombuffer(ids, "<u4").astype(np.int32), np.frombuffer(offsets, "<u8").astype(np.int64)
        )


#: By the name that the user gives, which is the package's.
LIBRARIES: dict[str, type[FastLibrary]] = {"fastokens": Fastokens}


def version_of(name: str) -> str | None:
    """Return the version of an installed library, or None."""
    # Here, for it costs the start of the program 30 ms.
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_failure(error: BaseException) -> bool:
    """Return whether an exception is a library's failure, and no signal or lack of memory.

    A panic of a Rust library is no ``Exception``, and has no class that could be imported.
    """
    if type(error).__name__ == "PanicException":
        return True
    return isinstance(error, Exception) and not isinstance(error, MemoryError)
