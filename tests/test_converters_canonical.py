"""Order and names come from the graph: whatever an exporter called and placed, one graph has one fingerprint."""

from __future__ import annotations

import random
import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxmorph
from onnxmorph.converters.canonical import settle
from onnxmorph.surgery.verify import run_session

NET = """<ir_version: 9, opset_import: ["" : 18]> net (float[n, 4] x, bool c) => (float[n, 2] y, float[n, 3] z)
<float[4, 3] dense_kernel = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3, 2] out_kernel = {1, 2, 3, 4, 5, 6},
 float[1] half = {0.5}> {
    a = MatMul(x, dense_kernel)
    b = Relu(a)
    d = Mul(a, half)
    e = Add(b, d)
    f = If(c) <then_branch = g1 () => (float[n, 3] t) { s = Neg(e) t = Mul(s, d) },
               else_branch = g2 () => (float[n, 3] u) { u = Add(b, e) }>
    g = MatMul(f, out_kernel)
    y = Tanh(g)
    z = Exp(d)
}"""
KEPT = {"dense_kernel", "out_kernel"}


def shuffled(seed: int) -> ir.Model:
    """The network with other names, and its nodes in another order that is one."""
    rng = random.Random(seed)
    model = ir.from_proto(onnx.parser.parse_model(NET))
    nodes = list(model.graph)
    rng.shuffle(nodes)
    model.graph.extend(nodes)
    model.graph.sort()
    for node in model.graph.all_nodes():
        node.name = f"layer/{node.op_type}__{rng.randrange(10**6)}"
        for value in node.outputs:
            value.name = f"{value.name}__{rng.randrange(10**6)}"
    return model


def settled(seed: int) -> ir.Model:
    model = shuffled(seed)
    settle(model.graph, KEPT)
    return model


def fingerprint(model: ir.Model) -> str:
    return onnxmorph.analyze(model).graph.fingerprint


def test_shuffled_networks_have_one_fingerprint_once_settled() -> None:
    assert len({fingerprint(shuffled(seed)) for seed in range(5)}) == 5
    assert len({fingerprint(settled(seed)) for seed in range(5)}) == 1


def test_names_say_what_values_are() -> None:
    graph = settled(0).graph
    assert [value.name for value in (*graph.inputs, *graph.outputs)] == ["input_0", "input_1", "output_0", "output_1"]
    assert set(graph.initializers) == {*KEPT, "constant"}
    assert [value.name for node in graph for value in node.outputs][:2] == ["MatMul", "Relu"]
    assert not any(re.search(r"__\d", node.name or "") for node in graph.all_nodes())


def test_a_kept_name_is_given_to_nothing_else() -> None:
    model = ir.from_proto(onnx.parser.parse_model(NET.replace("dense_kernel", "MatMul")))
    settle(model.graph, {"MatMul", "out_kernel"})
    names = [value.name for node in model.graph.all_nodes() for value in node.outputs]
    assert "MatMul_1" in names and "MatMul" not in names and len(set(names)) == len(names)


@pytest.mark.parametrize("taken", [True, False])
def test_the_function_stays(taken: bool) -> None:
    x, chosen = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4), np.array(taken)
    before = run_session(shuffled(1))({"x": x, "c": chosen})
    after = run_session(settled(2))({"input_0": x, "input_1": chosen})
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
