"""Modelled latency: what runs as one kernel, what a kernel moves, how long it takes, and the original's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import networkx as nx
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs_at_random import random_graph
from inception import inception_v2
from laws import latency_prediction, random_cut
from onnxmorph import latency
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.errors import DeviceError
from onnxmorph.latency import Device, Roofline, load
from onnxmorph.latency.kernels import kernels
from onnxmorph.polynomial import Widths
from structures.control import AGAIN, GOES_ON, LAST, RNN, START, STEP, X, body, truth
from test_bodies import loop
from tiny import convnet, integer, mlp, model, node, value, weight

# One where both sides bind in small networks: 8 operations per byte.
BOX = Device("box", peaks={"float32": 8e9, "int8": 32e9}, bandwidth=1e9, overhead=1e-6, alignment={"float32": 8})
IMAGE, MAP = [value("x", [1, 4, 8, 8])], [value("y", None)]


def image_net(nodes: Sequence[onnx.NodeProto], *weights: onnx.TensorProto) -> Analysis:
    """Of nodes from x [1, 4, 8, 8] to y, with weights k, l and m of 1 x 1 convolutions on 4 channels, and scalars."""
    given = [weight(name, 4, 4, 1, 1, seed=i) for i, name in enumerate("klm")]
    scalars = [
        numpy_helper.from_array(np.float32(n), name) for n, name in ((1.4142, "root"), (1, "one"), (0.5, "half"))
    ]
    proto = model(nodes, [*given, *scalars, *weights], IMAGE, MAP)
    read = {name for each in nodes for name in each.input}
    unread = [t for t in proto.graph.initializer if t.name not in read]
    for tensor in unread:
        proto.graph.initializer.remove(tensor)
    return analyze(onnx.shape_inference.infer_shapes(proto))


def fused(analysis: Analysis) -> list[str]:
    """The types of the ops of every kernel."""
    return ["+".join(analysis.plans[s].node.type for s in k.steps) for k in kernels(analysis)]


def roofline(analysis: Analysis, device: Device = BOX) -> Roofline:
    found = latency.costs(analysis, device)["latency"]
    assert isinstance(found, Roofline)
    return found


# -- fusion --------------------------------------------------------------------------------------

NORM = "scale shift mean variance"
NORMS = [numpy_helper.from_array(np.linspace(0.5, 1.5, 4, dtype=np.float32), name) for name in NORM.split()]
GELU = [
    node("Div", "c root", "g1"), node("Erf", "g1", "g2"), node("Add", "g2 one", "g3"), node("Mul", "c g3", "g4"),
    node("Mul", "g4 half", "y"),
]  # fmt: skip
CONV = node("Conv", "x k", "c")
GATE = [node("GlobalAveragePool", "c", "p"), node("Conv", "p l", "q"), node("Sigmoid", "q", "s")]

FUSED: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "norm and activation": (
        [CONV, node("BatchNormalization", f"c {NORM}", "b"), node("Relu", "b", "y")],
        ["Conv+BatchNormalization+Relu"],
    ),
    "sum with a skip": ([CONV, node("Add", "x c", "a"), node("Relu", "a", "y")], ["Conv+Add+Relu"]),
    "GELU in parts": ([CONV, *GELU], ["Conv+Div+Erf+Add+Mul+Mul"]),
    "SiLU in parts": ([CONV, node("Sigmoid", "c", "s"), node("Mul", "c s", "y")], ["Conv+Sigmoid+Mul"]),
    "functions alone": ([node("Relu", "x", "r"), node("Exp", "r", "y")], ["Relu+Exp"]),
    "behind any op": ([node("MaxPool", "x", "p", kernel_shape=[2, 2]), node("Relu", "p", "y")], ["MaxPool+Relu"]),
    "two branches: the sum is part of the later one": (
        [CONV, node("Conv", "x l", "d"), node("Add", "c d", "a"), node("Relu", "a", "y")],
        ["Conv", "Conv+Add+Relu"],
    ),
    "around an op: the sum waits for it": (
        [CONV, node("Relu", "c", "r"), node("Conv", "r l", "d"), node("Add", "r d", "y")],
        ["Conv+Relu", "Conv+Add"],
    ),
    "a gate of the kernel's own result, of one number per channel": (
        [CONV, *GATE, node("Mul", "c s", "y")],
        ["Conv", "GlobalAveragePool", "Conv+Sigmoid", "Mul"],
    ),
    "a gate of something else": (
        [node("GlobalAveragePool", "x", "p"), node("Sigmoid", "p", "s"), CONV, node("Mul", "c s", "y")],
        ["GlobalAveragePool+Sigmoid", "Conv+Mul"],
    ),
    "statistics of the data are an op of their own": (
        [CONV, node("InstanceNormalization", "c scale shift", "i"), node("Relu", "i", "y")],
        ["Conv", "InstanceNormalization+Relu"],
    ),
    "statistics of the batch too": (
        [CONV, node("BatchNormalization", f"c {NORM}", "b m1 v1", training_mode=1), node("Relu", "b", "y")],
        ["Conv", "BatchNormalization+Relu"],
    ),
    "an absent output is not the absent input of another": (
        [
            CONV, helper.make_node("LayerNormalization", ["c", "scale8"], ["n", "", "i"]),
            helper.make_node("Clip", ["c", "", "root"], ["r"]), node("Add", "n i", "j"), node("Add", "r j", "y"),
        ],
        ["Conv+Clip", "LayerNormalization+Add+Add"],
    ),
    "views are in no kernel": (
        [CONV, node("Flatten", "c", "f"), node("Relu", "f", "r"), node("Identity", "r", "y")],
        ["Conv+Relu"],
    ),
    # By the Mul the first convolution waits for the gate, and so does all that reads it: the Add cannot join the gate.
    "what a kernel waits for, all behind it wait for": (
        [
            CONV, node("MaxPool", "c", "t", kernel_shape=[2, 2]), node("GlobalMaxPool", "x", "p"),
            node("Sigmoid", "p", "s"), node("Mul", "c s", "u"), node("ReduceMax", "t", "v", keepdims=1),
            node("Add", "s v", "w"), node("Mul", "u w", "y"),
        ],
        ["Conv+Mul", "MaxPool", "GlobalMaxPool+Sigmoid", "ReduceMax", "Add", "Mul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_what_runs_as_one_kernel(name: str) -> None:
    nodes, wanted = FUSED[name]
    analysis = image_net(nodes, *NORMS, weight("scale8", 8))
    assert fused(analysis) == wanted
    assert can_be_ordered(analysis)


def can_be_ordered(analysis: Analysis) -> bool:
    """Whether no two kernels wait for each other; views hand on what they are made of."""
    of = {s: k for k, kernel in enumerate(kernels(analysis)) for s in kernel.steps}
    waits = nx.DiGraph()
    makers: dict[str, set[int]] = {}
    for step, plan in enumerate(analysis.plans):
        read = set().union(*(makers.get(n, ()) for n in (*plan.node.inputs, *plan.node.captured)))
        if step in of:
            waits.add_edges_from((k, of[step]) for k in read - {of[step]})
            read = {of[step]}
        makers |= {name: read for name in plan.node.outputs if name}
    return nx.is_directed_acyclic_graph(waits)


@pytest.mark.parametrize("seed", range(60))
def test_random_networks(seed: int) -> None:
    """Kernels can be ordered, every op is in one, none moves more than its ops by themselves; prediction = count."""
    rng = np.random.default_rng(seed)
    analysis = analyze(random_graph(lambda n: int(rng.integers(n))))
    found = roofline(analysis)
    assert can_be_ordered(analysis)
    steps = [s for k in found.kernels for s in k.steps]
    assert len(steps) == len(set(steps)) and set(steps) >= {
        s for s, p in enumerate(analysis.op_costs["flops"]) if p.value(analysis.widths)
    }
    assert found.bytes.values(analysis.widths).sum() <= analysis.costs["bytes_moved"].value(analysis.widths)
    assert found.flops.values(analysis.widths).sum() == analysis.costs["flops"].value(analysis.widths)
    latency_prediction(analysis, random_cut(analysis, rng, 0.3), BOX)  # an axis that keeps one position broadcasts


# -- what a kernel moves and computes in ---------------------------------------------------------


def test_a_tensor_between_ops_of_a_kernel_is_not_moved() -> None:
    analysis = analyze(convnet())
    first, second = kernels(analysis)[:2]
    pixels = 64 * 4
    assert first.bytes == {(): 3 * pixels, (0,): (3 * 9 + 4) * 4 + pixels}  # x; kernel and norm; what Relu writes
    assert second.bytes == {
        (0,): pixels,
        (0, 1): 9 * 4 if analysis.parameters["k2"].shape[-1] == 3 else 4,
        (1,): 36 * 4,
    }


def test_a_tensor_that_others_read_too_is_written_once() -> None:
    nodes = [CONV, node("Relu", "c", "r"), node("Conv", "r l", "d"), node("Add", "d c", "y")]
    first, second = kernels(image_net(nodes))
    tensor, kernel = 4 * 64 * 4, 4 * 4 * 4
    assert count(first.bytes) == tensor + kernel + 2 * tensor  # x; k; c and r
    assert count(second.bytes) == 2 * tensor + kernel + tensor  # r and c; l; y


def count(terms: object) -> float:
    assert isinstance(terms, dict)
    return float(sum(c * 4 ** len(m) for m, c in terms.items()))  # all groups are four channels wide


def test_quantised_tensors_move_and_compute_as_they_are_stored() -> None:
    """X goes, as floats, through a convolution of 8-bit numbers, whose result is 8-bit again."""
    step, zero = numpy_helper.from_array(np.float32(0.1), "step"), numpy_helper.from_array(np.uint8(0), "zero")
    stored = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.uint8), "stored")
    nodes = [
        node("QuantizeLinear", "x step zero", "xq"), node("DequantizeLinear", "xq step zero", "xd"),
        node("DequantizeLinear", "stored step zero", "wd"), node("Identity", "xd", "same"),
        node("Conv", "same wd", "c"), node("Relu", "c", "r"),
        node("QuantizeLinear", "r step zero", "rq"), node("DequantizeLinear", "rq step zero", "rd"),
        node("MaxPool", "rd", "y", kernel_shape=[8, 8]),
    ]  # fmt: skip
    conv, pool = kernels(image_net(nodes, step, zero, stored))
    assert (conv.dtype, pool.dtype) == (ir.DataType.UINT8, ir.DataType.FLOAT)
    assert count(conv.bytes) == 4 * 256 + 16 + 256 and count(pool.bytes) == 256 + 4 * 4
    assert roofline(image_net(nodes, step, zero, stored)).peak.tolist() == [32e9, 8e9]


def test_picked_rows_are_read_alone() -> None:
    nodes = [node("Gather", "table rows", "e"), node("MatMul", "e w", "y")]
    tensors = [weight("table", 1000, 8), weight("w", 8, 3, seed=1)]
    rows = [value("rows", [5], TensorProto.INT64)]
    gather, _ = kernels(analyze(model(nodes, tensors, rows, [value("y", [5, 3])])))
    total = sum(c * 8 ** len(m) for m, c in gather.bytes.items())
    assert total == 2 * 5 * 8 * 4 + 5 * 8  # rows of the table, read and written, and their numbers


@pytest.mark.parametrize("times", [0, 1, 5])
def test_a_body_takes_as_long_as_it_runs_often(times: int) -> None:
    device = Device("box", peaks={"float32": 1e9}, bandwidth=1e9, overhead=1.0)
    analysis = analyze(loop(integer("times", times)))
    found = roofline(analysis, device)
    inner = [k for k in found.kernels if analysis.plans[k.steps[0]].node.inner]
    assert [k.times for k in inner] == [times]
    assert int(found.value(analysis.widths)) == len(found.kernels) - 1 + times


def test_an_op_in_a_body_is_in_no_kernel_outside() -> None:
    cell = [
        node("Relu", "start", "r"), node("MatMul", "h w", "u"), node("Add", "u r", "s"), node("Tanh", "s", "next")
    ]  # fmt: skip
    inside = body([GOES_ON, *cell], [AGAIN, value("next", ["n", 8])], STEP)
    nodes = [START, node("Loop", "times true start", "end", body=inside), LAST]
    analysis = analyze(model(nodes, [*RNN, truth("true"), integer("times", 3)], [X]))
    assert fused(analysis) == ["MatMul", "Relu", "MatMul+Add+Tanh", "MatMul"]


# -- how long it takes ---------------------------------------------------------------------------


def test_seconds_are_those_of_the_slower_side_and_the_start() -> None:
    analysis = analyze(mlp(hidden=8))
    found = roofline(analysis, Device("box", peaks={"float32": 10.0}, bandwidth=7.0, overhead=0.5))
    flops = [2 * 4 * 8 + 8, 2 * 8 * 3]
    moved = [(4 + 4 * 8 + 8) * 4, (8 + 8 * 3 + 3) * 4]
    wanted = [max(f / 10, b / 7) + 0.5 for f, b in zip(flops, moved, strict=True)]
    seconds, binds = found.per_kernel(analysis.widths)
    assert seconds.tolist() == pytest.approx(wanted)
    assert [latency.SIDES[side] for side in binds] == ["memory", "memory"]
    assert found.value(analysis.widths) == pytest.approx(sum(wanted))


@pytest.mark.parametrize(
    ("peak", "bandwidth", "overhead", "side"),
    [(1.0, 1e9, 0.0, "compute"), (1e9, 1.0, 0.0, "memory"), (1e9, 1e9, 1.0, "overhead")],
)
def test_which_side_binds(peak: float, bandwidth: float, overhead: float, side: str) -> None:
    analysis = analyze(convnet())
    found = roofline(analysis, Device("box", peaks={"float32": peak}, bandwidth=bandwidth, overhead=overhead))
    assert {latency.SIDES[s] for s in found.per_kernel(analysis.widths)[1]} == {side}


def test_a_kernel_without_channels_does_not_run() -> None:
    analysis = analyze(convnet())
    found = roofline(analysis, Device("box", peaks={"float32": 1e30}, bandwidth=1e30, overhead=1.0))
    assert found.value(analysis.widths) == pytest.approx(4)
    assert found.value(np.array([16, 0])) == pytest.approx(3)  # nothing is left to pool
    assert found.per_kernel(np.array([0, 0]))[0].tolist() == pytest.approx([1, 0, 0, 1])


@pytest.mark.parametrize("cost", ["latency", "classic_latency"])
@pytest.mark.parametrize("case", ["convnet", "mlp"])
def test_the_gradient_is_the_price_of_a_channel(case: str, cost: str) -> None:
    """Differences over one channel to both sides, at widths of every order; exact where every term is of degree 1."""
    analysis = analyze(convnet()) if case == "convnet" else analyze(mlp(), {"x": (64, 4)})
    device = BOX if case == "convnet" else replace(BOX, peaks={"float32": 1.5e9})
    found = latency.costs(analysis, device)[cost]
    assert isinstance(found, Roofline)
    bound = set()
    for scale in (1, 3, 30):
        widths = analysis.widths * scale
        gradient = found.gradient(widths)
        compute, memory, _ = found.sides(widths)
        bound |= set((compute > memory).tolist())
        for g, step in enumerate(np.eye(len(widths), dtype=np.int64)):
            if not same_sides(found, widths - step, widths + step):
                continue
            difference = (found.value(widths + step) - found.value(widths - step)) / 2
            assert gradient[g] == pytest.approx(difference, rel=1e-9)
    assert bound == {True, False}


def test_widths_beyond_any_network_take_longer_still() -> None:
    """A search doubles widths until a budget is broken; 64 bits must not turn that around."""
    found = roofline(analyze(convnet()))
    seconds = [found.value(np.full(2, 10**n)) for n in range(1, 16)]
    assert seconds == sorted(seconds) and np.isfinite(seconds).all()


def same_sides(found: Roofline, low: Widths, high: Widths) -> bool:
    """Whether the same sides bind at both, so that no kernel has a kink between."""
    a, b = found.sides(low), found.sides(high)
    return bool(((a[0] > a[1]) == (b[0] > b[1])).all())


def test_the_widths_that_a_device_rewards() -> None:
    """Multiples of the lanes for inner factors of weights; heads and the groups of a convolution go whole."""
    assert roofline(analyze(convnet())).multiples.tolist() == [8, 8]
    for groups, filters, wanted in ((2, 3, [(2, 1), (2, 8), (3, 8)]), (4, 2, [(2, 8), (4, 1)])):
        nodes = [CONV, node("Conv", "c grouped", "d", group=groups), node("Conv", "d last", "y")]
        width = groups * filters
        grouped = image_net(nodes, weight("grouped", width, 4 // groups, 1, 1), weight("last", 5, width, 1, 1))
        found = zip((g.width for g in grouped.groups), roofline(grouped).multiples.tolist(), strict=True)
        assert sorted(found) == wanted
    assert roofline(analyze(convnet()), load("p4")).multiples.tolist() == [1, 1]


def test_a_type_that_the_device_cannot_compute_in() -> None:
    tensors = [numpy_helper.from_array(np.ones((4, 3)), "w")]
    proto = model(
        [node("MatMul", "x w", "y")],
        tensors,
        [value("x", [1, 4], TensorProto.DOUBLE)],
        [value("y", [1, 3], TensorProto.DOUBLE)],
    )
    with pytest.raises(DeviceError, match=r"device apple-m2: the model computes in float64, .* add peak.float64") as e:
        latency.costs(analyze(proto), load("apple-m2"))
    assert e.value.code == "device-peak"
    assert latency.costs(analyze(proto), load("a100"))["latency"].value(np.array([], np.int64)) > 0


def test_latency_is_a_cost_like_any_other() -> None:
    analysis = analyze(convnet())
    further = analysis.with_costs(**latency.costs(analysis, BOX))
    assert set(further.count()) - set(analysis.count()) == {"latency", "classic_latency"}


# -- the original --------------------------------------------------------------------------------


@cache
def inception() -> Analysis:
    return analyze(inception_v2())


def test_flops_and_weights_of_the_original() -> None:
    assert inception().costs["classic_flops"].value(inception().widths) == pytest.approx(3.86972e9, rel=1e-6)
    assert inception().costs["classic_params"].value(inception().widths) == pytest.approx(1.11684e7, rel=1e-6)


@pytest.mark.parametrize(("name", "nanoseconds"), [("P100", 517536.0), ("V100", 173330.453125)])
def test_latency_of_the_original(name: str, nanoseconds: float) -> None:
    """To the six digits of its own test, ``latency_regularizer_test.py`` in MorphNet."""
    found = latency.costs(inception(), load(name))["classic_latency"]
    assert found.value(inception().widths) * 1e9 == pytest.approx(nanoseconds, rel=1e-6)


# The tensors of single ops, from the same test: 17 by 19 positions, alive channels in and out, on a P100.
@pytest.mark.parametrize(
    ("i", "o", "kernel", "nanoseconds"),
    [(3, 7, (7, 5), 51.0548400879), (3, 11, (1, 1), 24.8907108307), (18, 17, (1, 1), 63.4480857849)],
)
def test_ops_of_the_original(i: int, o: int, kernel: tuple[int, int], nanoseconds: float) -> None:
    conv = node("Conv", "x k", "y", auto_pad="SAME_UPPER")
    x, y = value("x", [1, i, 17, 19]), value("y", [1, o, 17, 19])
    analysis = analyze(model([conv], [weight("k", o, i, *kernel)], [x], [y]))
    found = latency.costs(analysis, load("p100"))["classic_latency"]
    assert found.value(analysis.widths) * 1e9 == pytest.approx(nanoseconds, rel=1e-6)
