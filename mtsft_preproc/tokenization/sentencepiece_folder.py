"""Folders that hold a SentencePiece model alone, as Llama-2's and its children's do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtsft_preproc.errors import TokenizerError
from mtsft_preproc.tokenization.chat_settings import chat_templates, read_settings, stop_ids
from mtsft_preproc.tokenization.spec import (
    AddedToken,
    Adjustment,
    ResolvedTokenizer,
    TokenizerSpec,
    content_hash,
)

__all__ = ["is_sentencepiece_only", "load_sentencepiece"]

_MODEL = "tokenizer.model"
_DEFAULT_EOS = "<|endoftext|>"
#: transformers' names, in its order.
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def is_sentencepiece_only(folder: Path) -> bool:
    """Return whether ``folder`` has a SentencePiece ``tokenizer.model`` and no ``tokenizer.json``.

    Some families (Llama-3, GLM-4) keep tiktoken ranks under the same name: those are base64 text.
    """
    model = folder / _MODEL
    if (folder / "tokenizer.json").exists() or not model.is_file():
        return False
    with open(model, "rb") as file:
        # A SentencePiece model is a protobuf that starts with its first piece (tag 0x0A); tiktoken ranks
        # start with base64.
        return file.read(1) == b"\n"


def load_sentencepiece(folder: Path, source: str, adjustment: Adjustment) -> ResolvedTokenizer:
    """Describe such a folder; ids are the SentencePiece library's own.

    Raises:
        TokenizerError: The model can't be read, or the folder's settings contradict it.
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / _MODEL))
    except (OSError, RuntimeError) as error:
        raise TokenizerError(f"{folder / _MODEL}: not a SentencePiece model: {error}") from None
    settings = _settings(folder)
    tokens = _added_tokens(folder, settings, model)
    names = {role: _token_text(settings.get(f"{role}_token")) for role in ("bos", "eos", "unk", "pad")}
    new: list[str] = []

    def ensure(text: str) -> int:
        """Return the id of a special token, as a new one where the model has none."""
        known = tokens.get(text)
        piece = model.piece_to_id(text)
        index = known.id if known else piece
        if known is None and (piece == model.unk_id() and text != names["unk"]):
            index = max([model.get_piece_size(), *(token.id + 1 for token in tokens.values())])
            new.append(text)
        tokens[text] = AddedToken(text, index, special=True)
        return index

    ids = {role: ensure(text) if text else None for role, text in names.items()}
    if adjustment.eos is not None:
        ids["eos"] = ensure(adjustment.eos)
    eos = ids["eos"] if ids["eos"] is not None else ensure(_DEFAULT_EOS)
    for text in adjustment.special:
        ensure(text)
    names["eos"] = adjustment.eos or names["eos"] or _DEFAULT_EOS
    names["pad"] = names["pad"] or names["eos"]
    added = tuple(sorted(tokens.values(), key=lambda token: token.id))
    spec = TokenizerSpec(
        backend="sentencepiece",
        source=source,
        file=str(folder / _MODEL),
        sha256=content_hash((folder / _MODEL).read_bytes(), repr(added).encode()),
        vocab_size=max([model.get_piece_size(), *(token.id + 1 for token in added)]),
        bos_id=ids["bos"],
        eos_id=eos,
        pad_id=ids["pad"] if ids["pad"] is not None else eos,
        unk_id=ids["unk"],
        added=added,
        new_tokens=tuple(new),
        adjustment=adjustment,
        chat_templates=chat_templates(folder, settings.get("chat_template")),
        special_tokens_map=_special_tokens_map(settings, names),
        stop_ids=stop_ids(folder, eos),
        auto_prefix=_added(ids["bos"], settings.get("add_bos_token", True)),
        auto_suffix=_added(eos, settings.get("add_eos_token", False)),
    )
    return ResolvedTokenizer(spec, None, _MODEL)


def _added(index: int | None, adds: Any) -> tuple[int, ...]:
    """Return what goes around a text, by a setting whose default is that of Llama's tokenizer."""
    return (index,) if adds and index is not None else ()


def _settings(folder: Path) -> dict[str, Any]:
    """Return the folder's settings; ``special_tokens_map.json`` fills what ``tokenizer_config`` leaves."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            found = read_settings(path)
            settings.update({key: value for key, value in found.items() if value is not None})
    return settings


def _special_tokens_map(
    settings: dict[str, Any], names: dict[str, str | None]
) -> tuple[tuple[str, str], ...]:
    """Return what transformers calls ``special_tokens_map``: the tokens by role, then by further names."""
    found = {f"{role}_token": settings.get(f"{role}_token") for role in _ROLES}
    found |= {f"{role}_token": text for role, text in names.items()}
    found |= {key: value for key, value in settings.items() if key.endswith("_token") and key not in found}
    further = settings.get("extra_special_tokens")
    found |= further if isinstance(further, dict) else {}
    texts = {key: _token_text(value) for key, value in found.items()}
    return tuple((key, text) for key, text in texts.items() if text is not None)


def _added_tokens(folder: Path, settings: dict[str, Any], model: Any) -> dict[str, AddedToken]:
    tokens: dict[str, AddedToken] = {}
    for index, entry in settings.get("added_tokens_decoder", {}).items():
        text = entry["content"]
        tokens[text] = AddedToken(text, int(index), bool(entry.get("special")))
    path = folder / "added_tokens.json"
    if path.exists():
        for text, index in json.loads(path.read_text("utf-8")).items():
            tokens.setdefault(text, AddedToken(text, int(index), special=True))
    for token in tokens.values():
        inside = token.id < model.get_piece_size()
        if inside and model.id_to_piece(token.id) != token.text:
            raise TokenizerError(
                f"{folder}: added token {token.text!r} has id {token.id}, which the SentencePiece "
                f"model gives to {model.id_to_piece(token.id)!r}"
            )
    return tokens


def _token_text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and text else None
