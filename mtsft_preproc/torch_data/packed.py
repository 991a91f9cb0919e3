"""What a model needs to keep the samples of a pack apart, from a mask that numbers them (``--neat-pack``).

In each row of such an ``attention_mask`` the tokens of the first sample are 1, those of the second 2, and
so on; padding is 0, at the end of the row and, with ``--align``, behind each sample. A mask of 0 and 1
alone numbers nothing: by it a row is one sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["CuSeqlens", "block_diagonal_mask", "cu_seqlens", "position_ids"]


class CuSeqlens(NamedTuple):
    """Where the S samples of a batch lie when its rows stand behind each other.

    Sample s starts at ``cu_seqlens_padded[s]`` and has ``cu_seqlens[s + 1] - cu_seqlens[s]`` tokens. The
    names are those of Megatron's ``PackedSeqParams`` and of TransformerEngine.

    Attributes:
        cu_seqlens: int32, shape (S + 1,): tokens before each sample, padding not counted, from 0 on. With
            the padding taken out of the batch, this is where the samples lie (``cu_seqlens`` of
            FlashAttention).
        cu_seqlens_padded: int32, shape (S + 1,): the same with the padding, which counts to the sample that
            it stands behind; from 0 to B * T.
        max_seqlen: Tokens of the longest sample.
        max_seqlen_padded: The same with the padding.
    """

    cu_seqlens: torch.Tensor
    cu_seqlens_padded: torch.Tensor
    max_seqlen: int
    max_seqlen_padded: int


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Count the tokens of each sample from 0 on.

    Padding has position 0. So no position is above those of real tokens: a table of positions need not be
    larger than for the samples alone, and RoPE that is scaled by the highest position (dynamic, LongRoPE)
    scales as for them. Code that takes each position 0 for the start of a sample (FlashAttention in
    transformers) takes each token of padding for a sample of its own, which disturbs nothing.

    Args:
        attention_mask: Numbers of the samples, integers, shape (T,) or (B, T).

    Returns:
        int64, the shape of ``attention_mask``, on its device.

    Raises:
        ValueError: The samples of a row are not numbered 1, 2, ...

    >>> position_ids(torch.tensor([1, 1, 1, 2, 2, 0]))
    tensor([0, 1, 2, 0, 1, 0])
    """
    places = torch.arange(attention_mask.shape[-1], device=attention_mask.device)
    starts = torch.where(_starts(attention_mask), places, 0).cummax(-1).values
    return torch.where(attention_mask == 0, 0, places - starts)


def block_diagonal_mask(attention_mask: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the mask by which a token attends to itself and what stands before it in its sample.

    It is added to the scores: 0 where a token attends, the lowest number of ``dtype`` elsewhere.
    transformers takes it as ``attention_mask`` of a causal model, as it is, with the attention
    implementations ``eager`` and ``sdpa`` (others read 2-dimensional masks or :func:`cu_seqlens`). A token
    of padding attends to itself, since a softmax over nothing is NaN.

    It has B * T * T numbers: at 32,768 tokens 4 GiB a row in float32, and 1 GiB more while it is made.

    Args:
        attention_mask: Numbers of the samples, integers, shape (T,) or (B, T).
        dtype: That of the model's attention, a floating-point one.

    Returns:
        ``dtype``, shape (B, 1, T, T) with queries before keys, on the device of ``attention_mask``; B is 1
        for a single row.

    Raises:
        ValueError: The samples of a row are not numbered 1, 2, ..., or ``dtype`` is no floating-point one.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point one, got {dtype}")
    _starts(attention_mask)
    numbers = attention_mask.reshape(-1, attention_mask.shape[-1])
    allowed = (numbers[:, :, None] == numbers[:, None, :]).tril_()
    allowed &= (numbers != 0)[:, :, None]
    allowed.diagonal(dim1=1, dim2=2).fill_(True)
    mask = torch.full(allowed.shape, torch.finfo(dtype).min, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(allowed, 0)[:, None]


def cu_seqlens(attention_mask: torch.Tensor) -> CuSeqlens:
    """Find where the samples lie in a row, or in the rows of a batch behind each other.

    Args:
        attention_mask: Numbers of the samples, integers, shape (T,) or (B, T), B * T below 2**31.

    Returns:
        The offsets, on the device of ``attention_mask``, and the greatest lengths.

    Raises:
        ValueError: The samples of a row are not numbered 1, 2, ..., or the first token is padding, which
            would count to no sample.

    >>> cu_seqlens(torch.tensor([[1, 1, 1, 0, 2, 2], [1, 1, 0, 0, 0, 0]]))[:2]
    (tensor([0, 3, 5, 7], dtype=torch.int32), tensor([ 0,  4,  6, 12], dtype=torch.int32))
    """
    flat = attention_mask.reshape(-1)
    if not flat.numel() or flat[0] == 0:
        raise ValueError("attention_mask: expected it to begin with a sample")
    starts = _starts(attention_mask).reshape(-1)
    end = flat.new_tensor([flat.numel()], dtype=torch.int64)
    padded = torch.cat([starts.nonzero().squeeze(-1), end])
    before = torch.cat([end.new_zeros(1), (flat != 0).cumsum(0)])
    offsets = before[padded]
    return CuSeqlens(
        offsets.to(torch.int32),
        padded.to(torch.int32),
        int(offsets.diff().max()),
        int(padded.diff().max()),
    )


def _starts(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return, bool, the shape of ``attention_mask``, where samples start.

    Raises:
        ValueError: It has another number of dimensions, or the samples of a row are not numbered 1, 2, ...
    """
    if attention_mask.ndim not in (1, 2):
        raise ValueError(
            f"attention_mask: expected shape (T,) or (B, T), got {tuple(attention_mask.shape)}: a mask "
            "that numbers the samples (--neat-pack)"
        )
    starts = attention_mask != 0
    starts[..., 1:] &= attention_mask[..., 1:] != attention_mask[..., :-1]
    if not ((starts.cumsum(-1) == attention_mask) | (attention_mask == 0)).all():
        raise ValueError(
            "attention_mask: expected samples numbered 1, 2, ... from the start of each row, and 0 on "
            "padding (--neat-pack)"
        )
    return starts
