"""The analysis as networkx graphs: the ops and their tensors, and which ops price which groups.

Both can be written with networkx (DOT, GraphML) or handed to its algorithms.
"""

from __future__ import annotations

import networkx as nx
import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.graph import op_graph

__all__ = ["op_graph", "price_graph"]


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
        key = plan.node.key
        result.add_node(key, kind="op")
        numbers = np.unique(np.concatenate([analysis.group_of[a].reshape(-1) for a in arrays]))
        result.add_edges_from((key, analysis.groups[g].id) for g in numbers if g >= 0)
    return result
