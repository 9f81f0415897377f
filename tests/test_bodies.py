"""Bodies and functions beyond the laws of ``structures``: what is counted, what stays, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exported import as_built, grouped, model_of
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.errors import ModelError
from onnxmorph.structure import Structure
from onnxmorph.surgery import expand, shrink, verify
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from structures import STRUCTURES
from structures.control import (
    AGAIN,
    BOOL,
    FLAG,
    GOES_ON,
    INT,
    LAST,
    RNN,
    START,
    STEP,
    TWO_BRANCHES,
    X,
    body,
    branch,
    truth,
)
from tiny import MLP, integer, integers, model, node, value, weight

COUNTED = ("flops", "macs", "params", "activations")


def halved(analysis: Analysis) -> Structure:
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in analysis.groups:
        copies[group.start + 1 : group.start + 1 + group.width // 2] = 0
    return Structure.of(analysis, copies)


def costs_of(proto: onnx.ModelProto) -> dict[str, int]:
    analysis = analyze(proto)
    return {name: analysis.costs[name].value(analysis.widths) for name in COUNTED}


# -- costs ---------------------------------------------------------------------------------------

CELL = [node("MatMul", "h w", "u"), node("Tanh", "u", "next")]


def loop(times: TensorProto | onnx.ValueInfoProto, extra: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    inside = body([GOES_ON, *(extra or []), *CELL], [AGAIN, value("next", ["n", 8])], STEP)
    nodes = [START, node("Loop", "times true start", "end", "steps", body=inside), LAST]
    given = [times] if isinstance(times, TensorProto) else []
    inputs = [X] if given else [X, times]
    return model(nodes, [*RNN, truth("true"), *given], inputs)


@pytest.mark.parametrize("times", [0, 1, 5])
def test_a_body_counts_once_per_iteration(times: int) -> None:
    """As if it were unrolled; its weights count once."""
    names = ["start", *(f"h{t}" for t in range(times))]
    unrolled = [START]
    for before, after in pairwise(names):
        unrolled += [node("MatMul", f"{before} w", f"u{after}"), node("Tanh", f"u{after}", after)]
    flat = model([*unrolled, node("MatMul", f"{names[-1]} out", "y")], RNN)
    found, wanted = costs_of(loop(integer("times", times))), costs_of(flat)
    assert found.pop("params") - wanted.pop("params") == (0 if times else 8 * 8)
    assert found == wanted


def test_loops_in_loops_multiply() -> None:
    inner = body([GOES_ON, *CELL], [AGAIN, value("next", ["n", 8])], STEP)
    extra = [node("Loop", "twice true h", "unread", body=inner), node("Mul", "unread unread", "more")]
    more = [*extra, node("MatMul", "more w", "u"), node("Tanh", "u", "next")]
    outer = body([GOES_ON, *more], [AGAIN, value("next", ["n", 8])], STEP)
    nodes = [START, node("Loop", "times true start", "end", "steps", body=outer), LAST]
    weights = [*RNN, truth("true"), integer("twice", 2), integer("times", 3)]
    matmul = 2 * 8 * 8
    assert costs_of(model(nodes, weights))["flops"] == 2 * 4 * 8 + 3 * (2 * (matmul + 8) + 8 + matmul + 8) + 2 * 8 * 3


def test_an_unknown_number_of_iterations_counts_once_and_says_so() -> None:
    proto = loop(value("times", [], INT))
    assert costs_of(proto) == costs_of(loop(integer("times", 1)))
    assert analyze(loop(integer("times", 1))).graph.notes == ()
    (note,) = analyze(proto).graph.notes
    assert "'steps' (Loop)" in note and "counted once" in note


def test_both_branches_of_an_if_count() -> None:
    analysis = analyze(model_of("if_two_branches"))
    own = [p.node.outputs[0] for p in analysis.plans if p.node.type == "MatMul"]
    macs = dict(zip(own, (8 * 4, 8 * 8, 8 * 6, 6 * 8, 8 * 6, 8 * 3), strict=True))
    assert analysis.costs["macs"].value(analysis.widths) == sum(macs.values())


# -- what a model computes is not changed by reading it --------------------------------------------

SHADOWED = ("if_nested", "loop_in_loop")  # ONNX Runtime refuses a body that uses a name from outside again


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "name", grouped(*(n for n in STRUCTURES if n.startswith(("if_", "loop_", "scan_", "torch_", "func"))))
)
def test_a_model_that_loses_nothing_computes_what_it_did(name: str, seed: int) -> None:
    """Branches taken ahead, functions inlined, names made unique, weights moved out of bodies."""
    proto = as_built(name)
    analysis, copies = full(proto)
    feeds = random_inputs(analysis.graph, np.random.default_rng(seed))
    run = ReferenceEvaluator(proto) if name in SHADOWED else None
    wanted = run.run(None, feeds) if run else run_session(ir.from_proto(proto))(feeds)
    for a, b in zip(wanted, run_session(emit(analysis, copies))(feeds), strict=True):
        assert relative(np.asarray(a), b) <= 1e-5


# -- what is known before running ------------------------------------------------------------------


def test_a_branch_that_is_never_taken_goes() -> None:
    small = emit(*full(model_of("if_constant")))
    assert {n.op_type for n in small.graph.all_nodes()} == {"MatMul", "Tanh"}
    assert {v.name: tuple(v.shape) for v in small.graph.initializers.values() if v.shape} == {
        "first": (4, 8), "shared": (8, 6), "last": (8, 3), "a": (6, 8)
    }  # fmt: skip


def full(source: ir.Model | onnx.ModelProto) -> tuple[Analysis, Any]:
    analysis = analyze(source)
    return analysis, np.ones(analysis.channels + 1, np.int64)


@pytest.mark.parametrize("arithmetic", ["Greater", "Mod"])
def test_a_branch_for_other_sizes_stays(arithmetic: str) -> None:
    """The two sizes that are tried may take the same branch by accident; another size takes the other."""
    tests = {
        "Greater": [node("Greater", "n limit", "flag")],
        "Mod": [node("Mod", "n limit", "rest"), node("Equal", "rest none", "flag")],
    }
    nodes = [
        node("MatMul", "x first", "h"),
        node("Shape", "x", "s"),
        node("Gather", "s one", "n"),
        *tests[arithmetic],
        node("If", "flag", "z", **TWO_BRANCHES),
        node("MatMul", "z last", "y"),
    ]
    limit = 100 if arithmetic == "Greater" else 3  # 16 and 48 are tried: both below 100, and 1 and 0 of 3
    weights = [weight("first", 4, 8), weight("shared", 8, 6), weight("last", 8, 3)]
    numbers = [integer("one", 1), integer("none", 0), integer("limit", limit)]
    proto = model(nodes, [*weights, *numbers], [value("x", [1, "n", 4])], [value("y", [1, "n", 3])])
    analysis = analyze(proto)
    small = shrink(analysis, halved(analysis)).model
    before, after = run_session(ir.from_proto(proto)), run_session(emit(*full(proto)))
    for size in (16, 99, 100, 101, 102):
        x = np.random.default_rng(size).normal(size=(1, size, 4)).astype(np.float32)
        assert relative(before({"x": x})[0], after({"x": x})[0]) <= 1e-6
        assert run_session(small)({"x": x})[0].shape == (1, size, 3)


@pytest.mark.parametrize("batch", [2, "n"])
def test_a_size_that_the_model_gives_stays_the_original_one(batch: int | str) -> None:
    """From the main graph and out of a body, static and beside a dynamic one."""
    inside = [node("Relu", "h", "o"), node("Shape", "o", "s")]
    shape = value("s", [2], INT)
    branches = {
        "then_branch": body(inside, [value("o", [batch, 8]), shape]),
        "else_branch": body([node("Abs", "h", "o"), node("Shape", "h", "s")], [value("o", [batch, 8]), shape]),
    }
    nodes = [MLP[0], node("Shape", "h", "t"), node("If", "flag", "r sizes", **branches), MLP[2]]
    outputs = [value("y", [batch, 3]), value("sizes", [2], INT), value("t", [2], INT)]
    proto = model(nodes, [weight("a", 4, 8), weight("b", 8, 3)], [value("x", [batch, 4]), FLAG], outputs)
    analysis = analyze(proto)
    small = shrink(analysis, halved(analysis))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    for flag in (True, False):
        found = run_session(small.model)({"x": np.ones((2, 4), np.float32), "flag": np.array(flag)})
        assert [f.tolist() for f in found[1:]] == [[2, 8], [2, 8]]
    assert small.structure.widths.tolist() == [4]


def test_a_branch_that_fits_no_shape_is_no_error_beside_one_that_does() -> None:
    """TorchScript guards a Squeeze by an If."""
    branches = {
        "then_branch": body([node("Squeeze", "h two", "o")], [value("o", None)]),
        "else_branch": body([node("Relu", "h", "o")], [value("o", None)]),
    }
    proto = model(
        [MLP[0], node("If", "flag", "z", **branches), node("ReduceSum", "z", "y")],
        [weight("a", 4, 8), integers("two", 1)],
        [value("x", [2, 4]), FLAG],
        [value("y", None)],
    )
    analysis = analyze(proto)
    assert not analysis.groups and {f.code for f in analysis.fixed} == {"graph-input", "unknown-shape"}
    assert analyze(loop(integer("times", 2))).groups


def test_a_number_of_iterations_that_alone_fits_is_no_error() -> None:
    """Neither 1 nor 17, which are tried where it is unknown, can be added to 5."""
    inside = body(
        [GOES_ON, node("Tanh", "h", "next"), node("MatMul", "next w", "each")],
        [AGAIN, value("next", ["n", 8]), value("each", ["n", 8])],
        STEP,
    )
    nodes = [
        START,
        node("Loop", "times true start", "end all", body=inside),
        node("Add", "all five", "sum"),
        node("Reshape", "sum sizes", "z"),
        node("MatMul", "z out", "y"),
    ]
    weights = [*RNN, weight("five", 5, 1, 8), truth("true"), integers("sizes", 5, 2, 8)]
    inputs = [value("x", [2, 4]), value("times", [], INT)]
    analysis = analyze(model(nodes, weights, inputs, [value("y", [5, 2, 3])]))
    assert "unknown-shape" in {f.code for f in analysis.fixed}


@pytest.mark.parametrize("name", grouped(*sorted(n for n in STRUCTURES if not n.startswith("torch_"))))
def test_what_is_given_is_not_changed(name: str) -> None:
    """Names of bodies are made unique in a copy; also where the model shares tensors with it."""
    proto = as_built(name)
    given = ir.from_proto(proto)
    before = proto.SerializeToString()
    analyze(given)
    analyze(proto)
    assert ir.to_proto(given).SerializeToString() == proto.SerializeToString() == before


def calls(outputs: list[str], *more: onnx.NodeProto) -> onnx.ModelProto:
    """A function called outside a loop and in it, where the attribute is not given and the function's own is taken."""
    opsets = [helper.make_opsetid("", 17)]
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    leaky = node("LeakyRelu", "x", "z")
    leaky.attribute.append(slope)
    default = [helper.make_attribute("slope", 0.25)]
    both = helper.make_function("f", "Both", ["x"], outputs, [leaky, *more], opsets, attribute_protos=default)
    inside = body(
        [GOES_ON, node("Both", "h", "k z", domain="f"), node("MatMul", "z w", "u"), node("Add", "u k", "next")],
        [AGAIN, value("next", ["n", 8])],
        STEP,
    )
    nodes = [
        node("Both", "x", "same other", domain="f", slope=0.5),
        node("Add", "same other", "sum"),
        node("MatMul", "sum into", "start"),
        node("Loop", "times true start", "end", body=inside),
        LAST,
    ]
    return model(nodes, [*RNN, integer("times", 3), truth("true")], domains=["f"], functions=[both])


