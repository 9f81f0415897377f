"""What a file claims, checked before anything relies on it. No weight is read and nothing is allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

import networkx as nx
import onnx
import onnx_ir as ir

from onnxmorph.bodies import bodies_of, frame_of
from onnxmorph.errors import ModelError
from onnxmorph.external import check_external
from onnxmorph.infer import version_of

OPERAND = r"[a-zA-Z]*(\.\.\.[a-zA-Z]*)?"
EQUATION = re.compile(rf"{OPERAND}(,{OPERAND})*(->{OPERAND})?")
MOST_NODES = 1_000_000  # after functions are inlined
MOST_DEPTH = 64  # of bodies in bodies, each of which takes some calls of Python's


def check_versions(model: ir.Model, name: str) -> None:
    """Opset and IR version are known."""
    if not all(isinstance(domain, str) for domain in model.opset_imports):  # what is no UTF-8 comes as bytes
        message = f"{name}: the name of an operator set is no UTF-8; copy or export the model again"
        raise ModelError(message, code="model-unreadable")
    version, newest = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1)), onnx.defs.onnx_opset_version()
    if not 7 <= version <= newest:
        message = f"{name}: opset {version} is not supported (7 to {newest}); export with one of these"
        raise ModelError(message, code="model-opset")
    if (model.ir_version or 0) > onnx.IR_VERSION:
        message = f"{name}: IR version {model.ir_version} is not supported (up to {onnx.IR_VERSION}); upgrade onnx"
        raise ModelError(message, code="model-ir")


def check_extent(model: ir.Model, name: str) -> None:
    """No more nodes, and no deeper bodies, than can be gone through."""
    waiting, count = [(graph, 0) for graph in (model.graph, *(f.graph for f in model.functions.values()))], 0
    while waiting:
        graph, depth = waiting.pop()
        count += len(graph)
        if count > MOST_NODES or depth > MOST_DEPTH:
            _too_much(name, count, depth)
        waiting += [(body, depth + 1) for node in graph for body in bodies_of(node)]


def _too_much(name: str, nodes: int, depth: int) -> NoReturn:
    much = f"more than {MOST_NODES:,} nodes" if nodes > MOST_NODES else f"bodies more than {MOST_DEPTH} deep in others"
    raise ModelError(f"{name}: the model has {much}; export it smaller, or without its loops", code="model-extent")


def check_functions(model: ir.Model, name: str) -> None:
    """No function calls itself, and inlining all of them stays within bounds."""
    if not model.functions:
        return
    calls = {key: [n.op_identifier() for n in f.graph.all_nodes()] for key, f in model.functions.items()}
    graph = nx.DiGraph((key, called) for key, inner in calls.items() for called in inner if called in calls)
    try:
        order = list(nx.topological_sort(graph))
    except nx.NetworkXUnfeasible:
        message = f"{name}: a function of the model calls itself; export it without recursion"
        raise ModelError(message, code="model-functions") from None
    size: dict[ir.OperatorIdentifier, int] = {}
    deep: dict[ir.OperatorIdentifier, int] = {}
    for key in (*reversed(order), *(calls.keys() - set(order))):
        size[key], deep[key] = _inlined(model.functions[key].graph, size, deep)
    nodes, depth = _inlined(model.graph, size, deep)
    if nodes > MOST_NODES:
        message = (
            f"{name}: with its functions inlined it has {nodes:.2g} nodes (at most {MOST_NODES:,}); export it flat"
        )
        raise ModelError(message, code="model-functions")
    if depth > MOST_DEPTH:
        _too_much(name, nodes, depth)


def _inlined(
    graph: ir.Graph, size: Mapping[ir.OperatorIdentifier, int], deep: Mapping[ir.OperatorIdentifier, int]
) -> tuple[int, int]:
    """How many nodes a graph has once functions of these sizes and depths stand in it, and how deep its bodies are."""
    waiting, nodes, depth = [(graph, 0)], 0, 0
    while waiting:
        each, level = waiting.pop()
        for node in each:
            called = node.op_identifier()
            nodes, depth = nodes + size.get(called, 1), max(depth, level + deep.get(called, 0))
            waiting += [(body, level + 1) for body in bodies_of(node)]
        depth = max(depth, level)
    return nodes, depth


def check_tensors(model: ir.Model, name: str) -> None:
    """Every tensor has as much data as its shape and type say, in the file or in one beside it."""
    for label, tensor in _tensors(model):
        dtype, dims = tensor.dtype, tensor.shape.numpy()
        if dtype == ir.DataType.UNDEFINED or any(d < 0 for d in dims):
            message = f"{name}: tensor {label!r} has the impossible type {dtype.name} {list(dims)}; export it again"
            raise ModelError(message, code="model-tensor")
        if isinstance(tensor, ir.ExternalTensor):
            check_external(tensor, label, name)
        elif (raw := getattr(tensor, "raw", None)) is not None and isinstance(raw, onnx.TensorProto):
            problem = _misfit(raw, dtype)
            if problem:
                message = f"{name}: tensor {label!r} of shape {list(dims)} {problem}; copy or export it again"
                raise ModelError(message, code="model-tensor")


DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def _misfit(proto: onnx.TensorProto, dtype: ir.DataType) -> str:
    """What the data of a tensor lack for its shape and type."""
    size, field = math.prod(proto.dims), onnx.helper.tensor_dtype_to_field(dtype)
    if dtype == ir.DataType.STRING:
        return "" if len(proto.string_data) == size and not proto.raw_data else "has another number of texts"
    if proto.HasField("raw_data"):
        return "has less data than that" if _raw_bytes(proto) < math.ceil(size * dtype.bitwidth / 8) else ""
    wrong = [name for name in DATA if name != field and len(getattr(proto, name))]
    if wrong:
        return f"has its data in {wrong[0]}, which is not for the type {dtype.name}"
    parts = 2 if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else 1 / max(1, 8 // dtype.bitwidth)
    return "has less data than that" if len(getattr(proto, field)) < math.ceil(size * parts) else ""


def _raw_bytes(proto: onnx.TensorProto) -> int:
    """An upper bound on the raw bytes of a tensor, exact where it has no doc string; does not copy them."""
    bare = onnx.TensorProto(data_type=proto.data_type, dims=proto.dims)
    if proto.HasField("name"):
        bare.name = proto.name
    held: int = proto.ByteSize() - bare.ByteSize()
    return held - 1 - math.ceil(held.bit_length() / 7)


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Initializers and tensor attributes of the graph, its bodies and the functions."""
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        for each in (graph, *graph.subgraphs()):
            for key, value in each.initializers.items():
                if value.const_value is None:
                    message = f"{model.graph.name}: initializer {key!r} has no value"
                    raise ModelError(message, code="model-initializer")
                yield key, value.const_value
        for node in graph.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    yield f"{node.name}.{attribute.name}", attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from ((f"{node.name}.{attribute.name}", t) for t in attribute.as_tensors())


