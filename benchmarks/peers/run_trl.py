"""TRL's own preparation of one file, without the training behind it.

``SFTTrainer`` prepares its data set when it is made: here with a model of a few thousand weights, so that
nothing else takes time, ``assistant_only_loss`` where TRL knows a training template for the tokenizer's,
no packing, no limit of length. The prepared data set is saved as Arrow. Alpaca columns become messages by
``map``, as TRL has no reader for them. Run by ``preprocess.py`` with the interpreter of an environment
that holds ``trl``:

    PYTHON run_trl.py INPUT TOKENIZER TEMPLATE COLUMNS WORKERS OUTPUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def to_messages(row: dict[str, Any]) -> dict[str, Any]:
    """Return an Alpaca row as messages."""
    question = "\n".join(part for part in (row["instruction"], row["input"]) if part)
    pairs = [*(row.get("history") or ()), [question, row["output"]]]
    return {
        "messages": [
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    }


def main() -> None:
    """Prepare and save."""
    source, tokenizer_folder, _, columns, workers, output = sys.argv[1:]
    os.environ["HF_HUB_OFFLINE"] = "1"

    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer
    from trl.chat_template_utils import get_training_chat_template

    folder = Path(output)
    count = int(workers)
    data = load_dataset("json", data_files=source, split="train", cache_dir=str(folder / "cache"))
    if columns == "alpaca":
        data = data.map(to_messages, remove_columns=data.column_names, num_proc=count)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        get_training_chat_template(tokenizer)
        masked = True
    except ValueError:
        masked = False
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=2, intermediate_size=2, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    settings = SFTConfig(
        output_dir=str(folder / "trainer"), assistant_only_loss=masked, packing=False, max_length=None,
        dataset_num_proc=count, report_to="none", use_cpu=True, bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(LlamaForCausalLM(shape), settings, train_dataset=data, processing_class=tokenizer)
    trainer.train_dataset.save_to_disk(folder / "tokenized")
    print(f"assistant_only_loss={masked}")


if __name__ == "__main__":
    main()
