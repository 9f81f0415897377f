"""Width 0: a group goes as a whole, and with it every node that only it kept alive.

The law, for every group of every network and for random sets of them: either the result is a smaller model that
computes what the zero-masked original does, or an error names the groups and the output that hangs on them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import zoo
from exported import NAMES, analysis_of, exported, grouped, sized
from onnxmorph.adapters.torch_resize import resize
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array
from onnxmorph.budget import Budget
from onnxmorph.cli import run
from onnxmorph.errors import BudgetError, StructureError, TopologyError
from onnxmorph.search import multiply
from onnxmorph.structure import Structure
from onnxmorph.surgery import Morphed, expand, scale, shrink, verify
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.topology import survey
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from onnxmorph.widths import steps
from structures import STRUCTURES
from tiny import integers, mlp, model, node, value, weight

TOLERANCE = 1e-5
IMAGE = ["n", 3, 8, 8]


def without(analysis: Analysis, groups: Iterable[str]) -> Array:
    """Copies that empty these groups."""
    copies = np.ones(analysis.channels + 1, np.int64)
    named = {g.id: g for g in analysis.groups}
    for name in groups:
        copies[named[name].start + 1 : named[name].start + 1 + named[name].width] = 0
    return copies


def emptied(analysis: Analysis, *groups: str) -> Morphed:
    return shrink(analysis, Structure.of(analysis, without(analysis, groups)))


def ops(small: Morphed) -> Counter[str]:
    return Counter(n.op_type for n in small.model.graph)


def counted(analysis: Analysis, model: ir.Model) -> dict[str, int]:
    found = analyze(model, {n: s for n in analysis.graph.inputs if (s := analysis.graph.shapes[n]) is not None})
    assert all(0 not in shape for shape in found.graph.shapes.values() if shape), "an empty tensor is left"
    return found.count()


def check_tidy(small: ir.Model) -> None:
    """No dead node, no unused or empty initializer, no node that only passes on its input."""
    graph = small.graph
    for each in graph:
        outputs = [v for v in each.outputs if v.name]
        assert any(v.uses() or v.is_graph_output() for v in outputs), f"{each.name} is dead"
        if each.op_type == "Identity":
            assert each.outputs[0].is_graph_output(), "a tensor stands under two names"
            assert each.inputs[0] is not None and (
                each.inputs[0].producer() is None or each.inputs[0].is_graph_output()
            )
        assert each.op_type != "Concat" or len(each.inputs) > 1
        assert each.op_type != "Split" or len(outputs) > 1
    for initializer in graph.initializers.values():
        assert initializer.uses() and initializer.const_value is not None and initializer.const_value.size > 0


def check(analysis: Analysis, small: Morphed, seed: int = 0) -> None:
    """The law of deletion and the law of prediction, where the polynomials are an upper bound."""
    check_tidy(small.model)
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert verify(analysis, small.model, small.structure, samples=1, seed=seed).difference <= TOLERANCE
    after = counted(analysis, small.model)
    assert small.structure.costs["after"] == after
    widths = small.structure.widths
    assert all(after[name] <= cost.value(widths) for name, cost in analysis.costs.items())


def try_without(analysis: Analysis, groups: Sequence[str], seed: int = 0) -> bool:
    """Exact, or refused for a reason that names groups and output; whether it was done."""
    try:
        small = emptied(analysis, *groups)
    except TopologyError as e:
        assert e.code in ("topology-output", "topology-average", "topology-node", "topology-dynamic", "topology-body")
        assert e.groups and set(e.groups) <= set(groups)
        assert any(repr(name) in str(e) for name in e.groups)
        assert any(repr(name) in str(e) for name in analysis.graph.outputs)
        return False
    check(analysis, small, seed)
    narrow = np.ones(analysis.channels + 1, np.int64)
    for g in analysis.groups:
        if g.id in groups:
            narrow[g.start + 2 : g.start + 1 + g.width] = 0  # one channel is left
    assert len(small.model.graph) <= len(emit(analysis, narrow).graph) + 4 * len(groups)
    return True


# ---------------------------------------------------------------- the law


# Where a single group can go as a whole. In all other networks every group is on the only way to the output.
LEGAL = {
    "convnext": 2, "densenet": 8, "efficientnet": 3, "gather_constant": 3, "inception": 14, "mobilenet_v2": 2,
    "mobilenet_v3": 3, "padded_shortcut": 4, "resnet": 3, "resnet_bottleneck": 6, "resnext": 9, "shufflenet_v2": 5,
    "split_uneven": 4, "squeeze_excite": 2, "unet": 5, "vit": 8, "vit_fused": 6, "vit_torch": 6,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_group_alone(name: str) -> None:
    analysis = sized(name)
    assert sum(try_without(analysis, [g.id]) for g in analysis.groups) == LEGAL.get(name, 0)


@pytest.mark.parametrize("name", grouped(*sorted(STRUCTURES)))
def test_each_group_alone_of_networks_that_are_hard_to_cut(name: str) -> None:
    analysis = analysis_of(name)
    for g in analysis.groups:
        try_without(analysis, [g.id])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in LEGAL])
def test_random_sets_of_groups(name: str, seed: int) -> None:
    """As many groups as the network can do without, in random order; the others lose half of their channels."""
    analysis, rng = sized(name, batch=1 + seed), np.random.default_rng(seed)
    try_without(analysis, [g.id for g in analysis.groups if rng.random() < 0.5], seed)
    check(analysis, shrink(analysis, Structure.of(analysis, random_cut(analysis, rng))), seed)


def random_cut(analysis: Analysis, rng: np.random.Generator) -> Array:
    copies = np.ones(analysis.channels + 1, np.int64)
    for g in (analysis.groups[i] for i in rng.permutation(len(analysis.groups))):
        own = slice(g.start + 1, g.start + 1 + g.width)
        copies[own][rng.permutation(g.width)[: g.width // 2]] = 0
        attempt = copies.copy()
        attempt[own] = 0
        if rng.random() < 0.5 and holds_together(analysis, attempt):
            copies = attempt
    return copies


def holds_together(analysis: Analysis, copies: Array) -> bool:
    try:
        survey(analysis, copies)
    except TopologyError:
        return False
    return True


@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in ("resnet", "inception", "vit", "unet")])
def test_the_batch_stays_dynamic(name: str) -> None:
    one, three = sized(name), sized(name, batch=3)
    for g in one.groups:
        structure = Structure.of(one, without(one, [g.id]))
        if holds_together(one, structure.copies(one)):
            small = shrink(one, structure)
            assert verify(three, small.model, small.structure, samples=1).difference <= TOLERANCE


@pytest.mark.parametrize(
    "export",
    [
        "dynamo/resnet18", "dynbatch/resnet18.ts", "ts/googlenet", "ts/swin_tiny_2222", "dynbatch/unet.dynamo",
        "ts/yolov8_like", "dynamo/llama_gqa",
        *(pytest.param(f"dynamo/{n}", marks=pytest.mark.nightly) for n in ("vit_b_16_l3", "swin_t", "densenet121")),
    ],
)  # fmt: skip
def test_real_networks_lose_whole_groups(export: str) -> None:
    path = zoo.FOLDER / f"{export}.onnx.xz"
    if not path.is_file():
        pytest.skip("no folder ../shared/zoo beside the repository")
    analysis, rng = analyze(zoo.filled(path)), np.random.default_rng(3)
    gone: list[str] = []
    for i in rng.permutation(len(analysis.groups)):
        if rng.random() < 0.4 and holds_together(analysis, without(analysis, [*gone, analysis.groups[i].id])):
            gone.append(analysis.groups[i].id)
    assert gone
    check(analysis, emptied(analysis, *gone))


# ---------------------------------------------------------------- what goes, network by network


def test_a_residual_branch_goes_and_its_skip_stays() -> None:
    analysis = sized("resnet")
    small = emptied(analysis, "2.body.0.0.weight:0")
    assert ops(small)["Conv"] == 8 - 2 and ops(small)["Add"] == 3  # the shift of its last norm is still added
    assert not [n for n in small.model.graph.initializers if n.startswith("2.body")]


def test_a_branch_that_says_nothing_leaves_no_trace() -> None:
    weights = [weight("k", 6, 4), weight("l", 4, 6, seed=1), weight("w", 4, 3, seed=2), weight("v", 4, 4, seed=3)]
    nodes = [
        node("MatMul", "x v", "s"),
        node("MatMul", "s l", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r k", "b"),
        node("Add", "s b", "a"),
        node("MatMul", "a w", "y"),
    ]
    analysis = analyze(model(nodes, weights))
    small = emptied(analysis, "l:1")
    check(analysis, small)
    assert [n.op_type for n in small.model.graph] == ["MatMul", "MatMul"]


def test_an_output_that_is_an_input_keeps_its_name() -> None:
    nodes = [node("MatMul", "x l", "h"), node("MatMul", "h k", "b"), node("Add", "b x", "y")]
    analysis = analyze(model(nodes, [weight("l", 4, 6), weight("k", 6, 4)], outputs=[value("y", ["n", 4])]))
    small = emptied(analysis, "l:1")
    check(analysis, small)
    assert [n.op_type for n in small.model.graph] == ["Identity"]


def test_two_outputs_become_one_tensor() -> None:
    nodes = [node("Relu", "x", "z"), node("MatMul", "z l", "h"), node("MatMul", "h k", "b"), node("Sub", "z b", "y")]
    outputs = [value("z", ["n", 4]), value("y", ["n", 4])]
    analysis = analyze(model(nodes, [weight("l", 4, 6), weight("k", 6, 4)], outputs=outputs))
    small = emptied(analysis, "l:1")
    check(analysis, small)
    assert ops(small) == {"Relu": 1, "Identity": 1}


def test_a_tower_leaves_its_concat() -> None:
    analysis = sized("inception")
    towers = [f"1.branches.{b}.0.weight:0" for b in ("0", "1.1", "2.2", "3.1")]
    parts = [len(n.inputs) for n in emptied(analysis, towers[0]).model.graph if n.op_type == "Concat"]
    assert parts[:2] == [3, 4]
    last = emptied(analysis, *towers[:3])  # one tower is left: nothing is concatenated any more
    check(analysis, last)
    assert next(len(n.inputs) for n in last.model.graph if n.op_type == "Concat") == 4
    with pytest.raises(TopologyError) as caught:
        emptied(analysis, *towers)
    assert caught.value.code == "topology-output" and set(caught.value.groups) == set(towers)


def test_a_tower_that_only_says_constants_stays_in_its_concat() -> None:
    analysis = sized("inception")
    small = emptied(analysis, "1.branches.1.0.0.weight:0")
    assert [len(n.inputs) for n in small.model.graph if n.op_type == "Concat"][:2] == [4, 4]
    assert ops(small)["Conv"] == 15 - 2 and ops(small)["Expand"] == 1


def test_constants_at_a_padded_border_become_a_map() -> None:
    """Two convolutions of 3x3 behind the empty group: the second sees a constant that ends at the border."""
    analysis = sized("inception")
    small = emptied(analysis, "1.branches.2.0.0.weight:0")
    maps = [n.attributes["value"].as_tensor().shape for n in small.model.graph if n.op_type == "Constant"]
    assert [1, 6, 8, 8] in [list(shape) for shape in maps]


def test_an_excitation_goes_and_its_gate_is_a_scale() -> None:
    small = emptied(sized("squeeze_excite"), "1.fc1.weight:0", "3.fc1.weight:0")
    assert "Sigmoid" not in ops(small) and ops(small)["Mul"] == 2 and ops(small)["Conv"] == 2


def test_attention_and_mlp_go() -> None:
    analysis = sized("vit")
    small = emptied(analysis, "blocks.0.body.1.v.weight:0", "blocks.1.body.1.weight:0")
    assert ops(small)["Softmax"] == 1 and ops(small)["LayerNormalization"] == 3
    check(analysis, small)


def test_queries_without_keys_look_everywhere_alike() -> None:
    small = emptied(sized("vit"), "blocks.0.body.1.q.weight:0/2")
    assert ops(small)["Softmax"] == 1  # of the other block
    assert small.structure.costs["after"]["flops"] < small.structure.costs["before"]["flops"]


def test_a_stage_that_only_adds_goes() -> None:
    analysis = sized("resnext")
    small = emptied(analysis, "1.body.1.0.weight:0", "2.body.1.0.weight:0", "3.body.1.0.weight:0")
    check(analysis, small)
    assert ops(small)["Conv"] == 1 + 2  # the stem, and the two projections of the skip


def test_a_skip_that_is_concatenated_goes() -> None:
    analysis = sized("unet")
    small = emptied(analysis, "down2.0.weight:0")
    assert ops(small)["Conv"] == 3 and "ConvTranspose" not in ops(small)
    without_rise = emptied(analysis, "rise2.weight:1", "rise1.weight:1")
    check(analysis, without_rise)
    assert "Concat" not in ops(without_rise)


def test_what_padding_adds_stays() -> None:
    """The middle of a padded axis goes: the pads, which the other branch keeps alive, are all that is left."""
    analysis = sized("padded_shortcut")
    small = emptied(analysis, "1.body.1.0.weight:0", "1.body.1.0.weight:0/2")
    check(analysis, small)
    assert "Pad" not in ops(small)


# ---------------------------------------------------------------- what is refused


def refused(analysis: Analysis, *groups: str) -> TopologyError:
    with pytest.raises(TopologyError) as caught:
        emptied(analysis, *groups)
    return caught.value


def test_an_output_without_inputs() -> None:
    error = refused(analyze(mlp()), "a:1")
    assert error.code == "topology-output"
    assert "group 'a:1'" in str(error) and "output 'y'" in str(error)


def test_one_of_two_outputs_without_inputs() -> None:
    nodes = [node("MatMul", "x a", "h"), node("MatMul", "h b", "y"), node("Relu", "x", "z")]
    proto = model(nodes, [weight("a", 4, 8), weight("b", 8, 3)], outputs=[value("z", ["n", 4]), value("y", ["n", 3])])
    error = refused(analyze(proto), "a:1")
    assert error.code == "topology-output" and "'y'" in str(error) and "'z'" not in str(error)


def test_an_average_over_nothing() -> None:
    nodes = [
        node("MatMul", "x a", "h"),
        node("ReduceMean", "h", "m", axes=[1]),
        node("Add", "m x", "y"),
    ]
    error = refused(analyze(model(nodes, [weight("a", 4, 8)], outputs=[value("y", ["n", 4])])), "a:1")
    assert error.code == "topology-average" and "ReduceMean" in str(error)


def test_an_average_over_nothing_that_nobody_reads() -> None:
    """The mean over channels gates these channels: it goes with them."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("ReduceMean", "h", "m", axes=[1]),
        node("Mul", "h m", "g"),
        node("MatMul", "g b", "d"),
        node("Add", "d x", "y"),
    ]
    proto = model(nodes, [weight("a", 4, 8), weight("b", 8, 4)], outputs=[value("y", ["n", 4])])
    analysis = analyze(proto)
    small = emptied(analysis, "a:1")
    check(analysis, small)
    assert ops(small) == {"Identity": 1}


