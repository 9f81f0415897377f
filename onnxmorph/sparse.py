"""Sparse tensors of a file, written out: the graph that analysis sees, and what it writes, holds dense ones."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from onnxmorph.errors import ModelError

MOST_ELEMENTS = 1 << 24  # of a tensor that is a thousand times larger than what is stored of it


def dense(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with dense initializers and constants; the same object where it has no sparse ones.

    Raises:
        ModelError: a sparse tensor is malformed, or would fill the memory.
    """
    if not any(_holds_sparse(graph) for graph in _graphs(model)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for graph in _graphs(result):
        if isinstance(graph, onnx.GraphProto):
            graph.initializer.extend(_dense(tensor, name) for tensor in graph.sparse_initializer)
            del graph.sparse_initializer[:]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                    tensor = _dense(attribute.sparse_tensor, name)
                    attribute.CopyFrom(onnx.helper.make_attribute(attribute.name.removeprefix("sparse_"), tensor))
    return result


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, its functions, and all bodies in them."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    pending.extend(attribute.graphs)


def _holds_sparse(graph: onnx.GraphProto | onnx.FunctionProto) -> bool:
    return (isinstance(graph, onnx.GraphProto) and bool(graph.sparse_initializer)) or any(
        attribute.type == onnx.AttributeProto.SPARSE_TENSOR for node in graph.node for attribute in node.attribute
    )


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """One tensor; its indices count all elements, or the positions of every axis."""
    dims, label = list(sparse.dims), sparse.values.name
    parts = (sparse.values, sparse.indices)
    problem = ""
    if any(part.data_location == onnx.TensorProto.EXTERNAL for part in parts):
        problem = "keeps its values in another file"
    elif any(d < 0 for d in dims) or prod(dims) > max(MOST_ELEMENTS, 1000 * prod(sparse.values.dims)):
        problem = f"has the impossible or much too large shape {dims}"
    else:
        try:
            values, indices = (numpy_helper.to_array(part) for part in parts)
            whole = np.zeros(dims, values.dtype)
            place = np.unravel_index(indices, dims) if indices.ndim == 1 else tuple(indices.T)
            if (indices < 0).any():
                raise IndexError("an index is negative")
            whole[place] = values
        except (ValueError, IndexError, TypeError) as e:
            problem = f"is malformed ({e})"
    if problem:
        raise ModelError(f"{name}: the sparse tensor {label!r} {problem}; export it dense", code="model-tensor")
    return numpy_helper.from_array(whole, label)
