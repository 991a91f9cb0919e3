"""What the program knows of a tokenizer once it is loaded and adjusted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import TemplateError, naming

__all__ = ["AddedToken", "Adjustment", "ResolvedTokenizer", "TokenizerSpec"]


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched as text before the model's own splitting.

    Attributes:
        text: The string that becomes the token.
        id: Its id.
        special: Whether it is a control token, which text of users must not become.
        lstrip: Whether it swallows white space on its left.
        rstrip: Whether it swallows white space on its right.
        single_word: Whether it must stand alone.
        normalized: Whether it is looked for in the text that the tokenizer's normalizer has changed.
    """

    text: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class Adjustment:
    """What a chat format changes about a tokenizer, before anything is encoded.

    Attributes:
        eos: Token that becomes the end-of-sequence token, or None to keep the tokenizer's own.
        special: Further tokens that become special tokens.
    """

    eos: str | None = None
    special: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer, small enough to travel with every task.

    Attributes:
        backend: ``"tokenizers"`` (Rust), ``"sentencepiece"`` or ``"transformers"`` (a Python tokenizer).
        source: Folder that the user named.
        file: What a worker opens: a resolved ``tokenizer.json``, a ``tokenizer.model``, or a folder.
        sha256: Of the tokenizer's content.
        vocab_size: Number of ids, added tokens included; the embedding needs at least as many rows.
        bos_id: Id of the beginning-of-sequence token, or None.
        eos_id: Id of the end-of-sequence token, after the adjustment.
        pad_id: Id of the padding token, after the adjustment.
        unk_id: Id of the unknown token, or None.
        added: Tokens that are matched as text.
        new_tokens: Tokens that the adjustment added to the vocabulary.
        adjustment: What the chat format changed.
        normalizes_special: Whether special tokens are looked for behind a normalizer that changes
            letters, so that other text than their own can become them.
        use_fast: Whether the Rust tokenizer was asked for.
        trust_remote_code: Whether the folder's own Python code may run.
        chat_templates: The folder's chat templates as (name, template) pairs, sorted by name; where
            there is just one its name is ``"default"``.
        special_tokens_map: What transformers gives to a chat template by name: ``bos_token``,
            ``eos_token``, ...; after the adjustment. All are strings since transformers 5.
        stop_ids: Ids that end generation: ``eos_id``, then those in ``generation_config.json``.
        auto_prefix: Ids that the tokenizer by itself puts in front of each text that it encodes.
        auto_suffix: Those that it puts behind.
    """

    backend: str
    source: str
    file: str
    sha256: str
    vocab_size: int
    bos_id: int | None
    eos_id: int
    pad_id: int
    unk_id: int | None
    added: tuple[AddedToken, ...]
    new_tokens: tuple[str, ...] = ()
    adjustment: Adjustment = Adjustment()
    normalizes_special: bool = False
    use_fast: bool = True
    trust_remote_code: bool = False
    chat_templates: tuple[tuple[str, str], ...] = ()
    special_tokens_map: tuple[tuple[str, str], ...] = ()
    stop_ids: tuple[int, ...] = ()
    auto_prefix: tuple[int, ...] = ()
    auto_suffix: tuple[int, ...] = ()

    @property
    def special_ids(self) -> frozenset[int]:
        """The control tokens' ids, but for the unknown token's, which plain text may become.

        Where that is BOS or EOS as well (GPT-2), no text becomes it: such tokenizers know all bytes.
        """
        unknown = {self.unk_id} - {self.bos_id, self.eos_id}
        return frozenset(token.id for token in self.added if token.special and token.id not in unknown)

    def id_of(self, text: str) -> int:
        """Return the id of an added token.

        Raises:
            TemplateError: There is no such token.
        """
        for token in self.added:
            if token.text == text:
                return token.id
        raise TemplateError(
            f"the chat format needs the token {text!r}, which the tokenizer in {self.source} lacks"
        )

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the tokenizer."""
        return {
            "path": self.source,
            "backend": self.backend,
            "sha256": self.sha256,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
            "stop_ids": list(self.stop_ids),
            "auto_prefix": list(self.auto_prefix),
            "auto_suffix": list(self.auto_suffix),
            "new_tokens": list(self.new_tokens),
            "use_fast": self.use_fast,
            "adjustment": {"eos": self.adjustment.eos, "special": list(self.adjustment.special)},
        }


@dataclass(frozen=True)
class ResolvedTokenizer:
    """A loaded tokenizer in the form that workers open.

    Attributes:
        spec: Everything but the content.
        payload: Content of the file that workers open, or None where they open the user's own.
        file_name: Name for that file.
    """

    spec: TokenizerSpec
    payload: bytes | None
    file_name: str

    def save(self, folder: Path) -> TokenizerSpec:
        """Write the payload into ``folder`` and return the specification that points to it.

        The file is replaced atomically, so that a run which is resumed can write it again.
        """
        if self.payload is None:
            return self.spec
        path = folder / self.file_name
        partial = path.with_name(path.name + ".partial")
        with naming(partial):
            partial.write_bytes(self.payload)
        partial.replace(path)
        return replace(self.spec, file=str(path))


def content_hash(*parts: bytes) -> str:
    """Return the sha256 of ``parts``, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