def test_a_function_may_hand_on_its_input() -> None:
    """As if there were an Identity between, without which ONNX Runtime does not take it."""
    bare, plain = calls(["x", "z"]), calls(["k", "z"], node("Identity", "x", "k"))
    analysis = analyze(bare)
    assert analysis.graph.inputs == ("x",) and [g.width for g in analysis.groups] == [8]
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    before, after = run_session(ir.from_proto(plain))(feeds), run_session(emit(*full(bare)))(feeds)
    assert relative(before[0], after[0]) <= 1e-6
    small = shrink(analysis, halved(analysis))
    assert verify(analysis, small.model, small.structure).ok


# -- growth and folding ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["if_nested", "loop_rnn", "loop_in_loop", "scan_two_states", "functions"])
def test_a_widened_network_computes_what_the_narrow_one_did(name: str) -> None:
    analysis = analyze(model_of(name))
    structure = halved(analysis)
    small, wide = shrink(analysis, structure), expand(analysis, structure, "params=150%")
    assert wide.structure.widths.sum() > structure.widths.sum() and not wide.notes
    for seed in range(2):
        feeds = random_inputs(analysis.graph, np.random.default_rng(seed))
        for a, b in zip(run_session(small.model)(feeds), run_session(wide.model)(feeds), strict=True):
            assert relative(a, b) <= 1e-5


