"""ONNX ops that move positions or make tensors, on torch tensors: the table ``MOVES``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxmorph.converters.torch_ops import Op, Run, Unsupported, listed, plain, torch_type
from onnxmorph.graph import Node

# -- shapes ----------------------------------------------------------------------------------------


def reshape(node: Node) -> Run:
    """0 keeps a size (unless ``allowzero``), -1 is what remains."""
    target, zero = listed(node, "shape"), bool(node.attributes.get("allowzero"))

    def run(*inputs: Tensor) -> Tensor:
        x = inputs[0]
        return x.reshape([s if s or zero else x.shape[i] for i, s in enumerate(target(inputs))])

    return run


def flatten(node: Node) -> Run:
    axis = node.attributes["axis"]

    def run(x: Tensor) -> Tensor:
        at = axis + x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def transpose(node: Node) -> Run:
    order = node.attributes.get("perm")
    return lambda x: x.permute(*(order or reversed(range(x.ndim))))


def squeeze(node: Node) -> Run:
    axes = listed(node, "axes")

    def run(*inputs: Tensor) -> Tensor:
        x, gone = inputs[0], axes(inputs)
        return x.squeeze(tuple(gone)) if gone else x.squeeze()

    return run


def unsqueeze(node: Node) -> Run:
    axes = listed(node, "axes")

    def run(*inputs: Tensor) -> Tensor:
        x, new = inputs[0], axes(inputs)
        for axis in sorted(a % (x.ndim + len(new)) for a in new):
            x = x.unsqueeze(axis)
        return x

    return run


def expand(node: Node) -> Run:
    target = listed(node, "shape")

    def run(*inputs: Tensor) -> Tensor:
        return inputs[0].expand(torch.broadcast_shapes(inputs[0].shape, target(inputs)))

    return run


def tile(node: Node) -> Run:
    times = listed(node, "repeats")
    return lambda *inputs: inputs[0].repeat(times(inputs))


def shape(node: Node) -> Run:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


def constant_of_shape(node: Node) -> Run:
    size, value = listed(node, "input"), node.attributes.get("value")
    number = 0.0 if value is None else value.numpy().item()
    dtype = torch.float32 if value is None else torch_type(value.dtype)
    return lambda *inputs: torch.full(size(inputs), number, dtype=dtype, device=inputs[0].device)


def arange(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def trilu(node: Node) -> Run:
    number, run = listed(node, "k"), torch.triu if node.attributes["upper"] else torch.tril
    return lambda *inputs: run(inputs[0], *number(inputs))


# -- joining and cutting ---------------------------------------------------------------------------


def concat(node: Node) -> Run:
    axis = node.attributes["axis"]
    return lambda *inputs: torch.cat(inputs, axis)


def split(node: Node) -> Run:
    """Into the given sizes, else as many equal parts as there are outputs, the last smaller."""
    sizes, axis, parts = listed(node, "split"), node.attributes["axis"], len(node.outputs)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        x = inputs[0]
        return x.split(sizes(inputs) or -(-x.shape[axis] // parts), axis)

    return run


def cut(node: Node) -> Run:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (listed(node, name) for name in names)

    def run(*inputs: Tensor) -> Tensor:
        x, begins = inputs[0], starts(inputs)
        count = len(begins)
        over, by = axes(inputs) or range(count), steps(inputs) or [1] * count
        for begin, end, axis, step in zip(begins, ends(inputs), over, by, strict=True):
            size = x.shape[axis]
            if step > 0:  # PyTorch warns where an end is not within 32 bits
                within = slice(max(min(begin, size), -size), max(min(end, size), -size), step)
                x = x[(slice(None),) * (axis % x.ndim) + (within,)]
            else:
                positions = range(*slice(begin, end, step).indices(size))
                x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64, device=x.device))
        return x

    return run


def pad(node: Node) -> Run:
    mode = node.attributes["mode"]
    amounts, axes = listed(node, "pads"), listed(node, "axes")
    value = node.parameter("constant_value" if "constant_value" in node.formal else "value")
    if node.input_index("constant_value") is not None and value is None:
        raise Unsupported("its constant_value is computed")
    fill = 0.0 if value is None else np.asarray(value).item()

    def run(*inputs: Tensor) -> Tensor:
        x, given = inputs[0], amounts(inputs)
        over, half = axes(inputs) or range(x.ndim), len(given) // 2
        sides = {a % x.ndim: (given[i], given[half + i]) for i, a in enumerate(over)}
        if mode == "constant":
            return F.pad(x, [n for a in reversed(range(x.ndim)) for n in sides.get(a, (0, 0))], value=fill)
        for axis, (before, after) in sides.items():
            if before or after:
                size = x.shape[axis]
                x = x.index_select(axis, BORDERS[mode](torch.arange(-before, size + after, device=x.device), size))
        return x

    return run


# Positions outside of an axis to those that stand there.
BORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "edge": lambda at, size: at.clamp(0, size - 1),
    "reflect": lambda at, size: (size - 1) - ((size - 1) - at.remainder(2 * max(size - 1, 1))).abs(),
    "wrap": lambda at, size: at.remainder(size),
}


def space_of_depth(node: Node) -> Run:
    block, mode = node.attributes["blocksize"], node.attributes.get("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        if mode == "DCR":  # the block is the outer factor of the channels
            x = x.unflatten(1, (block * block, -1)).transpose(1, 2).flatten(1, 2)
        return F.pixel_shuffle(x, block)

    return run


def depth_of_space(node: Node) -> Run:
    block, mode = node.attributes["blocksize"], node.attributes.get("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        y = F.pixel_unshuffle(x, block)
        return y if mode == "CRD" else y.unflatten(1, (-1, block * block)).transpose(1, 2).flatten(1, 2)

    return run


def einsum(node: Node) -> Run:
    equation = node.attributes["equation"]
    return lambda *inputs: torch.einsum(equation, *inputs)


MOVES: dict[str, Op] = {
    "Concat": Op(concat),
    "ConstantOfShape": Op(constant_of_shape),
    "DepthToSpace": Op(space_of_depth),
    "Einsum": Op(einsum),
    "Expand": Op(expand),
    "Flatten": Op(flatten),
    "Pad": Op(pad, values=(2,)),
    "Range": plain(arange),
    "Reshape": Op(reshape),
    "Shape": Op(shape),
    "Size": plain(lambda x: torch.tensor(x.numel(), device=x.device)),
    "Slice": Op(cut),
    "SpaceToDepth": Op(depth_of_space),
    "Split": Op(split, outputs=None),
    "Squeeze": Op(squeeze),
    "Tile": Op(tile),
    "Transpose": Op(transpose),
    "Trilu": Op(trilu),
    "Unsqueeze": Op(unsqueeze),
}
