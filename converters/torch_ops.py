"""ONNX ops on torch tensors: element by element and reductions, and what a table of ops is made of.

``POINTWISE`` and ``REDUCTIONS`` map an op to how its nodes are built. Attributes, and inputs that are constants, are
read then; what is built only sees tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx_ir import DataType, tensor_adapters
from torch import Tensor

from onnxmorph.graph import Node

Run = Callable[..., Any]  # from the node's inputs (None where absent) to its output, or a tuple of its outputs


class Unsupported(Exception):
    """A form of an op that is not covered; the message says which."""


@dataclass(frozen=True)
class Op:
    """How a node is built. ``values`` are the inputs that are no weights: constants, or statistics of the data.

    What a ``modal`` op computes depends on ``module.training``, which is its first argument. Only the first
    ``outputs`` are computed.
    """

    build: Callable[[Node], Run]
    values: tuple[int, ...] = ()
    modal: bool = False
    outputs: int | None = 1


def plain(run: Run) -> Op:
    """An op without attributes."""
    return Op(lambda node: run)


def torch_type(dtype: DataType) -> torch.dtype:
    """PyTorch's name of a type."""
    try:
        return tensor_adapters.to_torch_dtype(dtype)
    except TypeError:
        raise Unsupported(f"the type {dtype.name}") from None


def listed(node: Node, name: str) -> Callable[[Sequence[Tensor]], list[int]]:
    """Reads integers wherever they stand: in an attribute, in a constant, or in an input that is computed.

    What is built takes the node's inputs. An absent list is empty, a single number a list of one.
    """
    index, value = node.input_index(name), node.parameter(name)
    if value is None and index is not None:
        return lambda inputs: inputs[index].reshape(-1).tolist()
    fixed = [] if value is None else [int(v) for v in np.reshape(value, -1)]
    return lambda inputs: fixed


# -- element by element ----------------------------------------------------------------------------


def div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def mod(node: Node) -> Run:
    return torch.fmod if node.attributes["fmod"] else torch.remainder


def folded(run: Callable[[Tensor, Tensor], Tensor]) -> Op:
    """A binary operation over any number of inputs."""

    def all_of(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = run(first, other)
        return first

    return plain(all_of)


def mean(*inputs: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*inputs)).mean(0)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def clip(node: Node) -> Run:
    if "min" not in node.formal:
        low, high = node.attributes.get("min"), node.attributes.get("max")
        return lambda x: torch.clamp(x, low, high)
    return lambda x, low=None, high=None: x if low is None and high is None else torch.clamp(x, low, high)


def softmax(run: Run) -> Op:
    """Over one axis; before opset 13 over all axes from there on."""

    def build(node: Node) -> Run:
        axis = node.attributes["axis"]
        if node.version >= 13:
            return lambda x: run(x, axis)
        return lambda x: run(x.flatten(axis % x.ndim), -1).reshape(x.shape)

    return Op(build)


def scaled(run: Callable[[Tensor, float], Tensor]) -> Op:
    """An op with the attribute alpha."""

    def build(node: Node) -> Run:
        alpha = node.attributes["alpha"]
        return lambda x: run(x, alpha)

    return Op(build)


def selu(node: Node) -> Run:
    alpha, gamma = node.attributes["alpha"], node.attributes["gamma"]
    return lambda x: gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


def hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.attributes["alpha"], node.attributes["beta"]
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def gelu(node: Node) -> Run:
    kind = node.attributes["approximate"]
    return lambda x: F.gelu(x, approximate=kind)


def cast(node: Node) -> Run:
    dtype = torch_type(DataType(node.attributes["to"]))
    return lambda x: x.to(dtype)