def check_equations(model: ir.Model, name: str) -> None:
    """Equations of Einsum are equations: onnx's own inference does not come back from an ellipsis of two dots."""
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("equation") if node.op_type == "Einsum" else None
        text = str(attribute.value) if attribute is not None else ""
        if not EQUATION.fullmatch("".join(text.split())):
            message = f"{name}: node {node.name!r} (Einsum) does not fit its equation {text[:60]!r}, which is none"
            raise ModelError(f"{message}; export it again", code="model-shape")


def check_values(model: ir.Model, name: str) -> None:
    """Every tensor is written once, before it is read; bodies read what they are given or stands outside them."""
    written = set()
    for value in (v for node in model.graph for v in node.outputs if v.name):
        if value.name in written or value.name in model.graph.initializers:
            raise ModelError(f"{name}: tensor {value.name!r} is written twice", code="model-twice")
        written.add(value.name)
    _check_scope(model.graph, set(), name)


def _check_scope(graph: ir.Graph, seen: set[ir.Value], name: str) -> None:
    seen |= {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name and value not in seen:
                message = f"{name}: node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing writes"
                raise ModelError(message, code="model-undefined")
        for body in bodies_of(node):
            _check_scope(body, seen, name)
        seen |= set(node.outputs)
    for value in graph.outputs:
        if value not in seen:
            raise ModelError(f"{name}: nothing writes the output {value.name!r}", code="model-undefined")


def check_bodies(model: ir.Model, name: str) -> None:
    """Nodes with bodies give these as many values as they take."""
    for node in model.graph.all_nodes():
        try:
            frame_of(node, version_of(node, model))
        except ValueError as e:
            message = f"{name}: node {node.name!r} ({node.op_type}) does not fit its body: {e}; export it again"
            raise ModelError(message, code="model-shape") from None
