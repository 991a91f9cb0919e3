"""Which encoder a run takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.tokenization.cache import cached_json, keep_json
from mtsft_preproc.tokenization.encoders.fast import CHECKED_SHARE
from mtsft_preproc.tokenization.encoders.libraries import LIBRARIES, REFERENCE, version_of
from mtsft_preproc.tokenization.proof import Proof, prove
from mtsft_preproc.tokenization.spec import TokenizerSpec

__all__ = ["ENCODERS", "REFERENCE", "EncoderChoice", "check_encoder_name", "choose_encoder"]

#: What ``--encoder`` takes.
ENCODERS = ("auto", REFERENCE, *LIBRARIES)
#: The library that ``auto`` takes where it may.
_FIRST = "fastokens"
#: A fast library pays from so many bytes of input on for each byte of the tokenizer's own file. It takes
#: 0.16 s of CPU to load each MB of a ``tokenizer.json`` (three times as long as the reference), once for
#: all workers, and as long to prove it the first time; the reference takes 0.35 s for each MB of text.
_PAYS = 1


@dataclass(frozen=True)
class EncoderChoice:
    """The encoder of a run; travels with every task.

    Attributes:
        name: ``"reference"`` or a fast library, for :func:`open_encoder`.
        proof: What comparing the library with the reference came to; None where it was not tried.
        why: Why that one, for the log.
    """

    name: str
    proof: Proof | None
    why: str

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        if self.proof is None or self.name == REFERENCE:
            return {"name": REFERENCE}
        return {
            "name": self.name,
            "version": self.proof.version,
            "proven_on": {"texts": self.proof.texts, "ids": self.proof.ids},
            "compared_share": 1 / CHECKED_SHARE,
        }


def check_encoder_name(name: str) -> None:
    """Check the name of an encoder, and that its package is there; loads nothing.

    Raises:
        SettingsError: There is no such encoder, or it is not installed.
    """
    if name not in ENCODERS:
        raise SettingsError(
            f"--encoder: there is no encoder {name!r}; expected one of {', '.join(ENCODERS)}"
        )
    if name in LIBRARIES and version_of(name) is None:
        raise SettingsError(f"--encoder {name}: not installed: pip install {name}; {_others(name)}")


def choose_encoder(spec: TokenizerSpec, name: str, bytes_of_input: int) -> EncoderChoice:
    """Choose the encoder; compares a fast library with the reference before it is taken.

    ``auto`` takes the fast library where it is installed, proven for this tokenizer, and loaded in less
    time than it saves on the input that there is. A proof that succeeded is kept in the cache.

    Args:
        spec: The tokenizer; its file must be there.
        name: One of :data:`ENCODERS`.
        bytes_of_input: Size of all inputs.

    Raises:
        SettingsError: There is no such encoder, or the one that was asked for can't be used.
    """
    check_encoder_name(name)
    if name == REFERENCE:
        return EncoderChoice(REFERENCE, None, "asked for")
    library = _FIRST if name == "auto" else name
    if name == "auto" and spec.backend == "tokenizers" and version_of(library) is not None:
        least = _PAYS * Path(spec.file).stat().st_size
        if bytes_of_input < least:
            why = f"{library} pays from {least:,} bytes of input on; there are {bytes_of_input:,}"
            return EncoderChoice(REFERENCE, None, why)
    proof = _proof(spec, library)
    if proof.ok:
        why = f"{proof.texts:,} texts with {proof.ids:,} ids are encoded as by the reference"
        return EncoderChoice(library, proof, why)
    if name != "auto":
        raise SettingsError(
            f"--encoder {name}: can't be used for the tokenizer in {spec.source}: {proof.reason}; "
            f"{_others(name)}"
        )
    return EncoderChoice(REFERENCE, proof, f"{library} is not taken: {proof.reason}")


def _proof(spec: TokenizerSpec, library: str) -> Proof:
    """Return what comparing a library with the reference comes to, or came to in an earlier run."""
    key = "proof", spec.backend, spec.sha256, library, version_of(library)
    known = cached_json(*key)
    if known is not None:
        return Proof(**known)
    proof = prove(spec, library)
    if proof.ok:
        keep_json(asdict(proof), *key)
    return proof


def _others(name: str) -> str:
    return f"expected one of {', '.join(other for other in ENCODERS if other != name)}"
