"""Shows an item of a dataset as text, with its mask."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mtsft_preproc.errors import DatasetError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.inspection.colours import coloured, legend
from mtsft_preproc.inspection.tokenizer import encoder_of_manifest

__all__ = ["show_item"]


def show_item(
    prefix: str, index: int, console: Console | None = None, trust_remote_code: bool = False
) -> None:
    """Print item ``index`` of a dataset: trained text in colour, the rest dimmed, control tokens marked.

    Args:
        prefix: The output prefix.
        index: Number of the item; negative ones count from the end.
        console: Where to print; by default standard output, without colour where that is no terminal.
        trust_remote_code: Whether the tokenizer's folder may run its own Python code.

    Raises:
        DatasetError: There is no such item, or no such dataset.
        TokenizerError: The tokenizer is not the one that the dataset was made with.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    opened = open_published(Path(prefix))
    manifest = opened.manifest
    if manifest is None:
        raise DatasetError(
            f"{prefix}.manifest.json: no such file; it says which tokenizer to show the ids with"
        )
    ids, labels = opened.fields["input_ids"], opened.fields["labels"]
    if not -len(ids) <= index < len(ids):
        raise DatasetError(f"{prefix}: no item {index}; there are {len(ids)}")
    encoder = encoder_of_manifest(manifest["tokenizer"], trust_remote_code)
    item, item_labels = ids[index].tolist(), labels[index].tolist()
    ignored = int(manifest["ignore_index"])
    trained = sum(label != ignored for label in item_labels)
    console.print(
        f"item {index % len(ids)} of {len(ids)}: {len(item)} tokens, {trained} trained "
        f"({trained / max(1, len(item)):.0%})",
        style="bold",
    )
    console.print(legend())
    console.print(coloured(encoder, item, item_labels, ignored))