def test_a_node_that_would_lose_some_of_its_inputs() -> None:
    """A product over nothing, plus something live in the same node."""
    nodes = [node("MatMul", "x a", "h"), node("Gemm", "h b x", "y")]
    proto = model(nodes, [weight("a", 4, 8), weight("b", 8, 4)], outputs=[value("y", ["n", 4])])
    error = refused(analyze(proto), "a:1")
    assert error.code == "topology-node" and "Gemm" in str(error) and "'h'" in str(error)


def convolutions(kernel: int) -> Analysis:
    """A constant behind one convolution, which a second one pads by half its kernel; images of any size."""
    half = [kernel // 2] * 4
    nodes = [
        node("Conv", "x k e", "p"),
        node("Conv", "p l c", "q", pads=[1, 1, 1, 1]),
        node("Conv", "q m d", "r", pads=half),
        node("Concat", "r x", "u", axis=1),
        node("Relu", "u", "y"),
    ]
    weights = [
        weight("k", 6, 4, 1, 1),
        weight("l", 5, 6, 3, 3, seed=1),
        weight("m", 4, 5, kernel, kernel, seed=2),
        *(weight("c", 5, seed=3), weight("d", 4, seed=4), weight("e", 6, seed=5)),
    ]
    ends = [value("x", ["n", 4, "h", "w"])], [value("y", ["n", 8, "h", "w"])]
    return analyze(model(nodes, weights, *ends), {"x": (1, 4, 16, 12)})


def test_a_constant_image_of_any_size() -> None:
    """A convolution of 1x1 says the same everywhere, whatever the size: two sizes agree."""
    analysis = convolutions(kernel=1)
    small = emptied(analysis, "k:0")
    check(analysis, small)
    assert "Conv" not in ops(small) and ops(small)["Expand"] == 1
    whole = analysis.graph.model.clone()
    whole.graph.initializers["l"].const_value = ir.tensor(np.zeros((5, 6, 3, 3), np.float32), name="l")
    for size in ((9, 21), (1, 2)):
        feeds = {"x": np.random.default_rng(0).normal(size=(2, 4, *size)).astype(np.float32)}
        assert relative(run_session(whole)(feeds)[0], run_session(small.model)(feeds)[0]) <= TOLERANCE


def test_a_constant_image_of_any_size_that_ends_at_its_border() -> None:
    error = refused(convolutions(kernel=3), "k:0")
    assert error.code == "topology-dynamic" and "'y'" in str(error) and "'k:0'" in str(error)


def test_a_constant_whose_neighbours_count() -> None:
    """Local response normalisation divides by what stands around: at the ends there is less."""
    nodes = [
        node("Conv", "x k", "h"),
        node("Conv", "h l c", "q"),
        node("LRN", "q", "r", size=3, alpha=2.0),
        node("Concat", "r x", "y", axis=1),
    ]
    bias = numpy_helper.from_array(np.full(5, 1.5, np.float32), "c")
    weights = [weight("k", 6, 3, 1, 1), weight("l", 5, 6, 1, 1, seed=1), bias]
    analysis = analyze(model(nodes, weights, [value("x", IMAGE)], [value("y", ["n", 8, 8, 8])]))
    small = emptied(analysis, "k:0")
    check(analysis, small)
    assert ops(small)["LRN"] == 0


def attention(reads_shape: bool) -> Analysis:
    """One head over a sequence of any length, with a skip; its context may be cut to a shape read off the keys."""
    sequence = ["n", "t", 4]
    nodes = [
        node("MatMul", "x q", "a"),
        node("MatMul", "x k", "b"),
        node("MatMul", "x v", "c"),
        node("Transpose", "b", "bt", perm=[0, 2, 1]),
        node("MatMul", "a bt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p c", "o"),
        *(
            [node("Shape", "b", "z"), node("Gather", "z two", "z2"), node("Concat", "z2 minus", "z3", axis=0)]
            if reads_shape
            else []
        ),
        node("Reshape", "o z3", "o2") if reads_shape else node("Relu", "o", "o2"),
        node("MatMul", "o2 w", "r"),
        node("Add", "x r", "y"),
    ]
    weights = [weight("q", 4, 6), weight("k", 4, 6, seed=1), weight("v", 4, 5, seed=2), weight("w", 5, 4, seed=3)]
    given = [*weights, integers("two", 0, 1), integers("minus", -1)]
    return analyze(model(nodes, given, [value("x", sequence)], [value("y", sequence)]), {"x": (1, 7, 4)})


@pytest.mark.parametrize("reads_shape", [False, True])
def test_a_share_of_a_dynamic_total_is_computed(reads_shape: bool) -> None:
    """Softmax over a sequence of any length: 1/length, whatever the length; shapes of what is gone are found again."""
    analysis = attention(reads_shape)
    small = emptied(analysis, "q:1")
    check(analysis, small)
    assert ops(small)["Softmax"] == 1 and ops(small)["MatMul"] == 3
    whole = analysis.graph.model.clone()
    whole.graph.initializers["q"].const_value = ir.tensor(np.zeros((4, 6), np.float32), name="q")
    for length in (2, 9):
        feeds = {"x": np.random.default_rng(length).normal(size=(3, length, 4)).astype(np.float32)}
        assert relative(run_session(whole)(feeds)[0], run_session(small.model)(feeds)[0]) <= TOLERANCE


@pytest.mark.parametrize("merged", [False, True])
def test_the_shape_of_a_tensor_that_is_gone(merged: bool) -> None:
    """An axis is followed up to one that is still there; but not where two dynamic axes became one."""
    nodes = [
        node("Reshape", "x flat", "r") if merged else node("Relu", "x", "r"),
        node("MatMul", "r q", "h"),
        node("Shape", "h", "z"),
        node("Gather", "z first", "rows"),
        node("Concat", "rows rest", "target", axis=0),
        node("Relu", "x", "f"),
        node("Reshape", "f target", "y"),
    ]
    given = [weight("q", 4, 6), integers("first", 0), integers("rest", -1), integers("flat", -1, 4)]
    proto = model(nodes, given, [value("x", ["n", "t", 4])], [value("y", [None, None])])
    analysis = analyze(proto, {"x": (1, 7, 4)})
    if merged:
        assert refused(analysis, "q:1").code == "topology-dynamic"
        return
    small = emptied(analysis, "q:1")
    check(analysis, small)
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)}
    assert run_session(small.model)(feeds)[0].shape == (3, 20)


