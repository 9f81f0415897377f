"""Bodies made part of one model: on load, every name is unique and every weight stands in the main graph.

Then a tensor that a body reads from outside is simply read, and what is said of a tensor holds wherever it stands.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from copy import copy

import onnx
import onnx_ir as ir
from onnx_ir import serde

from onnxmorph.bodies import bodies_of, is_followed


def settle_outputs(model: ir.Model) -> None:
    """Let every output of a body or function be written there, once, by a node that is no constant.

    A body may hand on its input as it is. Its defaults for inputs go: these are always given.
    """
    for function in model.functions.values():
        _settle(function.graph, {})
        _descend(function.graph, {v.name or "": v for v in function.inputs})
    _descend(model.graph, {v.name or "": v for v in (*model.graph.inputs, *model.graph.initializers.values())})


def _descend(graph: ir.Graph, outer: Mapping[str, ir.Value]) -> None:
    bodies = [body for node in graph for body in bodies_of(node)]
    if not bodies:
        return
    seen = ChainMap({v.name or "": v for node in graph for v in node.outputs}, dict(outer))
    for body in bodies:
        for value in body.inputs:
            if value.is_initializer():
                del body.initializers[value.name or ""]
                value.const_value = None
        _settle(body, seen, set(body.inputs))
        _descend(body, seen.new_child({v.name or "": v for v in (*body.inputs, *body.initializers.values())}))


def _settle(graph: ir.Graph, outer: Mapping[str, ir.Value], free: Collection[ir.Value] = ()) -> None:
    """Put an Identity before an output that is a constant, comes from outside, or is given twice."""
    given: set[ir.Value] = set()
    for i, value in enumerate(graph.outputs):
        producer = value.producer()
        own = value in free or (producer is not None and producer.graph is graph and len(producer.inputs) > 0)
        if own and value not in given:
            given.add(value)
            continue
        lost = producer is None and not value.is_graph_input() and not value.is_initializer()
        identity = ir.Node("", "Identity", [outer.get(value.name or "", value) if lost else value])
        result = identity.outputs[0]
        result.name, result.type, result.shape = f"{value.name}_out", value.type, value.shape
        graph.outputs[i] = result
        graph.append(identity)


def make_unique(model: ir.Model) -> None:
    """Rename the values of bodies so that no two values of the model share a name."""
    bodies = list(model.graph.subgraphs())
    if not bodies:
        return
    used = {v.name for v in _values(model.graph)}
    renamed = [v for v in _values(model.graph) if not v.name] + [v for body in bodies for v in _values(body)]
    for value in renamed:
        name, n = value.name or "unread", 1
        free = name
        while free in used:
            n += 1
            free = f"{name}_{n}"
        used.add(free)
        if free != value.name and value.const_value is not None:
            value.const_value = _own(value.const_value)
        value.name = free


def _values(graph: ir.Graph) -> list[ir.Value]:
    """What a graph defines. An output without a name is not there, but of a node with bodies: these write it."""
    found = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        found += [v for v in node.outputs if v.name or bodies_of(node)]
    return list(dict.fromkeys(found))


def _own(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor under a name of its own: the given one belongs to whoever gave the model."""
    if not isinstance(tensor, serde.TensorProtoTensor):
        return copy(tensor)
    proto = onnx.TensorProto()
    proto.CopyFrom(tensor.raw)
    return serde.TensorProtoTensor(proto)


def lift_weights(model: ir.Model) -> None:
    """Move the initializers of bodies that analysis follows to the main graph. Names must be unique."""
    waiting = [model.graph]
    while waiting:
        for node in waiting.pop():
            for body in bodies_of(node) if is_followed(node) else ():
                waiting.append(body)
                for name in list(body.initializers):
                    model.graph.register_initializer(body.initializers.pop(name))


def take_branch(node: ir.Node, branch: ir.Graph) -> None:
    """Put the nodes of a branch in the place of the node that always takes it."""
    graph, results, nodes = node.graph, list(branch.outputs), list(branch)
    assert graph is not None
    branch.outputs.clear()
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        if old.is_graph_output():
            name, new.name = new.name, old.name
            old.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    for left in (n for body in bodies_of(node) for n in body.all_nodes()):
        for i in range(len(left.inputs)):
            left.replace_input_with(i, None)
    graph.remove(node, safe=True)
