"""What removed channels say, folded through operands of several kinds; or a note that it is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxmorph.analysis import analyze
from onnxmorph.model import load
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink, verify
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from tiny import model, node, value, weight

TOLERANCE = 1e-5
SILENT = [0, 2]  # channels with a scale of 0 and a shift that is not


def after_a_norm(last: list[onnx.NodeProto], *weights: onnx.TensorProto, shape: list[int]) -> onnx.ModelProto:
    """Six channels, two of them silent, then `last` from t [2, 4, 6] to y."""
    scale = np.array([0, 1.5, 0, 0.5, 1, 1], np.float32)
    norm = {"scale": scale, "shift": np.arange(1, 7), "mean": np.zeros(6), "variance": np.ones(6)}
    nodes = [
        node("Conv", "x k", "c"),
        node("BatchNormalization", f"c {' '.join(norm)}", "n"),
        node("Transpose", "n", "t", perm=[0, 2, 1]),
        *last,
    ]
    stored = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in norm.items()]
    return model(nodes, [weight("k", 6, 3, 1), *stored, *weights], [value("x", [2, 3, 4])], [value("y", shape)])


def einsum(equation: str, shape: list[int], *operands: onnx.TensorProto) -> onnx.ModelProto:
    names = " ".join(t.name for t in operands)
    nodes = [node("Einsum", f"t {names}", "e", equation=equation), node("Add", "e b", "y")]
    return after_a_norm(nodes, *operands, weight("b", 5), shape=shape)


CASES = {
    "matmul": (
        after_a_norm(
            [node("MatMul", "t w", "e"), node("Add", "e b", "y")], weight("w", 6, 5), weight("b", 5), shape=[2, 4, 5]
        ),
        True,
    ),
    "einsum": (einsum("blc,co->blo", [2, 4, 5], weight("w", 6, 5)), True),
    "einsum-of-three": (einsum("blc,co,o->blo", [2, 4, 5], weight("w", 6, 5), weight("v", 5)), False),
    "einsum-that-sums-more": (einsum("blc,co->bo", [2, 5], weight("w", 6, 5)), False),
    "broadcast-weight": (after_a_norm([node("MatMul", "t w", "y")], weight("w", 1, 6, 5), shape=[2, 4, 5]), False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_silent_channels_say_is_folded_or_noted(name: str) -> None:
    proto, exact = CASES[name]
    analysis = analyze(proto)
    copies = np.ones(analysis.channels + 1, np.int64)
    rows = analysis.rows["scale"][0]
    assert rows is not None
    copies[rows[SILENT, 0]] = 0
    small = shrink(analysis, Structure.of(analysis, copies))
    assert verify(analysis, small.model, small.structure).difference <= TOLERANCE
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    before, after = (run_session(m)(feeds)[0] for m in (load(proto).model, small.model))
    assert (relative(before, after) <= TOLERANCE) == exact
    assert bool(small.notes) != exact
