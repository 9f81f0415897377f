"""What a rule is, and the one table of them.

To add an op, write one entry: its equation, what it costs, and which of its parameters hold sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.graph import Node, Shape


@dataclass(frozen=True)
class Write:
    """A parameter (attribute or constant input) whose entries are sizes.

    ``entries`` holds one axis in the notation per entry, e.g. ``("s0", "s1")``; None leaves the entry alone.
    An entry is written when it changes, or when its axis in ``within`` does: -1 is another position then.
    ``instead_of`` names an attribute that must go when the parameter is written. ``infers`` says that one
    entry may be -1. ``each_output`` says that there is one entry for every output, which goes with it.
    """

    parameter: str
    entries: tuple[str | None, ...]
    instead_of: str | None = None
    infers: bool = False
    each_output: bool = False
    within: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Take:
    """Factor `new` lists positions of factor `of`: ``new[j] = of[index[j]]``; the indices stand in `parameter`."""

    new: str
    of: str
    index: NDArray[np.int64]
    parameter: str


@dataclass(frozen=True)
class Pin:
    """A parameter that a node leaves out and that follows from sizes: written out once `factor`, or any, is cut."""

    parameter: str
    value: float | tuple[int, ...]
    factor: str = ""


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

    The factors are written as in an equation, e.g. ``"n h (i + j)"``; one that a node lacks counts 1 in a product and
    adds nothing to a sum. ``plus`` is what comes on top. A node that the rule refuses costs ``count`` for every
    element that it writes; that it reads, where the shape of what it writes cannot be inferred.
    """

    factors: str
    count: int = 1
    macs: bool = False
    plus: Cost | None = None


@dataclass(frozen=True)
class Spec:
    """A rule bound to one node: its equation, the sizes that its attributes give, and its consequences.

    ``fresh`` names factors of the output whose positions the op itself makes (padding), free to go.
    ``cost`` stands instead of the rule's, where attributes decide it.
    ``points_out`` are outputs whose values number the positions of a tensor of that shape, row by row;
    ``points_in`` are inputs that are read so. Between the two, and nowhere else, such numbers follow a cut.
    ``same`` are pairs of factors with the same channels in two roles: what a step writes, the next one sums over.
    ``refuse`` is set instead of everything else where the rule does not cover the node: (code, reason).
    """

    equation: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    writes: tuple[Write, ...] = ()
    takes: tuple[Take, ...] = ()
    pins: tuple[Pin, ...] = ()
    same: tuple[tuple[str, str], ...] = ()
    fresh: tuple[str, ...] = ()
    cost: Cost | None = None
    points_out: Mapping[int, Shape] = field(default_factory=dict)
    points_in: Mapping[int, Shape] = field(default_factory=dict)
    refuse: tuple[str, str] | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of the table.

    ``bind`` gives the Spec of a node. ``cost`` is in the factors of the equation and of ``Spec.sizes``.
    ``roles`` says what the inputs of a norm are: scale, shift, state (running statistics, not a parameter); a
    "quantiser" is the scale or zero point of a quantised tensor, and no parameter either.
    ``weights`` are the inputs that the `classic` count of parameters takes. ``view`` marks ops that move
    nothing, ``picks`` those that read of their first input no more than they write. ``elementwise`` marks functions of
    single positions, which map constants to constants.
    ``keeps`` marks ops that map constant channels to the same constants (moving, pooling).
    ``bias`` is the input that is added to the result, ``additive`` an op that adds its inputs.
    ``neutral`` gives, by input, the number that leaves the op's other input as it is.
    ``quantised`` says which inputs are quantised, ``schema`` what onnx does not know of the op.
    ``reads_shape`` marks ops whose output is the shape of their input; ``unread`` are inputs of which only the type
    is read. ``fixed`` is the (code, reason) of an op whose axes always stay.
    """

    op: str
    bind: Callable[[Node], Spec]
    cost: Cost | None = None
    roles: Mapping[int, str] = field(default_factory=dict)
    weights: tuple[int, ...] = ()
    view: bool = False
    picks: bool = False
    elementwise: bool = False
    keeps: bool = False
    bias: int | None = None
    additive: bool = False
    reads_shape: bool = False
    unread: tuple[int, ...] = ()
    domain: str = ""
    fixed: tuple[str, str] | None = None
    neutral: Mapping[int, float] = field(default_factory=dict)
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
    picks: bool = False,
    elementwise: bool = False,
    keeps: bool = False,
    bias: int | None = None,
    additive: bool = False,
    reads_shape: bool = False,
    unread: Sequence[int] = (),
    domain: str = "",
    neutral: Mapping[int, float] | None = None,
    quantised: Sequence[Quantised] = (),
    schema: Schema | None = None,
) -> None:
    """Enter one rule for several ops (names separated by spaces)."""
    bind = _constant(equation) if isinstance(equation, str) else _refusing(equation)
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
                picks,
                elementwise,
                keeps,
                bias,
                additive,
                reads_shape,
                tuple(unread),
                domain,
                neutral=neutral or {},
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

    def bind(node: Node) -> Spec:
        return spec

    bind.__doc__ = f"``{equation}``"
    return bind


@cache
def _refusing(bind: Callable[[Node], Spec]) -> Callable[[Node], Spec]:
    """The same, but a node that has not the inputs and attributes of its op is refused.

    Rules take ranks and attributes for what the standard says they are; a file may say anything.
    """

    @wraps(bind)
    def found(node: Node) -> Spec:
        try:
            return bind(node)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            return refuse("rule-form", "its inputs or attributes are not of the form that the op has")

    return found


def refuse(code: str, reason: str) -> Spec:
    """The rule does not cover this node: everything it touches is fixed, for this reason."""
    return Spec("", refuse=(code, reason))


def letters(n: int, name: str = "a") -> list[str]:
    """N factor names, ``a0 a1 …``."""
    return [f"{name}{i}" for i in range(n)]


def with_term(names: Sequence[str], axis: int, term: str) -> str:
    """Axes in the notation, with another term in the place of one."""
    return " ".join(term if t == axis else n for t, n in enumerate(names))


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def axes_of(given: object, rank: int) -> list[int] | None:
    """Non-negative axes from an attribute or a constant; None stays None."""
    if given is None:
        return None
    return [axis_of(int(a), rank) for a in np.asarray(given).reshape(-1)]
