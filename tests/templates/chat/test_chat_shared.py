"""Dialogues that share messages: each stretch of text is encoded once, and the tokens are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_reference import DAY, SHARED, Model, each_template, template_text
from dialogues import flags, seeded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtsft_preproc.dialogue import Dialogue, Message, Role
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.chat.stretches import cut, encode_stretches, safe_cuts
from mtsft_preproc.templates.segments import Kind
from mtsft_preproc.templates.token_batch import TokenBatch
from mtsft_preproc.tokenization import Encoder, FlatIds, SpannedIds, load_tokenizer, open_encoder
from mtsft_preproc.tokenization.spec import AddedToken

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: For tokenizers without a template.
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizers() -> list[Any]:
    """Return the names of the real tokenizers."""
    folder = SHARED / "tokenizers"
    if not folder.is_dir():
        return [pytest.param("", id="needs ../shared", marks=pytest.mark.skip(reason="needs ../shared"))]
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def encoders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    """Real tokenizers, each opened when it is asked for first."""

    class Opened(dict[str, Encoder]):
        def __missing__(self, name: str) -> Encoder:
            resolved = load_tokenizer(str(shared / "tokenizers" / name))
            self[name] = open_encoder(resolved.save(tmp_path_factory.mktemp(name)))
            return self[name]

    return Opened()


def opened(encoder: Encoder, **changes: Any) -> ChatTemplate:
    """Return the tokenizer's own template, or one with its EOS."""
    own = dict(encoder.spec.chat_templates)
    renderer = ChatRenderer(own or {"default": PLAIN}, dict(encoder.spec.special_tokens_map), DAY)
    return ChatTemplate(renderer, encoder, **changes)


def parts(dialogue: Dialogue) -> list[Dialogue]:
    """Return the beginnings of a dialogue that end on a reply, and its ends."""
    messages = dialogue.messages
    ends = [place + 1 for place, message in enumerate(messages) if message.role is Role.ASSISTANT]
    starts = [place for place, message in enumerate(messages) if place and message.role is Role.USER]
    return [dialogue.but(messages=messages[:end]) for end in ends] + [
        dialogue.but(messages=messages[start:]) for start in starts
    ]


def same(one: TokenBatch, other: TokenBatch) -> None:
    """Hold two batches against each other."""
    for name in ("ids", "trained", "sample_ends", "dialogues", "turns"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    mask = one.mask()
    np.testing.assert_array_equal(mask, other.mask())
    # A reply that is not trained may be told from the rest in one of them, and be context in the other.
    np.testing.assert_array_equal(one.messages[mask], other.messages[mask])
    np.testing.assert_array_equal(one.kinds[mask], other.kinds[mask])
    np.testing.assert_array_equal(one.kinds <= Kind.SYSTEM, other.kinds <= Kind.SYSTEM)
    assert {number: str(error) for number, error in one.failed.items()} == {
        number: str(error) for number, error in other.failed.items()
    }
    assert one.notes == other.notes
    assert one.parity_of == other.parity_of


@pytest.mark.parametrize("name", tokenizers())
@pytest.mark.parametrize("mode", ["plain", "allow", "reject"])
def test_tokens_are_those_of_whole_texts(encoders: dict[str, Encoder], name: str, mode: str) -> None:
    """With the texts of the dialogues spelling control tokens now and then."""
    told = [part for item in seeded(f"{name}/shared", 8, 0.3) for part in parts(item)]
    whole, stretched = (
        opened(encoders[name], special_tokens_in_text=mode).encode(told, flags(told), shared)
        for shared in (False, True)
    )
    assert len(whole.ids)
    same(whole, stretched)


@each_template()
def test_tokens_are_those_of_whole_texts_in_every_template(tiny: Model, name: str) -> None:
    told = [part for item in seeded(f"{name}/shared", 2, 0.3) for part in parts(item)]
    text = template_text(name)
    batches = [tiny.template(text).encode(told, flags(told), shared) for shared in (False, True)]
    same(*batches)


#: What could reach across a cut: spaces, halves of tokens, letters that combine, control characters.
edges = st.lists(
    st.one_of(
        st.sampled_from(
            [" ", "  ", "\n", "\n\n", "\t", "\u2581", "\u0120", "<", "<|", "|>", ">", "[", "]", "s>", "</",
             "e", "\u0301", "\u200d", "\ufeff", "\u4f60", "1", "23", "'s", "\r", "\u3000", "user\n", "\0"]
        ),
        st.text(st.characters(codec="utf-8"), max_size=3),
    ),
    max_size=5,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("name", tokenizers())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_text_may_be_cut_in_front_of_a_safe_token(
    encoders: dict[str, Encoder], name: str, data: st.DataObject
) -> None:
    """Whatever stands around it: ids and spans are those of the whole text."""
    encoder = encoders[name]
    spec = encoder.spec
    safe = safe_cuts(spec)
    tokens = [token for token in spec.added if token.id in safe]
    if not tokens:
        return
    others = [token.text for token in spec.added]
    around = st.lists(st.one_of(edges, st.sampled_from(others)), max_size=3).map("".join)
    texts = data.draw(st.lists(around, min_size=2, max_size=4))
    cuts, text = [], texts[0]
    for following in texts[1:]:
        cuts.append(len(text))
        text += data.draw(st.sampled_from(tokens)).text + following
    whole = encoder.encode_spans([text])
    found = encode_stretches([cut(text, cuts), [], cut(text, cuts)], encoder.encode_spans)
    count = len(whole.ids)
    assert found.offsets.tolist() == [0, count, count, 2 * count]
    for part in (slice(0, count), slice(count, 2 * count)):
        assert found.ids[part].tolist() == whole.ids.tolist()
        assert found.starts[part].tolist() == whole.starts.tolist()
        assert found.ends[part].tolist() == whole.ends.tolist()


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "glm4", "llama2", "mistral-v3", "phi3", "gpt-oss"])
def test_real_control_tokens_are_safe(encoders: dict[str, Encoder], name: str) -> None:
    spec = encoders[name].spec
    special = {token.id for token in spec.added if token.special}
    assert safe_cuts(spec) == special


