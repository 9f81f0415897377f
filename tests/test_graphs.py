"""The analysis as networkx graphs."""

from __future__ import annotations

import networkx as nx

from exported import exported
from onnxmorph.analysis import analyze
from onnxmorph.graphs import op_graph, price_graph


def test_ops_lead_from_inputs_to_outputs() -> None:
    analysis = analyze(exported("resnet").model)
    graph = op_graph(analysis.graph)
    assert nx.is_directed_acyclic_graph(graph)
    kinds = nx.get_node_attributes(graph, "op")
    ends = [n for n, kind in kinds.items() if kind == "output"]
    assert len(ends) == 1
    assert set(graph) - set(ends) == nx.ancestors(graph, ends[0])
    assert sum(kind == "parameter" for kind in kinds.values()) == len(analysis.parameters)


def test_groups_meet_where_one_prices_the_other() -> None:
    analysis = analyze(exported("resnet").model)
    graph = price_graph(analysis)
    groups = [n for n, kind in graph.nodes(data="kind") if kind == "group"]
    assert groups == [g.id for g in analysis.groups]
    before = analysis.widths
    price = analysis.costs["macs"].gradient(before)
    for i, one in enumerate(groups):
        after = before.copy()
        after[i] -= 1
        changed = analysis.costs["macs"].gradient(after) != price
        for j, other in enumerate(groups):
            if changed[j] and i != j:
                assert set(graph[one]) & set(graph[other]), f"{one} prices {other}"
