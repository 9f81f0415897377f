"""Mutations of ONNX models: of the bytes of a file, of any field of its messages, and of what fields mean.

Each takes a random generator, the model, which it changes, and other models to borrow from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

Rng = np.random.Generator
Change = Callable[[Rng, onnx.ModelProto, Sequence[onnx.ModelProto]], None]

NUMBERS = (
    *range(-3, 10), 15, 16, 17, 63, 64, 127, 128, 255, 256, 1000, 2**16 - 1, 2**16, 2**24, 2**24 + 1, 2**31 - 1, 2**31,
    2**32, 2**40, 2**48, 2**53 + 1, 2**60, 2**62, 2**63 - 1, -(2**31), -(2**31) - 1, -(2**60), -(2**63),
)  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 31, 32, 64)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", "x", "y", "a", "b", "SAME_UPPER", "NOTSET", "ai.onnx", "com.microsoft", "é\u202e", "a/../b", "n" * 300, "\0",
)  # fmt: skip
LOCATIONS = (
    "w.bin", "sub/w.bin", "sub/../w.bin", "inside.bin", "none.bin", "", ".", "..", "../secret.bin",
    "sub/../../secret.bin", "outside/secret.bin", "link.bin", "hard.bin", "loop.bin", "pipe.bin", "sub", "/dev/zero",
    "/etc/passwd", "..\\secret.bin", "sub\\w.bin", "C:\\w.bin", "C:w.bin", "\\\\server\\share\\w.bin", "w.bin\0",
    "~/w.bin", "file:///etc/passwd", "w.bin/", "./w.bin", "*/w.bin", "m.onnx", "NUL", "x" * 5000,
)  # fmt: skip


def pick(rng: Rng, among: Sequence[Any]) -> Any:
    """One of several."""
    return among[int(rng.integers(len(among)))]


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, functions, and all bodies."""
    found: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for graph in found:  # grows while it is gone through
        for node in graph.node:
            found += [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    return found


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for graph in graphs(model) for node in graph.node]


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    held = [t for graph in graphs(model) if isinstance(graph, onnx.GraphProto) for t in graph.initializer]
    return held + [a.t for node in nodes(model) for a in node.attribute if a.HasField("t")]


def types(model: onnx.ModelProto) -> list[onnx.TypeProto]:
    return [
        value.type
        for graph in graphs(model)
        if isinstance(graph, onnx.GraphProto)
        for value in (*graph.input, *graph.output, *graph.value_info)
    ]


def names(model: onnx.ModelProto) -> list[str]:
    """Tensors that are written or given anywhere."""
    main = [v.name for v in (*model.graph.input, *model.graph.initializer)]
    return [*main, *(o for node in nodes(model) for o in node.output)] or [""]


def number(rng: Rng) -> int:
    """Small and plausible, or at a border."""
    return int(pick(rng, SIZES if rng.random() < 0.4 else NUMBERS))


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