# ---------------------------------------------------------------- budgets, growth, files


def test_by_itself_every_group_keeps_a_channel() -> None:
    analysis = sized("resnet")
    assert (shrink(analysis, budget="flops=10%").structure.widths > 0).all()


@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in ("resnet", "inception", "mlp", "vit")])
@pytest.mark.parametrize("round_to", [1, 4])
def test_a_budget_may_empty_what_nothing_hangs_on(name: str, round_to: int) -> None:
    """The budget is just below what a step of every group costs."""
    analysis = sized(name)
    least = analysis.costs["params"].value(np.minimum(steps(analysis, round_to), analysis.widths)) - 1
    budget = f"params={least}"
    with pytest.raises(BudgetError):
        shrink(analysis, budget=budget, round_to=round_to)
    if name not in LEGAL:
        with pytest.raises(BudgetError):
            shrink(analysis, budget=budget, round_to=round_to, allow_empty=True)
        return
    small = shrink(analysis, budget=budget, round_to=round_to, allow_empty=True)
    check(analysis, small)
    assert small.structure.costs["after"]["params"] <= least
    assert (small.structure.widths == 0).any()


@pytest.mark.parametrize("init", ["preserve", "fresh"])
@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in ("resnext", "vit", "densenet")])
def test_empty_groups_stay_empty_in_a_network_that_grows(name: str, init: str) -> None:
    analysis = sized(name)
    small = shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(1))))
    _, widths = multiply(analysis, small.structure.widths, Budget.parse("params=90%"))
    assert (widths[small.structure.widths == 0] == 0).all()
    wide = expand(analysis, small.structure, "params=90%", init=init)
    assert ((wide.structure.widths == 0) == (small.structure.widths == 0)).all()
    assert (wide.structure.widths == 0).any() and wide.structure.widths.sum() > small.structure.widths.sum()
    onnx.checker.check_model(ir.to_proto(wide.model), full_check=True)
    check_tidy(wide.model)
    assert counted(analysis, wide.model) == wide.structure.costs["after"]
    feeds = random_inputs(analysis.graph, np.random.default_rng(2))
    found = relative(*(run_session(m.model)(feeds)[0] for m in (small, wide)))
    assert np.isfinite(found) and (init == "fresh" or found <= TOLERANCE or wide.notes)


