"""What transformers does with the same template, tokenizer and messages; where the real templates lie."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from mtsft_preproc.dialogue import Dialogue
from mtsft_preproc.templates.chat import ChatRenderer, ChatTemplate
from mtsft_preproc.templates.chat.messages import chat_messages
from mtsft_preproc.templates.token_batch import TokenBatch
from mtsft_preproc.tokenization import Encoder, load_tokenizer, open_encoder

#: The day that templates print.
DAY = datetime.date(2024, 7, 26)
SHARED = Path(__file__).parents[4] / "shared"
#: What looks like a control token in a chat template. Words as <think> and <tool_call> aren't among them:
#: where they are tokens, they are no special ones.
_CONTROL = re.compile(
    r"""<\|[^\s<>|{}'"]+\|?>|<[^\s<>|{}'"]+\|>|<\|"\|>|<｜[^<>'"]+｜>|</?s>|</?\w+:\w+>|<(?:start|end)_of_\w+>"""
    r"|\[/?[A-Z][A-Z_]+\]|\[gMASK\]|<sop>|<sep>|<image>|\[\|[^\s\[\]|]+\|\]"
)


class _Day(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _Day:
        return cls(DAY.year, DAY.month, DAY.day)


@contextlib.contextmanager
def fixed_day() -> Iterator[None]:
    """Make transformers print ``DAY`` for today."""
    with mock.patch.object(chat_template_utils, "datetime", _Day):
        yield


def template_names() -> list[str]:
    """Return the names of the real templates: ``folder/name``."""
    found = (SHARED / "templates").glob("*/*.jinja")
    return sorted(f"{path.parent.name}/{path.stem}" for path in found)


def template_text(name: str) -> str:
    """Return a real template."""
    return (SHARED / "templates" / f"{name}.jinja").read_text("utf-8")


def each_template() -> Any:
    """Return a decorator that runs a test for each real template."""
    names: list[Any] = [*template_names()]
    skipped = pytest.param("", id="needs ../shared", marks=pytest.mark.skip(reason="needs ../shared"))
    return pytest.mark.parametrize("name", names or [skipped])


class Model:
    """A tokenizer folder, opened by us and by transformers.

    Args:
        folder: The folder.
        scratch: Takes what our encoder opens.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self.encoder: Encoder = open_encoder(load_tokenizer(str(folder)).save(scratch))
        self.variables = dict(self.encoder.spec.special_tokens_map)
        self._compiled: dict[str, ChatRenderer] = {}

    def renderer(self, text: str) -> ChatRenderer:
        """Return a template's renderer with this tokenizer's special tokens; it remembers nothing."""
        if text not in self._compiled:
            self._compiled[text] = ChatRenderer({"default": text}, self.variables, DAY)
        other = copy.copy(self._compiled[text])
        other._traces = OrderedDict()
        return other

    def template(self, text: str, **settings: Any) -> ChatTemplate:
        """Return a template for this tokenizer; it reports on parity and lets text stay text.

        As in a run, dialogues of known shapes are composed.
        """
        template = ChatTemplate(self.renderer(text), self.encoder, **settings)
        template.composes = True
        return template

    def text(self, text: str | None, messages: list[Any], tools: Any = None, prompt: bool = False) -> str:
        """Return what transformers renders."""
        with fixed_day():
            rendered: str = self.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=text,
                add_generation_prompt=prompt,
                tokenize=False,
            )
        return rendered

    def ids(self, text: str | None, messages: list[Any], tools: Any = None, **settings: Any) -> list[int]:
        """Return the ids that transformers gives."""
        with fixed_day():
            found = self.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=text,
                tokenize=True,
                return_dict=True,
                **settings,
            )
        ids: list[int] = found["input_ids"]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens with it."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def special(self, ids: Iterable[int]) -> list[int]:
        """Return the special tokens among ids."""
        return [index for index in ids if index in self.encoder.special_ids]


def samples(batch: TokenBatch) -> dict[int, tuple[list[int], list[bool]]]:
    """Return ids and mask by the number of the dialogue, of those that failed in no way."""
    ends = batch.sample_ends.tolist()
    mask = batch.mask()
    found = {}
    for number, start, end in zip(batch.dialogues.tolist(), [0, *ends], ends, strict=False):
        if number not in batch.failed:
            found[number] = (batch.ids[start:end].tolist(), mask[start:end].tolist())
    return found


def runs(ids: list[int], mask: list[bool]) -> list[list[int]]:
    """Return the ids of each stretch that is trained."""
    borders = np.flatnonzero(np.diff([0, *map(int, mask), 0])).tolist()
    return [ids[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True)]


def turns(batch: TokenBatch, sample: int = 0) -> list[list[int]]:
    """Return the trained ids of each message of a sample that has any."""
    low = 0 if sample == 0 else int(batch.sample_ends[sample - 1])
    here = slice(low, int(batch.sample_ends[sample]))
    ids, messages, mask = batch.ids[here], batch.messages[here], batch.mask()[here]
    return [ids[mask & (messages == message)].tolist() for message in np.unique(messages[mask])]


def regions(model: Model, ids: list[int], mask: list[bool]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the text of a sample in UTF-8, and where in it the trained stretches start and end.

    Of the tokenizer whose tokens are bytes.
    """
    added = {token.id: len(token.text.encode()) for token in model.encoder.spec.added}
    places = np.cumsum([0, *(added.get(index, 1) for index in ids)])
    borders = np.flatnonzero(np.diff([0, *map(int, mask), 0]))
    pairs = [(int(start), int(end)) for start, end in places[borders].reshape(-1, 2)]
    return model.decode(ids).encode(), pairs


def conversation(dialogue: Dialogue) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return messages and tools for ``apply_chat_template``."""
    return chat_messages(dialogue), dialogue.tools


def control_tokens(texts: Iterable[str]) -> list[str]:
    """Return what looks like a control token in templates."""
    found = {"<s>", "</s>", "<|tool|>"}.union(*map(_CONTROL.findall, texts))
    return sorted(found)


def save_tokenizer(folder: Path, special: Iterable[str], corpus: Iterable[str] = ()) -> Path:
    """Save a byte-level BPE tokenizer that is trained on ``corpus``.

    Without a corpus it has no merges: each byte is a token, so that no token lies across a border.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def golden_cases() -> list[Mapping[str, Any]]:
    """Return llama.cpp's own test cases."""
    path = SHARED / "templates" / "llama.cpp-golden.json"
    cases: list[Mapping[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return cases
