"""How values enter and leave the bodies of nodes: the one place that knows how If, Loop and Scan pass them.

A `Frame` says it in four words: a node *chooses* between branches, *hands* states from one iteration to the next,
*takes* a tensor apart along an axis, and *stacks* what its iterations write. Everything else reads frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxmorph.graph import Crossing


@dataclass(frozen=True)
class Choice:
    """One output of each branch, and the value outside that is one of them."""

    branches: tuple[ir.Value, ...]
    outside: ir.Value


@dataclass(frozen=True)
class State:
    """A value outside before the first iteration, inside before and after each, and outside after the last."""

    before: ir.Value
    inside: ir.Value
    after: ir.Value
    outside: ir.Value


@dataclass(frozen=True)
class Strip:
    """A tensor outside, and its part inside: one position of ``axis`` per iteration."""

    whole: ir.Value
    part: ir.Value
    axis: int


@dataclass(frozen=True)
class Frame:
    """How the values of one node pass the borders of its bodies.

    ``decides`` are the values that choose a branch or the number of iterations. ``limit`` is the value that holds
    the most iterations; ``goes_on`` the conditions outside, inside before and inside after each iteration.
    ``count`` is the iteration's number inside.
    """

    bodies: tuple[ir.Graph, ...]
    decides: tuple[ir.Value, ...] = ()
    choices: tuple[Choice, ...] = ()
    states: tuple[State, ...] = ()
    taken: tuple[Strip, ...] = ()
    stacked: tuple[Strip, ...] = ()
    limit: ir.Value | None = None
    goes_on: tuple[ir.Value | None, ir.Value, ir.Value] | None = None
    count: ir.Value | None = None


@dataclass(frozen=True)
class Link:
    """One value that passes a border: what it is made of, what decides about it, and its name beyond."""

    crossing: Crossing
    inputs: tuple[ir.Value, ...]
    output: ir.Value


def entries(frame: Frame) -> Iterator[Link]:
    """What is written before the bodies run."""
    yield from (Link(Crossing(1, inward=True, state=True), (s.before,), s.inside) for s in frame.states)
    yield from (Link(Crossing(1, s.axis, inward=True), (s.whole,), s.part) for s in frame.taken)


def exits(frame: Frame) -> Iterator[Link]:
    """What is written once the bodies have run. Whatever decides is read here too: it must not change."""
    for c in frame.choices:
        yield Link(Crossing(len(c.branches)), (*c.branches, *frame.decides), c.outside)
    yield from (Link(Crossing(2, state=True), (s.before, s.after, *frame.decides), s.outside) for s in frame.states)
    yield from (Link(Crossing(1, s.axis), (s.part, *frame.decides), s.whole) for s in frame.stacked)


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds, whatever its op."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            found += attribute.as_graphs()
    return found


def frame_of(node: ir.Node, version: int) -> Frame | None:
    """The frame of a node; None where it has no body, or one that is not followed.

    Raises:
        ValueError: the node and its bodies do not fit together; the message says where.
    """
    return _FRAMES[node.op_type](node, version) if is_followed(node) else None


def is_followed(node: ir.Node) -> bool:
    """Whether analysis enters the bodies of a node."""
    return node.op_type in _FRAMES and node.domain in ("", "ai.onnx")


def _if(node: ir.Node, version: int) -> Frame:
    branches = tuple(_body(node, name) for name in ("then_branch", "else_branch"))
    for body in branches:
        _expect(not body.inputs, "a branch has inputs")
        _expect(len(body.outputs) == len(node.outputs), "a branch has another number of outputs than the node")
    results = zip(*(body.outputs for body in branches), strict=True)
    choices = tuple(Choice(tuple(r), outside) for r, outside in zip(results, node.outputs, strict=True))
    return Frame(branches, _given(node.inputs[:1]), choices)


def _loop(node: ir.Node, version: int) -> Frame:
    body = _body(node, "body")
    _expect(len(node.inputs) >= 2, "it has fewer than two inputs")
    limit, condition, *before = node.inputs
    _expect(len(body.inputs) == len(node.inputs), "its body takes another number of values than it hands on")
    _expect(len(body.outputs) > len(before), "its body gives fewer values than it takes")
    _expect(len(node.outputs) == len(body.outputs) - 1, "its body has another number of outputs than it hands out")
    count, goes_in, *inside = body.inputs
    goes_out, *after = body.outputs
    return Frame(
        (body,),
        (*_given([limit, condition]), goes_out),
        states=_states(before, inside, after, node.outputs),
        stacked=tuple(
            Strip(whole, part, 0) for whole, part in zip(node.outputs[len(before) :], after[len(before) :], strict=True)
        ),
        limit=limit,
        goes_on=(condition, goes_in, goes_out),
        count=count,
    )


def _scan(node: ir.Node, version: int) -> Frame | None:
    if version < 9:  # batched, with lengths of its own
        return None
    body = _body(node, "body")
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    states = len(node.inputs) - scanned
    stacked = len(node.outputs) - states
    _expect(scanned > 0 and states >= 0 and stacked >= 0, "it has too few inputs or outputs")
    _expect(len(body.inputs) == len(node.inputs), "its body takes another number of values than it hands on")
    _expect(len(body.outputs) == len(node.outputs), "its body has another number of outputs than it hands out")
    axes_in = node.attributes.get_ints("scan_input_axes", [0] * scanned)
    axes_out = node.attributes.get_ints("scan_output_axes", [0] * stacked)
    _expect(len(axes_in) == scanned and len(axes_out) == stacked, "it has another number of axes than of tensors")
    wholes = _given(node.inputs[states:])
    _expect(len(wholes) == scanned, "an input is missing")
    return Frame(
        (body,),
        states=_states(node.inputs[:states], body.inputs[:states], body.outputs[:states], node.outputs[:states]),
        taken=tuple(map(Strip, wholes, body.inputs[states:], axes_in)),
        stacked=tuple(map(Strip, node.outputs[states:], body.outputs[states:], axes_out)),
    )


_FRAMES: dict[str, Callable[[ir.Node, int], Frame | None]] = {"If": _if, "Loop": _loop, "Scan": _scan}


def _states(
    before: Sequence[ir.Value | None],
    inside: Sequence[ir.Value],
    after: Sequence[ir.Value],
    outside: Sequence[ir.Value],
) -> tuple[State, ...]:
    there = _given(before)
    _expect(len(there) == len(before), "a state has no value to begin with")
    return tuple(map(State, there, inside, after, outside))


def _body(node: ir.Node, name: str) -> ir.Graph:
    attribute = node.attributes.get(name)
    _expect(attribute is not None and attribute.type == ir.AttributeType.GRAPH, f"it has no {name}")
    assert attribute is not None
    return attribute.as_graph()


def _given(values: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
    return tuple(v for v in values if v is not None)


def _expect(right: bool, otherwise: str) -> None:
    if not right:
        raise ValueError(otherwise)
