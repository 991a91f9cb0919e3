"""Files and texts with which a user says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from fuzzing.engine import Target, one_line
from fuzzing.mutation import JSON_TOKENS, havoc, mutated_json, text_havoc
from fuzzing.record_targets import EXAMPLES, encoder_of
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import SettingsError
from mtsft_preproc.handlers import HandlerChoice, handlers, make_handler, read_dataset_info
from mtsft_preproc.mix_spec import make_mix, read_mix_spec
from mtsft_preproc.templates import PromptFormat, read_prompt_types
from mtsft_preproc.tokenization.chat_settings import chat_templates, read_settings, stop_ids

__all__ = ["SettingsTarget"]

_MIX = b"""weights_by: samples
sources:
  chats:
    input: [a.parquet, more/*.jsonl]
    handler: AlpacaStyleInstructionHandler
    map_keys: {history: histories}
    weight: 0.7
    max-samples: 1000
  &x other:
    input: b.json
    weight: 1e-3
"""
_EPOCHS = b'{"sources": {"a": {"input": "a", "epochs": 2}, "b": {"input": ["b"]}}}'
_PROMPT_TYPES = [
    {
        "name": "own", "template_class": "Template", "default_system": "S", "efficient_eos": True,
        "format_user": {"slots": ["<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"]},
        "format_assistant": {"slots": ["{{content}}", {"token": "<|im_end|>"}]},
        "format_system": {"slots": [["bos_token"], "{{content}}\n"]},
        "format_observation": {"slots": ["tool {{content}}"]},
        "format_function": {"slots": ["{{content}}"], "tool_format": "qwen"},
        "format_separator": {"slots": ["\n"]}, "format_prefix": {"slots": [["bos_token"]]},
        "stop_words": ["<|im_end|>"], "replace_eos": True, "thought_words": ["<think>", "</think>"],
    }
]  # fmt: skip
_CHAT = Dialogue(
    [
        Message(Role.USER, "Hi?"),
        Message(Role.ASSISTANT, "", tool_calls=(ToolCall("f", {"x": 1}),)),
        Message(Role.OBSERVATION, "1"),
        Message(Role.ASSISTANT, "One.", reasoning="r"),
    ],
    "S",
    [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
)
_KINDS = ("mix", "prompt", "keys", "info", "kwargs", "stops", "templates")


class SettingsTarget(Target):
    """A mix file, prompt types, map-keys, dataset_info.json, variables, files of a tokenizer folder.

    The first byte of an input says which.
    """

    name = "settings"
    tokens = (*JSON_TOKENS, b"&a", b"*a", b"<<: *a", b"- ", b"? ", b"!!python/object:os.system", b"!!int",
    b"|", b">",
              b"1e999", b".nan", b"2024-01-01", b"0o7", b"no", b"~", b"weight", b"epochs:", b"{{content}}",
              b"---",)  # fmt: skip
    _VALUES = ("{{name}} {{arguments}}", {"token": "<|im_end|>"}, ["bos_token"], ["eos_token"],
    {"slots": []},
               {"slots": ["{{content}}"]}, "alpaca", "sharegpt", "openai", "messages", "a.json", "../a",
               "history",
               "conversations", "qwen", 0.5, -1, {"tags": {"role_tag": "x"}}, "add_generation_prompt",
               )  # fmt: skip
    most = 3000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._encoder = None
        (folder / "a.json").write_bytes(b"[]")

    def seeds(self) -> list[bytes]:
        info = json.loads((EXAMPLES / "data" / "dataset_info.json").read_text("utf-8"))
        info = {name: own | {"file_name": "a.json"} for name, own in info.items()}
        keys = {"history": "histories", "tags": {"role_tag": "from", "content_tag": "value"}}
        templates = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}]
        found = {
            "mix": [_MIX, _EPOCHS], "prompt": [json.dumps(_PROMPT_TYPES).encode()],
            "keys": [json.dumps(keys).encode(), b'{"history": ""}'],
            "info": [json.dumps({name: own}).encode() for name, own in info.items()],
            "kwargs": [b'{"enable_thinking": false, "x": [1, {"a": null}]}'],
            "stops": [b'{"eos_token_id": [1, 2]}', b'{"eos_token_id": 1}'],
            "templates": [json.dumps(templates).encode(), b'"x"'],
        }  # fmt: skip
        return [bytes([_KINDS.index(kind)]) + text for kind, texts in found.items() for text in texts]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if data[:1] != other[:1] and rng.random() < 0.9:
            other = data
        if data[:1] == b"\x00" and data[1:2] != b"{" and rng.random() < 0.8:
            return data[:1] + text_havoc(rng, data[1:], other[1:], self.tokens)
        if rng.random() < 0.15:
            return data[:1] + havoc(rng, data[1:], other[1:], self.tokens)
        return data[:1] + mutated_json(rng, data[1:], other[1:], self._VALUES)

    def run(self, data: bytes) -> object:
        kind, body = _KINDS[data[0] % len(_KINDS)] if data else "mix", data[1:]
        return kind, getattr(self, f"_{kind}")(body)

    def _mix(self, body: bytes) -> object:
        path = self.folder / "mix.yaml"
        path.write_bytes(body)
        for strategy in ("interleave_under", "concat"):
            try:
                spec = read_mix_spec(str(path), strategy)
            except SettingsError as error:
                said = one_line(error)
                continue
            mix = make_mix(spec.entries, strategy, spec.weights_by)
            assert all(own.inputs for own in spec.entries)
            return len(mix.sources), [own.weight is None for own in mix.sources].count(True)
        return said[-30:]

    def _prompt(self, body: bytes) -> object:
        path = self.folder / "types.json"
        path.write_bytes(body)
        found = read_prompt_types(str(path))
        config = PreprocessConfig(("in",), "out/x", "tok", "alpaca", prompt_type="own")
        for name in found.names():
            chat_format = PromptFormat(found.get(name))
            if len(repr(chat_format.adjustment())) > 2000:
                continue
            encoder = encoder_of(chat_format.adjustment(), self.folder)
            template = chat_format.resolve(encoder.spec, None).open(encoder, config)  # type: ignore[arg-type]
            batch = template.encode([_CHAT], [[False, True, False, True]])
            assert len(batch.sample_ends) or batch.failed
            json.dumps(chat_format.describe())
        return len(found.names()), body.count(b"slots")

    def _keys(self, body: bytes) -> object:
        text = body.decode("utf-8", "surrogateescape")
        for number, name in enumerate(handlers.names()):
            if number % 5 == len(body) % 5:
                config = PreprocessConfig(
                    ("in",), "out/x", "tok", name, map_keys=text, prompt_type="chatml"
                )
                made = make_handler(config, HandlerChoice(name, json.dumps(config.mapped())))
        return len(made.columns)

    def _info(self, body: bytes) -> object:
        (self.folder / "dataset_info.json").write_bytes(body)
        try:
            names = [name for name in json.loads(body) if isinstance(name, str)][:2]
        except (ValueError, TypeError, RecursionError):
            names = ["a"]
        entries = read_dataset_info(str(self.folder), ",".join(names) or "a")
        for entry in entries:
            handlers.get(entry.handler)(entry.map_keys)
        return len(entries), [entry.handler for entry in entries].count("SharegptStyleInstructionHandler")

    def _kwargs(self, body: bytes) -> object:
        text = body.decode("utf-8", "surrogateescape")
        config = PreprocessConfig(
            ("in",), "out/x", "tok", "alpaca", chat_template="chatml", chat_template_kwargs=text
        )
        return len(config.template_kwargs())

    def _stops(self, body: bytes) -> object:
        (self.folder / "generation_config.json").write_bytes(body)
        found = stop_ids(self.folder, 1)
        assert all(type(own) is int for own in found)
        return len(found)

    def _templates(self, body: bytes) -> object:
        (self.folder / "tokenizer_config.json").write_bytes(b'{"chat_template": ' + body + b"}")
        config = read_settings(self.folder / "tokenizer_config.json").get("chat_template")
        found = chat_templates(self.folder, config)
        assert all(isinstance(name, str) and isinstance(text, str) for name, text in found)
        return len(found)
