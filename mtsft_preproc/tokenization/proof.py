"""Whether a fast library gives the reference's ids for one tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mtsft_preproc.tokenization.encoders import EncoderDiffers, FastEncoder, shared_encoder
from mtsft_preproc.tokenization.encoders.libraries import is_failure, version_of
from mtsft_preproc.tokenization.probes import probe_texts
from mtsft_preproc.tokenization.spec import TokenizerSpec

__all__ = ["Proof", "prove"]

#: Texts that are compared at once.
_BATCH = 512
#: Tokens whose own texts are strung together for it, at most; evenly from the vocabulary.
_TOKENS = 8000


@dataclass(frozen=True)
class Proof:
    """What comparing a fast library with the reference came to.

    Attributes:
        encoder: Name of the library.
        version: Its version; ``""`` where it is not installed.
        ok: Whether all ids and spans are the reference's.
        reason: Why not, with the text that shows it; ``""`` where it is.
        texts: Number of texts that were compared.
        ids: Number of their ids.
    """

    encoder: str
    version: str
    ok: bool
    reason: str
    texts: int
    ids: int

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {
            "encoder": self.encoder,
            "version": self.version,
            "ok": self.ok,
            "reason": self.reason,
            "texts": self.texts,
            "ids": self.ids,
        }


def prove(spec: TokenizerSpec, library: str = "fastokens") -> Proof:
    """Compare a fast library with the reference on texts made for it, ids and spans.

    Never raises for what the library does: it may lack, refuse the tokenizer, or panic. The encoder is
    this process's shared one.

    Args:
        spec: The tokenizer; its file must be there.
        library: The fast library.
    """
    version = version_of(library) or ""

    def failed(reason: str, texts: int = 0, ids: int = 0) -> Proof:
        return Proof(library, version, False, " ".join(reason.split()), texts, ids)

    if spec.backend != "tokenizers":
        return failed(f"it reads a tokenizer.json, and this tokenizer is encoded by {spec.backend}")
    if not version:
        return failed(f"the package {library} is not installed")
    try:
        encoder = shared_encoder(spec, library)
    except BaseException as error:
        if not is_failure(error):
            raise
        return failed(f"it can't read the tokenizer: {type(error).__name__}: {error}")
    assert isinstance(encoder, FastEncoder)
    step = max(1, spec.vocab_size // _TOKENS)
    texts_of = encoder.reference.texts_of
    texts = probe_texts(
        spec.added, texts_of(range(0, spec.vocab_size, step)), texts_of(_unmerged(spec.file)[:_TOKENS])
    )
    ids = 0
    for at in range(0, len(texts), _BATCH):
        batch = texts[at : at + _BATCH]
        try:
            ids += encoder.compare(batch)
        except EncoderDiffers as differs:
            return failed(str(differs), at + len(batch), ids)
    return Proof(library, version, True, "", len(texts), ids)


def _unmerged(file: str) -> list[int]:
    """Return the ids of entries of several letters that no merge makes.

    The reference gives them for a whole word at most, or never; a library that looks words up by
    another way than merging may give them for text.
    """
    model = orjson.loads(Path(file).read_bytes())["model"]
    merges = model.get("merges") or []
    made = {"".join(merge) if isinstance(merge, list) else merge.replace(" ", "", 1) for merge in merges}
    vocab = model["vocab"]
    return [vocab[text] for text in vocab if len(text) > 1 and text not in made]
