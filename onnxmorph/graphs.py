"""The analysis as networkx graphs: the ops and their tensors, and which ops price which groups.

Both can be written with networkx (DOT, GraphML) or handed to its algorithms.
"""

from __future__ import annotations

import networkx as nx
import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.graph import Graph


def op_graph(graph: Graph) -> nx.DiGraph[str]:
    """Ops, inputs and outputs of a model as nodes, tensors between them as edges (attribute ``tensor``).

    Nodes carry ``op``: the op type, or ``input``, ``output``, ``parameter``. Reaches what the outputs need and
    nothing else.
    """
    result: nx.DiGraph[str] = nx.DiGraph()
    producer = {}
    for kind, names in (("input", graph.inputs), ("parameter", graph.parameters)):
        for name in names:
            result.add_node(name, op=kind)
            producer[name] = name
    for node in graph.nodes:
        key = f"{node.type}:{next(o for o in node.outputs if o)}"
        result.add_node(key, op=node.type)
        for tensor in (*node.inputs, *node.captured):
            if tensor in producer:
                result.add_edge(producer[tensor], key, tensor=tensor)
        producer |= {o: key for o in node.outputs if o}
    for name in graph.outputs:
        result.add_node(f"output:{name}", op="output")
        if name in producer:
            result.add_edge(producer[name], f"output:{name}", tensor=name)
    result.remove_nodes_from([n for n in graph.parameters if not result.degree(n)])
    return result


def price_graph(analysis: Analysis) -> nx.Graph[str]:
    """Groups and the ops whose cost depends on them, bipartite (attribute ``kind``: ``group`` or ``op``).

    Groups in different connected components do not change each other's prices.
    """
    result: nx.Graph[str] = nx.Graph()
    for group in analysis.groups:
        result.add_node(group.id, kind="group", width=group.width)
    for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True):
        arrays = [r for r in rows.values() if r is not None]
        if not plan.node.counted or not arrays:
            continue
        key = f"{plan.node.type}:{plan.node.outputs[0]}"
        result.add_node(key, kind="op")
        numbers = np.unique(np.concatenate([analysis.group_of[a].reshape(-1) for a in arrays]))
        result.add_edges_from((key, analysis.groups[g].id) for g in numbers if g >= 0)
    return result
