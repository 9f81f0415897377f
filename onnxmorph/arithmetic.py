"""Integer arithmetic of shapes, evaluated ahead: the handful of ops that exporters write, in NumPy.

A few more go through onnx's reference implementation, which is exact and slow. No result is computed before
its size is known: a file of a hundred bytes can ask for any number of elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Known = NDArray[Any]
LARGEST = 1 << 16  # elements of a result; ConstantOfShape, Range and Expand can ask for any number


def evaluate(node: ir.Node, inputs: Sequence[Known | None]) -> list[Known] | None:
    """The outputs of a node over constant inputs, or None if they are too large or not computable."""
    fast = _FAST.get(node.op_type)
    try:
        with np.errstate(all="ignore"):
            if fast is not None:
                result = fast(node, *inputs)
                return None if result is None or result.size > LARGEST else [result]
            return _reference(node, inputs)
    except Exception:  # not computable ahead is no error: the node stays in the graph
        return None


def _reference(node: ir.Node, inputs: Sequence[Known | None]) -> list[Known] | None:
    given_inputs = [x for x in inputs if x is not None]
    alike = len({x.shape for x in given_inputs}) == 1
    if node.op_type not in _MORE or (not alike and prod(x.size for x in given_inputs) > 256 * LARGEST):
        return None
    from onnx.reference import ReferenceEvaluator

    names = [v.name if v is not None else None for v in node.inputs]
    given = {n: x for n, x in zip(names, inputs, strict=True) if n}
    results = ReferenceEvaluator(ir.to_proto(node)).run(None, given)
    arrays = [np.asarray(r) for r in results]
    return arrays if all(a.size <= LARGEST for a in arrays) else None


# Ops whose results have at most as many elements as their inputs' sizes multiply to; or as one has, if all are alike.
_NAMES = """
Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr Ceil Clip Compress CumSum Exp Flatten Floor
GatherElements GatherND Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log MatMul Max Mean Min Mod Neg
NonZero Not Or Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements
ScatterND Sign Split Sum TopK Trilu Unique Xor
"""
_MORE = frozenset(_NAMES.split())


def _axes(node: ir.Node, given: Known | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(a) for a in given.reshape(-1))
    return tuple(node.attributes.get_ints("axes", ()))


def _gather(node: ir.Node, data: Known, index: Known) -> Known | None:
    axis = node.attributes.get_int("axis", 0)
    if data.size // data.shape[axis] * index.size > LARGEST:
        return None
    return np.asarray(np.take(data, index, axis=axis))


def _concat(node: ir.Node, *parts: Known) -> Known | None:
    if sum(part.size for part in parts) > LARGEST:
        return None
    return np.concatenate(parts, axis=node.attributes.get_int("axis"))


def _tile(node: ir.Node, data: Known, repeats: Known) -> Known | None:
    return None if float(np.prod(repeats.astype(float))) * data.size > LARGEST else np.tile(data, repeats)


def _each(function: Callable[..., Known]) -> Callable[..., Known | None]:
    """A function of single positions, over inputs that are broadcast."""

    def apply(node: ir.Node, *inputs: Known) -> Known | None:
        if prod(np.broadcast_shapes(*(x.shape for x in inputs))) > LARGEST:
            return None
        return np.asarray(function(*inputs))

    return apply


def _unsqueeze(node: ir.Node, data: Known, axes: Known | None = None) -> Known:
    return np.expand_dims(data, _axes(node, axes))


def _squeeze(node: ir.Node, data: Known, axes: Known | None = None) -> Known:
    return np.squeeze(data, _axes(node, axes) or None)


def _cast(node: ir.Node, data: Known) -> Known:
    return data.astype(ir.DataType(node.attributes.get_int("to")).numpy())


def _divide(a: Known, b: Known) -> Known:
    whole = np.issubdtype(a.dtype, np.integer)
    return np.asarray(np.trunc(a / b).astype(a.dtype) if whole else a / b)


def _slice(
    node: ir.Node,
    data: Known,
    starts: Known,
    ends: Known,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Known:
    index = [slice(None)] * data.ndim
    along = range(len(starts)) if axes is None else axes
    for axis, start, end, step in zip(along, starts, ends, [1] * len(starts) if steps is None else steps, strict=True):
        low = None if step < 0 and end < -data.shape[axis] else int(end)
        index[int(axis)] = slice(int(start), low, int(step))
    return data[tuple(index)]


def _range(node: ir.Node, start: Known, limit: Known, delta: Known) -> Known | None:
    if (limit - start) / delta > LARGEST:
        return None
    return np.asarray(np.arange(start.item(), limit.item(), delta.item()), start.dtype)


def _made(size: float, rank: int, kind: np.dtype[Any]) -> bool:
    """Whether an op makes a tensor and not arithmetic: its numbers are no integers, and its shape may follow a cut."""
    return size > LARGEST or (rank > 0 and kind.kind not in "iub")


def _constant_of_shape(node: ir.Node, shape: Known) -> Known | None:
    fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
    if _made(float(np.prod(shape.astype(float))), len(shape), fill.dtype):
        return None
    return np.full(tuple(shape), fill.reshape(-1)[0])


def _expand(node: ir.Node, data: Known, shape: Known) -> Known | None:
    if _made(float(np.prod(shape.astype(float))) * data.size, len(shape), data.dtype):
        return None
    return data * np.ones(tuple(shape), data.dtype)


_FAST: dict[str, Callable[..., Known | None]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    "Slice": _slice,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Identity": lambda node, a: a,
    "Tile": _tile,
    "Add": _each(np.add),
    "Sub": _each(np.subtract),
    "Mul": _each(np.multiply),
    "Div": _each(_divide),
    "Equal": _each(np.equal),
    "Where": _each(np.where),
    "Sqrt": _each(np.sqrt),
    "Transpose": lambda node, a: np.transpose(a, node.attributes.get_ints("perm", None)),
}
