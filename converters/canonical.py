"""The order of nodes and the names between them, by what the graph is and not by how an exporter went about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Set

import onnx_ir as ir


def settle(graph: ir.Graph, kept: Set[str]) -> None:
    """Order and name, in place: graphs that differ in nothing else have one fingerprint afterwards.

    ``kept`` are the names of initializers that stay; all other values are called by their op, ``input``, ``output`` or
    ``constant``, and a number where that is taken. Nodes keep their names without the numbers of tf2onnx (``__12``).
    No node may be without effect on the outputs.
    """
    _order(graph)
    _rename(graph, kept)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _order(graph: ir.Graph) -> None:
    """Put nodes in the order in which a walk back from the outputs leaves them, in bodies too."""
    reads: dict[ir.Node, list[ir.Value | None]] = {}
    for reader in graph:
        reads[reader] = list(reader.inputs)
        for body in _bodies(reader):
            _order(body)
            reads[reader] += [v for inner in body.all_nodes() for v in inner.inputs]
            reads[reader] += [v for each in (body, *body.subgraphs()) for v in each.outputs]
    done: dict[ir.Node, None] = {}
    waiting: list[tuple[ir.Node | None, bool]] = [(value.producer(), False) for value in reversed(graph.outputs)]
    while waiting:
        node, ready = waiting.pop()
        if node is None or node in done or node.graph is not graph:
            continue
        if ready:
            done[node] = None
            continue
        waiting.append((node, True))
        waiting += [(value.producer(), False) for value in reversed(reads[node]) if value is not None]
    graph.extend(done)


def _rename(graph: ir.Graph, kept: Set[str]) -> None:
    """Name all but `kept` after what they are and how many of these came before; nodes as in TensorFlow."""
    of_values, of_nodes = _numbered(kept), _numbered(set())
    outputs = [v for v in graph.outputs if v.name not in kept]
    named = set()
    for kind, values in (("input", graph.inputs), ("output", outputs)):
        for k, value in enumerate(values):
            value.name = of_values(kind if len(values) == 1 else f"{kind}_{k}")
            named.add(value)
    for node in graph.all_nodes():
        node.name = of_nodes(re.sub(r"__\d+", "", node.name or node.op_type))  # what tf2onnx numbers its own with
        constants = [v for v in node.inputs if v is not None and v.const_value is not None and v.name not in kept]
        inside = [value for body in _bodies(node) for value in body.inputs]
        for kind, values in (("constant", constants), (node.op_type, [*inside, *node.outputs])):
            for value in values:
                if value not in named:
                    value.name = of_values(kind)
                    named.add(value)


def _numbered(names: Set[str]) -> Callable[[str], str]:
    """What gives a name that is free: itself, or with the first number that is."""
    taken, counts = set(names), Counter[str]()

    def free(name: str) -> str:
        found = name
        while found in taken:
            counts[name] += 1
            found = f"{name}_{counts[name]}"
        taken.add(found)
        return found

    return free
