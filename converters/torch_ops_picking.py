"""ONNX ops that pick positions by indices, on torch tensors: the table ``PICKING``."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxmorph.converters.torch_ops import Op, Run, Unsupported, listed
from onnxmorph.graph import Node


def from_start(at: Tensor, size: int) -> Tensor:
    """Positions, with those from the end counted from the start."""
    return torch.where(at < 0, at + size, at).long()


def gather(node: Node) -> Run:
    axis = node.attributes["axis"]

    def run(x: Tensor, at: Tensor) -> Tensor:
        first = axis % x.ndim
        found = x.index_select(first, from_start(at, x.shape[first]).reshape(-1))
        return found.reshape(x.shape[:first] + at.shape + x.shape[first + 1 :])

    return run


def gather_elements(node: Node) -> Run:
    axis = node.attributes["axis"]
    return lambda x, at: x.gather(axis, from_start(at, x.shape[axis]))


def gather_nd(node: Node) -> Run:
    batch = node.attributes.get("batch_dims", 0)

    def run(x: Tensor, at: Tensor) -> Tensor:
        outer = at.shape[:batch]
        x, at = x.reshape(-1, *x.shape[batch:]), at.reshape(-1, *at.shape[batch:])
        rows = torch.arange(len(x), device=x.device).reshape(-1, *[1] * (at.ndim - 2))
        found = x[(rows, *(from_start(a, x.shape[1 + i]) for i, a in enumerate(at.unbind(-1))))]
        return found.reshape(outer + found.shape[1:])

    return run


def scatter_elements(node: Node) -> Run:
    axis, name = node.attributes["axis"], node.attributes.get("reduction", "none")
    kind = SCATTERS.get(name)

    def run(x: Tensor, at: Tensor, new: Tensor) -> Tensor:
        at = from_start(at, x.shape[axis])
        return x.scatter(axis, at, new) if kind is None else x.scatter_reduce(axis, at, new, kind)

    return run


def scatter_nd(node: Node) -> Run:
    kind = node.attributes.get("reduction", "none")
    if kind not in ("none", "add"):
        raise Unsupported(f"reduction={kind!r}")

    def run(x: Tensor, at: Tensor, new: Tensor) -> Tensor:
        places = tuple(from_start(a, x.shape[i]) for i, a in enumerate(at.unbind(-1)))
        return x.index_put(places, new, accumulate=kind == "add")

    return run


SCATTERS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def one_hot(node: Node) -> Run:
    axis, size = node.attributes["axis"], listed(node, "depth")

    def run(*inputs: Tensor) -> Tensor:
        (at, _, values), (depth,) = inputs, size(inputs)
        at = from_start(at, depth)
        at = at.unsqueeze(axis if axis >= 0 else axis + at.ndim + 1)
        places = torch.arange(depth, device=at.device)
        hot = at == places.reshape([-1 if i == axis % at.ndim else 1 for i in range(at.ndim)])
        return torch.where(hot, values[1], values[0])

    return run


PICKING: dict[str, Op] = {
    "Gather": Op(gather),
    "GatherElements": Op(gather_elements),
    "GatherND": Op(gather_nd),
    "OneHot": Op(one_hot, values=(2,)),
    "ScatterElements": Op(scatter_elements),
    "ScatterND": Op(scatter_nd),
}
