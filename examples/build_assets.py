"""Builds the example Parquet file and the example tokenizer from the example JSON file.

Running it again gives byte-identical files, as long as the versions of pyarrow and tokenizers stay
the same:

    python examples/build_assets.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent
TEXT_COLUMNS = ("instruction", "input", "output", "system")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT_COLUMNS] + [("histories", pa.list_(pa.list_(pa.string())))]
)

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# fmt: off
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<pad>",
    "<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "[INST]", "[/INST]",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "[gMASK]", "<sop>", "sop", "<|user|>", "<|assistant|>", "<|system|>",
    "<|observation|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
    "<｜Assistant｜>", "<reserved_106>", "<reserved_107>", "<用户>", "<AI>",
)
NOT_SPECIAL = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)
#: Special tokens with the last ids, so that those of the others stay: how MOSS's data end each field.
LATER_SPECIAL = ("<eoh>", "<eot>", "<eoc>", "<eor>", "<eom>")
# fmt: on
# "sop" has no delimiters, so it must stand alone: "soprano" and "philosophy" stay ordinary text,
# while the format's "[gMASK]sop<|user|>" still matches. (The rare English word "sop" on its own
# does become the token.) The bracketed tokens, "<AI>" and "<用户>" among them, are not restricted:
# only their exact spelling matches, and standing alone would break the format that needs them,
# "<用户>question<AI>answer", in which letters touch the brackets.
SINGLE_WORD = frozenset({"sop"})

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {%- if message.role == 'system' and not loop.first %}
        {{- raise_exception('Only the first message may be a system message.') }}
    {%- elif message.role in ['system', 'user', 'assistant', 'tool'] %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- else %}
        {{- raise_exception('Unknown role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def iter_texts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield every non-empty text of the rows, in their order."""
    for row in rows:
        turns = [text for turn in row["history"] for text in turn]
        yield from filter(None, [*(row[name] for name in TEXT_COLUMNS), *turns])


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as Parquet, with the column ``history`` renamed to ``histories``."""
    columns = {name: [row[name] for row in rows] for name in TEXT_COLUMNS}
    columns["histories"] = [row["history"] for row in rows]
    pq.write_table(pa.table(columns, schema=SCHEMA), path, compression="zstd")


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer.

    Args:
        texts: What to train on.
        vocab_size: Largest number of ids, added tokens included; those get the last ids.

    Returns:
        The tokenizer, with all added tokens.

    Raises:
        ValueError: A text does not come back unchanged after encoding and decoding.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(NOT_SPECIAL) - len(LATER_SPECIAL),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    for names, add in (
        (SPECIAL, tokenizer.add_special_tokens),
        (NOT_SPECIAL, tokenizer.add_tokens),
        (LATER_SPECIAL, tokenizer.add_special_tokens),
    ):
        add([AddedToken(n, normalized=False, single_word=n in SINGLE_WORD) for n in names])
    for text in texts:
        if tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) != text:
            raise ValueError(f"the tokenizer does not give this text back: {text!r}")
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2),
    }
    for name, text in files.items():
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Build all files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE / "data" / "alpaca_history.json")
    parser.add_argument("--tokenizer-dir", type=Path, default=HERE / "tokenizer")
    parser.add_argument("--vocab-size", type=int, default=4005)
    args = parser.parse_args()
    rows = json.loads(args.data.read_text(encoding="utf-8"))
    write_parquet(rows, args.data.with_suffix(".parquet"))
    write_tokenizer(train_tokenizer(list(iter_texts(rows)), args.vocab_size), args.tokenizer_dir)


if __name__ == "__main__":
    main()
