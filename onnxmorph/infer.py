"""Shapes of all tensors and values of integer tensors, node by node, without touching a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxmorph.arithmetic import LARGEST, evaluate
from onnxmorph.errors import ModelError
from onnxmorph.graph import Known, Shape, read

MOST_ELEMENTS = 1 << 48  # of one tensor


@lru_cache(maxsize=4096)
def schema_of(domain: str, op: str, version: int) -> tuple[Any, tuple[str, ...], dict[str, Any]] | None:
    """The schema of an op, the names of its inputs and the defaults of its attributes; None if unknown."""
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # or a version that is no 32-bit number, a name that is no text
        return None
    defaults = {}
    for key, attribute in schema.attributes.items():
        if attribute.default_value.type:
            value = onnx.helper.get_attribute_value(attribute.default_value)
            defaults[key] = value.decode() if isinstance(value, bytes) else value
    return schema, tuple(p.name for p in schema.inputs), defaults


def root_cause(e: BaseException) -> str:
    """What went wrong, in one line: what onnx-ir was doing meanwhile says less."""
    while isinstance(e.__cause__, (ValueError, ir.serde.SerdeError)):
        e = e.__cause__
    return " ".join(str(e).split())[:200] or type(e).__name__


def names_of(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    """The names of tensors; "" for one that is absent."""
    return tuple(v.name or "" if v is not None else "" for v in values)


def captured_by(node: ir.Node) -> tuple[str, ...]:
    """Names of outer tensors that the node's bodies read."""
    found = []
    for attribute in node.attributes.values():
        bodies = {ir.AttributeType.GRAPH: [attribute.value], ir.AttributeType.GRAPHS: attribute.value}
        for body in bodies.get(attribute.type, []):
            inner = {v.name for n in body.all_nodes() for v in n.outputs}
            for each in (body, *body.subgraphs()):
                inner |= {v.name for v in each.inputs} | set(each.initializers)
            found += [v.name for n in body.all_nodes() for v in n.inputs if v is not None and v.name not in inner]
            found += [v.name for v in body.outputs if v.name not in inner]
    return tuple(dict.fromkeys(n for n in found if n))


@dataclass
class Inferred:
    """Shapes, element types, known values, and which values derive from shapes."""

    shapes: dict[str, Shape | None]
    kinds: dict[str, ir.DataType]
    known: dict[str, Known]
    derived: set[str]


