"""Quantised models as ONNX Runtime's tools write them: cut, costed, scored and grown like the plain ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxmorph import analyze, scale, shrink, verify
from onnxmorph.analysis import Analysis
from onnxmorph.importance import scores
from onnxmorph.quantised import real, steps_of
from onnxmorph.structure import Structure
from onnxmorph.surgery.reference import masked
from onnxmorph.surgery.verify import random_inputs, run_session
from quantised_nets import NETS, SCHEMES, plain, quantised
from tiny import convnet, integers, model, node, value

ALL = [(net, scheme) for net in NETS for scheme in SCHEMES]
each = pytest.mark.parametrize(("net", "scheme"), ALL)
STATIC = [s for s in SCHEMES if not s.startswith("dynamic")]


@cache
def analysis_of(net: str, scheme: str) -> Analysis:
    return analyze(quantised(net, scheme))


def half(analysis: Analysis, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in analysis.groups:
        copies[group.start + 1 + rng.permutation(group.width)[: group.width // 2]] = 0
    return copies


@each
def test_the_groups_are_those_of_the_plain_network(net: str, scheme: str) -> None:
    found, wanted = analysis_of(net, scheme), analyze(plain(net))
    assert sorted(found.widths) == sorted(wanted.widths)
    assert found.removable > 0.98
    assert {f.code for f in found.fixed} <= {"graph-input", "graph-output", "positions", "tied"}


@each
def test_integers_are_what_is_stored(net: str, scheme: str) -> None:
    """Not a test of floats by accident."""
    analysis = analysis_of(net, scheme)
    weights = sum(np.prod(p.shape) for p in analysis.parameters.values() if p.quantised)
    assert weights > (0.9 * analysis.costs["params"].value(analysis.widths) if scheme in STATIC else 200)


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("net", NETS)
def test_quantising_does_not_change_the_costs(net: str, scheme: str) -> None:
    """Scales and zero points do not count, nor does quantising itself; the tools fold a Relu into what follows."""
    found, wanted = analysis_of(net, scheme), analyze(plain(net))
    for cost in ("macs", "params", "classic_flops"):
        here, there = (a.costs[cost].value(a.widths) for a in (found, wanted))
        assert abs(here - there) <= (cost == "params" and net == "attention")  # a constant became an initializer
    if net == "convolutions":
        assert found.costs["classic_params"].value(found.widths) == wanted.costs["classic_params"].value(wanted.widths)


@pytest.mark.parametrize("seed", range(3))
@each
def test_half_of_every_group_removed_is_the_masked_original(net: str, scheme: str, seed: int) -> None:
    analysis = analysis_of(net, scheme)
    small = shrink(analysis, Structure.of(analysis, half(analysis, seed)))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert verify(analysis, small.model, small.structure, seed=seed).difference == 0
    after = analyze(small.model)
    assert after.count() == small.structure.costs["after"]


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("net", NETS)
def test_fused_by_the_runtime_it_is_a_few_steps_away_at_most(net: str, scheme: str) -> None:
    """Quantising, float op, quantising becomes integer arithmetic, which rounds the middle of two steps otherwise."""
    analysis = analysis_of(net, scheme)
    copies = half(analysis, 0)
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    models = (masked(analysis, copies), shrink(analysis, Structure.of(analysis, copies)).model)
    sessions = [onnxruntime.InferenceSession(ir.to_proto(m).SerializeToString()) for m in models]
    wanted, found = (s.run(None, feeds)[0] for s in sessions)
    levels = np.unique(wanted)
    step = float(np.diff(levels).min())
    assert step > np.abs(wanted).max() / 256  # the output is quantised
    assert np.abs(wanted - found).max() <= 2.5 * step


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("scheme", ["qdq_channel", "operators_channel", "qdq_tensor"])
def test_channels_matter_as_much_as_in_the_plain_network(net: str, scheme: str) -> None:
    """The stored integers alone would not tell: with a scale per channel, all channels are as large."""
    found, wanted = analysis_of(net, scheme), analyze(plain(net))
    for group in wanted.groups:
        same = next(g for g in found.groups if g.width == group.width)
        a, b = (s[g.start + 1 : g.start + 1 + g.width] for s, g in ((scores(found), same), (scores(wanted), group)))
        assert np.corrcoef(a, b)[0, 1] > 0.95


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_widened_network_computes_the_same(scheme: str) -> None:
    """Integers are shared out without a rest; floats between them are summed up in another order."""
    analysis = analysis_of("convolutions", scheme)
    wide = scale(analysis, "flops=1000%")
    assert not [note for note in wide.notes if not note.startswith("statistics")]
    assert min(wide.structure.widths / analysis.widths) > 3  # two parts always add up
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    before, after = (run_session(m)(feeds)[0] for m in (analysis.graph.model, wide.model))
    step = np.diff(np.unique(before)).min() if scheme.startswith("qdq") else 0
    assert np.abs(before - after).max() <= 1.5 * step + (1e-6 if scheme.startswith("dynamic") else 0)


def test_new_channels_can_be_drawn() -> None:
    analysis = analysis_of("convolutions", "operators_channel")
    wide = scale(analysis, "flops=300%", init="fresh")
    grown = analyze(wide.model)
    name = next(n for n in grown.parameters if "second.weight" in n and grown.parameters[n].quantised)
    values = real(grown, name, steps_of(grown))
    old = analysis.graph.weights(name).shape[0]
    assert len(values) > old
    assert len(np.unique(values.reshape(len(values), -1), axis=0)) == len(values)
    assert run_session(wide.model)(random_inputs(grown.graph, np.random.default_rng(0)))[0].any()


def test_a_masked_weight_is_its_zero_point() -> None:
    analysis = analysis_of("convolutions", "operators_tensor")
    copies = half(analysis, 0)
    reference = analyze(masked(analysis, copies))
    steps = steps_of(analysis)
    seen = 0
    for name, parameter in analysis.parameters.items():
        if not parameter.quantised or analysis.roles.get(name) == "quantiser":
            continue
        for axis, rows in enumerate(analysis.rows[name]):
            if rows is not None:
                dead = (copies[rows] == 0).any(1)
                values = real(reference, name, steps)
                assert not np.moveaxis(values, axis, 0)[dead].any()
                seen += int(steps[name].zero.any())
    assert seen  # some zero point is not 0


def test_the_structure_says_how_to_take_scales_along() -> None:
    analysis = analysis_of("convolutions", "qdq_channel")
    structure = Structure.of(analysis, half(analysis, 0))
    name = next(n for n in analysis.parameters if n.endswith("first.weight_scale"))
    weight = next(n for n in analysis.parameters if n.endswith("first.weight_quantized"))
    assert structure.parameters[name][0] == structure.parameters[weight][0]


@pytest.mark.parametrize("integers_too", [False, True])
def test_what_silent_channels_say_is_folded_through_quantised_activations(integers_too: bool) -> None:
    """Into a bias of floats, or of int32 in the steps of the products: the result is that of the original."""
    proto = convnet()
    graph = proto.graph

    def array(name: str, values: object, kind: type = np.float32) -> None:
        for tensor in [t for t in graph.initializer if t.name == name]:
            graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, kind), name))

    array("scale", np.where(np.arange(16) > 9, 0, 1))
    array("qs", 0.03125)
    array("qz", 3, np.uint8)
    second = next(n for n in graph.node if n.name == "second")
    at = list(graph.node).index(second)
    second.input[0] = "dq"
    second.input.append("bias")
    added = [node("QuantizeLinear", "e qs qz", "q"), node("DequantizeLinear", "q qs qz", "dq")]
    if integers_too:
        rng = np.random.default_rng(0)
        array("k2q", rng.integers(-90, 90, (8, 16, 3, 3)), np.int8)
        array("bq", rng.integers(-900, 900, 8), np.int32)
        array("ws", rng.uniform(0.01, 0.02, 8))
        array("bs", onnx.numpy_helper.to_array(graph.initializer[-1]) * 0.03125)
        added += [node("DequantizeLinear", "k2q ws", "k2d", axis=0), node("DequantizeLinear", "bq bs", "bias", axis=0)]
        second.input[1] = "k2d"
    else:
        array("bias", np.linspace(-1, 1, 8))
    for each in reversed(added):
        graph.node.insert(at, each)
    analysis = analyze(proto)
    copies = np.ones(analysis.channels + 1, np.int64)
    first = next(g for g in analysis.groups if g.width == 16)
    copies[first.start + 11 : first.start + 17] = 0
    small = shrink(analysis, Structure.of(analysis, copies))
    assert not small.notes
    found = verify(analysis, small.model, small.structure)
    assert found.difference < 1e-6 and found.folded > 0.05
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    original, folded, zeroed = (
        run_session(m)(feeds)[0] for m in (analysis.graph.model, small.model, masked(analysis, copies))
    )
    assert np.abs(original - folded).max() < 1e-3 * np.abs(original - zeroed).max()


def test_a_shape_is_no_parameter_whatever_its_integers() -> None:
    """A Reshape by a constant of int64 that was cast from int32: sizes, although int32 holds biases elsewhere."""
    shape = onnx.numpy_helper.from_array(np.array([-1, 4], np.int32), "s")
    nodes = [node("Cast", "s", "t", to=onnx.TensorProto.INT64), node("Reshape", "x t", "y")]
    analysis = analyze(model(nodes, [shape, integers("unused", 1)], outputs=[value("y", ["n", 4])]))
    assert not analysis.parameters
    assert analysis.graph.known["t"].tolist() == [-1, 4]
