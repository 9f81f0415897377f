"""Mutations of ONNX models by name: of their fields, and parts that are put in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzz.fields import any_field, attribute, data, dtype, external, op, shape, wiring
from benchmarks.fuzz.parts import Rng, graphs, names, number, pick

Change = Callable[[Rng, onnx.ModelProto, Sequence[onnx.ModelProto]], None]


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
