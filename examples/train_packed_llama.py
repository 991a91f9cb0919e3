"""Trains a tiny, randomly initialised Llama on a packed dataset whose attention mask numbers the samples.

::

    bash examples/qwen2.5_packed.sh
    python examples/train_packed_llama.py --prefix finetune_dataset/qwen2.5_packs

The model gets two things made from that mask: positions that start anew with each sample, and an attention
mask by which no sample sees another. So the loss is that of the samples alone; see
``tests/torch_data/test_packed_training.py``.

Needs the package installed with PyTorch: ``pip install -e '.[torch]'``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from mtsft_preproc import SFTDataset
from mtsft_preproc.errors import DatasetError, MtsftError
from mtsft_preproc.torch_data import block_diagonal_mask, position_ids

LOG_EVERY = 5


def open_packed(prefix: str) -> SFTDataset:
    """Open a dataset whose items are packs with numbered samples.

    Raises:
        DatasetError: There is no whole dataset at ``prefix``, or no such one.
    """
    dataset = SFTDataset(prefix)
    packing = dataset.manifest and dataset.manifest.get("packing")
    if not packing or not packing["neat"]:
        raise DatasetError(f"{prefix}: expected a dataset made with --pack --neat-pack")
    if not len(dataset):
        raise DatasetError(f"{prefix}: no samples")
    return dataset


def endless(loader: DataLoader[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches epoch after epoch, each epoch in another order."""
    while True:
        yield from loader


def build_model(vocab_size: int, seq_length: int) -> LlamaForCausalLM:
    """Return a random Llama for ``vocab_size`` tokens and packs of ``seq_length`` tokens."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=seq_length,
        # Takes the mask as it is. With FlashAttention a model gets position_ids and no mask.
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def train(
    prefix: str, *, steps: int = 30, batch_size: int = 4, seed: int = 1234, lr: float = 3e-3
) -> list[float]:
    """Train on the dataset of an output prefix.

    Args:
        prefix: What ``--output-prefix`` was.
        steps: Number of batches.
        batch_size: Packs per batch.
        seed: Seed of the weights and of the order of the packs.
        lr: Learning rate of AdamW.

    Returns:
        The loss of each step.

    Raises:
        DatasetError: There is no whole packed dataset at ``prefix``.
    """
    dataset = open_packed(prefix)
    assert dataset.manifest is not None
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(
        dataset.manifest["tokenizer"]["vocab_size"], dataset.manifest["packing"]["seq_length"]
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    # All packs have one length, so that batches need no padding.
    loader = DataLoader(
        dataset, batch_size=batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed)
    )
    losses: list[float] = []
    for step, batch in zip(range(1, steps + 1), endless(loader), strict=False):
        numbers = batch["attention_mask"].to(device)
        loss = model(
            input_ids=batch["input_ids"].to(device),
            # Unshifted, as the model wants them: it shifts them itself.
            labels=batch["labels"].to(device),
            position_ids=position_ids(numbers),
            attention_mask=block_diagonal_mask(numbers, model.dtype),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            print(f"step {step:4d}  loss {losses[-1]:.4f}")
    return losses


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", required=True, help="what --output-prefix was")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=4, help="packs per batch")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args(argv)
    if args.steps < 1 or args.batch_size < 1:
        parser.error("--steps and --batch-size: expected whole numbers of at least 1")
    try:
        losses = train(
            args.prefix, steps=args.steps, batch_size=args.batch_size, seed=args.seed, lr=args.lr
        )
    except MtsftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    some = min(LOG_EVERY, len(losses))
    print(f"mean loss of the first {some} steps {fmean(losses[:some]):.4f}, of the last {some} ", end="")
    print(f"{fmean(losses[-some:]):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