def test_a_width_multiplier_empties_nothing() -> None:
    assert (scale(sized("resnet"), "flops=5%").structure.widths > 0).all()


def test_a_file_says_what_went(tmp_path: Path) -> None:
    analysis = sized("resnet")
    small = emptied(analysis, "2.body.0.0.weight:0")
    small.structure.save(tmp_path / "s.json")
    again = Structure.load(tmp_path / "s.json")
    assert again == small.structure
    assert [g.keep for g in again.groups if g.id == "2.body.0.0.weight:0"] == [()]
    assert again.parameters["2.body.0.0.weight"][0] == () and again.parameters["2.body.1.0.weight"][1] == ()
    assert ir.to_proto(shrink(analysis, again).model) == ir.to_proto(small.model)


def test_the_command_line_may_empty_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, small, kept = (str(tmp_path / name) for name in ("m.onnx", "o.onnx", "s.json"))
    ir.save(exported("inception").model, net)
    budget = ["--budget", "params=6%", "--json"]
    assert run(["shrink", net, "-o", small, *budget]) == 1  # a channel of each group costs more
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "budget-reach"
    assert run(["shrink", net, "-o", small, "--save-structure", kept, "--allow-empty", *budget]) == 0
    assert 0 in json.loads(capsys.readouterr().out)["widths"].values()
    assert run(["verify", net, small, "--structure", kept]) == 0
    assert run(["shrink", net, "-o", small, "--structure", kept, "--allow-empty"]) == 2


