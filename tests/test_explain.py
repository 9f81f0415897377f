"""Explanations: every chain is a way through the model, and its end is where the reason arises."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import zoo
from exported import analysis_of, grouped
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.diagram import diagram, dot, svg
from onnxmorph.errors import OnnxMorphError
from onnxmorph.explain import Chain, explain, way
from onnxmorph.notation import parse_term, size_of
from onnxmorph.ties import indices, position
from structures import STRUCTURES
from test_cli import Capture, asked, refused, shown
from tiny import convnet, mlp, model, node, save, value, weight

NETS = ("densenet", "gather_constant", "resnet", "shufflenet_v2", "vit_fused", "groupnorm", "sliced_halves", "unet")
ALL = grouped(*NETS, *sorted(STRUCTURES))


def follow(analysis: Analysis, tensor: str, axis: int, chain: Chain) -> tuple[str, int]:
    """The axis where a chain ends; every op of it reads or writes both axes, and knows the factor."""
    for step in chain:
        plans = [p for p in analysis.plans if (p.node.name or p.node.outputs[0], p.node.type) == (step.node, step.op)]
        assert any({tensor, step.tensor} <= set(p.node.tensors) and step.factor in p.labels for p in plans)
        tensor, axis = step.tensor, step.axis
    return tensor, axis


def check_groups(analysis: Analysis) -> None:
    """Every member of every group is reached from the first, over axes that have the group's channels."""
    for number, group in enumerate(analysis.groups):
        (found,) = explain(analysis, group.id).groups
        assert [(m.tensor, m.axis) for m in found.members] == [(m.tensor, m.axis) for m in group.members]
        first = found.members[0]
        for member in found.members:
            end = follow(analysis, first.tensor, first.axis, member.chain)
            assert end == (member.tensor, member.axis)
            for step in member.chain:
                rows = analysis.rows[step.tensor][step.axis]
                assert rows is not None and (analysis.group_of[rows] == number).any()
            rows = analysis.rows[member.tensor][member.axis]
            assert rows is not None and member.positions == ((analysis.group_of[rows] == number).any(1)).sum()


def check_stays(analysis: Analysis, limit: int) -> None:
    """All fixed positions are told, each once; a chain stays among fixed positions and ends where the reason arises."""
    arises = {r.text: r.at for r in analysis.trace.reasons}
    for fixed in analysis.fixed[:limit]:
        (axis,) = explain(analysis, f"{fixed.tensor}:{fixed.axis}").axes
        assert sum(stay.count for stay in axis.stays) == fixed.positions
        told = [p for stay in axis.stays for low, high in stay.positions for p in range(low, high + 1)]
        rows = analysis.rows[fixed.tensor][fixed.axis]
        wanted = range(axis.size) if rows is None else np.flatnonzero(~rows.any(1)).tolist()
        assert sorted(told) == list(wanted)
        assert fixed.code in {stay.code for stay in axis.stays}
        for stay in axis.stays:
            tensor, _ = follow(analysis, fixed.tensor, fixed.axis, stay.chain)
            at = arises.get(stay.reason, ())
            assert not at or tensor in at, stay


@pytest.mark.parametrize("name", ALL)
def test_every_group_and_every_reason_can_be_explained(name: str) -> None:
    check_groups(analysis_of(name))
    check_stays(analysis_of(name), limit=40)


ZOO_CASES = [
    pytest.param(p, id=zoo.name_of(p), marks=[pytest.mark.nightly] * heavy)
    for p in zoo.PATHS
    for heavy in [p.parent.name != "dynamo" or zoo.parameters(p) > 5_000_000]
]


@zoo.needed
@pytest.mark.parametrize("path", ZOO_CASES)
def test_every_group_of_a_real_network_can_be_explained(path: Path) -> None:
    analysis = analyze(zoo.zeroed(path))
    check_groups(analysis)
    check_stays(analysis, limit=10)


# ---------------------------------------------------------------- what a person reads


def test_a_chain_goes_by_the_ops_between() -> None:
    analysis = analyze(convnet())
    (group,) = explain(analysis, "k1:0").groups
    ways = {f"{m.tensor}:{m.axis}": [step.node for step in m.chain] for m in group.members}
    assert ways["scale:0"] == ["first", "norm"] and ways["k2:1"] == ["first", "norm", "act", "second"]
    assert group.price == {n: analysis.costs[n].gradient(analysis.widths)[0] for n in analysis.costs}
    assert [op for op, _ in group.ops] == ["Conv", "BatchNormalization", "Relu", "Conv"]
    one, other = analysis.groups[0].members[1], analysis.groups[0].members[-1]
    assert [step.node for step in way(analysis, analysis.groups[0], one, other)] == ["norm", "act", "second"]


