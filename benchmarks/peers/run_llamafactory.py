"""LLaMA-Factory's own preprocessing of one file, without the training behind it.

The steps are those of ``llamafactory-cli train`` up to the tokenized data set on disk: arguments,
tokenizer, template, ``get_dataset`` with ``tokenized_path``. Run by ``preprocess.py`` with the
interpreter of an environment that holds ``llamafactory``:

    PYTHON run_llamafactory.py INPUT TOKENIZER TEMPLATE COLUMNS WORKERS OUTPUT
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from pathlib import Path

COLUMNS = {
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    },
    "messages": {
        "formatting": "openai",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
            "observation_tag": "tool", "function_tag": "function_call", "system_tag": "system",
        },
    },
}  # fmt: skip


def main() -> None:
    """Tokenize."""
    source, tokenizer_folder, template_name, columns, workers, output = sys.argv[1:]
    if importlib.util.find_spec("torchaudio") is None:
        # It is imported for sound alone, and its wheel wants CUDA: an empty module does for text.
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    os.environ["HF_HUB_OFFLINE"] = "1"

    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    folder = Path(output)
    with open(source, encoding="utf-8") as file:
        first = json.loads(next(file))
    described = json.loads(json.dumps(COLUMNS[columns]))
    described["columns"].update({name: name for name in ("history", "tools") if name in first})
    described["file_name"] = str(Path(source).resolve())
    (folder / "dataset_info.json").write_text(json.dumps({"data": described}), "utf-8")
    arguments = {
        "stage": "sft", "do_train": True, "model_name_or_path": tokenizer_folder, "template": template_name,
        "dataset": "data", "dataset_dir": str(folder), "cutoff_len": 1_000_000, "packing": False,
        "preprocessing_num_workers": int(workers), "tokenized_path": str(folder / "tokenized"),
        "output_dir": str(folder / "trainer"), "report_to": "none", "cache_dir": str(folder / "cache"),
    }  # fmt: skip
    if template_name == "qwen":
        arguments["default_system"] = "You are a helpful assistant."
    model, data, training, _, _ = get_train_args(arguments)
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    get_dataset(template, model, data, training, stage="sft", **tokenizer)


if __name__ == "__main__":
    main()