def test_tokens_that_reach_across_are_not_safe(tiny: Model) -> None:
    def safe(*added: AddedToken) -> set[str]:
        spec = replace(tiny.encoder.spec, added=added)
        found = safe_cuts(spec)
        return {token.text for token in added if token.id in found}

    def token(number: int, text: str, **changes: Any) -> AddedToken:
        return AddedToken(text, number, **{"special": True, **changes})

    end = token(1, "<|end|>")
    assert safe(end, token(2, "<|start|>")) == {"<|end|>", "<|start|>"}
    # Swallows what stands in front, is looked for in changed text, or must stand alone.
    assert safe(token(1, "<|end|>", lstrip=True)) == set()
    assert safe(token(1, "<|end|>", normalized=True)) == set()
    assert safe(token(1, "<|end|>", single_word=True)) == set()
    assert safe(token(1, "<|end|>", rstrip=True)) == {"<|end|>"}
    # A token that begins in front: it ends in the other, holds it, or is the same, a little earlier.
    assert safe(end, token(2, "\n<|", special=False)) == set()
    assert safe(end, token(2, "\n<|end|>")) == set()  # The other starts with white space.
    assert safe(end, token(2, "x<|end|>y")) == {"x<|end|>y"}
    assert safe(token(1, "[[")) == set()
    assert safe(end, token(2, "<|end|>\n")) == {"<|end|>", "<|end|>\n"}
    # Whether a word stands alone depends on its neighbours.
    assert safe(token(1, "sop"), token(2, "word", special=False, single_word=True)) == set()
    assert safe(token(1, "sop")) == {"sop"}
    assert safe(token(1, " <|end|>")) == set()
    assert safe(token(1, "<think>", special=False)) == set()


class Counting(Encoder):
    """Notes what it is given, and what for."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.spec)
        self._inner = inner
        self.seen: list[tuple[str, str]] = []

    def encode(self, texts: list[str]) -> FlatIds:
        self.seen += [("ids", text) for text in texts]
        return self._inner.encode(texts)

    def encode_marked(self, text: str) -> list[int]:
        self.seen.append(("marked", text))
        return self._inner.encode_marked(text)

    def encode_spans(self, texts: list[str]) -> SpannedIds:
        self.seen += [("spans", text) for text in texts]
        return self._inner.encode_spans(texts)

    def encode_marked_spans(self, text: str) -> SpannedIds:
        self.seen.append(("marked spans", text))
        return self._inner.encode_marked_spans(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._inner.decode(ids)


@pytest.mark.parametrize("spelled", ["", " <|im_end|>"])
def test_each_stretch_is_encoded_once(tiny: Model, spelled: str) -> None:
    """Of forty beginnings of a dialogue; marked once more where tokens are spelled."""
    messages = [
        Message(
            Role.ASSISTANT if number % 2 else Role.USER, f"say {number}{spelled if number == 3 else ''}"
        )
        for number in range(80)
    ]
    told = [Dialogue(messages[: count + 2], "be brief") for count in range(0, 80, 2)]
    trained = [[False] * (len(item.messages) - 1) + [True] for item in told]
    counting = Counting(tiny.encoder)
    template = ChatTemplate(tiny.renderer(CHATML), counting)
    batch = template.encode(told, trained, shared=True)
    assert batch.failed == {}
    assert len(set(counting.seen)) == len(counting.seen)
    whole = len(tiny.text(CHATML, [{"role": "system", "content": "be brief"}] + [
        {"role": "assistant" if number % 2 else "user", "content": message.content}
        for number, message in enumerate(messages)
    ]))  # fmt: skip
    given_ = {
        way: sum(len(text) for found, text in counting.seen if found == way) for way, _ in counting.seen
    }
    # What closes a message is the same stretch for all of the eighty-one.
    assert given_["spans"] == whole - 80 * len("<|im_end|>\n")
    assert ("marked spans" in given_) == bool(spelled)
    same(batch, ChatTemplate(tiny.renderer(CHATML), tiny.encoder).encode(told, trained))


def test_a_rendering_is_not_taken_for_that_of_other_messages(tiny: Model) -> None:
    """Equal places, other words: also in a second batch, whose messages may lie where these did."""
    template = tiny.template(CHATML)
    for batch_number in range(3):
        told = [
            part
            for number in range(4)
            for part in parts(
                Dialogue(
                    [
                        Message(
                            Role.ASSISTANT if place % 2 else Role.USER, f"{batch_number} {number} {place}"
                        )
                        for place in range(4 + 2 * number)
                    ],
                    "s" * number,
                )
            )
        ]
        same(
            template.encode(told, flags(told), shared=True),
            tiny.template(CHATML).encode(told, flags(told)),
        )
