"""Boundaries: what the user wants left alone stays, byte for byte, and the laws hold for the rest."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from exported import analysis_of, exported, grouped, model_of
from laws import random_cut
from onnxmorph import Bounds, Structure, analyze, expand, scale, shrink, verify
from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.budget import Budget
from onnxmorph.errors import BoundsError, BudgetError, StructureError
from onnxmorph.graph import Node
from onnxmorph.surgery import Morphed
from onnxmorph.surgery.verify import random_inputs, run_session
from onnxmorph.widths import steps
from structures import STRUCTURES
from tiny import convnet, mlp, model, node, value, weight

NETS = (
    "convnext", "densenet", "gather_constant", "groupnorm", "mobilenet_v2", "padded_shortcut", "resnet", "resnext",
    "shufflenet_v2", "sliced_halves", "squeeze_excite", "tied_linear", "unet", "vit", "vit_fused",
)  # fmt: skip
CUTTABLE = sorted(name for name, structure in STRUCTURES.items() if structure.widths)
ALL = grouped(*NETS, *CUTTABLE)
free = analysis_of  # under no boundaries


def halved(analysis: Analysis, original: Analysis) -> Morphed:
    """Cut under the boundaries; checked against the original under none, and through a file's text."""
    small = shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(0))))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    read = Structure.from_json(small.structure.to_json())
    assert read == small.structure and read.bounds == analysis.bounds
    assert verify(original, small.model, read, samples=1).difference <= 1e-5
    after = analyze(small.model)
    assert after.count() == small.structure.costs["after"]
    return small


def untouched(analysis: Analysis, small: Morphed, names: set[str]) -> bool:
    before, after = analysis.graph.model.graph.initializers, small.model.graph.initializers
    pairs = [(before[n].const_value, after[n].const_value) for n in names & before.keys() & after.keys()]
    return all(a is not None and b is not None and a.tobytes() == b.tobytes() for a, b in pairs)


def some(names: list[str], name: str) -> str:
    """One of these, the same in every run."""
    return names[len(name) * 7 % len(names)]


# ---------------------------------------------------------------- the laws under boundaries


@pytest.mark.parametrize("name", ALL)
def test_a_kept_tensor_stays_as_it_is(name: str) -> None:
    parameter = some(sorted(n for n, rows in free(name).rows.items() if n in free(name).parameters and any(
        r is not None for r in rows)), name)  # fmt: skip
    analysis = analyze(model_of(name), bounds=Bounds(keep=[parameter]))
    assert all(rows is None for rows in analysis.rows[parameter])
    assert {f.code for f in analysis.fixed if f.tensor == parameter} & {"kept"}
    assert untouched(analysis, halved(analysis, free(name)), {parameter})


