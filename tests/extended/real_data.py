"""Whole real data sets through the command: equal bytes however they came and ran, nothing lost.

For each tokenizer: SGD (12,174 dialogues) as JSON and as parquet, and Alpaca 52k, with one worker and with
four. Prints a Markdown table; ends with an error where two outputs that must be equal are not.

    python tests/extended/real_data.py [--shared ../shared]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOKENIZERS = {"qwen2.5": "qwen", "llama3.1": "llama3", "glm4": "glm4", "llama2": "llama2"}
HISTORY = '{"history": "history"}'
INPUTS = {
    "SGD json": ("sgd/sgd_train_alpaca_history.json", HISTORY),
    "SGD parquet": ("sgd/sgd_train_alpaca_history.parquet", HISTORY),
    "Alpaca 52k": ("alpaca/alpaca_data_en_52k.json", "{}"),
}


def run(
    shared: Path, tokenizer: str, name: str, workers: int, folder: Path
) -> tuple[dict[str, Any], float]:
    """Run the command; return the manifest and the seconds."""
    path, map_keys = INPUTS[name]
    prefix = folder / f"{tokenizer}-{name.replace(' ', '_')}-{workers}" / "data"
    command = [
        sys.executable, str(ROOT / "preprocess_data.py"), "--input", str(shared / "datasets" / path),
        "--tokenizer-name-or-path", str(shared / "tokenizers" / tokenizer), "--output-prefix", str(prefix),
        "--workers", str(workers), "--log-interval", "100000", "--tokenizer-type", "PretrainedFromHF",
        "--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", TOKENIZERS[tokenizer],
        "--map-keys", map_keys,
    ]  # fmt: skip
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    manifest: dict[str, Any] = json.loads(prefix.with_name("data.manifest.json").read_text("utf-8"))
    return manifest, seconds


def datasets(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of the datasets' files; its hashes are taken while writing."""
    return {name: entry for name, entry in manifest["files"].items() if "_packed_" in name}


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    shared = parser.parse_args().shared
    print("| tokenizer | input | read | kept | rejected | tokens | trained | 1 worker | 4 workers |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for tokenizer in TOKENIZERS:
        outputs = {}
        for name in INPUTS:
            with tempfile.TemporaryDirectory() as folder:
                one, alone = run(shared, tokenizer, name, 1, Path(folder))
                four, together = run(shared, tokenizer, name, 4, Path(folder))
            assert one == four, f"{tokenizer}, {name}: bytes depend on the number of workers"
            records = one["records"]
            assert records["read"] == records["kept"] + records["rejected"]
            outputs[name] = datasets(one)
            print(
                f"| {tokenizer} | {name} | {records['read']:,} | {records['kept']:,} "
                f"| {records['rejected']:,} | {one['tokens']:,} | {one['trained_tokens']:,} "
                f"| {alone:.1f} s | {together:.1f} s |",
                flush=True,
            )
        assert outputs["SGD json"] == outputs["SGD parquet"], f"{tokenizer}: json and parquet differ"
    print("\nJSON and parquet: equal bytes. 1 and 4 workers: equal bytes. read = kept + rejected.")


if __name__ == "__main__":
    main()
