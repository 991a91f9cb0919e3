"""Loads a tokenizer folder, adjusts it to a chat format, and takes what workers need from it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization.chat_settings import checked_templates, stop_ids
from mtsft_preproc.tokenization.merges import join_merges
from mtsft_preproc.tokenization.sentencepiece_folder import (
    is_sentencepiece_only,
    load_sentencepiece,
)
from mtsft_preproc.tokenization.spec import (
    AddedToken,
    Adjustment,
    ResolvedTokenizer,
    TokenizerSpec,
    content_hash,
)

__all__ = ["check_folder", "load_tokenizer", "open_transformers"]

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "vocab.txt")
_DEFAULT_EOS = "<|endoftext|>"


def load_tokenizer(
    path: str,
    adjustment: Adjustment | None = None,
    *,
    use_fast: bool = True,
    trust_remote_code: bool = False,
) -> ResolvedTokenizer:
    """Load the tokenizer in folder ``path``.

    A folder that holds a SentencePiece model and no ``tokenizer.json`` is read with the sentencepiece
    library: transformers 5 would convert it, and give other ids. Everything else goes through
    transformers; of a Rust tokenizer the workers then need ``tokenizers`` alone.

    The adjustment is the original program's: the end-of-sequence token is replaced where the chat
    format asks for it, a tokenizer without one gets ``<|endoftext|>``, one without a padding token
    pads with the end-of-sequence token.

    Args:
        path: A local folder.
        adjustment: What the chat format changes.
        use_fast: Whether to take the Rust tokenizer where transformers offers one.
        trust_remote_code: Whether the folder's own Python code may run.

    Raises:
        TokenizerError: The folder is missing, or holds no tokenizer that can be loaded.
    """
    check_folder(path)
    folder = Path(path)
    adjustment = adjustment or Adjustment()
    if is_sentencepiece_only(folder):
        return load_sentencepiece(folder, path, adjustment)
    return _load_transformers(path, adjustment, use_fast, trust_remote_code)


def check_folder(path: str) -> None:
    """Refuse what can't be a tokenizer folder, without loading anything.

    Raises:
        TokenizerError: It can't be.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise TokenizerError(
            f"--tokenizer-name-or-path: {path} {what}; expected a folder with a tokenizer "
            f"({', '.join(_FILES[:3])}, ...). Nothing is fetched from a model hub"
        )
    if not any((folder / name).exists() for name in _FILES) and not list(folder.glob("*.tiktoken")):
        raise TokenizerError(
            f"--tokenizer-name-or-path: {path} holds no tokenizer: expected one of {', '.join(_FILES)}"
        )


def _load_transformers(
    path: str, adjustment: Adjustment, use_fast: bool, trust_remote_code: bool
) -> ResolvedTokenizer:
    tokenizer = open_transformers(path, use_fast, trust_remote_code)
    new_tokens, vocab = _adjust(tokenizer, adjustment)
    fast = bool(getattr(tokenizer, "is_fast", False))
    added = tuple(
        AddedToken(
            token.content,
            index,
            bool(token.special),
            token.lstrip,
            token.rstrip,
            token.single_word,
            bool(fast and token.normalized),
        )
        for index, token in sorted(tokenizer.added_tokens_decoder.items())
    )
    payload = tokenizer.backend_tokenizer.to_str().encode("utf-8") if fast else None
    auto_prefix, auto_suffix = _added_around(tokenizer, path)
    spec = TokenizerSpec(
        backend="tokenizers" if fast else "transformers",
        source=path,
        file=path,
        sha256=content_hash(payload) if payload is not None else _folder_hash(Path(path)),
        # Ids may have holes; the embedding needs a row for the highest.
        vocab_size=max(len(tokenizer), 1 + max(vocab.values())),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
        added=added,
        new_tokens=tuple(new_tokens),
        adjustment=adjustment,
        normalizes_special=payload is not None and _normalizes(payload, added),
        use_fast=use_fast,
        trust_remote_code=trust_remote_code,
        chat_templates=checked_templates(Path(path), tokenizer.chat_template),
        special_tokens_map=tuple(tokenizer.special_tokens_map.items()),
        stop_ids=stop_ids(Path(path), tokenizer.eos_token_id),
        auto_prefix=auto_prefix,
        auto_suffix=auto_suffix,
    )
    return ResolvedTokenizer(spec, payload and join_merges(payload), "tokenizer.json")