@pytest.mark.parametrize("name", ALL)
def test_a_kept_node_reads_and_writes_what_it_did(name: str) -> None:
    ops = [p.node for p in free(name).plans if free(name).parameters.keys() & set(p.node.inputs)]
    chosen = ops[len(ops) // 2]
    analysis = analyze(model_of(name), bounds=Bounds(keep=[chosen.name or chosen.outputs[0]]))
    assert all(rows is None for tensor in chosen.tensors for rows in analysis.rows.get(tensor, ()))
    assert untouched(analysis, halved(analysis, free(name)), set(chosen.inputs))


@pytest.mark.parametrize("name", ALL)
def test_a_kept_group_is_no_group(name: str) -> None:
    """And those that are left are as they were."""
    group = some([g.id for g in free(name).groups], name)
    analysis = analyze(model_of(name), bounds=Bounds(keep=[group]))
    assert [(g.id, g.width) for g in analysis.groups] == [(g.id, g.width) for g in free(name).groups if g.id != group]
    halved(analysis, free(name))


@pytest.mark.parametrize("name", ALL)
def test_only_what_is_chosen_is_cut(name: str) -> None:
    group = some([g.id for g in free(name).groups], name)
    analysis = analyze(model_of(name), bounds=Bounds(only=[group]))
    assert [(g.id, g.width) for g in analysis.groups] == [(g.id, g.width) for g in free(name).groups if g.id == group]
    assert {f.code for f in analysis.fixed} - {f.code for f in free(name).fixed} <= {"not-chosen", "positions"}
    small = halved(analysis, free(name))
    cut = {m.tensor for m in analysis.groups[0].members}
    assert untouched(analysis, small, analysis.parameters.keys() - cut)


def reached(nodes: tuple[Node, ...], tensors: set[str], down: bool) -> list[Node]:
    """By going through the nodes in order (or in reverse)."""
    found = []
    for each in nodes if down else reversed(nodes):
        if tensors & set((*each.inputs, *each.captured) if down else each.outputs):
            found.append(each)
            tensors |= set(each.outputs if down else (*each.inputs, *each.captured))
    return found


@pytest.mark.parametrize("down", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ALL)
def test_what_is_frozen_computes_what_it_did(name: str, down: bool) -> None:
    tensors = [p.node.outputs[0] for p in free(name).plans if p.node.counted]
    middle = tensors[len(tensors) // 2]
    analysis = analyze(model_of(name), bounds=Bounds(**{"freeze_after" if down else "freeze_before": [middle]}))
    held = reached(analysis.graph.nodes, {middle}, down)
    assert all(r is None for n in held for t in n.tensors for r in analysis.rows.get(t, ()))
    small = halved(analysis, free(name))
    assert untouched(analysis, small, {t for n in held for t in n.inputs})
    if not down and middle in {v.name for n in small.model.graph for v in n.outputs}:
        feeds = random_inputs(analysis.graph, np.random.default_rng(0))
        one, other = (run_session(showing(m, middle))(feeds)[-1] for m in (analysis.graph.model, small.model))
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def showing(of: ir.Model, tensor: str) -> ir.Model:
    """With one more output."""
    of = of.clone()
    of.graph.outputs.append(next(v for n in of.graph for v in n.outputs if v.name == tensor))
    return of


def test_two_boundaries_hold_together() -> None:
    nets = {"a": Bounds(keep=["k1:0"]), "b": Bounds(only=["k1:0"]), "both": Bounds(keep=["k1:0"], only=["k1:0"])}
    groups = {name: [g.id for g in analyze(convnet(), bounds=b).groups] for name, b in nets.items()}
    assert groups == {"a": ["k2:0"], "b": ["k1:0"], "both": []}


def test_a_part_of_a_group_may_be_kept() -> None:
    """Rows of one axis that come from two convolutions: one is kept, the other is cut."""
    nodes = [
        node("Concat", "a b", "w", axis=1),
        node("MatMul", "x w", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r c", "y"),
    ]
    proto = model(nodes, [weight("a", 4, 6), weight("b", 4, 4, seed=1), weight("c", 10, 3, seed=2)])
    analysis = analyze(proto, bounds=Bounds(keep=["a"]))
    assert [(g.id, g.width) for g in analysis.groups] == [("b:1", 4)]
    assert untouched(analysis, halved(analysis, analyze(proto)), {"a"})


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("option", ["keep", "only", "freeze_before", "freeze_after", "min_width", "round_to"])
def test_a_pattern_that_names_nothing_is_an_error_with_near_names(option: str) -> None:
    given = {"scala": 2} if option in ("min_width", "round_to") else ["scala"]
    with pytest.raises(BoundsError, match=rf"{option} 'scala'.*'scale'") as caught:
        analyze(convnet(), bounds=Bounds(**{option: given}))
    assert caught.value.code == "bounds-name"


def test_nothing_near_leads_to_the_list_of_names() -> None:
    with pytest.raises(BoundsError, match="onnxmorph explain"):
        analyze(convnet(), bounds=Bounds(keep=["##########"]))


def test_globs_and_names_that_look_like_globs() -> None:
    proto = mlp()
    for each in (*proto.graph.node[0].input, "a"):
        assert each
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = "a[0]"
    assert analyze(proto, bounds=Bounds(keep=["a[0]"])).groups == ()
    assert analyze(proto, bounds=Bounds(keep=["a*"])).groups == ()
    assert [g.id for g in analyze(proto, bounds=Bounds(keep=["two"], only=["*"])).groups] == []
    with pytest.raises(BoundsError):
        analyze(proto, bounds=Bounds(keep=["A*"]))


@pytest.mark.parametrize(
    "given",
    [{"keep": "k1"}, {"only": [1]}, {"min_width": {"*": 0}}, {"round_to": {"*": 2.0}}, {"round_to": {"*": True}}],
)
def test_malformed_boundaries(given: dict[str, object]) -> None:
    with pytest.raises(BoundsError):
        Bounds(**given)


def test_no_boundaries_change_nothing() -> None:
    plain, none = analyze(convnet()), analyze(convnet(), bounds=Bounds())
    assert not Bounds() and Bounds(round_to={"*": 1})
    assert plain.groups == none.groups and plain.fixed == none.fixed


# ---------------------------------------------------------------- widths


@pytest.mark.parametrize("how", [shrink, scale])
def test_least_widths_are_met_and_multiples_kept(how: object) -> None:
    model = exported("resnet").model
    widths = [g.width for g in analyze(model).groups]
    assert widths == [8, 8, 12, 12, 12]
    ids = [g.id for g in analyze(model).groups]
    bounds = Bounds(min_width={"*": 3, ids[0]: 7}, round_to={ids[2]: 4, ids[0]: 2})
    budget = "flops=60%"
    result = how(model, budget=budget, bounds=bounds).structure  # type: ignore[operator]
    found = dict(zip(ids, result.widths.tolist(), strict=True))
    assert min(found.values()) >= 3 and found[ids[0]] == 8 and found[ids[2]] % 4 == 0
    assert Budget.parse(budget).met(analyze(model), result.widths)
    with pytest.raises(BudgetError, match="cannot go below"):
        how(model, budget="flops=5%", bounds=Bounds(min_width={"*": 8}))  # type: ignore[operator]


def test_a_least_width_is_no_more_than_there_is() -> None:
    small = shrink(convnet(), budget="flops=80%", bounds=Bounds(min_width={"k2:0": 100}))
    assert dict(zip([g.id for g in small.structure.groups], small.structure.widths.tolist(), strict=True))["k2:0"] == 8


def test_a_tensor_or_node_names_all_its_groups() -> None:
    ids = ["k1:0", "k2:0"]
    for pattern, least in {"k2": [5, 5], "first": [5, 1], "head": [1, 5], "k1": [5, 1], "k2:0": [1, 5]}.items():
        analysis = analyze(convnet(), bounds=Bounds(min_width={pattern: 5}))
        assert [g.id for g in analysis.groups] == ids and analysis.minimum.tolist() == least, pattern
    held = analyze(convnet(), bounds=Bounds(keep=["first"], round_to={"k1:0": 2}))
    assert held.multiple.tolist() == [0]


def products(analysis: Analysis) -> list[tuple[str, int, Array]]:
    """The axes of parameters that are a product of two groups: heads, norm groups, convolution groups outside."""
    return [
        (name, axis, rows)
        for name in analysis.parameters
        for axis, rows in enumerate(analysis.rows[name])
        if rows is not None and rows.shape[1] == 2
    ]


@pytest.mark.parametrize("name", ["vit", "vit_fused", "groupnorm", "resnext", "transposed_grouped"])
def test_heads_and_groups_go_whole(name: str) -> None:
    """What is left of a product is so many whole outer channels, each with the same inner ones."""
    analysis = analyze(exported(name).model)
    outer = sorted({int(g) for *_, rows in products(analysis) for g in analysis.group_of[rows[:, 0]]} - {-1})
    assert outer and (steps(analysis, 8)[outer] == 1).all()
    structure = shrink(analysis, budget="flops=60%", round_to=2).structure
    kept = {k.id: set(k.keep) for k in structure.groups}
    for parameter, axis, rows in products(analysis):
        groups = [analysis.groups[g] for g in analysis.group_of[rows].max(0)]
        both = (rows > 0).all(1)
        alive = [[r - g.start - 1 in kept[g.id] for r in column] for g, column in zip(groups, rows.T, strict=True)]
        wanted = np.flatnonzero(np.logical_and(*alive) & both)
        assert sorted(set(structure.parameters[parameter][axis]) & set(np.flatnonzero(both))) == wanted.tolist()
        sizes = np.unique(rows[wanted, 0], return_counts=True)[1]
        assert len(set(sizes.tolist())) == 1 and sizes[0] % len(kept[groups[1].id]) == 0
    asked = analyze(exported(name).model, bounds=Bounds(round_to={analysis.groups[outer[0]].id: 3}))
    assert steps(asked, 1)[outer[0]] == 3


# ---------------------------------------------------------------- structures


def test_a_structure_brings_its_boundaries_along() -> None:
    proto = convnet()
    small = shrink(proto, budget="flops=60%", bounds=Bounds(keep=["k1:0"], min_width={"*": 2}))
    again = shrink(proto, Structure.from_json(small.structure.to_json()))
    assert again.structure == small.structure
    wide = expand(proto, small.structure, "flops=300%")
    assert [k.id for k in wide.structure.groups] == ["k2:0"] and wide.structure.bounds.keep == ("k1:0",)
    assert untouched(analyze(proto), wide, {"k1", "scale"})
    all_wider = expand(proto, small.structure, "flops=300%", bounds=Bounds())
    assert all(len(k.keep) > k.width for k in all_wider.structure.groups if k.id == "k1:0")
    after = analyze(wide.model)
    assert after.costs["flops"].value(after.widths) == wide.structure.costs["after"]["flops"]


def test_a_structure_must_respect_the_boundaries_given_with_it() -> None:
    proto = convnet()
    analysis = analyze(proto)
    copies = np.ones(analysis.channels + 1, np.int64)
    copies[3] = 0  # of k1:0
    structure = Structure.of(analysis, copies)
    fine = shrink(proto, structure, bounds=Bounds(keep=["k2:0"]))
    assert [(k.id, len(k.keep)) for k in fine.structure.groups] == [("k1:0", 15)]
    assert fine.structure.parameters["k1"] == structure.parameters["k1"]
    with pytest.raises(StructureError, match="'k1:0'") as caught:
        shrink(proto, structure, bounds=Bounds(keep=["first"]))
    assert caught.value.code == "structure-bounds"


@pytest.mark.parametrize("text", ['{"keep": "a"}', '{"keep": 1}', '{"min_width": [1]}', '{"what": 1}', "[]", "3"])
def test_malformed_boundaries_in_a_structure(text: str) -> None:
    document = shrink(mlp(), budget="flops=50%").structure.to_json().replace('"bounds": {}', f'"bounds": {text}')
    assert text in document
    if text == "[]":  # reads as none
        return
    with pytest.raises((StructureError, BoundsError)):
        Structure.from_json(document)


def test_what_is_kept_takes_up_no_constants() -> None:
    """Channels whose scale is 0 go; what they said would move into the next bias, which is kept."""
    proto = convnet()
    proto.graph.node[3].input.append("b2")
    proto.graph.initializer.append(weight("b2", 8, seed=5))
    scale = next(t for t in proto.graph.initializer if t.name == "scale")
    array = numpy_helper.to_array(scale).copy()
    array[10:] = 0
    scale.CopyFrom(numpy_helper.from_array(array, "scale"))
    for keep, moved in ((), True), (("b2",), False):
        analysis = analyze(proto, bounds=Bounds(keep=keep))
        copies = np.ones(analysis.channels + 1, np.int64)
        start = analysis.groups[0].start + 1
        copies[start + 10 : start + 16] = 0
        small = shrink(analysis, Structure.of(analysis, copies))
        assert untouched(analysis, small, {"b2"}) is not moved
        assert any("dropped" in note for note in small.notes) is not moved
        assert verify(analysis, small.model, small.structure, samples=1).difference <= 1e-5


def test_a_value_may_be_named() -> None:
    proto = model(
        [node("Gemm", "x a", "h"), node("Clip", "h low", "r"), node("Gemm", "r b", "y")],
        [weight("a", 4, 8), weight("b", 8, 3, seed=1), numpy_helper.from_array(np.float32(0), "low")],
        [value("x", ["n", 4])],
    )
    assert len(analyze(proto, bounds=Bounds(keep=["low"])).groups) == 1


# ---------------------------------------------------------------- training


def mlp_module() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 9), torch.nn.ReLU(), torch.nn.Linear(9, 6)]
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(6, 3))


def test_training_leaves_alone_what_is_kept() -> None:
    module = mlp_module()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    bounds = Bounds(keep=["0.weight"], min_width={"2.weight": 7})
    morph = Morph(module, torch.zeros(1, 4), optimizer, "params=70%", steps=20, bounds=bounds)
    assert [(g.id, g.width) for g in morph.analysis.groups] == [("2.weight:0", 9), ("4.weight:0", 6)]
    for _ in range(10):
        loss = module(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        morph.step()
    morph.finish()
    assert morph.widths["2.weight:0"] >= 7 and morph.widths["4.weight:0"] < 6
    structure = morph.structure()
    assert structure.bounds == bounds
    small = resize(module, structure)
    assert small[0].weight.shape == (8, 4) and small[2].weight.shape == (morph.widths["2.weight:0"], 8)
    x = torch.randn(3, 4)
    torch.testing.assert_close(small(x), module(x))


def test_training_has_no_multiples() -> None:
    module = mlp_module()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(BoundsError, match=r"expand\(\)"):
        Morph(module, torch.zeros(1, 4), optimizer, "params=70%", steps=20, bounds=Bounds(round_to={"*": 8}))
