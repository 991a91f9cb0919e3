"""Dialogues -> prompts for reinforcement learning, as the original's PPO and R1 handlers write them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Record, Rejection, shorten
from mtsft_preproc.encoding.batch import DatasetSpec, EncodedBatch, RecordEncoder
from mtsft_preproc.encoding.columns import kept_columns
from mtsft_preproc.encoding.digests import dialogue_digest, digest_array
from mtsft_preproc.encoding.rules import check_dialogue
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import DialogueHandler
from mtsft_preproc.templates import Kind, Template, TokenBatch, encode_documents
from mtsft_preproc.tokenization import Encoder

__all__ = ["PromptEncoder"]

#: The additional key that stands for the reply.
REPLY = "labels"


class PromptEncoder(RecordEncoder):
    """Turns dialogues into the ids that stand in front of the last reply.

    The original's PPO handler leaves out what the assistant said in earlier rounds; its R1 handlers keep
    it.

    Args:
        handler: Record -> dialogue.
        template: Dialogues -> tokens.
        encoder: Of the additional keys' texts.
        config: The settings. ``dataset_additional_keys`` become datasets of their own.
    """

    def __init__(
        self, handler: DialogueHandler, template: Template, encoder: Encoder, config: PreprocessConfig
    ) -> None:
        self._handler = handler
        self._template = template
        self._encoder = encoder
        self._config = config
        self._keeps_replies = handler.objective == "r1"
        self._keys = config.dataset_additional_keys
        self.datasets = prompt_datasets(config.dataset_additional_keys)

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        kept: list[Record] = []
        dialogues: list[Dialogue] = []
        extra: list[list[str]] = []  # per record, per additional key
        rejections: list[Rejection] = []
        for record in records:
            try:
                dialogue = check_dialogue(self._handler.dialogue(record.value), self._config.empty_reply)
                if not dialogue.messages[-1].role.is_target:
                    got = dialogue.messages[-1].role.name.lower()
                    raise RecordError("role-order", "", "a dialogue that ends on a reply", got)
                extra.append(self._texts(record, dialogue))
            except RecordError as error:
                rejections.append(Rejection.of(record, error))
            else:
                dialogues.append(dialogue)
                kept.append(record)
        # Marks the last reply, whose tokens end the prompt.
        flags = [[False] * (len(dialogue.messages) - 1) + [True] for dialogue in dialogues]
        tokens = self._template.encode(dialogues, flags)
        prompt = self._prompt(tokens)
        borders = np.concatenate([[0], tokens.sample_ends])
        lengths = np.diff(np.concatenate([[0], np.cumsum(prompt)])[borders])
        errors = dict(tokens.failed)
        texts = [self._encode([own[place] for own in extra]) for place in range(len(self._keys))]
        for failed in (failed for _, failed, _ in texts):
            errors = {**failed, **errors}
        limit = self._config.seq_length
        for sample in np.flatnonzero(lengths > limit).tolist() if limit is not None else ():
            long = RecordError("overlong", "", f"at most {limit} tokens", f"{lengths[sample]} tokens")
            errors.setdefault(int(tokens.dialogues[sample]), long)
        rejections += [Rejection.of(kept[number], error) for number, error in errors.items()]
        alive = ~np.isin(tokens.dialogues, list(errors))
        which = tokens.dialogues[alive].tolist()
        ids = tokens.ids[prompt & np.repeat(alive, np.diff(borders))]
        found = {"packed_input_ids": ids.astype(np.int32, copy=False)}
        sizes = {"prompt": lengths[alive].astype(np.int32)}
        for key, (lists, _, _) in zip(self._keys, texts, strict=True):
            own = [lists[number] for number in which]
            found[f"packed_{key}"] = np.concatenate([np.zeros(0, np.int32), *own])
            sizes[key] = np.asarray([len(ids) for ids in own], np.int32)
        for number in {number for _, _, spelled in texts for number in spelled}:
            if "special-token-in-text" not in tokens.notes[number]:
                tokens.notes[number].append("special-token-in-text")
        digests = [dialogue_digest(dialogues[number], beside=extra[number]) for number in which]
        columns = self._config.keep_columns
        return EncodedBatch(
            tokens=found,
            lengths=sizes,
            trained=np.zeros(len(which), np.int32),
            rows=np.asarray([kept[number].row for number in which], np.int64),
            turns=np.full(len(which), -1, np.int32),
            digests=digest_array(digests),
            kept=[kept_columns(kept[number].value, columns) for number in which] if columns else [],
            rejections=rejections,
            notes=Counter(
                note for number in which for note in (*dialogues[number].notes, *tokens.notes[number])
            ),
        )

    def _prompt(self, tokens: TokenBatch) -> npt.NDArray[np.bool_]:
        """Return, bool of shape (N,), which tokens belong to the prompt."""
        generated = tokens.kinds == Kind.GENERATED
        last = tokens.mask()
        keep = np.zeros(len(tokens.ids), bool)
        borders = np.concatenate([[0], tokens.sample_ends]).tolist()
        for start, end in itertools.pairwise(borders):
            # What stands behind the last reply is no prompt either. A reply may have no tokens at all.
            own = np.flatnonzero(last[start:end])
            keep[start : start + (int(own[0]) if len(own) else end - start)] = True
        return keep if self._keeps_replies else keep & ~generated

    def _texts(self, record: Record, dialogue: Dialogue) -> list[str]:
        """Return the texts of the additional keys.

        Raises:
            RecordError: ``missing-field`` or ``wrong-type``.
        """
        found = []
        for key in self._keys:
            value = dialogue.messages[-1].text if key == REPLY else record.value.get(key)
            if value is None:
                raise RecordError("missing-field", key, "text", "null")
            if not isinstance(value, str):
                raise RecordError("wrong-type", key, "text", shorten(value))
            found.append(value)
        return found

    def _encode(
        self, texts: list[str]
    ) -> tuple[list[npt.NDArray[np.int32]], dict[int, RecordError], set[int]]:
        """Return the ids of texts, why some can't be encoded, and which spell a special token.

        Nothing stands around them: they are no documents, but what follows a prompt or is compared to it.
        """
        spec = self._encoder.spec
        flat, failed, spelled = encode_documents(texts, self._encoder, self._config.special_tokens_in_text)
        front, back = len(spec.auto_prefix), len(spec.auto_suffix)
        lists = [
            flat.ids[start + front : end - back] for start, end in itertools.pairwise(flat.offsets.tolist())
        ]
        return lists, failed, spelled


def prompt_datasets(keys: tuple[str, ...]) -> tuple[DatasetSpec, ...]:
    """Return the datasets of prompts with additional keys."""
    return (
        DatasetSpec("packed_input_ids", "prompt"),
        DatasetSpec("packed_attention_mask", "prompt", stored=False),
        *(DatasetSpec(f"packed_{key}", key) for key in keys),
    )
