"""Integer arithmetic of shapes, evaluated ahead: the handful of ops that exporters write, in NumPy.

Anything else goes through onnx's reference implementation, which is exact and slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        if fast is not None:
            result = fast(node, *inputs)
            return None if result is None or result.size > LARGEST else [result]
        return _reference(node, inputs)
    except Exception:  # not computable ahead is no error: the node stays in the graph
        return None


def _reference(node: ir.Node, inputs: Sequence[Known | None]) -> list[Known] | None:
    if node.op_type in _NEVER or any(a.type in _BODIES for a in node.attributes.values()):
        return None
    from onnx.reference import ReferenceEvaluator

    names = [v.name if v is not None else None for v in node.inputs]
    given = {n: x for n, x in zip(names, inputs, strict=True) if n}
    results = ReferenceEvaluator(ir.to_proto(node)).run(None, given)
    arrays = [np.asarray(r) for r in results]
    return arrays if all(a.size <= LARGEST for a in arrays) else None


_NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_BODIES = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def _axes(node: ir.Node, given: Known | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(a) for a in given.reshape(-1))
    return tuple(node.attributes.get_ints("axes", ()))


def _gather(node: ir.Node, data: Known, index: Known) -> Known:
    return np.asarray(np.take(data, index, axis=node.attributes.get_int("axis", 0)))


def _concat(node: ir.Node, *parts: Known) -> Known:
    return np.concatenate(parts, axis=node.attributes.get_int("axis"))


def _unsqueeze(node: ir.Node, data: Known, axes: Known | None = None) -> Known:
    return np.expand_dims(data, _axes(node, axes))


def _squeeze(node: ir.Node, data: Known, axes: Known | None = None) -> Known:
    return np.squeeze(data, _axes(node, axes) or None)


def _cast(node: ir.Node, data: Known) -> Known:
    return data.astype(ir.DataType(node.attributes.get_int("to")).numpy())


def _divide(node: ir.Node, a: Known, b: Known) -> Known:
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


def _constant_of_shape(node: ir.Node, shape: Known) -> Known | None:
    if float(np.prod(shape.astype(float))) > LARGEST:
        return None
    fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
    return np.full(tuple(shape), fill.reshape(-1)[0])


def _expand(node: ir.Node, data: Known, shape: Known) -> Known | None:
    if float(np.prod(shape.astype(float))) * data.size > LARGEST:
        return None
    return data * np.ones(tuple(shape), data.dtype)


_FAST: dict[str, Callable[..., Known | None]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    "Div": _divide,
    "Slice": _slice,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Identity": lambda node, a: a,
    "Add": lambda node, a, b: np.asarray(a + b),
    "Sub": lambda node, a, b: np.asarray(a - b),
    "Mul": lambda node, a, b: np.asarray(a * b),
    "Equal": lambda node, a, b: np.asarray(a == b),
    "Where": lambda node, c, a, b: np.asarray(np.where(c, a, b)),
    "Sqrt": lambda node, a: np.asarray(np.sqrt(a)),
    "Transpose": lambda node, a: np.transpose(a, node.attributes.get_ints("perm", None)),
}
