"""What a rule is, and the one table of them.

To add an op, write one entry: its equation, what it costs, and which of its parameters hold sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxmorph.graph import Node


@dataclass(frozen=True)
class Write:
    """A parameter (attribute or constant input) whose entries are sizes.

    ``entries`` holds one axis in the notation per entry, e.g. ``("s0", "s1")``; None leaves the entry alone.
    An entry is written when it changes, or when its axis in ``within`` does: -1 is another position then.
    ``instead_of`` names an attribute that must go when the parameter is written. ``infers`` says that one
    entry may be -1.
    """

    parameter: str
    entries: tuple[str | None, ...]
    instead_of: str | None = None
    infers: bool = False
    within: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Take:
    """Factor `new` lists positions of factor `of`: ``new[j] = of[index[j]]``; the indices stand in `parameter`."""

    new: str
    of: str
    index: NDArray[np.int64]
    parameter: str


@dataclass(frozen=True)
class Cost:
    """``count * product of the factors`` floating-point operations; ``macs`` marks multiply-accumulates (2 each).

    A node that the rule refuses costs ``count`` for every element that it writes; that it reads, where the
    shape of what it writes cannot be inferred.
    """

    factors: str
    count: int = 1
    macs: bool = False


@dataclass(frozen=True)
class Spec:
    """A rule bound to one node: its equation, the sizes that its attributes give, and its consequences.

    ``fresh`` names factors of the output whose positions the op itself makes (padding), free to go.
    ``refuse`` is set instead of everything else where the rule does not cover the node: (code, reason).
    """

    equation: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    writes: tuple[Write, ...] = ()
    takes: tuple[Take, ...] = ()
    fresh: tuple[str, ...] = ()
    refuse: tuple[str, str] | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of the table.

    ``bind`` gives the Spec of a node. ``cost`` is in the factors of the equation and of ``Spec.sizes``.
    ``roles`` says what the inputs of a norm are: scale, shift, state (running statistics, not a parameter).
    ``weights`` are the inputs that the `classic` count of parameters takes. ``view`` marks ops that move
    nothing. ``elementwise`` marks functions of single positions, which map constants to constants.
    ``keeps`` marks ops that map constant channels to the same constants (moving, pooling).
    ``bias`` is the input that is added to the result, ``additive`` an op that adds its inputs.
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
) -> None:
    """Enter one rule for several ops (names separated by spaces)."""
    bind = _constant(equation) if isinstance(equation, str) else equation
    for op in ops.split():
        add(
            Rule(
                op,
                bind,
                cost,
                roles or {},
                tuple(weights),
                view,
                elementwise,
                keeps,
                bias,
                additive,
                reads_shape,
                domain,
            )
        )


def fixed(ops: str, code: str, reason: str, cost: Cost | None = None, *, domain: str = "") -> None:
    """Enter ops whose axes always stay, and why; `reason` is the rest of the sentence "the op …"."""
    for op in ops.split():
        add(Rule(op, lambda node: refuse(code, reason), cost, domain=domain, fixed=(code, reason)))


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