def open_transformers(path: str, use_fast: bool, trust_remote_code: bool) -> Any:
    """Open a folder with ``AutoTokenizer``, offline.

    Raises:
        TokenizerError: It can't be loaded, or wants to run its own code and may not.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    # What a tokenizer has to say about model lengths and the like is no concern of the user's here.
    transformers_logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        return AutoTokenizer.from_pretrained(
            path, use_fast=use_fast, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:
        # transformers raises OSError, ValueError, KeyError, bare Exception and more for a bad folder.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        hint = ""
        if "trust_remote_code" in str(error):
            hint = "; the folder brings its own code: read it, then add --trust-remote-code"
        raise TokenizerError(
            f"--tokenizer-name-or-path: {path}: transformers can't load this tokenizer: "
            f"{type(error).__name__}: {lines[0] if lines else ''}{hint}"
        ) from error


def _adjust(tokenizer: Any, adjustment: Adjustment) -> tuple[list[str], dict[str, int]]:
    """Adjust a transformers tokenizer in place; return the tokens new to its vocabulary, and that."""
    vocab: dict[str, int] = tokenizer.get_vocab()
    needed = {adjustment.eos or _DEFAULT_EOS, *adjustment.special}
    if adjustment.eos is not None:
        tokenizer.add_special_tokens({"eos_token": adjustment.eos})
    if tokenizer.eos_token_id is None:
        tokenizer.add_special_tokens({"eos_token": _DEFAULT_EOS})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if adjustment.special:
        # As tokens, not as the list of "additional" ones, which transformers 5 renamed and replaces.
        tokenizer.add_tokens(list(adjustment.special), special_tokens=True)
    if needed <= vocab.keys():
        return [], vocab  # Asking for a large vocabulary again takes a tenth of a second.
    grown: dict[str, int] = tokenizer.get_vocab()
    return sorted(grown.keys() - vocab.keys()), grown


def _added_around(tokenizer: Any, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a transformers tokenizer adds in front of a text and behind it.

    Raises:
        TokenizerError: They are not the same for every text.
    """
    found = set()
    for text in ("a", "b c"):
        inner = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = tokenizer(text)["input_ids"]
        places = [at for at in range(len(whole) + 1) if whole[at : at + len(inner)] == inner]
        if not inner or len(places) != 1:
            raise TokenizerError(
                f"--tokenizer-name-or-path: {path}: can't tell what the tokenizer adds around a text: "
                f"{text!r} is {inner} without special tokens and {whole} with them"
            )
        found.add((tuple(whole[: places[0]]), tuple(whole[places[0] + len(inner) :])))
    if len(found) > 1:
        raise TokenizerError(
            f"--tokenizer-name-or-path: {path}: the tokenizer adds other tokens around one text than "
            f"around another: {sorted(found)}"
        )
    return found.pop()


def _normalizes(payload: bytes, added: tuple[AddedToken, ...]) -> bool:
    """Return whether a Rust tokenizer finds special tokens in text that its normalizer has changed.

    Prepending and replacing a space (the SentencePiece families) make no control token of other text.
    """
    if not any(token.special and token.normalized for token in added):
        return False
    kinds = set(re.findall(r'"type":\s*"([A-Za-z]+)"', json.dumps(json.loads(payload)["normalizer"])))
    return bool(kinds - {"Sequence", "Prepend", "Replace"})


def _folder_hash(folder: Path) -> str:
    parts: list[bytes] = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".model", ".txt", ".py", ".tiktoken"):
            parts += [file.name.encode(), file.read_bytes()]
    return content_hash(*parts)
