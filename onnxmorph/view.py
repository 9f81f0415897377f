"""From ONNX's graphs to the read-only list of nodes that analysis walks: one list, bodies included.

A model with dynamic dimensions is inferred at two choices of sizes: what agrees is static, what differs is dynamic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.bodies import Link, bodies_of, entries, exits, frame_of
from onnxmorph.errors import ModelError
from onnxmorph.graph import Graph, Node, Shape
from onnxmorph.infer import GUESS, Inferred, as_node, captured_by, infer, names_of, version_of
from onnxmorph.scopes import take_branch

Static = Mapping[str, NDArray[np.bool_]]
SAMPLE = 17  # iterations of a loop at the second choice of sizes, where they are not known; 1 at the first


def infer_twice(
    model: ir.Model, name: str, first: Mapping[str, Shape], second: Mapping[str, Shape]
) -> tuple[Inferred, Inferred]:
    """At two choices of sizes; loops whose iterations are not known run once, and then more often."""
    try:
        one = infer(model, name, first)
        settled = first == second and not (one.guessed or one.sampled)
        return one, one if settled else infer(model, name, second, SAMPLE, GUESS + 32)
    except ModelError:
        if not any(bodies_of(node) for node in model.graph):
            raise
    one = infer(model, name, first, None)  # a loop of which only a certain number of iterations fits
    return one, one if first == second and not one.guessed else infer(model, name, second, None, GUESS + 32)


def static_entries(model: ir.Model, one: Inferred, two: Inferred) -> Static:
    """Which entries of the known values do not depend on a dynamic dimension.

    Numbers that are the same at both choices of sizes are taken for static. A comparison may come out the same by
    accident: it is static only where all that it compares is, back to the entries of shapes.
    """
    equal, static = {}, dict[str, NDArray[np.bool_]]()
    for key, value in one.known.items():
        other = two.known.get(key)
        same = other is not None and other.shape == value.shape
        equal[key] = np.asarray(other == value) if same else np.zeros(value.shape, bool)
    if one is two or all(e.all() for e in equal.values()):
        return equal
    sure = dict(equal)  # where the entries that lead to it are the same too
    for node in model.graph.all_nodes():
        inputs = [n for n in names_of(node.inputs) if n in equal]
        for key in (n for n in names_of(node.outputs) if n in equal):
            truth = one.known[key].dtype == bool
            if key not in one.moved:
                sure[key] = equal[key] & _all_of([sure[n] for n in inputs], equal[key].shape)
            doubts = [static[n] for n in inputs if n in static]
            static[key] = sure[key] if truth else equal[key] & _all_of(doubts, equal[key].shape)
            if np.array_equal(static[key], equal[key]) and not truth:
                del static[key]  # nothing to doubt behind it
    return {**equal, **static}


def _all_of(entries: Sequence[NDArray[np.bool_]], shape: Shape) -> NDArray[np.bool_]:
    """Entry by entry, or over all entries where they do not correspond."""
    result = np.ones(shape, bool)
    for each in entries:
        alike = each.ndim <= len(shape) and all(
            a in (1, b) for a, b in zip(each.shape[::-1], shape[::-1], strict=False)
        )
        result &= each if alike else each.all()
    return result


def take_branches(model: ir.Model, found: Inferred, static: Static) -> bool:
    """Put branches that are always taken in the place of their nodes; False where there is none."""
    taken = []
    for node in model.graph.all_nodes():
        frame = frame_of(node, version_of(node, model))
        if frame is None or not frame.choices or not frame.decides:
            continue
        condition = frame.decides[0].name or ""
        if condition in static and static[condition].all() and static[condition].size == 1:
            taken.append((node, frame.bodies[not found.known[condition].item()]))
    for node, branch in taken:
        take_branch(node, branch)
    return bool(taken)


@dataclass(frozen=True)
class _Step:
    """A node, or one value that passes the border of its bodies; ``times`` is how often it runs, ``around`` where."""

    node: ir.Node
    link: Link | None
    times: int
    around: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return names_of(self.node.inputs if self.link is None else self.link.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return names_of(self.node.outputs if self.link is None else [self.link.output])


def _steps(
    graph: ir.Graph, model: ir.Model, often: Mapping[ir.Node, int], times: int = 1, around: tuple[str, ...] = ()
) -> Iterator[_Step]:
    """The nodes of a graph and its bodies in one list, in an order in which every value is written first."""
    for node in graph:
        frame = frame_of(node, version_of(node, model))
        if frame is None:
            yield _Step(node, None, times, around)
            continue
        within = (*around, next((n for n in names_of(node.outputs) if n), ""))
        yield from (_Step(node, link, times, within) for link in entries(frame))
        for body in frame.bodies:
            yield from _steps(body, model, often, times * often.get(node, 1), within)
        yield from (_Step(node, link, times, within) for link in exits(frame))


def _needed(steps: Sequence[_Step], outputs: Sequence[str], settled: Mapping[str, bool]) -> list[_Step]:
    """The steps that the outputs depend on. Of a node with bodies all or none: an iteration needs the one before."""
    needed, kept, whole = set(outputs), [], set[ir.Node]()
    for step in reversed(steps):
        if step.link is not None and not needed.isdisjoint(names_of(step.node.outputs)):
            whole.add(step.node)
        written = [o for o in step.outputs if o]
        unread = step.node not in whole if step.link is not None else needed.isdisjoint(written)
        if unread or all(settled.get(o) for o in written):
            continue
        kept.append(step)
        captured = captured_by(step.node) if step.link is None else ()
        needed.update(n for n in (*step.inputs, *captured) if not settled.get(n))
    return kept[::-1]


def nodes_of(graph: Graph, found: Inferred, other: Inferred) -> Iterator[Node]:
    """The nodes that the outputs depend on, settled arithmetic on shapes left out: its results are constants."""
    model = graph.model
    settled = {key: key in graph.derived for key in graph.known if graph.static[key].all()}
    for step in _needed(list(_steps(model.graph, model, found.times)), graph.outputs, settled):
        node, inputs, outputs = step.node, step.inputs, step.outputs
        partial = {i: graph.known.get(i, found.short.get(i)) for i in inputs}
        seen = as_node(model, node, graph.shapes, {}, inputs, outputs)
        yield replace(
            seen,
            formal=seen.formal if step.link is None else (),
            known=tuple(partial[i] if i not in graph.known or graph.static[i].all() else None for i in inputs),
            partial=tuple(partial[i] for i in inputs),
            captured=captured_by(node) if step.link is None else (),
            counted=any(o in found.data and o not in settled for o in outputs),
            dynamic=tuple(graph.dynamic.get(o, frozenset()) for o in outputs),
            others={n: other.shapes.get(n) for n in (*inputs, *outputs) if n},
            times=step.times,
            around=step.around,
            crossing=step.link.crossing if step.link else None,
        )