def bomb(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """A node that makes much of little, read by a node of the model."""
    graph = pick(rng, [g for g in graphs(model) if isinstance(g, onnx.GraphProto)])
    sizes = np.array([number(rng) for _ in range(int(rng.integers(1, 4)))], np.int64)
    mark = f"bomb{len(names(model))}"
    constants = {f"{mark}s": sizes, f"{mark}k": np.array([3], np.int64), f"{mark}n": np.array(number(rng), np.int64)}
    constants[f"{mark}o"] = np.array(1, np.int64)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    s, k, n, one = constants
    forms = {
        "ConstantOfShape": [s], "Expand": [k, s], "Tile": [k, s], "Range": [one, n, one], "Reshape": [k, s],
        "Pad": [k, s], "OneHot": [k, n, s],
    }  # fmt: skip
    kind = pick(rng, list(forms))
    made = helper.make_node(kind, forms[kind], [f"{mark}y"], name=mark)
    at = int(rng.integers(len(graph.node) + 1))
    chain = [made]
    if rng.random() < 0.5:
        chain.append(helper.make_node(pick(rng, ("Shape", "Cast", "ReduceSum", "MatMul")), [f"{mark}y"], [f"{mark}z"]))
        if chain[-1].op_type == "Cast":
            chain[-1].attribute.append(helper.make_attribute("to", 1))
    _insert(graph, at, chain)
    readers = [node for node in list(graph.node)[at + len(chain) :] if node.input]
    if readers:
        reader = pick(rng, readers)
        reader.input[int(rng.integers(len(reader.input)))] = chain[-1].output[0]


def _insert(graph: onnx.GraphProto, at: int, chain: Sequence[onnx.NodeProto]) -> None:
    after = [onnx.NodeProto.FromString(n.SerializeToString()) for n in list(graph.node)[at:]]
    del graph.node[at:]
    graph.node.extend([*chain, *after])


def nest(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """A node put into the body of a node, again and again; or into a function, which may call itself."""
    graph = pick(rng, [g for g in graphs(model) if isinstance(g, onnx.GraphProto)])
    if not graph.node:
        return
    at = int(rng.integers(len(graph.node)))
    node = onnx.NodeProto.FromString(graph.node[at].SerializeToString())
    outputs = [o for o in node.output if o]
    if rng.random() < 0.3:
        name = f"F{len(model.functions)}"
        inputs = [i for i in dict.fromkeys(node.input) if i]
        called = helper.make_node(name, inputs, list(node.output), domain="f")
        inner = [node, *([called] if rng.random() < 0.2 else [])]
        opsets = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
        model.functions.append(
            helper.make_function("f", name, inputs, outputs, inner, [*opsets, helper.make_opsetid("f", 1)])
        )
        if not any(o.domain == "f" for o in model.opset_import):
            model.opset_import.add(domain="f", version=1)
        graph.node[at].CopyFrom(called)
        return
    kind = pick(rng, ("If", "Loop"))
    for level in range(int(rng.integers(1, 5 if kind == "Loop" else 28))):
        results = [onnx.ValueInfoProto(name=o) for o in outputs]
        if kind == "If":
            body = helper.make_graph([node], "body", [], results)
            zeros = [
                helper.make_node("Constant", [], [o], value_floats=[0.0]) for o in outputs
            ]  # twice would be 2^levels
            other = helper.make_graph(zeros, "other", [], results)
            node = helper.make_node("If", ["go"], list(outputs), then_branch=body, else_branch=other)
        else:
            cond = helper.make_tensor_value_info(f"c{level}", TensorProto.BOOL, [])
            count = helper.make_tensor_value_info(f"i{level}", TensorProto.INT64, [])
            keep = helper.make_node("Identity", [f"c{level}"], [f"d{level}"])
            body = helper.make_graph(
                [node, keep], "body", [count, cond], [onnx.ValueInfoProto(name=f"d{level}"), *results]
            )
            node = helper.make_node("Loop", ["often", "go"], [f"{o}" for o in outputs], body=body)
    graph.node[at].CopyFrom(node)
    if not any(t.name == "go" for t in model.graph.initializer):
        often = numpy_helper.from_array(np.array(number(rng), np.int64), "often")
        model.graph.initializer.extend([numpy_helper.from_array(np.array(True), "go"), often])


def splice(rng: Rng, model: onnx.ModelProto, others: Sequence[onnx.ModelProto]) -> None:
    """Nodes of another model, with some of their weights, in between."""
    donor, graph = pick(rng, others), model.graph
    if not donor.graph.node:
        return
    start = int(rng.integers(len(donor.graph.node)))
    taken = list(donor.graph.node)[start : start + int(rng.integers(1, 4))]
    _insert(graph, int(rng.integers(len(graph.node) + 1)), taken)
    there = {t.name for t in graph.initializer}
    reads = {i for node in taken for i in node.input}
    graph.initializer.extend(t for t in donor.graph.initializer if t.name in reads - there)


MEANT: dict[str, Change] = {
    "field": any_field, "shape": shape, "dtype": dtype, "attribute": attribute, "wiring": wiring, "op": op,
    "data": data, "external": external, "bomb": bomb, "nest": nest, "splice": splice,
}  # fmt: skip


# -- bytes -----------------------------------------------------------------------------------------


def scrambled(rng: Rng, content: bytes) -> bytes:
    """Bytes changed, cut off, left out, doubled or put in."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at, size = int(rng.integers(len(found) + 1)), int(rng.integers(1, 17))
        choice = rng.random()
        if choice < 0.5 and at < len(found):
            found[at] = int(rng.integers(256))
        elif choice < 0.6 and at < len(found):
            found[at] ^= 1 << int(rng.integers(8))
        elif choice < 0.7:
            del found[at : at + size]
        elif choice < 0.8:
            found[at:at] = found[at : at + size]
        elif choice < 0.9:
            found[at:at] = rng.bytes(size)
        else:
            del found[at:]
    return bytes(found)
