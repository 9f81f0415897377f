"""Types of tensors as ONNX writes them: what two have in common, one with an axis more or less."""

from __future__ import annotations

import onnx


def copy_of(kind: onnx.TypeProto) -> onnx.TypeProto:
    """Another object that says the same."""
    result = onnx.TypeProto()
    result.CopyFrom(kind)
    return result


def has_shape(kind: onnx.TypeProto) -> bool:
    """Whether it is a tensor's type, of a rank that is known."""
    return bool(kind.HasField("tensor_type") and kind.tensor_type.HasField("shape"))


def without_negatives(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type with negative sizes, which some exporters write for dynamic ones, as unknown."""
    if not any(d.dim_value < 0 for d in kind.tensor_type.shape.dim):
        return kind
    result = copy_of(kind)
    for dim in result.tensor_type.shape.dim:
        if dim.dim_value < 0:
            dim.Clear()
    return result


def shapeless(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type without what it says of the shape."""
    result = copy_of(kind)
    if result.HasField("tensor_type"):
        result.tensor_type.ClearField("shape")
    if result.HasField("sequence_type"):
        result.sequence_type.elem_type.tensor_type.ClearField("shape")
    return result


def meet(a: onnx.TypeProto, b: onnx.TypeProto) -> onnx.TypeProto:
    """The type of a value that is of one type or of the other: sizes that differ are unknown."""
    if a == b:
        return a
    if a.WhichOneof("value") is None:
        return shapeless(b)
    if not (has_shape(a) and has_shape(b)) or len(a.tensor_type.shape.dim) != len(b.tensor_type.shape.dim):
        return shapeless(a)
    result = copy_of(a)
    for dim, other in zip(result.tensor_type.shape.dim, b.tensor_type.shape.dim, strict=True):
        if not dim.HasField("dim_value") or dim.dim_value != other.dim_value:
            dim.Clear()
    return result


def without_axis(kind: onnx.TypeProto, axis: int) -> onnx.TypeProto | None:
    """The type of one position of an axis; None where there is no such axis."""
    result = copy_of(kind)
    if has_shape(kind):
        dims = result.tensor_type.shape.dim
        if not -len(dims) <= axis < len(dims):
            return None
        del dims[axis]
    return result


def with_axis(kind: onnx.TypeProto, axis: int, size: int | None) -> onnx.TypeProto | None:
    """The type of several stacked along a new axis, of unknown size where that is None; None if there is none such."""
    result = copy_of(kind)
    if has_shape(kind):
        dims = result.tensor_type.shape.dim
        rank = len(dims) + 1
        if not -rank <= axis < rank:
            return None
        dims.insert(axis % rank, onnx.TensorShapeProto.Dimension(dim_value=size))
    return result


def guess_sizes(kind: onnx.TypeProto, guess: int) -> bool:
    """Fill in the sizes of a tensor that are not known; whether there were any."""
    open_ = [d for d in kind.tensor_type.shape.dim if not d.HasField("dim_value")] if has_shape(kind) else []
    for dim in open_:
        dim.dim_value = guess
    return bool(open_)
