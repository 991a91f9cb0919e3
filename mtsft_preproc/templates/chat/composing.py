"""Dialogues of known shapes, written without the template.

The way of a dialogue: its messages are looked at, their looks are its *shape*; the shape has a fragment for
each message; the fragments write the texts of the pieces, of which the kinds and turns are known. What is
not known yet is rendered and proven by the template itself, and taken to pieces for the next.

Nothing is taken on trust; :mod:`~mtsft_preproc.templates.chat.shape_proofs` says how. The first dialogue of
each shape is proven whole, and what the template asks about it is asked of all later ones before they are
taken for the same shape. Of those a share is rendered, and a share of that is proven whole again: where a
hash of the text says so, which depends on nothing but the data. If one of them differs, nothing that was
composed is kept.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

from mtsft_preproc.dialogue import Message
from mtsft_preproc.errors import RecordError
from mtsft_preproc.templates.chat.fragments import Fragment, cut_script, join_script, places_of
from mtsft_preproc.templates.chat.looks import Form, Looks, form_of
from mtsft_preproc.templates.chat.rendering import ChatRenderer, Conversation
from mtsft_preproc.templates.chat.scribe import Claim, Scribe
from mtsft_preproc.templates.chat.script import Script
from mtsft_preproc.templates.chat.shape_proofs import (
    Beginnings,
    ShapeDiffers,
    difference,
    is_proven,
    turns_of,
)
from mtsft_preproc.templates.chat.shapes import KnownFragment, Shape
from mtsft_preproc.templates.chat.speakers import Source, Tools

__all__ = ["Composer"]

#: One in so many dialogues of a proven shape is rendered, and one in so many is proven whole again.
_RENDERED, _PROVEN = 64, 1024
#: Fragments that are kept, and pieces and beginnings of shapes; beyond, all are forgotten.
_FRAGMENTS, _PIECES, _BEGINNINGS = 1 << 13, 1 << 19, 1 << 16
#: Messages of a dialogue with something odd in it, up to which its fragments are taken for others like it.
_ODD_LENGTH = 24
#: Dialogues that a template's questions about a form of message are gathered from.
_QUESTIONED = 4
#: Dialogues in a row that taught nothing, and shapes that were composed otherwise than the template writes
#: them, from which on a template is left alone.
_FUTILE, _WRONG = 200, 64


class Composer:
    """Writes dialogues from fragments of others.

    Args:
        renderer: The template.
        scribe: Proves what is not known yet.
    """

    def __init__(self, renderer: ChatRenderer, scribe: Scribe) -> None:
        self._renderer = renderer
        self._scribe = scribe
        self._source = Source(renderer.call_filter)
        self._looks = Looks(self._source)
        self._epoch = 0
        self._shapes: dict[tuple[int, ...], Shape] = {}
        self._pieces = 0
        self._beginnings = Beginnings()
        #: By the place of a message; None where different fragments were found for one place.
        self._fragments: dict[object, KnownFragment | None] = {}
        self._known: dict[Fragment, KnownFragment] = {}
        self._numbers: dict[tuple[object, ...], int] = {}
        #: Forms of the messages of dialogues whose shape differed: these don't depend on what is asked.
        self._refused: set[tuple[Form, ...]] = set()
        self._questioned: Counter[Form] = Counter()
        self._futile = self._wrong = 0

    def write(self, messages: Sequence[Message], tools: Tools) -> tuple[Script, list[str]] | None:
        """Return script and texts of a dialogue, or None where the template has to be asked.

        Raises:
            ShapeDiffers: The shape was proven, and this dialogue of it is not what the template writes.
        """
        if self._wrong > _WRONG:
            return None
        key = self._key(messages, tools)
        shape = self._shapes.get(key)
        if shape is None:
            shape = None if self._forms(messages) in self._refused else self._compose(key, messages, tools)
            if shape is None:
                return None
        try:
            texts = shape.texts(messages, tools)
        except (LookupError, ValueError):
            return None  # An operation failed on other text: not the same shape after all.
        text = "".join(texts)
        if not shape.proven:
            return self._prove_first(key, shape, messages, tools, texts)
        drawn = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        if drawn % _RENDERED == 0:
            self._prove_again(shape, messages, tools, text, drawn % _PROVEN == 0)
        return shape.script, texts

    def learns(self, messages: Sequence[Message], tools: Tools) -> bool:
        """Return whether a dialogue that could not be written is worth proving for others like it."""
        if self._futile > _FUTILE or self._wrong > _WRONG:
            return False
        return len(messages) <= _ODD_LENGTH or all(
            self._looks.of(messages, number).plain for number in range(len(messages))
        )

    def learn(
        self, script: Script, conversation: Conversation, messages: Sequence[Message], tools: Tools
    ) -> None:
        """Take a script of all turns to pieces."""
        self._futile += 1
        guards = list(script.guards)
        new = {form for form in self._forms(messages) if self._questioned[form] < _QUESTIONED}
        if new:
            self._questioned.update(new)
            try:
                guards += self._scribe.questions(conversation)
            except RecordError:
                return  # What can't be rendered on the way is no example.
        if not self._looks.learn(guards, messages, tools):
            return
        places = self._places(messages, tools)
        if len(self._fragments) > _FRAGMENTS:
            self._forget()
        for place, fragment in zip(places, cut_script(script, len(messages)), strict=True):
            known = self._known.get(fragment)
            if known is None:
                number = self._numbers.setdefault(fragment.around_tools, len(self._numbers))
                known = self._known[fragment] = KnownFragment(
                    fragment, number, fragment.compile(self._source)
                )
            if self._fragments.setdefault(place, known) is not known:
                self._fragments[place] = None

    def _prove_first(
        self,
        key: tuple[int, ...],
        shape: Shape,
        messages: Sequence[Message],
        tools: Tools,
        texts: list[str],
    ) -> tuple[Script, list[str]] | None:
        """Prove the first dialogue of a shape; return what it is, by the template."""
        text, script = "".join(texts), shape.script
        claimed = turns_of(script, texts)
        conversation = Conversation.spoken(messages, tools, 0)
        if self._beginnings.is_whole(shape.path) and self._rendered(conversation) == text:
            # Proven with more or fewer tools; what was left to see is how these are written.
            shape.proven = True
            return script, texts
        claim = Claim(text, self._beginnings.known(shape.path, claimed))
        try:
            proven = self._scribe.prove(conversation, claim)
        except RecordError:
            del self._shapes[key]
            return None  # Who asks the template again will hear why.
        same = is_proven(script, texts, shape.owners(), claimed, proven)
        if not same:
            script = self._scribe.compile(proven)
            texts = script.fill(conversation.values)
            same = difference(messages, (shape.script, text), (script, proven.full.text)) is None
        if not same or not self._looks.learn(proven.guards, messages, tools):
            self._refused.add(self._forms(messages))
            self._wrong += not same
            del self._shapes[key]
        elif self._looks.epoch == self._epoch:
            shape.proven = True
            self._beginnings.add(shape.path, claimed)
        # Else it asked what was not known: its shape is another one, as soon as it is looked at again.
        return script, texts

    def _prove_again(
        self, shape: Shape, messages: Sequence[Message], tools: Tools, text: str, whole: bool
    ) -> None:
        """Render a dialogue of a proven shape; prove it, if the whole proof is to be made.

        Raises:
            ShapeDiffers: It is not what the template writes.
        """
        conversation = Conversation.spoken(messages, tools, 0)
        right, script = self._rendered(conversation), None
        if whole and right == text:
            try:
                script = self._scribe.write_once(conversation)
            except RecordError as error:
                right = str(error)
        found = difference(messages, (shape.script, text), (script, right))
        if found is not None:
            raise ShapeDiffers(found)

    def _rendered(self, conversation: Conversation) -> str:
        """Return what the template writes, or why it does not."""
        try:
            return self._renderer.text(conversation)
        except RecordError as error:
            return str(error)

    def _key(self, messages: Sequence[Message], tools: Tools) -> tuple[int, ...]:
        look = self._looks.of
        key = (
            self._looks.of_tools(tools),
            *[look(messages, place).number for place in range(len(messages))],
        )
        if self._looks.epoch != self._epoch:
            self._forget()
            return self._key(messages, tools)
        return key

    def _forget(self) -> None:
        self._epoch = self._looks.epoch
        self._forget_shapes()
        self._fragments.clear()
        self._known.clear()
        self._numbers.clear()

    def _forget_shapes(self) -> None:
        self._shapes.clear()
        self._beginnings.clear()
        self._pieces = 0

    @staticmethod
    def _forms(messages: Sequence[Message]) -> tuple[Form, ...]:
        return tuple(map(form_of, messages))

    def _places(self, messages: Sequence[Message], tools: Tools) -> list[object]:
        self._key(messages, tools)
        looks = [self._looks.of(messages, number) for number in range(len(messages))]
        roles = [message.role for message in messages]
        return places_of(looks, self._looks.of_tools(tools), roles)

    def _compose(self, key: tuple[int, ...], messages: Sequence[Message], tools: Tools) -> Shape | None:
        """Join the fragments of a dialogue, if all are known."""
        if not self._fragments:
            return None
        found = []
        for place in self._places(messages, tools):
            known = self._fragments.get(place)
            if known is None:
                return None
            found.append(known)
        try:
            script = join_script([known.fragment for known in found])
        except ValueError:
            return None
        if self._pieces + len(script.kinds) > _PIECES or len(self._beginnings) > _BEGINNINGS:
            self._forget_shapes()
        self._pieces += len(script.kinds)
        # A turn may reach into what follows; a message that shows nothing does not end it.
        behind = [
            known.number if known.fragment.words and message.content else None
            for known, message in zip(found[1:], messages[1:], strict=False)
        ]
        path = self._beginnings.of(key, [known.number for known in found[:-1]], [*behind, found[-1].number])
        shape = self._shapes[key] = Shape(script, found, path)
        self._futile = 0
        return shape
