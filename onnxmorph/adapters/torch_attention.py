"""PyTorch's own attention without its one demand that a cut cannot meet: heads that fill the width of the input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResizedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads are as many and as wide as its weights say; `resize` makes it.

    Parameters have their names and their layout. Scores are scaled as before the cut, by the original head's width.

    Attributes:
        num_heads: how many are left.
        head_dim: the width of a query and a key.
        value_dim: the width of a value.
        scale: of the scores.
    """

    value_dim: int
    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention` does, which describes the arguments; ``is_causal`` needs the mask, too."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal says what attn_mask is; give the mask")
        single = query.dim() == 2
        swapped = not self.batch_first and not single
        inputs = [x.unsqueeze(0) if single else x.transpose(0, 1) if swapped else x for x in (query, key, value)]
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # b n (h d) -> b h n d
            for x, (weight, bias) in zip(inputs, self._projections(), strict=True)
        )
        mask = _masks(attn_mask, key_padding_mask, q)
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            scores = q * self.scale @ k.transpose(-1, -2)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            found = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            found = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        result = self.out_proj(found.transpose(1, 2).flatten(2))
        if single:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result.transpose(0, 1) if swapped else result, weights

    def _projections(self) -> list[tuple[Tensor, Tensor | None]]:
        sizes = [self.num_heads * self.head_dim] * 2 + [self.num_heads * self.value_dim]
        fused: Tensor | None = self.in_proj_weight
        own = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = own if fused is None else fused.split(sizes)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
        return list(zip(weights, biases, strict=True))


def _masks(attention: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks as one that is added to the scores, ``[b, h, n, m]``, or what broadcasts to it."""
    found = None
    if attention is not None:
        found = _added(attention, like)
        if found.dim() == 3:  # one per sample and head
            found = found.unflatten(0, (-1, like.shape[1]))
    if padding is not None:
        of_keys = _added(padding.reshape(-1, 1, 1, padding.shape[-1]), like)
        found = of_keys if found is None else found + of_keys
    return found


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """What is added to scores: minus infinity where a truth value says that a position is left out."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def dims_of(module: nn.MultiheadAttention) -> tuple[int, int, float]:
    """The width of a key and of a value, and the scale of the scores."""
    if isinstance(module, ResizedAttention):
        return module.head_dim, module.value_dim, module.scale
    return module.head_dim, module.head_dim, float(module.head_dim) ** -0.5


def follows(module: nn.MultiheadAttention) -> bool:
    """Whether `ResizedAttention` can do what this module does: it adds no keys and values of its own."""
    return module.bias_k is None and not module.add_zero_attn


def become_resized(module: Any) -> None:
    """Make a module a `ResizedAttention`, in place, so that what refers to it stays as it is."""
    module.__class__ = ResizedAttention
    module._qkv_same_embed_dim = False  # else the fused nn.TransformerEncoderLayer goes by its own sizes