def test_averages_are_told() -> None:
    nodes = [
        node("Gemm", "x a", "h"),
        node("LayerNormalization", "h s", "n", "norm"),
        node("Gemm", "n b", "y"),
    ]
    analysis = analyze(model(nodes, [weight("a", 4, 8), weight("s", 8), weight("b", 8, 3)]))
    assert explain(analysis, "a:1").groups[0].averages == (("LayerNormalization", "norm"),)


def test_the_way_to_what_forces_it() -> None:
    proto = model(
        [
            node("Gemm", "x a", "h", "one"),
            node("Relu", "h", "r", "act"),
            node("Secret", "r", "s", "secret", "acme"),
            node("MatMul", "s b", "y", "two"),
        ],
        [weight("a", 4, 8), weight("b", 8, 3)],
        domains=["acme"],
    )
    proto.graph.value_info.append(value("s", ["n", 8]))
    axes = explain(analyze(proto), "a").axes
    assert [(s.code, [step.node for step in s.chain]) for axis in axes for s in axis.stays] == [
        ("graph-input", ["one"]),
        ("unknown-op", ["one", "act"]),
    ]


def test_positions_that_stay_in_part_are_named() -> None:
    """Channels 0 to 3 come from the input, 4 to 9 from a weight."""
    nodes = [
        node("Gemm", "x a", "h", "one"),
        node("Concat", "x h", "c", "join", axis=1),
        node("Gemm", "c b", "y", "two"),
    ]
    analysis = analyze(model(nodes, [weight("a", 4, 6), weight("b", 10, 3)]))
    (axis,) = explain(analysis, "b:0").axes
    assert axis.groups == ("a:1",) and axis.size == 10
    (stay,) = axis.stays
    assert stay.positions == ((0, 3),) and "graph input 'x'" in stay.reason
    assert [step.tensor for step in stay.chain] == ["c", "x"]


def test_what_a_tie_has_behind_it() -> None:
    """The input's channels and a weight's in one axis, added to a weight: it is tied to what stays there."""
    nodes = [
        node("Gemm", "x a", "h", "one"),
        node("Concat", "x h", "c", "join", axis=1),
        node("Add", "c bias", "d", "plus"),
        node("Gemm", "d b", "y", "two"),
    ]
    analysis = analyze(model(nodes, [weight("a", 4, 6), weight("bias", 10), weight("b", 10, 3)]))
    (axis,) = explain(analysis, "bias").axes
    (stay,) = axis.stays
    assert stay.positions == ((0, 3),) and "graph input 'x'" in stay.reason
    assert stay.chain[-1].tensor == "x"


def test_a_node_tells_its_factors() -> None:
    (op,) = explain(analyze(convnet()), "second").ops
    assert op.equation.startswith("n (g i)") and op.refused is None
    factors = {f.name: (f.size, f.groups) for f in op.factors}
    assert factors["o"] == (8, ("k2:0",)) and factors["i"] == (16, ("k1:0",)) and factors["k~0"] == (3, ())
    analysis = analyze(convnet())
    assert op.costs["macs"] == 6 * 6 * 8 * 16 * 9
    assert sum(explain(analysis, p.node.name).ops[0].costs["flops"] for p in analysis.plans) == analysis.costs[
        "flops"
    ].value(analysis.widths)


def test_a_name_of_several_things_tells_them_all() -> None:
    proto = mlp()
    proto.graph.node[0].name = "h"
    found = explain(analyze(proto), "h")
    assert [a.axis for a in found.axes] == [0, 1] and [o.op for o in found.ops] == ["Gemm"]
    assert found.axes[1].groups == ("a:1",)


def test_positions_of_products_and_sums() -> None:
    sizes = {"a": 2, "b": 3, "c": 4}
    for text in ("a", "(a b)", "(a + b)", "(a (b + c))", "((a b) + c)", "(a b c)"):
        term = parse_term(text)
        for p in range(size_of(term, sizes)):
            found = indices(term, sizes, p)
            assert found and all(0 <= i < sizes[f] for f, i in found.items())
            for factor, index in found.items():
                first = position(term, sizes, factor, index)
                assert first <= p and indices(term, sizes, first)[factor] == index


# ---------------------------------------------------------------- diagrams


@pytest.mark.parametrize("name", ALL)
def test_diagrams_show_all_members_and_are_well_formed(name: str) -> None:
    analysis = analysis_of(name)
    for group in analysis.groups[:6]:
        graph = diagram(analysis, explain(analysis, group.id))
        assert {f"axis {m.tensor}:{m.axis}" for m in group.members} <= set(graph)
        assert nx.is_weakly_connected(graph)
        check_drawing(graph)
    for fixed in analysis.fixed[:6]:
        graph = diagram(analysis, explain(analysis, f"{fixed.tensor}:{fixed.axis}"))
        assert "stays" in {kind for _, kind in graph.nodes(data="kind")}
        check_drawing(graph)
    check_drawing(diagram(analysis, explain(analysis, analysis.plans[-1].node.name or analysis.graph.outputs[0])))


