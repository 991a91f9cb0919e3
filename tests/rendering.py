"""Dialogues, a tokenizer and formats for tests of masks, cuts and encoding; and how these see samples."""

from __future__ import annotations

import atexit
import datetime
import functools
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Message, Record, Role, ToolCall
from mtsft_preproc.encoding import EncodedBatch
from mtsft_preproc.encoding.sft import SampleEncoder
from mtsft_preproc.handlers import DialogueHandler
from mtsft_preproc.templates import ChatRenderer, ChatTemplate, PromptTemplate, Template, prompt_types
from mtsft_preproc.tokenization import Adjustment, Encoder, load_tokenizer, open_encoder

SPECIAL = [
    "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>",
    "<end_of_turn>",
]  # fmt: skip
THOUGHT_WORDS = ["<think>", "</think>"]
#: Without line breaks, so that no token lies across a role header and what follows it.
CORPUS = ["system user assistant tool", "what is the weather in the town", "it is a sunny day again"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}"
    "[{{ call.function.name }} {{ call.function.arguments | tojson }}]{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: The same, which leaves thoughts out of all replies but the last.
FORGETFUL = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}",
    1,
)
JINJA = {"chatml.jinja": CHATML, "forgetful.jinja": FORGETFUL}
#: A format that writes EOS behind each reply, one that teaches it late, and a chat template.
FORMATS = ["qwen", "gemma", "chatml.jinja"]
IGNORE = -100
Flags = Sequence[bool]


@functools.cache
def _scratch() -> Path:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@functools.cache
def tokenizer() -> Path:
    """Return the folder of a byte-level BPE tokenizer that is trained here."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS * 4, trainer)
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in THOUGHT_WORDS])
    folder = _scratch() / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


@functools.cache
def encoder(adjustment: Adjustment) -> Encoder:
    folder = tempfile.mkdtemp(dir=_scratch())
    return open_encoder(load_tokenizer(str(tokenizer()), adjustment).save(Path(folder)))


@functools.cache
def opened(name: str, **given: Any) -> Template:
    """Open a prompt type, or one of the chat templates here."""
    if name in JINJA:
        own = encoder(Adjustment())
        renderer = ChatRenderer(
            {"default": JINJA[name]}, dict(own.spec.special_tokens_map), datetime.date.min
        )
        return ChatTemplate(renderer, own, **given)
    found = prompt_types.get(name)
    return PromptTemplate(found, encoder(found.adjustment()), **given)


def text_of(template: Template, ids: Iterable[int]) -> str:
    """Return what ids spell, control tokens taken out."""
    own: Encoder = template._encoder  # type: ignore[attr-defined]
    return own.decode([index for index in ids if index not in own.special_ids])


class Given(DialogueHandler):
    """Hands over the dialogue that stands in the record."""

    keys: ClassVar[Mapping[str, str | None]] = {}
    required = ()

    def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
        told: Dialogue = record["dialogue"]
        return told.but(notes=list(told.notes))


def config(**changes: Any) -> PreprocessConfig:
    """Return settings; those of paths stand for nothing."""
    return PreprocessConfig(("in",), "out/data", "tokenizer", "given", **changes)


@dataclass
class Sample:
    """A sample of a batch."""

    row: int
    turn: int
    ids: list[int]
    labels: list[int]


def encoded(template: Template, dialogues: Sequence[Dialogue], **changes: Any) -> EncodedBatch:
    """Encode dialogues as the records of a shard."""
    records = [Record(row, {"dialogue": told}) for row, told in enumerate(dialogues)]
    return SampleEncoder(Given(), template, config(**changes)).encode(records)


def samples_of(batch: EncodedBatch) -> list[Sample]:
    """Cut a batch into its samples, and hold the columns against each other."""
    ids, labels = (batch.tokens[f"packed_{name}"].tolist() for name in ("input_ids", "labels"))
    found, start = [], 0
    columns = [batch.lengths["sample"], batch.rows, batch.turns, batch.trained]
    for length, row, turn, trained in zip(*(column.tolist() for column in columns), strict=True):
        own = slice(start, start + length)
        found.append(Sample(row, turn, ids[own], labels[own]))
        assert sum(label != IGNORE for label in labels[own]) == trained > 0
        start += length
    assert start == len(ids) == len(labels)
    return found


def samples(template: Template, told: Dialogue, **changes: Any) -> list[Sample]:
    """Return the samples of a dialogue, of which nothing may be lost."""
    batch = encoded(template, [told], **changes)
    assert batch.rejections == []
    return samples_of(batch)


def rendered(template: Template, told: Dialogue, flags: Flags | None = None) -> Sample:
    """Return a whole dialogue as the template writes it; without flags, all replies are trained."""
    given = [message.role.is_target for message in told.messages] if flags is None else flags
    batch = template.encode([told], [given])
    assert batch.failed == {}
    mask, ids = batch.mask(), batch.ids.tolist()
    labels = [token if wanted else IGNORE for token, wanted in zip(ids, mask.tolist(), strict=True)]
    for place in batch.late_stops.tolist():
        assert template.late_stop_id is not None
        labels[place] = template.late_stop_id
    return Sample(0, -1, ids, labels)


def trained_text(template: Template, sample: Sample) -> str:
    """Return what the labels of a sample spell, control tokens taken out."""
    return text_of(template, [label for label in sample.labels if label != IGNORE])


def reply_text(name: str, message: Message) -> str:
    """Return what a reply is in the text of a format."""
    calls = [(call.name, json.dumps(call.arguments, ensure_ascii=False)) for call in message.tool_calls]
    if name in JINJA:
        return message.text + "".join(f"[{called} {arguments}]" for called, arguments in calls)
    if not calls:
        return message.text
    return "".join(f"Action: {called}\nAction Input: {arguments}" for called, arguments in calls)


def replies_text(name: str, messages: Sequence[Message], flags: Flags | None = None) -> str:
    wanted = [message.role.is_target for message in messages] if flags is None else flags
    return "".join(
        reply_text(name, message)
        for message, flag in zip(messages, wanted, strict=True)
        if flag and message.role.is_target
    )


#: Without digits: those count the messages.
words = st.text(st.sampled_from("ab \n{}[]é漢😀."), max_size=12)
flags = st.one_of(st.none(), st.none(), st.booleans())


@st.composite
def dialogues(
    draw: st.DrawFn, flagged: bool = False, summary: bool = False, most: int = 5, unanswered: bool = True
) -> Dialogue:
    """Draw a dialogue; each message starts with its number, so that none is empty or like another."""
    messages: list[Message] = []

    def say(role: Role, **fields: Any) -> None:
        given = draw(flags) if flagged else None
        text = "" if fields else f"{len(messages)}:{draw(words)}"
        messages.append(Message(role, text, train=given, **fields))

    uses_tools = draw(st.booleans())
    for _ in range(draw(st.integers(1, most))):
        say(Role.USER)
        while uses_tools and draw(st.booleans()) and len(messages) < 12:
            arguments = {"city": f"{len(messages)}:{draw(words)}"}
            say(Role.ASSISTANT, tool_calls=(ToolCall("find", arguments),))
            say(Role.OBSERVATION)
        say(Role.ASSISTANT)
    if unanswered and draw(st.integers(0, 4)) == 0:
        say(Role.USER)
    system = draw(st.sampled_from(["", "Be kind.", "S" * 15]))
    return Dialogue(messages, system, summary="What was said." * summary * draw(st.integers(0, 1)))


each_format = pytest.mark.parametrize("name", FORMATS)
several = settings(max_examples=60, deadline=None)