# What PyTorch has under the same name.
SAME = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Relu Round Sigmoid Sign
Sin Sinh Sqrt Tan Tanh"""
POINTWISE: dict[str, Op] = {
    **{name: plain(getattr(torch, name.lower())) for name in SAME.split()},
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Cast": Op(cast),
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Celu": scaled(F.celu),
    "Clip": Op(clip, values=(1, 2)),
    "Div": plain(div),
    "Elu": scaled(F.elu),
    "Equal": plain(torch.eq),
    "Gelu": Op(gelu),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": Op(hard_sigmoid),
    "HardSwish": plain(F.hardswish),
    "Identity": plain(lambda x: x),
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": scaled(F.leaky_relu),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "LogSoftmax": softmax(torch.log_softmax),
    "MatMul": plain(torch.matmul),
    "Max": folded(torch.maximum),
    "Mean": plain(mean),
    "Min": folded(torch.minimum),
    "Mish": plain(F.mish),
    "Mod": Op(mod),
    "Mul": plain(torch.mul),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": plain(prelu),
    "Pow": plain(power),
    "Selu": Op(selu),
    "Softmax": softmax(torch.softmax),
    "Softplus": plain(F.softplus),
    "Softsign": plain(F.softsign),
    "Sub": plain(torch.sub),
    "Sum": folded(torch.add),
    "Swish": scaled(lambda x, alpha: x * torch.sigmoid(alpha * x)),
    "ThresholdedRelu": scaled(lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x))),
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}


# -- reductions ------------------------------------------------------------------------------------


def reduction(run: Callable[[Tensor, list[int], bool], Tensor]) -> Op:
    """Over the axes of an attribute or an input; over all where there are none."""

    def build(node: Node) -> Run:
        axes, keep = listed(node, "axes"), bool(node.attributes["keepdims"])
        nothing = bool(node.attributes.get("noop_with_empty_axes"))

        def reduce(*inputs: Tensor) -> Tensor:
            x, over = inputs[0], axes(inputs)
            if not over and nothing:
                return x
            return run(x, over or list(range(x.ndim)), keep).to(x.dtype) if x.ndim else run(x, [], keep)

        return reduce

    return Op(build)


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def arg(run: Callable[[Tensor, int, bool], Tensor]) -> Op:
    """The first position of an extreme value, or the last."""

    def build(node: Node) -> Run:
        axis, keep = node.attributes["axis"], bool(node.attributes["keepdims"])
        if not node.attributes.get("select_last_index"):
            return lambda x: run(x, axis, keep)
        return lambda x: x.shape[axis] - 1 - run(x.flip(axis), axis, keep)

    return Op(build)


def top_k(node: Node) -> Run:
    count, axis = listed(node, "K" if "K" in node.formal else "k"), node.attributes["axis"]
    largest = bool(node.attributes.get("largest", 1))

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        ordered = torch.sort(inputs[0], dim=axis, descending=largest, stable=True)
        return tuple(each.narrow(axis, 0, count(inputs)[0]) for each in ordered)

    return run


def cumsum(node: Node) -> Run:
    axes, exclusive, reverse = listed(node, "axis"), node.attributes["exclusive"], node.attributes["reverse"]

    def run(*inputs: Tensor) -> Tensor:
        x, (axis,) = inputs[0], axes(inputs)
        y = x.flip(axis) if reverse else x
        total = y.cumsum(axis).to(x.dtype) - (y if exclusive else 0)
        return total.flip(axis) if reverse else total

    return run


REDUCTIONS: dict[str, Op] = {
    "ArgMax": arg(torch.argmax),
    "ArgMin": arg(torch.argmin),
    "CumSum": Op(cumsum),
    "ReduceL1": reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceLogSum": reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": reduction(torch.logsumexp),
    "ReduceMax": reduction(torch.amax),
    "ReduceMean": reduction(torch.mean),
    "ReduceMin": reduction(torch.amin),
    "ReduceProd": reduction(product),
    "ReduceSum": reduction(torch.sum),
    "ReduceSumSquare": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "TopK": Op(top_k, outputs=2),
}