def test_a_module_cannot_lose_its_layers() -> None:
    structure = emptied(sized("resnet"), "2.body.0.0.weight:0").structure
    with pytest.raises(StructureError, match=r"2\.body\.0\.0\.weight:0") as caught:
        resize(exported("resnet").module, structure)
    assert caught.value.code == "structure-empty"


def test_what_a_muted_group_says_is_folded_once() -> None:
    """Scales of 0 with shifts, on a group that goes as a whole: the shifts stand in the next bias."""
    rng = np.random.default_rng(0)
    state = {
        "scale": np.zeros(6), "shift": rng.uniform(0.5, 1, 6), "mean": np.zeros(6), "variance": np.ones(6),
        "bias": rng.uniform(size=4),
    }  # fmt: skip
    nodes = [
        node("Conv", "x k", "c"),
        node("BatchNormalization", "c scale shift mean variance", "b"),
        node("Relu", "b", "r"),
        node("Conv", "r l bias", "d"),
        node("Conv", "x s", "t"),
        node("Add", "d t", "a"),
        node("Relu", "a", "y"),
    ]
    weights = [weight("k", 6, 3, 1, 1), weight("l", 4, 6, 1, 1, seed=1), weight("s", 4, 3, 1, 1, seed=2)]
    weights += [numpy_helper.from_array(array.astype(np.float32), name) for name, array in state.items()]
    analysis = analyze(model(nodes, weights, [value("x", IMAGE)], [value("y", ["n", 4, 8, 8])]))
    small = emptied(analysis, "k:0")
    check(analysis, small)
    assert verify(analysis, small.model, small.structure).folded > 0.01
    feeds = random_inputs(analysis.graph, rng)
    assert relative(*(run_session(m)(feeds)[0] for m in (analysis.graph.model, small.model))) <= TOLERANCE
    assert ops(small) == {"Conv": 1, "Add": 1, "Relu": 1}


