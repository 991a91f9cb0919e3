"""Trains a tiny, randomly initialised Llama on a finished dataset, to show how the two fit together.

::

    python preprocess_data.py --input examples/data/alpaca_history.json \
        --tokenizer-name-or-path examples/tokenizer --handler-name AlpacaStyleInstructionHandler \
        --prompt-type chatml --map-keys '{"history":"history","system":"system"}' \
        --output-prefix finetune_dataset/alpaca
    python examples/train_tiny_llama.py --prefix finetune_dataset/alpaca

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

LOG_EVERY = 5


def endless(loader: DataLoader[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches epoch after epoch, each epoch in another order."""
    while True:
        yield from loader


def build_model(vocab_size: int, longest: int) -> LlamaForCausalLM:
    """Return a random Llama for ``vocab_size`` tokens and samples of up to ``longest`` tokens."""
    # No pad_token_id: it would freeze that token's embedding, which some chat formats also train as the
    # end of a turn. Padding is told by the labels and the attention mask.
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=longest,
    )
    return LlamaForCausalLM(config)


def train(
    prefix: str, *, steps: int = 30, batch_size: int = 8, seed: int = 1234, lr: float = 3e-3
) -> list[float]:
    """Train on the dataset of an output prefix.

    Args:
        prefix: What ``--output-prefix`` was.
        steps: Number of batches.
        batch_size: Samples per batch.
        seed: Seed of the weights and of the order of the samples.
        lr: Learning rate of AdamW.

    Returns:
        The loss of each step.

    Raises:
        DatasetError: There is no whole dataset at ``prefix``, it has no samples, or no manifest.
    """
    dataset = SFTDataset(prefix)
    if dataset.manifest is None or not len(dataset):
        what = "no samples" if dataset.manifest else "no manifest, which tells the size of the vocabulary"
        raise DatasetError(f"{prefix}: {what}")
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(dataset.manifest["tokenizer"]["vocab_size"], int(dataset.lengths.max())).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        dataset, batch_size=batch_size, shuffle=True, generator=order, collate_fn=dataset.collate
    )
    losses: list[float] = []
    for step, batch in zip(range(1, steps + 1), endless(loader), strict=False):
        # The labels are unshifted, as the model wants them: it shifts them itself.
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
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
    parser.add_argument("--batch-size", type=int, default=8)
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
