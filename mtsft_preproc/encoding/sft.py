"""Dialogues -> samples to fine-tune on: input ids, labels, attention mask.

records -> handler -> dialogues -> mask policy -> pieces -> template -> tokens -> cuts -> samples
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Record, Rejection, Role
from mtsft_preproc.encoding.batch import DatasetSpec, EncodedBatch, RecordEncoder
from mtsft_preproc.encoding.columns import kept_columns
from mtsft_preproc.encoding.digests import Digest, dialogue_digest, digest_array
from mtsft_preproc.encoding.outcome import Outcome
from mtsft_preproc.encoding.rules import check_dialogue
from mtsft_preproc.encoding.samples import Samples
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers import DialogueHandler
from mtsft_preproc.masking import policies, trained_flags
from mtsft_preproc.templates import WHOLE, Template, TokenBatch
from mtsft_preproc.truncation import ROUND_RULES, TOKEN_RULES, Piece, cut_tokens, fit_rounds

__all__ = ["SampleEncoder"]

Bools = npt.NDArray[np.bool_]

#: Characters of text that are rendered and encoded together: what bounds a worker's memory where one record
#: becomes many samples.
_AT_ONCE = 1 << 20


class SampleEncoder(RecordEncoder):
    """Turns dialogues into samples.

    Args:
        handler: Record -> dialogue.
        template: Dialogues -> tokens.
        config: The settings.
    """

    datasets = (
        DatasetSpec("packed_input_ids", "sample"),
        DatasetSpec("packed_labels", "sample"),
        DatasetSpec("packed_attention_mask", "sample", stored=False),
    )

    def __init__(self, handler: DialogueHandler, template: Template, config: PreprocessConfig) -> None:
        self._handler = handler
        self._template = template
        self._config = config
        self._policy = policies.get(config.train_on or "assistant")
        self._rule = config.overlong or "drop"

    def encode(self, records: Iterable[Record]) -> EncodedBatch:
        kept: list[Record] = []
        digests: list[Digest] = []  # per record of ``kept``
        pieces: list[Piece] = []
        rejections: list[Rejection] = []
        done = Outcome()
        for record in records:
            try:
                dialogue = self._handler.dialogue(record.value)
                dialogue = check_dialogue(dialogue, self._config.empty_reply)
                own = self._pieces(len(kept), dialogue)
            except RecordError as error:
                rejections.append(Rejection.of(record, error))
                continue
            if dialogue.notes:
                done.note(len(kept), *dialogue.notes)
            if self._policy.splits and dialogue.outline.roles[-1] != Role.ASSISTANT:
                done.note(len(kept), "unanswered-ending")  # no sample has it
            kept.append(record)
            digests.append(dialogue_digest(dialogue))
            pieces += own
        # Where a record is one piece, its batch bounds the text.
        for chunk in _chunks(pieces) if self._policy.splits else [pieces]:
            self._encode(self._promising(chunk, done), done, self._rule)
        return self._select(kept, digests, rejections, done)

    def _pieces(self, record: int, dialogue: Dialogue) -> list[Piece]:
        """Return what is rendered of a dialogue: all of it, or all up to each trained reply.

        Raises:
            RecordError: ``nothing-trained``.
        """
        flags = trained_flags(self._policy, dialogue, self._config.train_on_tools)
        whole = Piece(record, dialogue, flags)
        if not self._policy.splits:
            return [whole]
        pieces = []
        before = 0
        for number, message in enumerate(dialogue.messages):
            if not (message.role.is_target and flags[number]):
                continue
            only = [flag and before <= place for place, flag in enumerate(flags[: number + 1])]
            messages = dialogue.messages[: number + 1]
            part = Dialogue(messages, dialogue.system, dialogue.tools, [], dialogue.summary)
            pieces.append(Piece(record, part, only, turn=number))
            before = number + 1
        if not pieces:
            raise RecordError("nothing-trained", "", "a reply that is to be trained", "none")
        return pieces

    def _promising(self, pieces: Sequence[Piece], done: Outcome) -> Sequence[Piece]:
        """Return the pieces that may fit: not those of which a beginning is known to be too long."""
        if self._rule != "drop" or not self._template.grows or not done.lost:
            return pieces
        too_long = {record for record, _, error in done.lost if error.reason == "overlong"}
        for piece in pieces:
            if piece.record in too_long:
                done.refuse(piece, self._overlong(piece, 0, done))
        return [piece for piece in pieces if piece.record not in too_long]

    def _overlong(self, piece: Piece, tokens: int, done: Outcome) -> RecordError:
        """Return why a piece is refused; the same, whether it was rendered or not."""
        limit = f"at most {self._config.seq_length} tokens"
        before = (error.reason for record, _, error in done.lost if record == piece.record)
        if self._template.grows and self._rule == "drop" and "overlong" in before:
            return RecordError("overlong", "", limit, "more, as an earlier turn has more already")
        return RecordError("overlong", "", limit, f"{tokens} tokens")

    def _encode(self, pieces: Sequence[Piece], done: Outcome, rule: str) -> None:
        """Render pieces and take over what comes of them; cut those that are too long."""
        if not pieces:
            return
        tokens = self._template.encode(
            [piece.dialogue for piece in pieces],
            [piece.trained for piece in pieces],
            shared=len(pieces) > len({piece.record for piece in pieces}),
        )
        for number, error in tokens.failed.items():
            done.refuse(pieces[number], error)
        limit = self._config.seq_length
        over = np.zeros(len(tokens.sample_ends), bool)
        if limit is not None:
            over = np.diff(tokens.sample_ends, prepend=0) > limit
        again, replaced = self._cut_again(tokens, over, pieces, done, rule)
        if limit is not None and rule in TOKEN_RULES and over.any():
            tokens = cut_tokens(rule, tokens, over, limit, self._template.closing)
            for sample in np.flatnonzero(over).tolist():
                done.note(pieces[int(tokens.dialogues[sample])].record, f"cut-{rule}")
            over[:] = False
        self._take(tokens, over, replaced, pieces, done)
        for chunk in _chunks(again):
            # What was cut to fit is rendered once more, and fits.
            self._encode(chunk, done, "drop")

    def _cut_again(
        self, tokens: TokenBatch, over: Bools, pieces: Sequence[Piece], done: Outcome, rule: str
    ) -> tuple[list[Piece], Bools]:
        """Return shorter pieces for those with a sample that is too long, and the samples they replace."""
        replaced = np.zeros(len(over), bool)
        if rule not in ROUND_RULES or not over.any():
            return [], replaced
        lengths = np.zeros(len(pieces), np.int64)
        np.maximum.at(lengths, tokens.dialogues, np.diff(tokens.sample_ends, prepend=0))
        long = [
            number for number in np.unique(tokens.dialogues[over]).tolist() if number not in tokens.failed
        ]
        found = fit_rounds(
            rule,
            self._template,
            [pieces[number] for number in long],
            lengths[long].tolist(),
            self._config.seq_length or 0,
        )
        again: list[Piece] = []
        for number, cut in zip(long, found, strict=True):
            # All of its samples, whichever of them is too long.
            replaced |= tokens.dialogues == number
            if isinstance(cut, RecordError):
                done.refuse(pieces[number], cut)
                continue
            done.note(pieces[number].record, f"cut-{rule}")
            for piece in cut:
                if any(piece.trained):
                    again.append(piece)
                else:  # the rounds that fit are not those in which something is trained
                    limit = f"at most {self._config.seq_length} tokens with a trained reply among them"
                    done.refuse(piece, RecordError("overlong", "", limit, f"{lengths[number]} in all"))
        return again, replaced

    def _take(
        self, tokens: TokenBatch, over: Bools, replaced: Bools, pieces: Sequence[Piece], done: Outcome
    ) -> None:
        """Take over the samples that are not too long, and say of the others why there are none."""
        samples = self._samples(tokens, pieces)
        untrained = samples.trained == 0
        for sample in np.flatnonzero((over | untrained) & ~replaced).tolist():
            piece = pieces[int(tokens.dialogues[sample])]
            if over[sample]:
                done.refuse(piece, self._overlong(piece, int(samples.lengths[sample]), done))
            else:
                done.refuse(
                    piece, RecordError("nothing-trained", "", "a reply with a token to train", "none")
                )
        dropped = over | untrained | replaced | np.isin(tokens.dialogues, list(tokens.failed))
        if dropped.any():
            samples = samples.take(np.flatnonzero(~dropped))
        done.samples.append(samples)
        for number, notes in enumerate(tokens.notes):
            if notes:
                done.note(pieces[number].record, *notes)
        if not tokens.parity_of and not tokens.differences:
            return
        # Of pieces that became samples: what replaces the others is counted when its turn comes.
        kept = set(tokens.dialogues[~dropped].tolist())
        for number in kept & tokens.parity_of.keys():
            done.parity.setdefault(pieces[number].record, Counter()).update(tokens.parity_of[number])
        for item in tokens.differences:
            if item.dialogue not in kept:
                continue
            piece = pieces[item.dialogue]
            told = {"message": item.message + piece.first, "kind": item.kind}
            told |= {"training": item.training, "serving": item.serving}
            done.differences.append((piece.record, told))

    def _samples(self, tokens: TokenBatch, pieces: Sequence[Piece]) -> Samples:
        mask = tokens.mask(context=self._policy.context)
        borders = np.concatenate([[0], tokens.sample_ends])
        if self._config.pack:
            # In a pack, it would be predicted from the last token of another sample. (Alone, no trainer
            # uses the label of a first token.)
            mask[borders[:-1][np.diff(borders) > 0]] = False
        labels = np.where(mask, tokens.ids, np.int32(self._config.ignore_index))
        if self._template.late_stop_id is not None and not self._policy.context:
            labels[tokens.late_stops] = self._template.late_stop_id
        firsts = np.asarray([piece.first for piece in pieces], np.int32)[tokens.dialogues]
        own = np.asarray([piece.turn for piece in pieces], np.int32)[tokens.dialogues]
        return Samples(
            ids=tokens.ids.astype(np.int32, copy=False),
            labels=labels.astype(np.int32, copy=False),
            lengths=np.diff(borders),
            trained=np.diff(np.searchsorted(np.flatnonzero(mask), borders)),
            records=np.asarray([piece.record for piece in pieces], np.int64)[tokens.dialogues],
            turns=np.where(tokens.turns == WHOLE, own, tokens.turns + firsts).astype(np.int32),
        )

    def _select(
        self, records: list[Record], digests: list[Digest], rejections: list[Rejection], done: Outcome
    ) -> EncodedBatch:
        """Keep the samples of the records that are sound, and put them in order."""
        samples = Samples.join(done.samples or [_NONE])
        if done.errors:
            samples = samples.take(np.flatnonzero(~np.isin(samples.records, list(done.errors))))
        alive = set(np.unique(samples.records).tolist())
        for number, turn, error in done.lost:
            if number in alive:
                rejections.append(Rejection.of(records[number], error, turn))
            else:
                done.errors.setdefault(number, error)
        rejections += [Rejection.of(records[number], error) for number, error in done.errors.items()]
        rows = np.asarray([record.row for record in records], np.int64)
        names = self._config.keep_columns
        columns = [kept_columns(record.value, names) for record in records] if names else []
        return EncodedBatch(
            tokens={"packed_input_ids": samples.ids, "packed_labels": samples.labels},
            lengths={"sample": samples.lengths.astype(np.int32)},
            trained=samples.trained.astype(np.int32),
            rows=rows[samples.records],
            turns=samples.turns,
            digests=digest_array(digests)[samples.records],
            kept=[columns[number] for number in samples.records.tolist()] if names else [],
            rejections=rejections,
            notes=Counter(note for number in alive & done.notes.keys() for note in done.notes[number]),
            parity=sum((turns for number, turns in done.parity.items() if number in alive), Counter()),
            differences=[
                {"row": records[number].row, **told} for number, told in done.differences if number in alive
            ],
        )


_EMPTY = np.zeros(0, np.int32)
_NONE = Samples(
    _EMPTY, _EMPTY, _EMPTY.astype(np.int64), _EMPTY.astype(np.int64), _EMPTY.astype(np.int64), _EMPTY
)


def _chunks(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Yield runs of pieces with so much text that encoding them together bounds the memory."""
    start, size = 0, 0
    for number, piece in enumerate(pieces):
        size += piece.weight
        if size >= _AT_ONCE:
            yield pieces[start : number + 1]
            start, size = number + 1, 0
    if start < len(pieces):
        yield pieces[start:]
