"""Encodes dialogues in a text form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.errors import RecordError, TokenizerError
from mtsft_preproc.stages import clock
from mtsft_preproc.templates.elements import TextGuard
from mtsft_preproc.templates.segments import Kind, SegmentBatch
from mtsft_preproc.templates.text_forms.encoded import EncodedTexts, SpannedText, encode_texts
from mtsft_preproc.templates.text_forms.form import TextForm
from mtsft_preproc.templates.text_forms.passages import Constant, Owner, Passage, Rendering
from mtsft_preproc.templates.text_forms.tokens import Tokens
from mtsft_preproc.templates.token_batch import Template, TokenBatch, speakers_of
from mtsft_preproc.tokenization import Encoder, SpecialText

__all__ = ["TextTemplate"]


class TextTemplate(Template):
    """A text form, for one tokenizer.

    Args:
        form: The form.
        encoder: Of the tokenizer.
        special_tokens_in_text: ``"plain"``, ``"allow"`` or ``"reject"``.
        append_eod: Whether one more EOS, trained, closes each sample.
        train_on_tools: Whether words of tool results are told apart from other context, so that they can be
            trained.

    Raises:
        TokenizerError: The form needs to know which characters each token covers, and the tokenizer can't
            say.
    """

    def __init__(
        self,
        form: TextForm,
        encoder: Encoder,
        special_tokens_in_text: str = "plain",
        append_eod: bool = False,
        train_on_tools: bool = False,
    ) -> None:
        self.form = form
        self._encoder = encoder
        self._special = SpecialText(encoder.spec)
        self._guard = TextGuard(self._special, special_tokens_in_text, encoder.spec.normalizes_special)
        self._observed = Kind.OBSERVED if train_on_tools else Kind.CONTEXT
        self._eod = (encoder.spec.eos_id,) if append_eod else ()
        self.closing = len(self._eod) + form.closing
        self.late_stop_id = encoder.spec.eos_id if form.late_stops else None
        if form.needs_spans:
            _check_spans(encoder, form)

    @clock.stage("render")
    def encode(
        self, dialogues: Sequence[Dialogue], trained: Sequence[Sequence[bool]], shared: bool = False
    ) -> TokenBatch:
        del shared  # equal texts are always encoded once
        texts = SegmentBatch()
        rendered: dict[int, tuple[Rendering, list[int]]] = {}
        failed: dict[int, RecordError] = {}
        notes: list[list[str]] = [[] for _ in dialogues]
        for number, dialogue in enumerate(dialogues):
            mark = texts.mark()
            try:
                rendering = self.form.render(dialogue, trained[number])
                places, spelled = self._add(rendering, texts)
            except RecordError as error:
                texts.rollback(mark)
                failed[number] = error
                continue
            rendered[number] = rendering, places
            notes[number] += rendering.notes + (["special-token-in-text"] if spelled else [])
        encoded = encode_texts(texts, self._to_span(rendered), self._encoder)
        tokens = Tokens()
        for number, (rendering, places) in rendered.items():
            refusal = next((encoded.failed[place] for place in places if place in encoded.failed), None)
            if refusal is not None:
                failed[number] = refusal
            elif self._assemble(rendering, places, encoded, tokens):
                notes[number].append("token-across-border")
            if refusal is None:
                tokens.end_sample(number, trained[number])
        batch = tokens.batch(failed, notes)
        if self.tells_speakers:
            batch.speakers = speakers_of(batch, trained)
        return batch

    def _add(self, rendering: Rendering, texts: SegmentBatch) -> tuple[list[int], bool]:
        """Add the texts of a dialogue's passages.

        Returns:
            Per part: the number of its text, or -1 where it has none; and whether words of the dialogue
            spell a special token.

        Raises:
            RecordError: They do, and may not.
        """
        places, spelled = [], False
        for part in rendering.parts:
            before = len(texts.texts)
            if isinstance(part, Passage):
                spelled |= self._guard.add([span.piece for span in part.spans], Kind.CONTEXT, texts)
            places.append(before if len(texts.texts) > before else -1)
        return places, spelled

    def _to_span(self, rendered: dict[int, tuple[Rendering, list[int]]]) -> set[int]:
        """Return the numbers of the texts that have several owners."""
        return {
            place
            for rendering, places in rendered.values()
            for part, place in zip(rendering.parts, places, strict=True)
            if place >= 0 and isinstance(part, Passage) and part.owner(self.tells_speakers) is None
        }

    def _assemble(
        self, rendering: Rendering, places: Sequence[int], encoded: EncodedTexts, tokens: Tokens
    ) -> bool:
        """Append the tokens of a dialogue; return whether one lies across a border."""
        across = False
        spec = self._encoder.spec
        for part, place in zip(rendering.parts, places, strict=True):
            if isinstance(part, Constant):
                tokens.add(part.ids, part.owner, part.late)
                continue
            if part.opens is not None:
                tokens.add(spec.auto_prefix, part.opens)
            if place >= 0:
                text = encoded.texts[place]
                owner = part.owner(self.tells_speakers)
                if owner is not None:
                    tokens.add(text.ids, owner)
                else:
                    across |= self._add_spanned(part, text, tokens)
            if part.closes is not None:
                tokens.add(spec.auto_suffix, part.closes)
        tokens.add(self._eod, Owner(Kind.GENERATED, rendering.last))
        return across

    def _add_spanned(self, part: Passage, text: SpannedText, tokens: Tokens) -> bool:
        """Append the tokens of a text with several owners; return whether one belongs to none of them."""
        pieces = [span.piece for span in part.spans]
        if text.marked:
            lengths = [len(self._special.mark(piece.text, piece.meant)) for piece in pieces]
        else:
            lengths = [len(piece.text) for piece in pieces]
        ends = np.fromiter(accumulate(lengths), np.int64, len(lengths))
        last = len(ends) - 1
        first = np.minimum(np.searchsorted(ends, text.starts, side="right"), last)
        final = np.minimum(
            np.searchsorted(ends, np.maximum(text.ends - 1, text.starts), side="right"), last
        )
        kinds = np.asarray([span.owner.kind for span in part.spans], np.uint8)
        kinds[kinds == Kind.OBSERVED] = self._observed
        messages = np.asarray([span.owner.message for span in part.spans], np.int64)
        owners = np.where(kinds >= Kind.GENERATED, messages, -1)
        # A special token may swallow the white space behind it; it is the model's all the same.
        swallows = self._encoder.special_mask[text.ids] & (owners[first] >= 0)
        across = (owners[first] != owners[final]) & ~swallows
        tokens.add_owned(text.ids, np.where(across, np.uint8(Kind.CONTEXT), kinds[first]), messages[first])
        return bool(across.any())


def _check_spans(encoder: Encoder, form: TextForm) -> None:
    """Refuse a tokenizer that can't say which characters its tokens cover."""
    try:
        encoder.encode_spans([""])
    except TokenizerError:
        raise TokenizerError(
            f"--tokenizer-name-or-path: {encoder.spec.source}: the text form {form.name} encodes prompt "
            "and reply as one text, but this Python tokenizer can't say which characters a token covers; "
            "expected a Rust (fast) tokenizer or a folder with a SentencePiece tokenizer.model, or a chat "
            "format by --prompt-type"
        ) from None