def test_a_constant_that_a_body_reads() -> None:
    """The branches of If read tensors from around them; the one that is constant now becomes an initializer."""
    branches = {
        f"{key}_branch": helper.make_graph(
            [node("Add", inputs, f"{key}_out")], key, [], [value(f"{key}_out", ["n", 4])]
        )
        for key, inputs in (("then", "b x"), ("else", "x b"))
    }
    nodes = [node("MatMul", "x l", "h"), node("Gemm", "h k c", "b"), node("If", "go", "y", **branches)]
    weights = [weight("l", 4, 6), weight("k", 6, 4), weight("c", 4)]
    inputs = [value("x", ["n", 4]), value("go", [], TensorProto.BOOL)]
    analysis = analyze(model(nodes, weights, inputs, [value("y", ["n", 4])]))
    small = emptied(analysis, "l:1")
    check(analysis, small)
    assert ops(small)["If"] == 1 and "Gemm" not in ops(small)


def test_half_precision() -> None:
    half = [
        numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name)
        for w in (weight("l", 4, 6), weight("k", 6, 4), weight("b", 4))
    ]
    nodes = [node("Gemm", "x l", "h"), node("Gemm", "h k b", "d"), node("Add", "d x", "y")]
    shape = ["n", 4]
    ends = [[value(name, shape, TensorProto.FLOAT16)] for name in ("x", "y")]
    analysis = analyze(model(nodes, half, *ends))
    small = emptied(analysis, "l:1")
    check(analysis, small)
    assert [v.dtype for v in small.model.graph.initializers.values()] == [ir.DataType.FLOAT16]
