"""What a rule is, and the one table of them.

To add an op, write one entry: its equation, what it costs, and which of its parameters hold sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.graph import Node


@dataclass(frozen=True)
class Write:
    """A parameter (attribute or constant input) whose entries are sizes.

    ``entries`` holds one axis in the notation per entry, e.g. ``("s0", "s1")``; None leaves the entry alone.
    ``instead_of`` names an attribute that must go when the parameter is written. ``infers`` says that one
    entry may be -1.
    """

    parameter: str
    entries: tuple[str | None, ...]
    instead_of: str | None = None
    infers: bool = False


@dataclass(frozen=True)
class Take:
    """Factor `new` lists positions of factor `of`: ``new[j] = of[index[j]]``; the indices stand in `parameter`."""

    new: str
    of: str
    index: NDArray[np.int64]
    parameter: str


@dataclass(frozen=True)
class Pin:
    """An attribute whose default follows from the size of `factor`: where that changes it keeps the `value` it had."""

    parameter: str
    value: float
    factor: str


@dataclass(frozen=True)
class Quantised:
    """Inputs that make up one quantised tensor: ``scale * (data - zero)``; None for a scale of 1, a zero of 0.

    ``data`` is None where the quantised tensor is what the op writes. ``times`` is a second scale.
    """

    data: int | None
    scale: int | None = None
    zero: int | None = None
    times: int | None = None


@dataclass(frozen=True)
class Schema:
    """An op that onnx does not know: the names of its inputs, the defaults of its attributes, its outputs' types.

    ``like[j]`` says where output j has its type from: the first of these inputs that is there, or a type. The last
    entry serves all further outputs.
    """

    inputs: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    like: tuple[tuple[int | ir.DataType, ...], ...] = ((0,),)


@dataclass(frozen=True)
class Cost:
    """``count * product of the factors`` floating-point operations; ``macs`` marks multiply-accumulates (2 each).

    ``factors`` may be a sum of products, ``"m n k + m n"``; ``plus`` adds what is counted otherwise. A node that the
    rule refuses costs ``count`` for every element that it writes.
    """

    factors: str
    count: int = 1
    macs: bool = False
    plus: Cost | None = None


@dataclass(frozen=True)
class Spec:
    """A rule bound to one node: its equation, the sizes that its attributes give, and its consequences.

    ``fresh`` names factors of the output whose positions the op itself makes (padding), free to go.
    ``pins`` are defaults that must not follow a size. ``cost`` stands in for the rule's where it depends on the node.
    ``refuse`` is set instead of everything else where the rule does not cover the node: (code, reason).
    """

    equation: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    writes: tuple[Write, ...] = ()
    takes: tuple[Take, ...] = ()
    fresh: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    cost: Cost | None = None
    refuse: tuple[str, str] | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of the table.

    ``bind`` gives the Spec of a node. ``cost`` is in the factors of the equation and of ``Spec.sizes``.
    ``roles`` says what the inputs of a norm are: scale, shift, state (running statistics, not a parameter); a
    "quantiser" is the scale or zero point of a quantised tensor, and no parameter either.
    ``weights`` are the inputs that the `classic` count of parameters takes. ``view`` marks ops that move
    nothing. ``elementwise`` marks functions of single positions, which map constants to constants.
    ``keeps`` marks ops that map constant channels to the same constants (moving, pooling).
    ``bias`` is the input that is added to the result, ``additive`` an op that adds its inputs.
    ``quantised`` says which inputs are quantised, ``schema`` what onnx does not know of the op.
    ``reads_shape`` marks ops whose output is the shape of their input. ``fixed`` is the (code, reason) of an op
    whose axes always stay.
    """

    op: str
    bind: Callable[[Node], Spec]
    cost: Cost | None = None
    roles: Mapping[int, str] = field(default_factory=dict)
    weights: tuple[int, ...] = ()
    view: bool = False
    elementwise: bool = False
    keeps: bool = False
    bias: int | None = None
    additive: bool = False
    reads_shape: bool = False
    domain: str = ""
    fixed: tuple[str, str] | None = None
    quantised: tuple[Quantised, ...] = ()
    schema: Schema | None = None


TABLE: dict[tuple[str, str], Rule] = {}


def add(rule: Rule) -> None:
    """Enter a rule; a second one for the same op is an error."""
    key = (rule.domain, rule.op)
    if key in TABLE:
        raise ValueError(f"two rules for {rule.op}")
    TABLE[key] = rule


def rule(
    ops: str,
    equation: str | Callable[[Node], Spec],
    cost: Cost | None = None,
    *,
    roles: Mapping[int, str] | None = None,
    weights: Sequence[int] = (),
    view: bool = False,
    elementwise: bool = False,
    keeps: bool = False,
    bias: int | None = None,
    additive: bool = False,
    reads_shape: bool = False,
    domain: str = "",
    quantised: Sequence[Quantised] = (),
    schema: Schema | None = None,
) -> None:
    """Enter one rule for several ops (names separated by spaces)."""
    bind = _constant(equation) if isinstance(equation, str) else equation
    steps = {i: "quantiser" for q in quantised for i in (q.scale, q.zero) if i is not None}
    for op in ops.split():
        add(
            Rule(
                op,
                bind,
                cost,
                {**(roles or {}), **steps},
                tuple(weights),
                view,
                elementwise,
                keeps,
                bias,
                additive,
                reads_shape,
                domain,
                quantised=tuple(quantised),
                schema=schema,
            )
        )


def fixed(
    ops: str, code: str, reason: str, cost: Cost | None = None, *, domain: str = "", schema: Schema | None = None
) -> None:
    """Enter ops whose axes always stay, and why; `reason` is the rest of the sentence "the op …"."""
    for op in ops.split():
        add(Rule(op, lambda node: refuse(code, reason), cost, domain=domain, fixed=(code, reason), schema=schema))


def _constant(equation: str) -> Callable[[Node], Spec]:
    spec = Spec(equation)
    return lambda node: spec


def refuse(code: str, reason: str) -> Spec:
    """The rule does not cover this node: everything it touches is fixed, for this reason."""
    return Spec("", refuse=(code, reason))


def letters(n: int, name: str = "a") -> list[str]:
    """N factor names, ``a0 a1 …``."""
    return [f"{name}{i}" for i in range(n)]


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def axes_of(given: object, rank: int) -> list[int] | None:
    """Non-negative axes from an attribute or a constant; None stays None."""
    if given is None:
        return None
    return [axis_of(int(a), rank) for a in np.asarray(given).reshape(-1)]