def test_what_removed_channels_say_is_folded_inside_a_body() -> None:
    """A norm in a loop, half of whose scales are 0: the next bias takes up the rest, and nothing moves."""
    scale = np.linspace(0.5, 1.5, 8).astype(np.float32)
    scale[::2] = 0
    state = {"scale": scale, "shift": np.linspace(1, 2, 8), "mean": np.zeros(8), "variance": np.ones(8)}
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in state.items()]
    inside = body(
        [
            GOES_ON,
            node("Gemm", "h a", "p"),
            node("BatchNormalization", "p scale shift mean variance", "q"),
            node("Relu", "q", "r"),
            node("Gemm", "r b bias", "next"),
        ],
        [AGAIN, value("next", ["n", 8])],
        STEP,
        [weight("a", 8, 8, seed=3), weight("b", 8, 8, seed=4), weight("bias", 8, seed=5), *tensors],
    )
    nodes = [START, node("Loop", "times true start", "end", "steps", body=inside), LAST]
    proto = model(nodes, [RNN[0], RNN[2], integer("times", 3), truth("true")])
    analysis = analyze(proto)
    copies = np.ones(analysis.channels + 1, np.int64)
    rows = analysis.rows["scale"][0]
    assert rows is not None
    copies[rows[scale == 0, 0]] = 0
    small = shrink(analysis, Structure.of(analysis, copies))
    found = verify(analysis, small.model, small.structure)
    assert found.ok and found.folded > 0.1
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    before, after = run_session(ir.from_proto(proto))(feeds), run_session(small.model)(feeds)
    assert relative(before[0], after[0]) <= 1e-5


