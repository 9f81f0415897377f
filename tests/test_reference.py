"""The zero-masked original where zero is no value: dead channels that are infinite or no number at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxmorph.analysis import analyze
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink, verify
from tiny import model, node, value, weight

# At a dead channel (0): log 0 = -inf, 1 / 0 = inf, 0 / 0 = NaN, and NaN again where infinities meet.
UNDEFINED_AT_ZERO = {
    "log": [node("Log", "p", "r")],
    "reciprocal": [node("Reciprocal", "p", "r")],
    "division": [node("Div", "h p", "r")],
    "infinite_differences": [node("Log", "p", "l"), node("Sub", "l l2", "r"), node("Log", "p", "l2")],
}


def network(name: str, opset: int) -> onnx.ModelProto:
    """MatMul, |h|, functions that are undefined at 0, a mean subtracted, and a MatMul over the result."""
    nodes = [node("MatMul", "x a", "h"), node("Abs", "h", "p"), *UNDEFINED_AT_ZERO[name]]
    nodes = sorted(nodes, key=lambda n: n.output[0] == "r")
    nodes += [node("ReduceMean", "r", "m", axes=[1]), node("Sub", "r m", "c"), node("MatMul", "c b", "y")]
    return model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], opset=opset)


@pytest.mark.parametrize("opset", [8, 13, 17])
@pytest.mark.parametrize("name", UNDEFINED_AT_ZERO)
def test_dead_channels_may_be_undefined(name: str, opset: int) -> None:
    analysis = analyze(network(name, opset))
    assert [g.width for g in analysis.groups] == [8]
    copies = np.ones(analysis.channels + 1, np.int64)
    copies[[2, 3, 7]] = 0
    small = shrink(analysis, Structure.of(analysis, copies))
    assert verify(analysis, small.model, small.structure).difference <= 1e-5


def test_a_wrong_model_is_still_found() -> None:
    analysis = analyze(network("log", 17))
    copies = np.ones(analysis.channels + 1, np.int64)
    copies[2] = 0
    kept = Structure.of(analysis, copies)
    copies[2], copies[3] = 1, 0
    other = shrink(analysis, Structure.of(analysis, copies))
    assert verify(analysis, other.model, kept).difference > 1e-2


def test_outputs_have_values() -> None:
    """No mask hides what the network itself leaves undefined."""
    nodes = [node("MatMul", "x a", "h"), node("Log", "h", "r"), node("MatMul", "r b", "y")]
    proto = model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], outputs=[value("y", ["n", 3])])
    analysis = analyze(proto)
    whole = Structure.of(analysis, np.ones(analysis.channels + 1, np.int64))
    assert verify(analysis, shrink(analysis, whole).model, whole).difference == np.inf
