"""Weights that lie in a file: of these no more is in memory than is worked on.

A piece is mapped from the file anew each time and let go of with the array that shows it, so that what was read does
not add up. What is made of such a tensor is made when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.axes import Array
from onnxmorph.graph import Forgotten, read, window

PIECE = 1 << 20  # bytes of the file
SINGLE_FILE = 1_500_000_000  # bytes of weights; a protobuf ends at 2 GB
GATHERED = 50_000_000  # bytes of weights, where they lie in a file: writing them into the model takes a few times that

Index = tuple[slice, ...]


def in_file(tensor: ir.TensorProtocol | None) -> bool:
    """Whether the values are in no memory yet, but read or made when asked for."""
    return isinstance(tensor, ir.ExternalTensor | ir.LazyTensor) and not isinstance(tensor, Forgotten)


def stay_beside(model: ir.Model) -> bool:
    """Whether weights are written to a file of their own: what a protobuf cannot hold, and what should not be gathered.

    A model whose weights are in memory already becomes one file as long as it can be one.
    """
    tensors = [v.const_value for graph in model.graphs() for v in graph.initializers.values()]
    most = GATHERED if any(map(in_file, tensors)) else SINGLE_FILE
    return sum(tensor.nbytes for tensor in tensors if tensor is not None) > most


def load_attributes(model: ir.Model) -> None:
    """Bring tensors that nodes hold into memory: they are written with the nodes, wherever they lay."""
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    for node in (node for graph in graphs for node in graph.all_nodes()):
        for name, attribute in list(node.attributes.items()):
            if isinstance(tensor := attribute.value, ir.ExternalTensor):
                held = ir.Tensor(read(tensor, name).copy(), dtype=tensor.dtype, name=tensor.name)
                node.attributes[name] = ir.AttrTensor(name, held)


def boxes(shape: Sequence[int], itemsize: int) -> Iterator[Index]:
    """Parts of an array, in the order in which they lie in memory, none over `PIECE` bytes.

    >>> [index for index in boxes((2, 3), 4)]
    [(slice(0, 2, None), slice(0, 3, None))]
    """
    if 0 in shape or prod(shape) * itemsize <= PIECE:
        yield tuple(slice(0, s) for s in shape)
        return
    axis = next(t for t in range(len(shape)) if prod(shape[t + 1 :]) * itemsize <= PIECE)
    most = PIECE // (prod(shape[axis + 1 :]) * itemsize)
    inner = tuple(slice(0, s) for s in shape[axis + 1 :])
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], most):
            yield (*(slice(i, i + 1) for i in outer), slice(start, min(start + most, shape[axis])), *inner)


def part_of(array: NDArray[Any], index: Index) -> NDArray[Any]:
    """What an array that broadcasts against another has for a part of that one."""
    return array[tuple(part if size > 1 else slice(None) for part, size in zip(index, array.shape, strict=False))]


def pieces(tensor: ir.TensorProtocol, name: str) -> Iterator[tuple[Index, NDArray[Any]]]:
    """A tensor in parts, each with its place; one of a type narrower than a byte in one piece.

    Raises:
        ModelError: the data do not fit its shape and type.
    """
    shape, bits = tuple(tensor.shape.numpy()), tensor.dtype.bitwidth
    if bits < 8 or not isinstance(tensor, ir.ExternalTensor):
        whole = read(tensor, name)
        yield from ((index, whole[index]) for index in boxes(shape, whole.itemsize))
        return
    start = 0
    for index in boxes(shape, bits // 8):
        size = tuple(s.stop - s.start for s in index)
        yield index, read(window(tensor, start, size), name)
        start += prod(size) * bits // 8


def cut(tensor: ir.TensorProtocol, name: str, keep: Mapping[int, Array]) -> NDArray[Any]:
    """The tensor with these positions of these axes, in that order; a position may stand there more than once."""
    shape = tuple(len(keep[t]) if t in keep else s for t, s in enumerate(tensor.shape.numpy()))
    result: NDArray[Any] | None = None
    for index, piece in pieces(tensor, name):
        places = [np.arange(s.start, s.stop) for s in index]
        for axis, old in keep.items():
            part = index[axis]
            places[axis] = np.flatnonzero((part.start <= old) & (old < part.stop))
            piece = piece.take(old[places[axis]] - part.start, axis)
        if piece.shape == shape:
            return piece
        if result is None:
            result = np.empty(shape, piece.dtype)
        if piece.size:
            runs = all(at[-1] - at[0] == len(at) - 1 for at in places)
            result[tuple(slice(at[0], at[-1] + 1) for at in places) if runs else np.ix_(*places)] = piece
    assert result is not None
    return result


def made(
    like: ir.TensorProtocol,
    shape: Sequence[int],
    make: Callable[[], NDArray[Any]],
    dtype: ir.DataType | None = None,
) -> ir.TensorProtocol:
    """A tensor with another's name, and its type if none is given: made now; of one in a file, whenever it is read."""
    kind = dtype or like.dtype

    def tensor() -> ir.TensorProtocol:
        return ir.Tensor(np.asarray(make(), order="C"), dtype=kind, name=like.name)

    return ir.LazyTensor(tensor, kind, ir.Shape(shape), name=like.name) if in_file(like) else tensor()
