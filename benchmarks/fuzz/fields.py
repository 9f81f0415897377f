"""Mutations of the fields of an ONNX model: of any, and of those whose meaning is known.

Each takes a random generator, the model, which it changes, and other models to borrow from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from onnx import TensorProto, helper

from benchmarks.fuzz.parts import FLOATS, LOCATIONS, TEXTS, Rng, graphs, names, nodes, number, pick, tensors, types

# -- any field of any message ----------------------------------------------------------------------


def messages(message: Message, depth: int = 0) -> Iterator[Message]:
    """A message and all that are in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE and depth < 24:
            for each in value if field.is_repeated else [value]:
                yield from messages(each, depth + 1)


def _scalar(rng: Rng, field: Field) -> Any:
    if field.cpp_type in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return pick(rng, FLOATS)
    if field.cpp_type == Field.CPPTYPE_STRING:
        return pick(rng, TEXTS).encode() if field.type == Field.TYPE_BYTES else pick(rng, TEXTS)
    if field.cpp_type == Field.CPPTYPE_ENUM:
        return pick(rng, field.enum_type.values).number
    bits, signed = (32 if "32" in str(field.cpp_type) or field.cpp_type in (1, 3) else 64), field.cpp_type in (1, 2)
    low = number(rng) % 2**bits
    return low - 2**bits if signed and low >= 2 ** (bits - 1) else low