SVG = "{http://www.w3.org/2000/svg}"


def check_drawing(graph: nx.DiGraph[str]) -> None:
    """The picture is XML, no two boxes overlap, all lie inside; the text has every node and edge."""
    root = ElementTree.fromstring(svg(graph))
    rects = [r for g in root.iter(f"{SVG}g") for r in g.iter(f"{SVG}rect")]
    assert len(rects) == len(graph)
    boxes = np.array([[float(r.get(k, "")) for k in ("x", "y", "width", "height")] for r in rects])
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    assert (low >= 0).all() and (high <= [float(root.get("width", "")), float(root.get("height", ""))]).all()
    for i in range(len(boxes)):
        apart = (high[i] <= low[i + 1 :]) | (low[i] >= high[i + 1 :])
        assert apart.any(1).all()
    assert len([p for p in root.iter(f"{SVG}path") if p.get("marker-end")]) == graph.number_of_edges()
    lines = dot(graph).splitlines()
    assert sum(" -> " in line for line in lines) == graph.number_of_edges()
    assert lines[0] == "digraph {" and lines[-1] == "}"


def test_hostile_names_are_escaped() -> None:
    bad = 'a"]; <script>&\\\n\x1b'
    proto = mlp()
    for each in (proto.graph.initializer[0], proto.graph.node[0]):
        each.name = bad
    proto.graph.node[0].input[1] = bad
    analysis = analyze(proto)
    graph = diagram(analysis, explain(analysis, f"{bad}:1"))
    text, picture = dot(graph), svg(graph)
    ElementTree.fromstring(picture)
    assert "<script>" not in picture and "\x1b" not in picture
    for line in text.splitlines()[3:-1]:
        bare = line.replace("\\\\", "").replace('\\"', "")
        assert bare.count('"') % 2 == 0 and bare.endswith("];")


# ---------------------------------------------------------------- the command


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


def test_explain_prints_the_document(net: Path, capsys: Capture) -> None:
    found = asked(capsys, "explain", net, "k1:0")
    assert found["groups"][0]["members"][1]["chain"][0]["node"] == "first"
    assert asked(capsys, "explain", net, "k1:1")["axes"][0]["stays"][0]["code"] == "graph-input"
    assert asked(capsys, "explain", net, "norm")["ops"][0]["op"] == "BatchNormalization"
    assert asked(capsys, "explain", net)["groups"] == {"k1:0": 16, "k2:0": 8}
    held = asked(capsys, "explain", net, "k1", "--keep", "norm")
    assert [s["code"] for axis in held["axes"][:1] for s in axis["stays"]] == ["kept"]


def test_explain_shows_plain_words(net: Path, capsys: Capture) -> None:
    text = " ".join(shown(capsys, "explain", net, "k1:0").split())
    assert "16 channels" in text and "101 params" in text
    assert "Conv 'first', BatchNormalization 'norm'" in text and "2 Conv" in text
    text = " ".join(shown(capsys, "explain", net, "k1").split())
    assert "stays: all 3: graph input 'x' keeps its shape [graph-input]" in text and "at x:1" in text
    assert "k1:0" in shown(capsys, "explain", net) and "k1:0" in shown(capsys, "explain", net, "second")


def test_explain_draws(net: Path, tmp_path: Path, capsys: Capture) -> None:
    one, other = tmp_path / "d.dot", tmp_path / "d.svg"
    asked(capsys, "explain", net, "k1:0", "--dot", one, "--svg", other)
    analysis = analyze(net)
    graph = diagram(analysis, explain(analysis, "k1:0"))
    assert one.read_text() == dot(graph) and other.read_text() == svg(graph)


def test_explain_refuses(net: Path, tmp_path: Path, capsys: Capture) -> None:
    message = refused(capsys, "explain", net, "scala", exit_code=1, code="explain-name")
    assert "'scale'" in message
    refused(capsys, "explain", net, "k1:7", exit_code=1, code="explain-name")
    assert "NAME" in refused(capsys, "explain", net, "--svg", tmp_path / "x.svg", exit_code=2, code="usage")
    before = net.read_bytes()
    refused(capsys, "explain", net, "k1", "--svg", net, exit_code=2, code="usage")
    assert net.read_bytes() == before


def test_json_is_what_the_dataclasses_hold() -> None:
    with pytest.raises(OnnxMorphError, match="near names are"):
        explain(analyze(convnet()), "k3:0")
    assert json.dumps(explain(analyze(convnet()), "y").axes[0].stays[0].positions) == "[[0, 0]]"


def test_the_model_is_not_changed_by_explaining() -> None:
    proto = convnet()
    before = proto.SerializeToString()
    analysis = analyze(ir.from_proto(proto))
    explain(analysis, "k1:0")
    assert onnx.ModelProto.FromString(before) == proto