# -- what is not followed --------------------------------------------------------------------------


def old_scan() -> onnx.ModelProto:
    """Opset 8: batched, with lengths of its own."""
    inside = body(
        [node("MatMul", "t a", "o"), node("Identity", "h", "k")],
        [value("k", [1]), value("o", [8])],
        [value("h", [1]), value("t", [4])],
        [weight("a", 4, 8)],
    )
    scan = helper.make_node("Scan", ["", "start", "x"], ["end", "all"], body=inside, num_scan_inputs=1)
    nodes = [scan, node("Add", "all w", "z"), node("MatMul", "z out", "y")]
    weights = [weight("start", 2, 1), weight("w", 8), weight("out", 8, 3)]
    return model(nodes, weights, [value("x", [2, 5, 4])], [value("y", [2, 5, 3])], opset=8)


def sequence_map() -> onnx.ModelProto:
    inside = helper.make_graph([node("MatMul", "t w", "o")], "body", [value("t", ["n", 4])], [value("o", ["n", 8])], [])
    nodes = [
        node("SequenceConstruct", "x x", "s"),
        node("SequenceMap", "s", "m", body=inside),
        node("ConcatFromSequence", "m", "z", axis=0),
        node("MatMul", "z out", "y"),
    ]
    return model(nodes, [weight("w", 4, 8), weight("out", 8, 3)])


