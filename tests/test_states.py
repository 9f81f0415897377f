"""Zero states are dropped on load where the graph makes them, and kept where they may be learnt."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxmorph.model import load
from onnxmorph.surgery.verify import run_session
from tiny import integers, model, node, value, weight

WEIGHTS = [weight("w", 1, 24, 10), weight("r", 1, 24, 6, seed=1), weight("o", 6, 5, seed=2)]


def lstm(states: str, *extra: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """An LSTM with these two states."""
    layer = node("LSTM", f"x w r {states}", "s", hidden_size=6)
    layer.input.insert(3, "")
    layer.input.insert(4, "")
    read = [node("Squeeze", "s one", "t"), node("MatMul", "t o", "y")]
    weights = [*WEIGHTS, integers("one", 1), *extra]
    return model([*nodes, layer, *read], weights, [value("x", [7, 2, 10])], [value("y", [7, 2, 5])])


def states(name: str, fill: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full((1, 2, 6), fill, np.float32), name)


CONSTANT = (onnx.helper.make_node("Constant", [], ["h"], value=states("h", 0)),)


@pytest.mark.parametrize(
    ("proto", "kept"),
    [
        (lstm("h h", states("h", 0)), 0),  # shared: the exporter's own zeros
        (lstm("h c", states("c", 0), nodes=CONSTANT), 1),  # c may be learnt
        (lstm("h c", states("h", 0), states("c", 0)), 2),
        (lstm("h h", states("h", 0.5)), 2),
    ],
    ids=["shared", "constant", "learnt", "not-zero"],
)
def test_states_are_dropped_only_where_nobody_can_learn_them(proto: onnx.ModelProto, kept: int) -> None:
    graph = load(proto)
    layer = next(n for n in graph.nodes if n.type == "LSTM")
    assert sum(bool(name) for name in layer.inputs[5:]) == kept
    x = np.random.default_rng(0).normal(size=(7, 2, 10)).astype(np.float32)
    before = ReferenceEvaluator(proto).run(None, {"x": x})
    for a, b in zip(before, run_session(graph.model)({"x": x}), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
