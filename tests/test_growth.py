"""Networks that grow by copies compute what they did, wherever a weight can share out its copies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from exported import analysis_of, grouped
from onnxmorph.analysis import analyze
from onnxmorph.surgery import scale
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from tiny import model, node, weight


def square() -> onnx.ModelProto:
    """A square weight on a skip connection, transposed: both of its axes have the same channels."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Transpose", "w", "t"),
        node("MatMul", "h t", "r"),
        node("Add", "h r", "s"),
        node("MatMul", "s b", "y"),
    ]
    return model(nodes, [weight("a", 4, 8), weight("w", 8, 8, seed=1), weight("b", 8, 3, seed=2)])


@pytest.mark.parametrize("name", ["square", *grouped("lstm_peepholes", "gru_dynamic_zero_state", "rotary_grouped")])
def test_a_network_that_grows_computes_what_it_did(name: str) -> None:
    analysis = analyze(square()) if name == "square" else analysis_of(name)
    wide = scale(analysis, "params=200%")
    assert (wide.structure.copies(analysis) > 1).any()
    assert wide.notes == ()
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    for a, b in zip(run_session(analysis.graph.model)(feeds), run_session(wide.model)(feeds), strict=True):
        assert relative(a, b) <= 1e-5