def sequence_state() -> onnx.ModelProto:
    """A Loop that hands on a sequence beside a tensor: the sequence stays, the tensor can be cut."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
    inside = body(
        [GOES_ON, *CELL, node("MatMul", "x again", "g"), node("SequenceInsert", "q g", "longer")],
        [AGAIN, value("next", ["n", 8]), helper.make_value_info("longer", kind)],
        [*STEP, helper.make_value_info("q", kind)],
    )
    nodes = [
        START,
        node("SequenceEmpty", "", "empty"),
        node("Loop", "times true start empty", "end many", body=inside),
        node("ConcatFromSequence", "many", "all", axis=0),
        node("ReduceSum", "all", "sum", keepdims=0),
        node("MatMul", "end out", "e"),
        node("Add", "e sum", "y"),
    ]
    return model(nodes, [*RNN, weight("again", 4, 5), integer("times", 3), truth("true")])


@pytest.mark.parametrize(
    ("build", "codes", "widths"),
    [
        (old_scan, {"body"}, []),
        (sequence_map, {"sequence"}, []),
        (sequence_state, {"sequence", "unknown-shape"}, [8]),
    ],
)
def test_what_is_not_followed_stays(build: Callable[[], onnx.ModelProto], codes: set[str], widths: list[int]) -> None:
    analysis = analyze(build())
    assert codes <= {f.code for f in analysis.fixed} <= codes | {"graph-input", "graph-output", "tied"}
    assert [g.width for g in analysis.groups] == widths
    small = shrink(analysis, halved(analysis))
    onnx.checker.check_model(ir.to_proto(small.model))
    assert verify(analysis, small.model, small.structure).ok


# -- what is refused -------------------------------------------------------------------------------


def with_loop(**changes: Any) -> onnx.ModelProto:
    parts = {"inputs": "times true start", "outputs": "end", "into": STEP, "nodes": [GOES_ON, *CELL], **changes}
    inside = body(parts["nodes"], [AGAIN, value("next", ["n", 8])], parts["into"])
    nodes = [START, node("Loop", parts["inputs"], parts["outputs"], "steps", body=inside), LAST]
    return model(nodes, [*RNN, integer("times", 3), truth("true")])


def with_branch(nodes: list[onnx.NodeProto], output: str = "o") -> onnx.ModelProto:
    choice = node("If", "flag", "z", then_branch=branch(nodes, output), else_branch=TWO_BRANCHES["then_branch"])
    return model([node("MatMul", "x first", "h"), choice, node("Abs", "z", "y")], [weight("first", 4, 8)], [X, FLAG])


def another_opset() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 9)]
    function = helper.make_function("f", "F", ["a"], ["b"], [node("Relu", "a", "b")], opsets)
    return model([node("F", "x", "y", domain="f")], domains=["f"], functions=[function])


SCAN = helper.make_graph([node("Relu", "t", "o")], "body", [value("t", [4])], [value("o", [4])])
REFUSED: Mapping[str, tuple[onnx.ModelProto, str]] = {
    "no else": (model([node("If", "flag", "y", then_branch=branch([], "x"))], [], [X, FLAG]), "model-shape"),
    "fewer states than the body takes": (with_loop(inputs="times true"), "model-shape"),
    "more states than the body takes": (with_loop(inputs="times true start start"), "model-shape"),
    "more outputs than the body has": (with_loop(outputs="end more"), "model-shape"),
    "a state that is absent": (with_loop(into=[*STEP, value("k", [8])], inputs="times true start"), "model-shape"),
    "no body": (model([node("Loop", "m c x", "y")], [], [X, value("m", [], INT), value("c", [], BOOL)]), "model-shape"),
    "a body that is a number": (model([node("Scan", "x", "y", body=3, num_scan_inputs=1)]), "model-shape"),
    "an axis that is not there": (
        model([node("Scan", "x", "y", body=SCAN, num_scan_inputs=1, scan_input_axes=[7])]), "model-shape",
    ),
    "an output axis that is not there": (
        model([node("Scan", "x", "y", body=SCAN, num_scan_inputs=1, scan_output_axes=[-4])]), "model-shape",
    ),
    "more scanned inputs than inputs": (
        model([node("Scan", "x", "y", body=SCAN, num_scan_inputs=2)]), "model-shape",
    ),
    "shapes that do not fit inside": (
        with_loop(nodes=[GOES_ON, node("MatMul", "h into", "next")]), "model-shape",
    ),
    "a value that nothing writes": (with_branch([node("Add", "h nowhere", "o")]), "model-undefined"),
    "an output that nothing writes": (with_branch([node("Relu", "h", "o")], "p"), "model-undefined"),
    "a value of the other branch": (with_branch([node("Relu", "t", "o")]), "model-undefined"),
    "a value of the node itself": (with_branch([node("Relu", "z", "o")]), "model-cycle"),
    "a function of another opset": (another_opset(), "model-functions"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_body_is_refused(name: str) -> None:
    proto, code = REFUSED[name]
    with pytest.raises(ModelError) as error:
        analyze(proto)
    assert error.value.code == code, error.value


def test_a_value_from_outside_may_be_what_a_body_gives() -> None:
    """ONNX Runtime wants an Identity between, and gets one."""
    proto = with_branch([], "h")
    analysis = analyze(proto)
    small = shrink(analysis, halved(analysis))
    assert small.structure.widths.sum() < analysis.widths.sum() or not analysis.groups
    run_session(small.model)(random_inputs(analysis.graph, np.random.default_rng(0)))


def test_loops_nested_deep_are_read_in_time() -> None:
    """Every loop hands on a state that grows, so that each would repeat all inside it."""
    shape = value("next", [None, 8])
    inside: list[onnx.NodeProto] = [node("Concat", "h h", "next", axis=0)]
    for _ in range(22):
        states = [*STEP[:2], value("h", [None, 8])]
        inner = node("Loop", "times true start", "grown", body=body([GOES_ON, *inside], [AGAIN, shape], states))
        inside = [inner, node("Concat", "grown h", "next", axis=0)]
    nodes = [START, node("Identity", "start", "h"), *inside, node("MatMul", "next out", "y")]
    proto = model(nodes, [*RNN, integer("times", 1), truth("true")], outputs=[value("y", [None, 3])])
    assert not analyze(proto).groups
