"""The laws on random networks: a few hundred always the same ones, and as many as wanted at night.

``ONNXMORPH_EXAMPLES`` says how many at night. A failure prints its graph, shrunk to a few lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphs_at_random import MOVES, describe, random_graph
from laws import deletion, growth, identity, in_runtime, permutation, prediction, random_cut, single
from onnxmorph.analysis import Analysis, analyze
from tiny import integers, node, value, weight
from tiny import model as tiny_model

BATCH = 3
TOLERANCE = 1e-4  # of float32, behind as many as ten layers that nothing normalises
NIGHT = int(os.environ.get("ONNXMORPH_EXAMPLES", "3000"))
QUICK = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
SLOW = settings(QUICK, derandomize=False, print_blob=True)


@st.composite
def graphs(draw: Callable[[Any], Any], zero: bool = False, steps: int = 10) -> onnx.ModelProto:
    return random_graph(lambda n: int(draw(st.integers(0, n - 1))), zero=zero, steps=steps)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of the inputs, at another batch size than analysis assumes."""
    return {v.name: [d.dim_value or BATCH for d in v.type.tensor_type.shape.dim] for v in model.graph.input}


def feeds_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes_of(model).items()}


def widths(analysis: Analysis) -> list[tuple[str, int]]:
    return [(g.id, g.width) for g in analysis.groups]


def check(model: onnx.ModelProto, seed: int) -> None:
    note(describe(model))
    onnx.checker.check_model(model, full_check=True)
    analysis, feeds = analyze(model), feeds_of(model)
    there = analyze(model, shapes_of(model))
    assert widths(there) == widths(analysis), "the groups depend on the batch size"
    rng = np.random.default_rng(seed)
    copies = random_cut(analysis, rng)
    prediction(analysis, copies)
    identity(analysis, feeds)
    deletion(analysis, feeds, copies, in_runtime, TOLERANCE, there)
    permutation(analysis, feeds, seed, in_runtime, TOLERANCE)
    growth(analysis, feeds, np.append(1, rng.integers(1, 3, analysis.channels)))


def check_single(model: onnx.ModelProto, seed: int) -> None:
    note(describe(model))
    analysis, feeds = analyze(model), feeds_of(model)
    able = [g.start + 1 + c for g in analysis.groups for c in range(g.width) if g.width > 1]
    for channel in np.random.default_rng(seed).permutation(able)[:6].tolist():
        single(analysis, feeds, channel, in_runtime, TOLERANCE)


@settings(QUICK, max_examples=300)
@given(graphs(), st.integers(0, 2**16))
def test_the_laws_hold(model: onnx.ModelProto, seed: int) -> None:
    check(model, seed)


@settings(QUICK, max_examples=60)
@given(graphs(zero=True, steps=6), st.integers(0, 2**16))
def test_a_channel_of_zeros_is_one_that_is_not_there(model: onnx.ModelProto, seed: int) -> None:
    check_single(model, seed)


@pytest.mark.nightly
@settings(SLOW, max_examples=NIGHT)
@given(graphs(steps=20), st.integers(0, 2**16))
def test_the_laws_hold_all_night(model: onnx.ModelProto, seed: int) -> None:
    check(model, seed)


@pytest.mark.nightly
@settings(SLOW, max_examples=NIGHT // 5)
@given(graphs(zero=True, steps=12), st.integers(0, 2**16))
def test_a_channel_of_zeros_is_one_that_is_not_there_all_night(model: onnx.ModelProto, seed: int) -> None:
    check_single(model, seed)


@pytest.mark.parametrize("op", ["Slice", "Gather"])
def test_positions_of_the_batch_and_a_channel_together_stay(op: str) -> None:
    """The last position of (n c) is another one when n is."""
    index = [integers("i", -2), integers("e", 2**62)] if op == "Slice" else [integers("i", -2, -1)]
    nodes = [
        node("Mul", "x w", "h"),
        node("Reshape", "h flat", "f"),
        node(op, " ".join(["f", *(t.name for t in index)]), "g"),
        node("Mul", "g p", "y"),
    ]
    tensors = [weight("w", 1, 4), integers("flat", -1), *index, weight("p", 2, seed=1)]
    built = tiny_model(nodes, tensors, [value("x", ["n", 1])], [value("y", [2])])
    analysis = analyze(built)
    assert analysis.groups == ()
    assert {f.code for f in analysis.fixed if f.tensor == "w" and f.axis == 1} == {"dynamic"}


def test_the_graphs_are_worth_it() -> None:
    """Every move is made, and in most graphs something can go."""
    ops, able = set[str](), 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        model = random_graph(lambda n: int(rng.integers(n)))
        ops |= {node.op_type for node in model.graph.node}
        able += any(g.width > 1 for g in analyze(model).groups)
    assert len(MOVES) > 30 and len(ops) > 50
    assert able > 120


def test_random_graphs_run() -> None:
    """That they do is what the laws take for granted."""
    rng = np.random.default_rng(0)
    model = random_graph(lambda n: int(rng.integers(n)))
    for found in in_runtime(ir.from_proto(model), feeds_of(model)):
        assert np.isfinite(found).all()
