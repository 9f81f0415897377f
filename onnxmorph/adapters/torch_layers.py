"""What PyTorch's own modules say about their sizes, brought up to date from their resized parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from onnxmorph.adapters.torch_attention import become_resized, dims_of, follows

Kept = Mapping[int, Sequence[int]]  # axis of a parameter to the kept indices
Keeps = frozenset[tuple[int, tuple[int, ...]]]  # width and kept channels of every group of a structure
Before = dict[str, tuple[Tensor, Kept]]  # a module's parameters that were cut, before, and what was kept


def blocks(kept: Sequence[int], size: int, keeps: Keeps = frozenset()) -> int:
    """How many outer factors are left of an axis ``(outer inner)``, `size` positions each before.

    The order keeps products ordered, so a new block begins where the outer index changes or the inner falls.
    Where one inner index is left, copies of it look like copies of the outer; then `keeps` decides.

    >>> blocks([0, 1, 0, 1, 4, 5], size=4)
    3
    """
    if size == 1 or not kept:
        return len(kept)
    outer, inner = np.divmod(np.asarray(kept), size)
    if len(set(inner.tolist())) > 1:
        return 1 + int(((outer[1:] != outer[:-1]) | (inner[1:] < inner[:-1])).sum())
    live, runs = np.unique(outer, return_counts=True)
    most = int(np.gcd.reduce(runs))

    def known(copies: int) -> int:
        of_outer = tuple(np.repeat(live, runs // copies).tolist())
        of_inner = (int(inner[0]),) * copies
        return sum(keep in (of_outer, of_inner) and width >= max(keep) + 1 for width, keep in keeps)

    copies = max((k for k in range(1, most + 1) if most % k == 0), key=known)
    return len(kept) // copies


def _conv(m: Any, before: Before, keeps: Keeps) -> dict[str, Any]:
    weight, kept = before["weight"]
    groups = blocks(kept[0], weight.shape[0] // m.groups, keeps) if 0 in kept and m.groups > 1 else m.groups
    whole, part = m.weight.shape[:2]
    first, second = ("in", "out") if m.transposed else ("out", "in")
    return {"groups": groups, f"{first}_channels": whole, f"{second}_channels": part * groups}


def _group_norm(m: Any, before: Before, keeps: Keeps) -> dict[str, Any]:
    weight, kept = before["weight"]
    return {"num_channels": len(m.weight), "num_groups": blocks(kept[0], weight.shape[0] // m.num_groups, keeps)}


def _recurrent(m: Any, *_: Any) -> dict[str, Any]:
    gates = {"LSTM": 4, "GRU": 3}.get(m.mode, 1)
    flat = [getattr(m, name) for name in m._flat_weights_names]
    sizes = {"input_size": m.weight_ih_l0.shape[1], "hidden_size": m.weight_ih_l0.shape[0] // gates}
    return {**sizes, "proj_size": m.weight_hh_l0.shape[1] if m.proj_size else 0, "_flat_weights": flat}


def _attention(m: nn.MultiheadAttention, before: Before, keeps: Keeps) -> dict[str, Any]:
    if not follows(m):
        return {}  # its forward will say that sizes do not fit
    key_dim, value_dim, scale = dims_of(m)
    fused = m.in_proj_weight is not None
    names = ("in_proj_weight",) * 3 if fused else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    heads, dims, start = [m.num_heads] * 3, [key_dim, key_dim, value_dim], 0
    for part, (name, dim) in enumerate(zip(names, tuple(dims), strict=True)):
        if name in before and 0 in before[name][1]:
            rows = [row - start for row in before[name][1][0]]
            own = [row for row in rows if 0 <= row < m.num_heads * dim]
            heads[part] = blocks(own, dim, keeps)
            dims[part] = len(own) // heads[part]
        start += m.num_heads * dim if fused else 0
    embed_dim, kdim, vdim = (getattr(m, name).shape[1] for name in names)
    become_resized(m)
    sizes = {"num_heads": heads[0], "head_dim": dims[0], "value_dim": dims[2], "scale": scale}
    return {**sizes, "embed_dim": embed_dim, "kdim": kdim, "vdim": vdim}


_Sizes = Callable[[Any, Before, Keeps], dict[str, Any]]
# From the module (its parameters resized), those parameters before, and the structure.
_SIZES: tuple[tuple[tuple[type[nn.Module], ...], _Sizes], ...] = (
    ((nn.modules.conv._ConvNd,), _conv),
    ((nn.Linear,), lambda m, *_: {"out_features": m.weight.shape[0], "in_features": m.weight.shape[1]}),
    ((nn.modules.batchnorm._NormBase,), lambda m, *_: {"num_features": len(m.weight)}),
    ((nn.LayerNorm, nn.RMSNorm), lambda m, *_: {"normalized_shape": tuple(m.weight.shape)}),
    ((nn.GroupNorm,), _group_norm),
    (
        (nn.Embedding, nn.EmbeddingBag),
        lambda m, *_: {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]},
    ),
    ((nn.PReLU,), lambda m, *_: {"num_parameters": len(m.weight)}),
    ((nn.RNNBase,), _recurrent),
    ((nn.MultiheadAttention,), _attention),
)
KNOWN = tuple(kind for kinds, _ in _SIZES for kind in kinds)


def update_sizes(owner: nn.Module, before: Before, keeps: Keeps) -> None:
    """Bring the sizes that a module of a known kind has as attributes up to date.

    Args:
        owner: its parameters are resized.
        before: those that were, as they were.
        keeps: of the structure.
    """
    own = before if isinstance(owner, (nn.RNNBase, nn.MultiheadAttention)) else before.keys() & {"weight"}
    for kinds, sizes in _SIZES:
        if own and isinstance(owner, kinds):
            for name, value in sizes(owner, before, keeps).items():
                setattr(owner, name, value)