def infer(model: ir.Model, name: str, inputs: Mapping[str, Shape]) -> Inferred:
    """Shapes of all tensors, and values of integer tensors, for one choice of input sizes."""
    types: dict[str, onnx.TypeProto] = {}
    found = Inferred({}, {}, {}, set())
    protos: dict[str, onnx.TensorProto] = {}

    def record(key: str, kind: onnx.TypeProto) -> None:
        types[key] = kind
        tensor = kind.tensor_type
        dims = tensor.shape.dim if kind.HasField("tensor_type") and tensor.HasField("shape") else None
        known = dims is not None and all(d.HasField("dim_value") for d in dims)
        shape = found.shapes[key] = tuple(d.dim_value for d in dims) if known and dims is not None else None
        if shape is not None and prod(shape) > MOST_ELEMENTS:
            size = "×".join(map(str, shape))
            message = f"{name}: tensor {key!r} has the size {size}, more than any machine holds; check the shapes"
            raise ModelError(message, code="model-size")
        found.kinds[key] = ir.DataType(tensor.elem_type)

    for value in model.graph.inputs:
        given = inputs.get(value.name or "")
        if given is not None and isinstance(value.type, ir.TensorType):
            record(value.name or "", onnx.helper.make_tensor_type_proto(int(value.type.dtype), given))
        elif value.type is not None and not isinstance(value.type, ir.TensorType):  # a sequence, or what may be absent
            record(value.name or "", ir.serde.serialize_value(value).type)
    for key, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            raise ModelError(f"{name}: initializer {key!r} has no value", code="model-initializer")
        shape = list(tensor.shape.numpy())
        record(key, onnx.helper.make_tensor_type_proto(int(tensor.dtype), shape))
        if tensor.dtype == ir.DataType.STRING:
            continue
        if not tensor.dtype.is_floating_point() or not tensor.shape.rank():  # no cut makes a number of a longer one
            found.known[key] = read(tensor, key)
        elif tensor.size <= 16:  # e.g. the scales of a Resize: a shape depends on them
            protos[key] = onnx.numpy_helper.from_array(read(tensor, key), key)
    for node in model.graph:
        version = node.version or model.opset_imports.get(node.domain, 0)
        entry = schema_of(node.domain, node.op_type, version)
        outputs = [o for o in names_of(node.outputs) if o]
        settled = _settle(node, found)
        if settled is not None:
            from_shape = node.op_type in _SHAPE_READERS or any(n in found.derived for n in names_of(node.inputs))
            for key, array in zip(outputs, settled, strict=False):
                found.known[key] = array
                if from_shape:
                    found.derived.add(key)
                record(key, onnx.helper.make_tensor_type_proto(_dtype(array), array.shape))
            continue
        try:
            proto = ir.serde.serialize_node(node)
        except ir.serde.SerdeError as e:
            message = f"{name}: node {node.name!r} is not readable ({root_cause(e)}); export or copy the model again"
            raise ModelError(message, code="model-unreadable") from None
        needed = [i for i in proto.input if i] + list(captured_by(node))
        for key in needed:
            if key in found.known and key not in protos and found.known[key].size <= LARGEST:
                protos[key] = onnx.numpy_helper.from_array(found.known[key], key)
        result: Mapping[str, onnx.TypeProto] = {}
        if entry is not None and not entry[0].deprecated and all(_typed(types.get(k)) for k in needed):
            opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
            try:
                result = onnx.shape_inference.infer_node_outputs(
                    entry[0],
                    proto,
                    {k: types[k] for k in needed},
                    {k: protos[k] for k in needed if k in protos},
                    None,
                    opsets,
                )
            except Exception as e:
                shapes = ", ".join(f"{k} {found.shapes.get(k)}" for k in needed)
                reason = " ".join(str(e).split())[:160]
                message = f"{name}: node {node.name!r} ({node.op_type}) does not fit its inputs {shapes}: {reason}"
                raise ModelError(message, code="model-shape") from None
        for value in node.outputs:
            if value.name:
                declared = ir.serde.serialize_value(value).type if value.type is not None else onnx.TypeProto()
                kind = result.get(value.name, declared)
                record(value.name, types.get(needed[0], kind) if node.op_type in _LIKE_INPUT else kind)
    return found


def _typed(kind: onnx.TypeProto | None) -> bool:
    """Whether a type is known; behind an op that no schema covers it is not."""
    if kind is None or kind.WhichOneof("value") is None:
        return False
    return not kind.HasField("tensor_type") or kind.tensor_type.elem_type != onnx.TensorProto.UNDEFINED


def _dtype(array: Known) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


_LIKE_INPUT = ("GroupNormalization",)  # for which onnx infers nothing: the result is like the first input
_SHAPE_READERS = ("Shape", "Size")  # the two ops that read a shape and not a value


def _settle(node: ir.Node, found: Inferred) -> list[Known] | None:
    """The values of a node's outputs where they follow from shapes and integer constants."""
    if node.domain not in ("", "ai.onnx"):
        return None
    names = [n for n in names_of(node.inputs) if n]
    if node.op_type in _SHAPE_READERS:
        shape = found.shapes.get(names[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(int(np.prod(shape)), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape, np.int64)[start:end]]
    if not names or not all(n in found.known and found.known[n].size <= LARGEST for n in names):
        return None
    return evaluate(node, [found.known[n] if n else None for n in names_of(node.inputs)])