def any_field(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Set, clear, drop, double or reorder a field; or take another message of its kind in its place."""
    found = list(messages(model))
    message = pick(rng, found)
    field = pick(rng, message.DESCRIPTOR.fields)
    name, nested = field.name, field.type == Field.TYPE_MESSAGE
    if rng.random() < 0.2:
        message.ClearField(name)
        return
    donors = [m for m in found if nested and field.message_type == m.DESCRIPTOR and m is not message]
    if field.is_repeated:
        entries = getattr(message, name)
        if len(entries) and rng.random() < 0.6:
            at, to = (int(i) for i in rng.integers(len(entries), size=2))
            if rng.random() < 0.4:
                del entries[at]
            elif nested:
                copy = type(entries[to])()
                copy.CopyFrom(entries[to])
                entries[at].CopyFrom(copy)
            else:
                entries[at] = entries[to] if rng.random() < 0.3 else _scalar(rng, field)
        elif not nested:
            entries.append(_scalar(rng, field))
        elif donors:
            copy = type(donors[0])()
            copy.CopyFrom(pick(rng, donors))
            entries.add().CopyFrom(copy)
        else:
            entries.add()
    elif not nested:
        setattr(message, name, _scalar(rng, field))
    elif donors:
        copy = type(donors[0])()
        copy.CopyFrom(pick(rng, donors))
        getattr(message, name).CopyFrom(copy)
    else:
        getattr(message, name).SetInParent()


# -- fields by what they mean ----------------------------------------------------------------------


def shape(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """A dimension of a tensor or of what is declared; an axis more or less."""
    held, declared = tensors(model), [t for t in types(model) if t.HasField("tensor_type")]
    if held and (rng.random() < 0.5 or not declared):
        tensor = pick(rng, held)
        if tensor.dims and rng.random() < 0.7:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = number(rng)
        elif tensor.dims and rng.random() < 0.5:
            del tensor.dims[-1]
        else:
            tensor.dims.append(number(rng))
    elif declared:
        kind = pick(rng, declared).tensor_type
        if kind.shape.dim and rng.random() < 0.6:
            dim = pick(rng, kind.shape.dim)
            if rng.random() < 0.3:
                dim.dim_param = pick(rng, ("n", "m", "", "2*n"))
            else:
                dim.dim_value = number(rng)
        elif rng.random() < 0.3:
            kind.ClearField("shape")
        else:
            kind.shape.dim.add().dim_value = number(rng)


def dtype(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Another type of elements."""
    kind = int(pick(rng, range(28)))
    held, declared = tensors(model), types(model)
    if held and (rng.random() < 0.6 or not declared):
        pick(rng, held).data_type = kind
    elif declared:
        chosen = pick(rng, declared)
        if rng.random() < 0.2:
            copy = onnx.TypeProto()
            copy.CopyFrom(chosen)
            getattr(chosen, pick(rng, ("sequence_type", "optional_type"))).elem_type.CopyFrom(copy)
        else:
            chosen.tensor_type.elem_type = kind


def attribute(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Another value or type of an attribute, one more, or one less."""
    node = pick(rng, nodes(model) or [onnx.NodeProto()])
    donors = [a for m in (model, *others) for n in nodes(m) for a in n.attribute]
    if not node.attribute or rng.random() < 0.2:
        if donors:
            node.attribute.add().CopyFrom(pick(rng, donors))
        return
    chosen = pick(rng, node.attribute)
    choice = rng.random()
    if choice < 0.15:
        node.attribute.remove(chosen)
    elif choice < 0.3:
        chosen.type = int(pick(rng, range(16)))
    elif choice < 0.4:
        chosen.name = pick(rng, [a.name for a in donors])
    elif chosen.ints:
        where = int(rng.integers(len(chosen.ints) + 1))
        if where == len(chosen.ints):
            chosen.ints.append(number(rng))
        else:
            chosen.ints[where] = number(rng)
    elif chosen.type == onnx.AttributeProto.FLOAT:
        chosen.f = pick(rng, FLOATS)
    elif chosen.type == onnx.AttributeProto.STRING:
        chosen.s = pick(rng, TEXTS).encode()
    elif chosen.type == onnx.AttributeProto.INT:
        chosen.i = number(rng)
    else:
        chosen.CopyFrom(helper.make_attribute(chosen.name, [number(rng) for _ in range(int(rng.integers(1, 5)))]))


def wiring(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """What a node reads or writes, how many of it, and in which order nodes stand."""
    graph = pick(rng, graphs(model))
    if not graph.node:
        return
    node, choice = pick(rng, graph.node), rng.random()
    side = node.input if rng.random() < 0.7 else node.output
    if choice < 0.5 and side:
        side[int(rng.integers(len(side)))] = pick(rng, [*names(model), ""])
    elif choice < 0.65:
        side.append(pick(rng, [*names(model), "", "new"]))
    elif choice < 0.75 and side:
        del side[int(rng.integers(len(side)))]
    elif choice < 0.85:
        copy = onnx.NodeProto()
        copy.CopyFrom(pick(rng, graph.node))
        node.CopyFrom(copy)
    elif choice < 0.95:
        order = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node]
        del graph.node[:]
        graph.node.extend(order[int(i)] for i in rng.permutation(len(order)))
    elif isinstance(graph, onnx.GraphProto):
        graph.output.add().CopyFrom(pick(rng, graph.output) if graph.output else onnx.ValueInfoProto(name="y"))


def op(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Another op, domain or opset."""
    node = pick(rng, nodes(model) or [onnx.NodeProto()])
    choice = rng.random()
    if choice < 0.6:
        donor = pick(rng, [n for m in (model, *others) for n in nodes(m)] or [node])
        node.op_type, node.domain = donor.op_type, donor.domain
    elif choice < 0.7:
        node.domain = pick(rng, ("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "acme", "f"))
    elif choice < 0.8:
        node.op_type = pick(rng, ("If", "Loop", "Scan", "Constant", "Identity", "Shape", "NonZero", "Frob", ""))
    elif model.opset_import:
        pick(rng, model.opset_import).version = int(pick(rng, (*range(28), 2**31, 2**63 - 1, -1)))


def data(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """The content of a tensor: cut, of another length, in another field, or other numbers."""
    held = tensors(model)
    if not held:
        return
    tensor, choice = pick(rng, held), rng.random()
    if choice < 0.3:
        raw = tensor.raw_data
        tensor.raw_data = (
            raw[: int(rng.integers(len(raw) + 1))] if rng.random() < 0.6 else raw + rng.bytes(int(rng.integers(1, 99)))
        )
    elif choice < 0.4:
        tensor.ClearField("raw_data")
    elif choice < 0.55:
        tensor.ClearField("raw_data")
        fields = ("float_data", "int32_data", "int64_data", "double_data")
        getattr(tensor, pick(rng, fields)).extend([1] * int(rng.integers(200)))
    elif choice < 0.6:
        tensor.string_data.append(b"\xff\xfe")
    else:
        whole = [t for t in held if t.data_type in (TensorProto.INT64, TensorProto.INT32) and t.HasField("raw_data")]
        if not whole:
            return
        tensor = pick(rng, whole)
        width = 8 if tensor.data_type == TensorProto.INT64 else 4
        values = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // width * width], f"<i{width}").copy()
        if len(values):
            given = np.array(number(rng), np.int64)
            values[int(rng.integers(len(values)))] = given.astype(values.dtype)
            tensor.raw_data = values.tobytes()


def external(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Weights said to be in another file: somewhere else, cut short, past its end."""
    held = tensors(model)
    if not held:
        return
    tensor = pick(rng, held)
    width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize if 0 < tensor.data_type < 27 else 4
    size = int(np.prod([float(d) for d in tensor.dims])) * width if len(tensor.dims) < 9 else 4
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    offset = pick(rng, ("0", "4", "4096", "-4", "many", str(2**63), "1e3", "")) if rng.random() < 0.3 else "0"
    length = pick(rng, ("0", "1", str(2**62), "-1", "", str(size + 1))) if rng.random() < 0.3 else str(size)
    where = "w.bin" if rng.random() < 0.4 else pick(rng, LOCATIONS)
    for key, given in (("location", where), ("offset", offset), ("length", length)):
        if rng.random() < 0.9:
            tensor.external_data.add(key=key, value=given)
    if rng.random() < 0.1:
        tensor.external_data.add(key="location", value=pick(rng, LOCATIONS))
